"""Objects that need not fit into memory, as files of this machine."""

import hashlib
import os
import tempfile
from contextlib import suppress
from typing import BinaryIO, cast

from segment.errors import InputChanged, TooManyBytes
from segment.store.bounds import Bounds
from segment.store.client import Store
from segment.store.names import shown
from segment.store.temporary_room import discard, needing_room

_MOST = 1 << 36  # bytes of an object
_AT_ONCE = 64 << 20  # bytes of an object that is read by one request, and kept in memory


def fetch(store: Store, url: str) -> BinaryIO:
    """Return an object as a file: the local one, or a copy that is gone when it is closed.

    Raises FileNotFoundError: there is no such object; TooManyBytes: it is larger than any that this package writes;
    OSError: it was replaced while it was read; SegmentError: there is no room for the copy.
    """
    if is_local := url.startswith("file://"):
        file = store.open(url)
    else:
        file = cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=_AT_ONCE))  # noqa: SIM115  # the caller closes it
    try:
        if is_local:
            Bounds(url, _MOST).check(os.fstat(file.fileno()).st_size)
        else:
            _copy(store, url, file)
    except BaseException:
        discard(file)
        raise
    file.seek(0)
    return file


def _copy(store: Store, url: str, copy: BinaryIO) -> None:
    with suppress(TooManyBytes):
        _append(copy, store.read(url, most=_AT_ONCE), url)
        return
    entry = store.info(url)
    if entry is None:
        raise FileNotFoundError(url)
    Bounds(url, _MOST).check(entry.size)
    try:
        for start in range(0, entry.size, _AT_ONCE):
            _append(copy, store.read(url, start, min(entry.size, start + _AT_ONCE), entry.etag), url)
        is_same = store.info(url) == entry  # some stores have no etags, which each range is held against
    except InputChanged:
        is_same = False
    if not is_same:
        raise OSError(f"{shown(url)} was replaced while it was read")


def _append(copy: BinaryIO, data: bytes, url: str) -> None:
    with needing_room(f"a copy of {shown(url)}"):
        copy.write(data)
        copy.flush()


def digest_of(file: BinaryIO) -> str:
    """Return the SHA-256 of what an open file holds."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
