"""Requests to web servers within the scope of a run: every hop of a redirect, and every address, is checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from segment.store.names import shown
from segment.store.scope import NotAllowed, Scope

if TYPE_CHECKING:
    import aiohttp


@dataclass(frozen=True)
class GuardedClient:
    """Makes sessions of `aiohttp` that read what a scope allows, for fsspec's `get_client`.

    Its repr is that of the scope: fsspec keeps a file system for each.
    """

    scope: Scope

    async def __call__(self, **settings: Any) -> aiohttp.ClientSession:
        """Return a session; `settings` are those of `aiohttp.ClientSession`."""
        import aiohttp  # only http needs it

        scope = self.scope
        proxies = {urlsplit(url).hostname for url in getproxies().values()}

        class Resolver(aiohttp.ThreadedResolver):
            async def resolve(self, host: str, *args: Any, **kwargs: Any) -> Any:
                found = await super().resolve(host, *args, **kwargs)
                if host not in proxies:  # the proxy was named by the user, and may well be on this machine
                    for each in found:
                        _check_address(host, each["host"], scope)
                return found

        async def check(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
            """Middleware, which sees every hop before it is connected."""
            scope.check(str(request.url))
            _check_address(request.url.raw_host or "", request.url.raw_host or "", scope)
            return await send(request)

        if "connector" not in settings:
            settings["connector"] = aiohttp.TCPConnector(resolver=Resolver())
        return aiohttp.ClientSession(middlewares=(*settings.pop("middlewares", ()), check), **settings)


def _check_address(host: str, address: str, scope: Scope) -> None:
    """Refuse an address of this machine, a link-local one, or one of a metadata service.

    Raises NotAllowed: no prefix of the scope names it.
    """
    if not scope.allows_address(address):
        where = shown(host) if host == address else f"{shown(host)} ({address})"
        at = f"[{address}]" if ":" in address else address
        raise NotAllowed(
            f"{where} is an address of this machine, of its link or of a metadata service, which an input may not "
            f"name; if you mean it, name it yourself: --allow-input http://{at}/"
        )
