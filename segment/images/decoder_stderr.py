"""What C libraries print while they decode an image: kept from stderr, and told to whoever calls them.

libpng, libjpeg and libtiff print their complaints through C's `stderr`, where they would mix with the lines of a log.
glibc lets a program set that variable; file descriptor 2, and with it all that Python writes, stays as it is.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

log = logging.getLogger("segment.images.decoder_stderr")

_UNBUFFERED = 2  # `_IONBF`
# How lines of libpng, libjpeg and libtiff begin. Any other line is somebody else's, of another thread: it is handed on.
# Those of libtiff are: the function, the codec or the name that Pillow gives every file; the message; a period.
_MODULE = (
    r"_?TIFF\w*|tempfile\.tif|InitCCITTFax[34]|(Fax[34]|O?JPEG|LZW|LZMA|ZIP|ZSTD|WebP|LERC|JBIG|PixarLog|LogL16|LogLuv|"
    r"PackBits|Predictor|Thunder|NeXT|DumpMode)\w*|(swab)?[hH]orAcc\w*|(swab)?[hH]orDiff\w*|fpAcc|fpDiff|"
    r"EstimateStripByteCounts|ChopUpSingleUncompressedStrip|allocChoppedUpStripArrays|CheckDirCount|setByteArray"
)
_LIBTIFF = rf"({_MODULE}): (?P<warning>Warning, )?.*\.$"
_OURS = re.compile(
    r"libpng (warning|error)|Corrupt JPEG|Premature end of|Inconsistent (Adobe|progression)|Invalid SOS|Unknown Adobe|"
    rf"Warning: unknown JFIF|Application transferred|{_LIBTIFF}"
)
_DAMAGE = re.compile(r"libpng error|libpng warning: IDAT|Corrupt JPEG|.*Premature|Inconsistent progression")


@dataclass
class Complaints:
    """What was printed.

    Attributes:
        damage: lines that say that the data of pixels are damaged.
    """

    damage: list[str] = field(default_factory=list)


class _Stderr:
    """C's `stderr`, pointed to a file in memory while at least one thread listens."""

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
        self._listeners = 0
        self._read = 0

    def begin(self) -> None:
        with self._lock:
            self._listeners += 1
            if self._listeners == 1:
                self._theirs = self._variable.value
                self._variable.value = self._ours

    def end(self) -> bytes:
        """Return the whole lines that were printed since anybody asked."""
        with self._lock:
            self._listeners -= 1
            if not self._listeners:
                self._variable.value = self._theirs
            written = os.lseek(self._file, 0, os.SEEK_CUR)
            if written == self._read:
                return b""
            printed = os.pread(self._file, written - self._read, self._read)
            if self._listeners:  # another thread may be in the middle of a line
                printed = printed[: printed.rfind(b"\n") + 1]
                self._read += len(printed)
            else:
                self._read = os.lseek(self._file, 0, os.SEEK_SET)
            return printed

    def forget(self) -> None:
        """Point `stderr` back, in a forked child: the lock may be held for ever there, and the file is the parent's."""
        self._variable.value = self._theirs
        os.close(self._file)


def _open() -> _Stderr | None:
    try:
        return _Stderr()
    except (AttributeError, OSError, ValueError):  # another C library than glibc: its lines stay on stderr
        return None


_stderr = _open()


def _after_fork() -> None:
    global _stderr
    if _stderr is not None:
        _stderr.forget()
        _stderr = _open()


os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def listening() -> Iterator[Complaints]:
    """Keep what these libraries print off stderr. Where threads listen at once, either may be told of a complaint.

    What anybody else prints meanwhile is logged as the block ends: outside of what takes errors for an image's.

    Yields:
        what was printed, filled in when the block ends.
    """
    complaints = Complaints()
    if _stderr is None:
        yield complaints
        return
    _stderr.begin()
    try:
        yield complaints
    finally:
        if printed := _stderr.end():
            _sort(printed, complaints)


def _sort(printed: bytes, complaints: Complaints) -> None:
    for line in printed.splitlines():
        text = line.decode("utf-8", "replace").strip()
        ours = _OURS.match(text)
        if text and not ours:  # a line may be empty where two threads printed at once
            with suppress(OSError):
                log.warning("printed by a C library: %s", "".join(c if c.isprintable() else " " for c in text))
        elif ours and (_DAMAGE.match(text) or (re.match(_LIBTIFF, text) and not ours["warning"])):
            complaints.damage.append(text)
