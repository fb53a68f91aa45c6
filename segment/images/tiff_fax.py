"""Strips and tiles of fax codes (CCITT), which have no length and no checksum: decoders make up what is missing."""

from collections.abc import Callable, Sequence

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray

from segment.images.tiff_tags import TiffError, TiffPage
from segment.images.tiff_unpacking import DAMAGED

FAX = (2, 3, 4)  # compressions: runs of rows, group 3, group 4
_FILL_ORDER = 266  # a tag; 2 if the first bit of a byte is the lowest
_END_OF_LINE = b"\0\1"
# Codes of every group, for other pixels: what follows all rows is not read, what follows a cut is read as its rows.
_BEHIND = tuple(code * 16 + (_END_OF_LINE + code * 8) * 8 for code in (b"\xff", b"\x55"))


def check_fax(page: TiffPage, segments: Sequence[bytes], file_of: Callable[[Sequence[bytes]], bytes]) -> None:
    """Refuse strips or tiles of which rows are missing: then the pixels change with what follows their bytes.

    Args:
        page: that holds them.
        segments: as they are stored.
        file_of: from such segments to a TIFF of them.

    Raises TiffError: rows are missing, be they cut off or lost by damaged codes; or the page is damaged.
    """
    is_reversed = page.number(_FILL_ORDER, 1) == 2
    alone = _pixels(file_of(segments))
    for codes in _BEHIND:
        behind = imagecodecs.bitorder_decode(codes) if is_reversed else codes
        if not np.array_equal(_pixels(file_of([segment + behind for segment in segments])), alone):
            raise TiffError(f"{DAMAGED}: it holds fewer rows than its size needs, or damaged codes")


def _pixels(data: bytes) -> NDArray[np.uint8]:
    """Return the pixels of a TIFF; none of one that OpenCV refuses, which tells for itself."""
    try:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    except cv2.error:
        found = None
    return np.empty(0, np.uint8) if found is None else np.asarray(found, np.uint8)
