"""Capture what C libraries print through C's `stderr`, where it would mix with log lines and displays.

glibc allows a program to set that variable. File descriptor 2, and with it all that Python writes, stays unchanged.
"""

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_UNBUFFERED = 2  # `_IONBF`


class _Stderr:
    """C's `stderr`, redirected to a file in memory while at least one thread captures it."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None)
        self._variable = ctypes.c_void_p.in_dll(libc, "stderr")
        self._file = os.memfd_create("segment-stderr")
        libc.fdopen.restype = ctypes.c_void_p
        stream = libc.fdopen(ctypes.c_int(self._file), b"w")
        libc.setvbuf(ctypes.c_void_p(stream), None, _UNBUFFERED, ctypes.c_size_t(0))
        self._ours = stream
        self._theirs = self._variable.value
        self._lock = threading.Lock()
        self._captures = 0
        self._read = 0

    def begin(self) -> None:
        with self._lock:
            self._captures += 1
            if self._captures == 1:
                self._theirs = self._variable.value
                self._variable.value = self._ours

    def end(self) -> bytes:
        """Return the complete lines that were printed since the last call."""
        with self._lock:
            self._captures -= 1
            if not self._captures:
                self._variable.value = self._theirs
            written = os.lseek(self._file, 0, os.SEEK_CUR)
            if written == self._read:
                return b""
            printed = os.pread(self._file, written - self._read, self._read)
            if self._captures:  # another thread may be in the middle of a line
                printed = printed[: printed.rfind(b"\n") + 1]
                self._read += len(printed)
            else:
                self._read = os.lseek(self._file, 0, os.SEEK_SET)
            return printed

    def close(self) -> None:
        """Restore `stderr` in a forked child: there the lock may be held for ever, and the file is the parent's."""
        self._variable.value = self._theirs
        os.close(self._file)


def _open() -> _Stderr | None:
    try:
        return _Stderr()
    except (AttributeError, OSError, ValueError):  # without glibc the lines stay on stderr
        return None


_stderr = _open()


def _after_fork() -> None:
    global _stderr
    if _stderr is not None:
        _stderr.close()
        _stderr = _open()


os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def captured_c_stderr() -> Iterator[list[str]]:
    """Capture what C libraries print. Among threads that capture at the same time, any may get a line.

    Yields:
        The lines, filled in when the block ends; none without glibc, where they stay on stderr.
    """
    lines: list[str] = []
    if _stderr is None:
        yield lines
        return
    _stderr.begin()
    try:
        yield lines
    finally:
        lines += (line.decode("utf-8", "replace").strip() for line in _stderr.end().splitlines())
