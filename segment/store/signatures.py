"""Signed URLs, looked up by the unsigned URL. They stay in memory: no output, log or message contains a signature."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from segment.store.urls import is_http, unsigned


class SignedUrls:
    """A lookup table from unsigned http(s) URLs to the URLs that were given (`segment.store.urls.unsigned`).

    There can be millions of URLs, and every worker needs them: they are arrays, which Ray workers share.

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
