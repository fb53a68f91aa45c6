"""Images that are read by window: a large image is never held as a whole."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

ROWS_AT_ONCE = 512  # of an image that is shrunk; what is wanted of it may be many more


@dataclass(frozen=True)
class Georeference:
    """Where an image lies on the Earth: the tags of a GeoTIFF, as they are stored.

    Attributes:
        tags: values by tag number; see `segment.images.tiff_tags.GEOREFERENCE`. Numbers, or the bytes of a text.
    """

    tags: Mapping[int, tuple[int | float, ...] | bytes]


class Raster(Protocol):
    """An image, upright, of which windows can be read.

    Attributes:
        height, width: in pixels.
        georeference: of the image; None without one.
        orientation: the EXIF orientation that is applied, 1-8; a label is compared with it.
        remarks: codes of `segment.output.remarks.REMARKS` of what was noticed so far; more may come with each window.
    """

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def georeference(self) -> Georeference | None: ...

    @property
    def orientation(self) -> int: ...

    @property
    def remarks(self) -> tuple[str, ...]: ...

    def read(self, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        """Return the pixels of a window inside the image: `uint8[height, width, 3]`, RGB.

        Raises SampleError: the window cannot be decoded; ValueError: it is not inside the image, or empty.
        """
        ...


class ArrayRaster:
    """A decoded image as a `Raster`, or a decoded label.

    Args:
        pixels: `uint8[H, W, 3]`, RGB, upright; classes `uint8[H, W]` of a label. Windows are views of it.
        georeference, orientation, remarks: as in `Raster`.
    """

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        georeference: Georeference | None = None,
        orientation: int = 1,
        remarks: tuple[str, ...] = (),
    ) -> None:
        self._pixels = pixels
        self.height, self.width = pixels.shape[0], pixels.shape[1]
        self.georeference, self.orientation, self.remarks = georeference, orientation, remarks

    def read(self, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        """Return a view of the pixels of a window; see `Raster.read`."""
        check_window((self.height, self.width), top, left, height, width)
        return self._pixels[top : top + height, left : left + width]


class ShrunkRaster:
    """A raster whose pixels are the means of blocks of another one's.

    It reads some rows of the other one at a time, and keeps the last window, within which the next one begins where
    tiles overlap.

    Args:
        factor: height and width of a block, 1 or more. Where the last ones would reach beyond the raster, its last row
            or column is repeated.
    """

    def __init__(self, raster: Raster, factor: int) -> None:
        self._raster, self._factor = raster, factor
        self.height, self.width = -(-raster.height // factor), -(-raster.width // factor)
        self.georeference, self.orientation = None, raster.orientation
        self._last: tuple[int, int, NDArray[np.uint8]] | None = None  # top, left and pixels of the last window

    @property
    def remarks(self) -> tuple[str, ...]:
        return self._raster.remarks

    def read(self, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        """Return the pixels of a window; see `Raster.read`."""
        check_window((self.height, self.width), top, left, height, width)
        pieces, row, step = self._kept(top, left, height, width), top, max(1, ROWS_AT_ONCE // self._factor)
        row += sum(map(len, pieces))
        pieces += [
            self._means(first, left, min(step, top + height - first), width) for first in range(row, top + height, step)
        ]
        pixels = np.concatenate(pieces)
        self._last = top, left, pixels
        return pixels

    def _kept(self, top: int, left: int, height: int, width: int) -> list[NDArray[np.uint8]]:
        """Return the first rows of a window, as far as the last one has them."""
        if self._last is None:
            return []
        above, before, pixels = self._last
        if (before, pixels.shape[1]) != (left, width) or not above <= top < above + len(pixels):
            return []
        return [pixels[top - above : top - above + height]]

    def _means(self, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        raster, factor = self._raster, self._factor
        rows = min(height * factor, raster.height - top * factor)
        columns = min(width * factor, raster.width - left * factor)
        pixels = raster.read(top * factor, left * factor, rows, columns)
        missing = ((0, height * factor - rows), (0, width * factor - columns), (0, 0))
        if any(after for _, after in missing):
            pixels = np.pad(pixels, missing, mode="edge")
        sums = np.full((height, width, pixels.shape[2]), factor * factor // 2, np.uint32)
        for row in range(factor):
            for column in range(factor):
                sums += pixels[row::factor, column::factor]
        return (sums // (factor * factor)).astype(np.uint8)


def check_window(size: tuple[int, int], top: int, left: int, height: int, width: int) -> None:
    """Raise ValueError unless a window is inside an image of size (height, width), and not empty."""
    if min(top, left) < 0 or min(height, width) < 1 or top + height > size[0] or left + width > size[1]:
        raise ValueError(f"no window of {size[0]}x{size[1]} pixels: {height}x{width} at {top}, {left}")
