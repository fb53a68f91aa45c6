"""Capture what C libraries print to stderr while they decode an image, and return what indicates damage."""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from segment.process.c_stderr import captured_c_stderr

log = logging.getLogger("segment.images.decoder_stderr")

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


@contextmanager
def capture_decoder_stderr() -> Iterator[list[str]]:
    """Capture what these libraries print. Among threads that capture at the same time, any may get a message.

    Lines of other libraries are logged when the block ends, so that an error of logging is not taken for the image's.

    Yields:
        The lines that report damaged pixel data, filled in when the block ends.
    """
    damage, printed = list[str](), list[str]()
    try:
        with captured_c_stderr() as printed:
            yield damage
    finally:
        _sort(printed, damage)


def _sort(printed: Sequence[str], damage: list[str]) -> None:
    for text in printed:
        ours = _OURS.match(text)
        if text and not ours:  # a line may be empty if two threads print at the same time
            with suppress(OSError):
                log.warning("printed by a C library: %s", "".join(c if c.isprintable() else " " for c in text))
        elif ours and (_DAMAGE.match(text) or (re.match(_LIBTIFF, text) and not ours["warning"])):
            damage.append(text)
