"""Labels that are read by window, for images that are: from a large TIFF tile by tile, else decoded as a whole."""

from __future__ import annotations

from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segment.errors import SampleError
from segment.images import headers
from segment.images.decoder_stderr import capture_decoder_stderr
from segment.images.label_images import checked_label, turning_remarks
from segment.images.label_pixels import LabelPixels, read_label_pixels
from segment.images.labels import LabelDecoder
from segment.images.raster import ArrayRaster
from segment.images.tiff_raster import LARGE, TiffWindows, page_of, read_all
from segment.images.tiff_segments import TiffSegments
from segment.images.tiff_tags import TiffPage, told_as
from segment.images.tiff_unpacking import WEBP

_WINDOWED_MODES = ("1", "L", "P", "I", "F", "RGB")  # Pillow's; "I;16" and its likes as well
_STRIP = 1 << 24  # pixels that are looked at at once


def open_label(file: BinaryIO, size: tuple[int, int], image_orientation: int, decoder: LabelDecoder) -> LabelRaster:
    """Open a label: a large TIFF is read by window, anything else is decoded now.

    Args:
        file: seekable; as in `segment.images.tiff_raster.open_raster`.
        size: (height, width) of the image, upright.
        image_orientation: EXIF orientation of the image, 1-8.

    Raises:
        SampleError: as `LabelDecoder.read`.
    """
    page = page_of(file)
    if page and page.height * page.width >= LARGE:
        return TiffLabel(page, size, image_orientation, decoder)
    with told_as("label_undecodable"):
        data = read_all(file)
    label = decoder.read(data, *size, image_orientation)
    return ArrayRaster(label.classes, remarks=label.remarks)


class TiffLabel:
    """A TIFF whose windows are the same classes as those of the label decoded as a whole.

    What a palette image means may depend on the indices that are in use anywhere, so it is read twice.

    Args: as of `open_label`.

    Attributes:
        remarks: codes of `segment.output.remarks.REMARKS` of what was noticed so far; more may come with each window.

    Raises (every method):
        SampleError: as `LabelDecoder.read`; `label_pixels` also for alpha and 16-bit colours, which could be judged
            only by the whole.
    """

    def __init__(self, page: TiffPage, size: tuple[int, int], image_orientation: int, decoder: LabelDecoder) -> None:
        self._decoder = decoder
        self._table: NDArray[np.uint8] | None = None  # class of each palette index, if that depends on all pixels
        self._palette: NDArray[np.uint8] | None = None
        with told_as("label_undecodable"):
            segments = TiffSegments(page)
            header, orientation, remarks = self._checked(segments, size, image_orientation)
            self._windows = TiffWindows(page, segments, orientation, self._decode)
        self.remarks = remarks + (("label_frames",) if page.has_more else ())
        self.remarks += ("label_sparse",) if segments.is_sparse else ()
        self.remarks += turning_remarks(orientation, image_orientation)
        if header.mode == "P" and not decoder.reads_colours:
            self._find_table()

    def _checked(
        self, segments: TiffSegments, size: tuple[int, int], image_orientation: int
    ) -> tuple[Image.Image, int, tuple[str, ...]]:
        if segments.compression == WEBP:  # whether it is lossless, only its tiles tell
            raise SampleError("label_pixels", "WebP in a large TIFF")
        data = segments.header()
        with headers.pixel_limit.lifted(), headers.damage_as("label_undecodable"):
            header, *found = checked_label(data, size, image_orientation, allow_lossy=self._decoder.allow_lossy)
        if header.mode not in _WINDOWED_MODES and not header.mode.startswith("I;16"):
            raise SampleError("label_pixels", f"{header.mode} in a large TIFF")
        if header.mode == "RGB" and segments.bits > 8:
            raise SampleError("label_pixels", "colours of 16 bits in a large TIFF")
        return header, *found  # type: ignore[return-value]

    def read(self, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        """Return the classes of a window inside the image, `uint8[height, width]`; `VOID` where there is none.

        What was counted of the windows before an error does not count.
        """
        pixels = self._read(top, left, height, width)
        if self._table is not None:
            return self._table[pixels]
        if pixels.ndim == 3:
            return self._decoder.classes_of(LabelPixels(colours=pixels))
        return self._decoder.classes_of(LabelPixels(pixels, self._palette))

    def _read(self, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        """Return values, palette indices or colours."""
        with told_as("label_undecodable"):
            return self._windows.read(top, left, height, width)

    def _decode(self, excerpt: bytes) -> NDArray[np.uint8]:
        with (
            capture_decoder_stderr() as damage,
            headers.pixel_limit.lifted(),
            headers.damage_as("label_undecodable"),
        ):
            header = headers.open_header(excerpt)
            pixels = read_label_pixels(header, excerpt, 1, as_colour=self._decoder.reads_colours)
        if damage and "label_damaged" not in self.remarks:
            self.remarks += ("label_damaged",)
        self._palette = pixels.palette
        found = pixels.values if pixels.colours is None else pixels.colours
        assert found is not None
        return found

    def _find_table(self) -> None:
        """Set the class of each palette index in use, which follows from all that are."""
        used = np.zeros(256, dtype=bool)
        rows = max(1, _STRIP // self._windows.width)
        for top in range(0, self._windows.height, rows):
            taken = min(rows, self._windows.height - top)
            used[np.unique(self._read(top, 0, taken, self._windows.width))] = True
        values = np.flatnonzero(used).astype(np.uint8)
        self._table = np.zeros(256, dtype=np.uint8)
        self._table[values] = self._decoder.classes_of(LabelPixels(values[np.newaxis], self._palette))[0]


LabelRaster: TypeAlias = ArrayRaster | TiffLabel
