"""Objects that need not fit into memory, as files of this machine."""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import suppress
from typing import BinaryIO, cast

from segment.errors import InputChanged, TooManyBytes
from segment.store.client import Store
from segment.store.names import shown

_AT_ONCE = 64 << 20  # bytes of an object that is read by one request, and kept in memory


def fetch(store: Store, url: str) -> BinaryIO:
    """Return an object as a file: the local one, or a copy that is gone when it is closed.

    Raises:
        FileNotFoundError: there is no such object.
        OSError: it was replaced while it was read.
    """
    if url.startswith("file://"):
        return store.open(url)
    copy = cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=_AT_ONCE))  # noqa: SIM115  # the caller closes it
    try:
        _copy(store, url, copy)
    except BaseException:
        copy.close()
        raise
    copy.seek(0)
    return copy


def _copy(store: Store, url: str, copy: BinaryIO) -> None:
    with suppress(TooManyBytes):
        copy.write(store.read(url, most=_AT_ONCE))
        return
    entry = store.info(url)
    if entry is None:
        raise FileNotFoundError(url)
    try:
        for start in range(0, entry.size, _AT_ONCE):
            copy.write(store.read(url, start, min(entry.size, start + _AT_ONCE), entry.etag))
    except InputChanged:
        raise OSError(f"{shown(url)} was replaced while it was read") from None


def digest_of(file: BinaryIO) -> str:
    """Return the SHA-256 of what an open file holds."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
