"""Access to a store: its options, the signatures of signed URLs, and the scope of what an input may name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

from segment.store.filesystems import open_filesystem
from segment.store.retries import Requests
from segment.store.scope import Scope, check_prefix
from segment.store.signatures import SignedUrls
from segment.store.urls import is_http, to_url, unsigned


class Access:
    """The base of `segment.store.client.Store`, whose arguments these are."""

    __slots__ = ("__dict__", "_limit")  # stores that `within` returns share all attributes but this one

    def __init__(
        self,
        options: Mapping[str, Any] | None = None,
        signed: SignedUrls | None = None,
        seconds: float | None = None,
        scope: Scope | None = None,
    ) -> None:
        self._options = dict(options or {})
        self._requests = Requests()
        self._signed = signed or SignedUrls()
        self._seconds = seconds
        self._scope = scope
        self._limit: Scope | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy in another process starts its own counters.
        return type(self), (self._options, self._signed, self._seconds, self._scope), (None, {"_limit": self._limit})

    @property
    def scope(self) -> Scope | None:
        """What the input may name; None as long as no input is known."""
        return self._limit or self._scope

    def limit_inputs(self, scope: Scope) -> None:
        """Let the input of a run name what is in `scope`, beside what earlier inputs may."""
        self._scope = scope if self._scope is None else self._scope | scope

    def allow_inputs(self, prefixes: Iterable[str]) -> None:
        """Let the input of a run name what is below some folders or URL prefixes, too (`--allow-input`).

        Raises:
            TypeError: `prefixes` is a single text.
            UsageError: one of them is no prefix.
        """
        if isinstance(prefixes, str):  # whose `/` would allow every file
            raise TypeError(f"allow_input = {prefixes!r}: give a list of prefixes")
        if allowed := [to_url(str(check_prefix(prefix))) for prefix in prefixes]:
            self.limit_inputs(Scope.of(allowed))

    @property
    def inputs(self) -> Self:
        """This store within its scope: whatever an input or a plan names is read through it."""
        return self if self._limit else self.within(self.scope)

    def within(self, scope: Scope | None) -> Self:
        """Return this store for reading only what `scope` allows, redirects included; None allows all.

        Both share all else, such as signatures and counters.

        Raises (every method that reads):
            NotAllowed: the object, or the target of a redirect, is outside of the scope.
        """
        limited = type(self).__new__(type(self))
        limited.__dict__ = self.__dict__
        limited._limit = scope
        return limited

    def add_signed_urls(self, urls: Iterable[str]) -> None:
        """Read objects by these signed http(s) URLs from now on. Signatures are kept in memory only.

        All other methods take and return unsigned URLs (`segment.store.urls.unsigned`).
        """
        new = [url for url in urls if is_http(url) and self._signed.get(unsigned(url)) != url]
        if new:
            self._signed = SignedUrls([*self._signed, *new])

    def lacks_signature(self, url: str) -> bool:
        """Whether there are signed URLs, and the URL of this object is not among those that were added."""
        return len(self._signed) > 0 and self._signed.get(url) is None

    def _check(self, url: str) -> None:
        """Refuse an object outside of the limit."""
        if self._limit is not None:
            self._limit.check(url)

    def _open(self, url: str) -> tuple[Any, str]:
        """Return the file system of an object to read, and its path there."""
        self._check(url)
        return open_filesystem(self._signed.get(url) or url, self._options, self._limit)
