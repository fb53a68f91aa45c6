"""Bounds of a read: how many bytes it may hold, and how long it may take, whatever the server sends or declares."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from segment.errors import TooManyBytes, TooSlow
from segment.store.urls import redact_url

MOST_BYTES = 2 << 30  # of an object that is read as a whole, where the caller knows nothing better
MOST_TOML = 4 << 20  # of a card or a job file
MOST_JSON = 16 << 20  # of JSON that somebody else wrote: as Python objects it takes 30 times as much
_MOST_PAGE = 256 << 20  # of a page of a web server that lists files
READ_SECONDS = 300.0  # for one read, unless --stall-timeout says otherwise
SILENCE_SECONDS = 30.0  # without a byte

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one read may take.

    Attributes:
        url: of the object, for messages.
        most: greatest number of bytes.
        seconds: for all of it.
        progress: called whenever some bytes arrive: a slow read is no stuck worker.
    """

    url: str
    most: int = MOST_BYTES
    seconds: float = READ_SECONDS
    progress: Callable[[], object] = lambda: None

    @property
    def silence(self) -> float:
        """Seconds without a byte after which a connection is given up: sooner than the worker is replaced."""
        return min(SILENCE_SECONDS, self.seconds / 2)

    def check(self, size: int | None) -> None:
        """Refuse an object by its size, declared or counted. Raises TooManyBytes: it is larger than `most`."""
        if size is not None and size > self.most:
            raise TooManyBytes(f"could not read {redact_url(self.url)}: it has more than {self.most} bytes")

    async def within(self, read: Awaitable[T]) -> T:
        """Await a read. Raises TooSlow: it takes longer than `seconds`, though bytes arrive all the time."""
        try:
            async with asyncio.timeout(self.seconds) as deadline:
                return await read
        except TimeoutError:
            if not deadline.expired():
                raise
            raise TooSlow(
                f"could not read {redact_url(self.url)}: not all of it came within {self.seconds:.0f} s "
                "(--stall-timeout allows more)"
            ) from None

    async def body(self, chunks: AsyncIterator[bytes]) -> bytes:
        """Return the bytes of a stream, to its end.

        Raises:
            TooManyBytes: there are more than `most`; the rest is not transferred.
        """
        held, size = [], 0
        async for chunk in chunks:
            self.progress()
            held.append(chunk)
            size += len(chunk)
            self.check(size)
        return b"".join(held)

    async def beginning(self, chunks: AsyncIterator[bytes], size: int) -> bytes:
        """Return the first `size` bytes of a stream, or all if it has fewer; the rest is not transferred."""
        held, got = [], 0
        async for chunk in chunks:
            self.progress()
            held.append(chunk)
            got += len(chunk)
            if got >= size:
                break
        return b"".join(held)[:size]


@cache
def bounded_response() -> Any:
    """Return aiohttp's class of responses, but for a bound on those that fsspec reads as a whole: pages of listings."""
    import aiohttp  # only http needs it

    class BoundedResponse(aiohttp.ClientResponse):
        async def read(self) -> bytes:
            if self._body is None:
                self._body = await Bounds(str(self.url), _MOST_PAGE).body(self.content.iter_any())
            return self._body

    return BoundedResponse
