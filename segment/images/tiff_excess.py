"""Refuse TIFFs whose directories, strips or tiles are more than any image needs, or the same bytes again and again."""

from collections.abc import Mapping
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from segment.errors import SampleError
from segment.images.jpeg_excess import MOST_SCANS, MOST_WORK
from segment.images.tiff_tags import MOST_ENTRIES, Tag, TiffDirectories, TiffError

_MOST_PIECES = 1 << 20  # strips or tiles of an image that is read as a whole
_MOST_PACKED = 1 << 32  # bytes of all of them, some of which are the same bytes of the file

_WIDTH, _HEIGHT, _COMPRESSION = 256, 257, 259
_STRIPS, _STRIP_ROWS, _STRIP_SIZES = 273, 278, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_SIZES = 322, 323, 324, 325
_JPEG = (6, 7)  # compressions
_SCAN = b"\xff\xda"  # a marker of a JPEG
_LEAST_PIXELS = 1 << 12  # that a scan costs, however small its JPEG is


def check_tiff(data: bytes) -> None:
    """Refuse a TIFF by the tags of its first page; the scans of JPEGs within it as those of a JPEG.

    Raises SampleError: `too_much_work`.
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
            places = _places(file, tags[starts], tags[sizes]) if sizes in tags else None
            if places is not None and int(places[1].sum()) > max(2 * file.size, _MOST_PACKED):
                raise SampleError("too_much_work", "strips or tiles of a TIFF that are the same bytes")
            if file.whole_number(tags, _COMPRESSION, 1) in _JPEG:
                _check_scans(data, places, _pixels(file, tags), tags[starts].count * MOST_SCANS)
    except TiffError:
        return  # the decoder says what is wrong


def _places(file: TiffDirectories, starts: Tag, sizes: Tag) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the first bytes and the sizes of strips or tiles, as far as they are in the file."""
    first, size = (np.array(file.numbers(tag), np.float64) for tag in (starts, sizes))
    if len(first) != len(size):
        return None  # the decoder says what is wrong
    first = np.clip(first, 0, file.size)
    return first, np.clip(size, 0, file.size - first)


def _check_scans(
    data: bytes, places: tuple[NDArray[np.float64], NDArray[np.float64]] | None, pixels: int, most: int
) -> None:
    """Refuse JPEGs of many scans, of which strips or tiles may share one; `pixels`: of a strip or tile."""
    if data.count(_SCAN) * (len(places[0]) if places else 1) <= most:
        return
    held = np.frombuffer(data, np.uint8)
    found = np.flatnonzero((held[:-1] == _SCAN[0]) & (held[1:] == _SCAN[1]))
    scans = len(found)
    if places:
        inside = np.searchsorted(found, places[0] + places[1]) - np.searchsorted(found, places[0])
        scans = int(inside.sum())
    if scans > most and scans * max(pixels, _LEAST_PIXELS) > MOST_WORK:
        raise SampleError("too_much_work", f"{scans} scans in the JPEGs of a TIFF")


def _pixels(file: TiffDirectories, tags: Mapping[int, Tag]) -> int:
    """Return the pixels of a strip or tile."""
    if _TILES in tags:
        return file.whole_number(tags, _TILE_WIDTH, 0) * file.whole_number(tags, _TILE_HEIGHT, 0)
    height = file.whole_number(tags, _HEIGHT, 0)
    return file.whole_number(tags, _WIDTH, 0) * min(height, file.whole_number(tags, _STRIP_ROWS, height))
