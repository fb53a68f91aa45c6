"""Strips and tiles of fax codes (CCITT), which have no length and no checksum: decoders make up what is missing."""

from collections.abc import Callable, Sequence

import cv2
import imagecodecs
import numpy as np

from segment.images.tiff_tags import TiffPage

FAX = (2, 3, 4)  # compressions: runs of rows, group 3, group 4
_FILL_ORDER = 266  # a tag; 2 if the first bit of a byte is the lowest
_END_OF_LINE = b"\0\1"
# Codes of every group, for other pixels: what follows all rows is not read, what follows a cut is read as its rows.
_BEHIND = tuple(code * 16 + (_END_OF_LINE + code * 8) * 8 for code in (b"\xff", b"\x55"))


def is_cut_fax(page: TiffPage, segment: bytes, file_of: Callable[[Sequence[bytes]], bytes]) -> bool:
    """Return whether rows are missing at the end: then the pixels change with what follows the bytes of the segment.

    Args:
        page: that holds the segment.
        segment: a strip or tile as it is stored.
        file_of: from one to a TIFF of it alone.

    Raises TiffError: the page is damaged.
    """
    is_reversed = page.number(_FILL_ORDER, 1) == 2
    behind = [imagecodecs.bitorder_decode(codes) if is_reversed else codes for codes in _BEHIND]
    alone = _pixels(file_of([segment]))
    return any(_pixels(file_of([segment + codes])) != alone for codes in behind)


def _pixels(data: bytes) -> bytes:
    """Return the pixels of a TIFF; nothing of one that OpenCV refuses, which tells for itself."""
    try:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    except cv2.error:
        found = None
    return b"" if found is None else found.tobytes()
