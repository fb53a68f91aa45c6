"""Remote objects as seekable files."""

import io
import os
from collections.abc import Callable
from typing import Any

_SKIPPED = 4  # reads follow each other where less than such a part of one is skipped


class RangeReader(io.RawIOBase):
    """A remote object as a raw file: every read that was not read ahead is one range request.

    fsspec's own file is not used: its reads bypass the retry policy and raise the driver's errors.

    Args:
        read: returns the bytes from start to stop (exclusive).
        size: bytes of the object.
        ahead: where reads follow each other, so many bytes are read ahead at most. The first read gets what it asks
            for, and each of those that follow twice as much as the one before.
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int, ahead: int = 0) -> None:
        self._read, self._size, self._ahead = read, size, ahead
        self._position = self._start = 0  # of the file, and of what is held of it
        self._held = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        if self._position >= self._size:
            return 0
        if not self._start <= self._position < self._start + len(self._held):
            self._fetch(len(buffer))
        first = self._position - self._start
        data = self._held[first : first + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _fetch(self, wanted: int) -> None:
        skipped = self._position - self._start - len(self._held)
        follows = self._held and 0 <= skipped <= wanted // _SKIPPED
        length = max(wanted, min(self._ahead, 2 * len(self._held))) if follows else wanted
        self._held = self._read(self._position, min(self._size, self._position + length))
        self._start = self._position
