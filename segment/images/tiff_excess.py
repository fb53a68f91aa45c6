"""Refuse TIFFs whose directories, strips or tiles are more than any image needs, or the same bytes again and again."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO

import numpy as np

from segment.errors import SampleError
from segment.images.tiff_tags import MOST_ENTRIES, Tag, TiffDirectories, TiffError

_MOST_PIECES = 1 << 20  # strips or tiles of an image that is read as a whole
_MOST_PACKED = 1 << 32  # bytes of all of them, some of which are the same bytes of the file

_WIDTH, _HEIGHT, _COMPRESSION = 256, 257, 259
_STRIPS, _STRIP_ROWS, _STRIP_SIZES = 273, 278, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_SIZES = 322, 323, 324, 325
_JPEG = (6, 7)  # compressions


def check_tiff(data: bytes, most_scans: int, most_work: int) -> None:
    """Refuse a TIFF by the tags of its first page.

    Args:
        data: the file.
        most_scans: of JPEGs within it, for each strip or tile.
        most_work: pixels in all scans of a strip or tile, if there are more.

    Raises:
        SampleError: `too_much_work`.
    """
    try:
        file = TiffDirectories(BytesIO(data))
        if file.entries() > MOST_ENTRIES:
            raise SampleError("too_much_work", "entries in the directory of a TIFF")
        tags = next(file.pages())
        for starts, sizes in ((_STRIPS, _STRIP_SIZES), (_TILES, _TILE_SIZES)):
            if starts not in tags:
                continue
            if tags[starts].count > _MOST_PIECES:
                raise SampleError("too_much_work", "strips or tiles of a TIFF")
            is_jpeg = file.whole_number(tags, _COMPRESSION, 1) in _JPEG
            if sizes in tags:
                _check_shared(file, tags[sizes], 0 if is_jpeg else _MOST_PACKED)
            scans = data.count(b"\xff\xda") if is_jpeg else 0
            if scans > most_scans * tags[starts].count and scans * _pixels(file, tags) > most_work:
                raise SampleError("too_much_work", f"{scans} scans in the JPEGs of a TIFF")
    except TiffError:
        return  # the decoder says what is wrong


def _check_shared(file: TiffDirectories, sizes: Tag, most: int) -> None:
    """Refuse strips or tiles that are more than the file twice over, and more than some bytes."""
    packed = int(np.minimum(np.array(file.numbers(sizes), np.float64), file.size).sum())
    if packed > max(2 * file.size, most):
        raise SampleError("too_much_work", "strips or tiles of a TIFF that are the same bytes")


def _pixels(file: TiffDirectories, tags: Mapping[int, Tag]) -> int:
    """Return the pixels of a strip or tile."""
    if _TILES in tags:
        return file.whole_number(tags, _TILE_WIDTH, 0) * file.whole_number(tags, _TILE_HEIGHT, 0)
    height = file.whole_number(tags, _HEIGHT, 0)
    return file.whole_number(tags, _WIDTH, 0) * min(height, file.whole_number(tags, _STRIP_ROWS, height))
