"""Tiles of an image: where they lie, how they are padded, and how their masks become the mask of the image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from segment.models.card_tiles import Blend


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
    padded = np.empty((*size, pixels.shape[2]), dtype=np.uint8)
    padded[:] = colour
    padded[: pixels.shape[0], : pixels.shape[1]] = pixels
    return padded


class Blending(Protocol):
    """Makes the masks of tiles one mask. Tiles come row by row, and finished rows of pixels leave it."""

    def put(self, row: int, column: int, mask: NDArray[np.uint8], confidence: NDArray[np.uint8] | None) -> None:
        """Take a tile's mask `uint8[tile height, tile width]`, and the model's confidence of the same shape."""
        ...

    def finish_row(self, row: int) -> NDArray[np.uint8]:
        """Return the next rows of the image's mask, `uint8[n, W]`: all that no later row of tiles can change."""
        ...


class NearestCentre:
    """Each pixel has the class that the tile with the nearest centre gives it; see `TileAxis.cuts`."""

    def __init__(self, rows: TileAxis, columns: TileAxis) -> None:
        self._rows, self._columns = rows, columns
        self._strip = np.empty((0, columns.length), np.uint8)

    def put(self, row: int, column: int, mask: NDArray[np.uint8], confidence: NDArray[np.uint8] | None = None) -> None:
        """See `Blending.put`; takes no confidence."""
        (top, bottom), (left, right) = self._rows.cuts[row : row + 2], self._columns.cuts[column : column + 2]
        if column == 0:
            self._strip = np.empty((bottom - top, self._columns.length), np.uint8)
        above, before = self._rows.starts[row], self._columns.starts[column]
        self._strip[:, left:right] = mask[top - above : bottom - above, left - before : right - before]

    def finish_row(self, row: int) -> NDArray[np.uint8]:
        """See `Blending.finish_row`."""
        return self._strip


class HighestConfidence:
    """Each pixel has the class of the tile whose confidence there, times a window, is the highest; else of the first.

    The window is a Hann window along both sides, 1 to 255: a tile counts least at its edges, where it sees least. It
    holds a class and a score of 16 bits for each pixel of one row of tiles.
    """

    def __init__(self, rows: TileAxis, columns: TileAxis) -> None:
        self._rows, self._columns = rows, columns
        self._window = hann_window(rows.tile, columns.tile).astype(np.uint16)[: rows.inside, : columns.inside]
        self._classes = np.zeros((rows.inside, columns.length), np.uint8)
        self._scores = np.zeros((rows.inside, columns.length), np.uint16)

    def put(self, row: int, column: int, mask: NDArray[np.uint8], confidence: NDArray[np.uint8] | None) -> None:
        """See `Blending.put`."""
        assert confidence is not None, "the session is opened with confidence"
        height, width = self._window.shape
        left = self._columns.starts[column]
        classes, scores = (array[:, left : left + width] for array in (self._classes, self._scores))
        weighted = (confidence[:height, :width] + np.uint16(1)) * self._window  # 65,280 at most
        better = weighted > scores
        np.copyto(classes, mask[:height, :width], where=better)
        np.copyto(scores, weighted, where=better)

    def finish_row(self, row: int) -> NDArray[np.uint8]:
        """See `Blending.finish_row`."""
        following = (*self._rows.starts, self._rows.length)[row + 1]
        done = following - self._rows.starts[row]
        strip = self._classes[:done].copy()
        for array in (self._classes, self._scores):
            array[:-done] = array[done:].copy()
        self._scores[-done:] = 0
        return strip


def hann_window(height: int, width: int) -> NDArray[np.uint8]:
    """Return the product of two Hann windows, sampled at pixel centres and scaled to 1-255: `uint8[height, width]`."""
    down, across = (np.square(np.sin(np.pi * (np.arange(side) + 0.5) / side)) for side in (height, width))
    return np.asarray(1 + np.floor(254 * np.outer(down, across)), dtype=np.uint8)


BLENDINGS: dict[Blend, type[NearestCentre | HighestConfidence]] = {
    "centre": NearestCentre,
    "confidence": HighestConfidence,
}
