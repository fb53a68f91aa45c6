"""Large TIFFs, read by window: only the strips and tiles that a window touches are read and decoded."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from segment.images import codec, headers
from segment.images.magic import image_format
from segment.images.raster import ArrayRaster, Georeference, Raster, check_window
from segment.images.tiff_segments import Run, TiffSegments
from segment.images.tiff_tags import TiffError, TiffPage, told_as

LARGE = 1 << 24  # pixels from which on a TIFF is read by window
MOST_BYTES = 1 << 28  # of a file that is decoded as a whole
_EXCERPT_PIXELS = 1 << 26


@dataclass(frozen=True)
class PixelReader:
    """How the pixels of an image are read, as a whole and by window.

    Attributes:
        check: from the page of a large TIFF, its segments and the limit of pixels to its orientation, 1-8, and remarks;
            raises SampleError.
        decode: from the bytes of an image, or of a part of a TIFF, and the limit of pixels to the picture; raises
            SampleError.
    """

    check: Callable[[TiffPage, TiffSegments, int], tuple[int, tuple[str, ...]]]
    decode: Callable[[bytes, int], codec.Picture]


RGB = PixelReader(lambda page, segments, most: codec.checked_header(segments.header(), most)[1:], codec.decode_picture)


def open_raster(
    file: BinaryIO, max_pixels: int, most_by_window: int | None = None, reader: PixelReader = RGB
) -> Raster:
    """Open an image: a large TIFF is read by window, anything else is decoded now.

    Args:
        file: seekable, and best without a buffer; it stays open as long as the raster is read.
        max_pixels: limit that is checked by the header before any pixel is decoded.
        most_by_window: the same for a TIFF that is read by window; by default `max_pixels`.

    Raises:
        SampleError: as `segment.images.codec.decode_picture`.
    """
    page = page_of(file)
    if page and page.height * page.width >= LARGE:
        return TiffRaster(page, most_by_window or max_pixels, reader)
    with told_as("undecodable"):
        data = read_all(file)
    picture = reader.decode(data, max_pixels)
    place, remarks = _placed(page, picture.orientation)
    return ArrayRaster(picture.pixels, place, picture.orientation, picture.remarks + remarks)


def read_all(file: BinaryIO) -> bytes:
    """Return all of a file that is decoded as a whole. Raises TiffError: it is too large for that."""
    size = file.seek(0, 2)
    if size > MOST_BYTES:
        raise TiffError(f"it has more than {MOST_BYTES >> 20} MiB, and is no large TIFF that can be read by window")
    file.seek(0)
    return file.read(size)  # one request of a store


def page_of(file: BinaryIO) -> TiffPage | None:
    """Return the page of a TIFF; None of anything else, and where the decoder has to say what is wrong."""
    file.seek(0)
    if image_format(file.read(16)) != "TIFF":
        return None
    try:
        return TiffPage(file)
    except TiffError:
        return None


def _placed(page: TiffPage | None, orientation: int) -> tuple[Georeference | None, tuple[str, ...]]:
    """Return where an image lies, and remarks. The tags do not apply to an image that is turned."""
    try:
        found = page.georeference if page else None
    except TiffError:
        return None, ("georeference_damaged",)
    return (None, ("georeference_turned",)) if found and orientation != 1 else (found, ())


class TiffWindows:
    """Windows of a TIFF. Of what is decoded it keeps the rows of segments that the last window touches.

    So windows that go from left to right and from top to bottom decode every segment once.

    Args:
        orientation: that is applied, 1-8.
        decode: decodes an excerpt of the segments: `uint8[h, w]` or `uint8[h, w, n]`.

    Attributes:
        height, width: upright, in pixels.

    Raises TiffError: a segment is too large to be read by itself.
    """

    def __init__(
        self, page: TiffPage, segments: TiffSegments, orientation: int, decode: Callable[[bytes], NDArray[np.uint8]]
    ) -> None:
        segments.check_size(by_window=True)
        self._segments, self._orientation, self._decode = segments, orientation, decode
        self.height, self.width = (page.width, page.height) if orientation >= 5 else (page.height, page.width)
        self._held: dict[tuple[int, int], NDArray[np.uint8]] = {}

    def read(self, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        """Return the pixels of a window, upright: `uint8[height, width]`, or `uint8[height, width, n]`.

        Raises TiffError: the file is damaged; ValueError: the window is not inside the image.
        """
        size = (self.height, self.width)
        check_window(size, top, left, height, width)
        top, left, height, width = headers.stored_window((top, left, height, width), size, self._orientation)
        tall, wide = self._segments.segment_height, self._segments.segment_width
        rows = range(top // tall, (top + height - 1) // tall + 1)
        columns = range(left // wide, (left + width - 1) // wide + 1)
        self._held = {place: pixels for place, pixels in self._held.items() if place[0] in rows}
        wanted = [(row, column) for row in rows for column in columns if (row, column) not in self._held]
        for run in self._segments.runs(wanted):
            self._hold(run)
        bands = next(iter(self._held.values())).shape[2:]
        window = np.empty((height, width, *bands), dtype=np.uint8)
        for row in rows:
            for column in columns:
                _paste(window, self._held[row, column], row * tall - top, column * wide - left)
        return np.ascontiguousarray(headers.apply_orientation(window, self._orientation))

    def _hold(self, run: Run) -> None:
        pixels = self._decode(self._segments.excerpt(run))
        tall, wide = self._segments.segment_height, self._segments.segment_width
        for row in range(run.rows):
            for column in range(run.columns):
                held = pixels[row * tall : (row + 1) * tall, column * wide : (column + 1) * wide]
                self._held[run.row + row, run.column + column] = held


def _paste(window: NDArray[np.uint8], segment: NDArray[np.uint8], top: int, left: int) -> None:
    """Copy what a window shows of a segment that begins at (top, left) of it, which may be outside."""
    part = segment[max(0, -top) : max(0, len(window) - top), max(0, -left) : max(0, window.shape[1] - left)]
    window[max(0, top) : max(0, top) + part.shape[0], max(0, left) : max(0, left) + part.shape[1]] = part


class TiffRaster:
    """A TIFF as a `Raster`: windows are the same pixels as those of the decoded file.

    Attributes:
        height, width: upright, in pixels.
        georeference: None also for an image that is turned, to which its tags do not apply.
        orientation: that is applied, 1-8.
        remarks: codes of `segment.output.remarks.REMARKS` of what was noticed so far.

    Raises (every method):
        SampleError: `undecodable`, `too_many_pixels` or `pixel_format`.
    """

    def __init__(self, page: TiffPage, max_pixels: int, reader: PixelReader = RGB) -> None:
        self._reader = reader
        with told_as("undecodable"):
            segments = TiffSegments(page)
            self.orientation, remarks = reader.check(page, segments, max_pixels)
            self._windows = TiffWindows(page, segments, self.orientation, self._decode)
        self.georeference, more = _placed(page, self.orientation)
        self.remarks = remarks + more + (("image_frames",) if page.has_more else ())
        self.remarks += ("image_sparse",) if segments.is_sparse else ()
        self.height, self.width = self._windows.height, self._windows.width

    def _decode(self, excerpt: bytes) -> NDArray[np.uint8]:
        picture = self._reader.decode(excerpt, _EXCERPT_PIXELS)
        self.remarks += tuple(code for code in picture.remarks if code not in self.remarks)
        return picture.pixels

    def read(self, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        """Return the pixels of a window; see `Raster.read`."""
        with told_as("undecodable"):
            return self._windows.read(top, left, height, width)
