"""Capture what C libraries print to stderr while they decode an image, and return what indicates damage.

libpng, libjpeg and libtiff print through C's `stderr`, where their messages would mix with log lines. glibc allows a
program to set that variable. File descriptor 2, and with it all that Python writes, stays unchanged.
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
# Starts of lines of libpng, libjpeg and libtiff. Any other line comes from another library or thread and is logged.
# A line of libtiff has the function, the codec or the name that Pillow gives every file; the message; a period.
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
class DecoderMessages:
    """What the libraries printed.

    Attributes:
        damage: lines that report damaged pixel data.
    """

    damage: list[str] = field(default_factory=list)


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
def capture_decoder_stderr() -> Iterator[DecoderMessages]:
    """Capture what these libraries print. Among threads that capture at the same time, any may get a message.

    Lines of other libraries are logged when the block ends, so that an error of logging is not taken for the image's.

    Yields:
        The messages, filled in when the block ends.
    """
    messages = DecoderMessages()
    if _stderr is None:
        yield messages
        return
    _stderr.begin()
    try:
        yield messages
    finally:
        if printed := _stderr.end():
            _sort(printed, messages)


def _sort(printed: bytes, messages: DecoderMessages) -> None:
    for line in printed.splitlines():
        text = line.decode("utf-8", "replace").strip()
        ours = _OURS.match(text)
        if text and not ours:  # a line may be empty if two threads print at the same time
            with suppress(OSError):
                log.warning("printed by a C library: %s", "".join(c if c.isprintable() else " " for c in text))
        elif ours and (_DAMAGE.match(text) or (re.match(_LIBTIFF, text) and not ours["warning"])):
            messages.damage.append(text)
