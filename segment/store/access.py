"""Access to a store: its options, the signatures of signed URLs, and the scope of what an input may name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from segment.store.filesystems import open_filesystem
from segment.store.retries import Requests
from segment.store.scope import Scope, check_prefix
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

        Raises TypeError: `prefixes` is a single text; UsageError: one of them is no prefix.
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

    @property
    def once(self) -> Self:
        """This store with a single attempt of each request, and counters of its own: for what a run can do without."""
        other = type(self).__new__(type(self))
        other.__dict__ = {**self.__dict__, "_requests": Requests(attempts=1)}
        other._limit = self._limit
        return other

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


class SignedUrls:
    """A lookup table from unsigned http(s) URLs to the URLs that were given (`segment.store.urls.unsigned`).

    They stay in memory: no output, log or message contains a signature. There can be millions of URLs, and every worker
    needs them: they are arrays, which Ray workers share.

    Args:
        urls: as given, signed or not; a signed URL replaces an unsigned one of the same object.
    """

    def __init__(self, urls: Iterable[str] = ()) -> None:
        given: dict[str, str] = {}
        for url in urls:
            name = unsigned(url)
            if is_http(url) and (name not in given or url != name):
                given[name] = url
        if all(name == url for name, url in given.items()):
            given = {}  # there are no signatures to keep
        hashes = np.array([_hash(name) for name in given], np.uint64)
        order = np.argsort(hashes, kind="stable")
        encoded = [url.encode() for url in given.values()]
        encoded = [encoded[i] for i in order]
        self._hashes: NDArray[np.uint64] = hashes[order]
        self._ends: NDArray[np.int64] = np.cumsum([len(url) for url in encoded], dtype=np.int64)
        self._text: NDArray[np.uint8] = np.frombuffer(b"".join(encoded), np.uint8)

    def __repr__(self) -> str:
        return f"SignedUrls({len(self)} URLs)"

    def __len__(self) -> int:
        return len(self._hashes)

    def __iter__(self) -> Iterator[str]:
        return (self._at(index) for index in range(len(self)))

    def get(self, name: str) -> str | None:
        """Return the URL that was given for the unsigned URL `name`, or None."""
        if not len(self) or not is_http(name):
            return None
        wanted = np.uint64(_hash(name))
        for index in range(int(np.searchsorted(self._hashes, wanted)), len(self)):
            if self._hashes[index] != wanted:
                return None
            if unsigned(url := self._at(index)) == name:
                return url
        return None

    def _at(self, index: int) -> str:
        start = int(self._ends[index - 1]) if index else 0
        return self._text[start : int(self._ends[index])].tobytes().decode()


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
