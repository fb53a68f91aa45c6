"""TIFFs as OpenCV reads them: a copy of those that it does not read, or reads wrong."""

from __future__ import annotations

import io
from typing import NamedTuple

from segment.images.tiff_segments import Run, TiffSegments
from segment.images.tiff_tags import TiffError, TiffPage


class ReadableCopy(NamedTuple):
    """A TIFF that OpenCV reads.

    Attributes:
        data: the file, not turned upright.
        height, width: of the pixels that are of the image.
        is_sparse: see `TiffSegments`.
    """

    data: bytes
    height: int
    width: int
    is_sparse: bool


def readable_copy(data: bytes) -> ReadableCopy | None:
    """Return a TIFF that OpenCV reads, if it would not read this one, or read it wrong; else None.

    It does not know some compressions, and takes damaged tiles of others for black without a word. Of tiles that reach
    beyond the image it takes rows of a wrong length (grey of 16 bits, or with alpha), it turns each tile by itself
    (orientations 2, 3, 6 and 7), and it refuses tiles without compression of no multiple of 1,024 bytes, and sparse
    files; seen in 5.0.

    Raises:
        TiffError: it would have to be copied, and is damaged.
    """
    try:
        page = TiffPage(io.BytesIO(data))
        segments = TiffSegments(page)
    except TiffError:
        return None  # the decoder says what is wrong
    if not segments.is_unreadable:
        return None
    if segments.is_packed_in_two_planes:
        raise TiffError("grey with alpha in planes, of a compression in which it is not read: write it interleaved")
    copy = segments.excerpt(Run(0, 0, segments.down, segments.across))
    return ReadableCopy(copy, page.height, page.width, segments.is_sparse)
