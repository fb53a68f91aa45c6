"""Tiles of an image: where they lie, and how they are padded."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TileAxis:
    """Tiles along one side of an image.

    Attributes:
        length: of the side, in pixels.
        tile: of a tile, in pixels; where it is more than `length`, there is one tile, which is padded.
        starts: first pixel of each tile, ascending.
    """

    length: int
    tile: int
    starts: tuple[int, ...]

    @property
    def inside(self) -> int:
        """Number of pixels of a tile that are of the image."""
        return min(self.tile, self.length)

    @cached_property
    def cuts(self) -> tuple[int, ...]:
        """Where the pixels begin whose nearest tile centre is that of tile 0, 1, ...; at the end, `length`.

        Midway between the centres of two neighbours, which is the middle of their overlap. A pixel as near to both is
        the later one's.
        """
        middles = ((one + other + self.tile) // 2 for one, other in zip(self.starts, self.starts[1:], strict=False))
        return (0, *middles, self.length)


def spread_tiles(length: int, tile: int, overlap: int) -> TileAxis:
    """Spread as few tiles as possible evenly over a side of an image: the first and last touch its ends.

    Args:
        length: of the side, 1 or more pixels.
        tile: of a tile, in pixels.
        overlap: least overlap of neighbours, in pixels; less than `tile`.
    """
    free = max(0, length - tile)
    steps = -(-free // (tile - overlap))
    return TileAxis(length, tile, tuple(step * free // max(1, steps) for step in range(steps + 1)))


def pad_tile(pixels: NDArray[np.uint8], size: tuple[int, int], colour: tuple[int, ...] | None) -> NDArray[np.uint8]:
    """Pad `uint8[h, w, n]` on the right and below to size (height, width).

    Args:
        pixels: one pixel or more.
        size: no less than that of `pixels`.
        colour: of the border, n values; None mirrors the image at its last row and column, as often as is needed.
    """
    below, right = size[0] - pixels.shape[0], size[1] - pixels.shape[1]
    if not below and not right:
        return pixels
    if colour is None:
        return np.pad(pixels, ((0, below), (0, right), (0, 0)), mode="reflect")
    padded = filled(size, colour)
    padded[: pixels.shape[0], : pixels.shape[1]] = pixels
    return padded


def filled(size: tuple[int, int], colour: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return `uint8[height, width, n]` in one colour of n values.

    Row by row: NumPy assigns the few values of a pixel 40 times as slowly, which took 5 % of the time of a light model.
    """
    height, width = size
    pixels = np.empty((height, width, len(colour)), dtype=np.uint8)
    pixels.reshape(height, -1)[:] = np.tile(np.array(colour, dtype=np.uint8), width)
    return pixels
