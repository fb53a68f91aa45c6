"""How the masks of tiles that overlap become the mask of the image."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from segment.errors import SampleError
from segment.images.raster import ROWS_AT_ONCE
from segment.images.tiles import TileAxis
from segment.models.card_tiles import Tiles
from segment.store.names import size

MOST_SUMS = 1 << 30  # bytes of the sums of probabilities of one row of tiles
_MOST_WEIGHT = 255  # of all tiles over a pixel, so that the sums of 256 levels fit 16 bits


class Tile(NamedTuple):
    """What the model gives for a tile.

    Attributes:
        mask: `uint8[tile height, tile width]`.
        levels: `uint8[L, tile height, tile width]`, confidence and probabilities that go with the mask; the first of
            `HighestConfidence` is the confidence that decides.
        scores: `uint8[C, tile height, tile width]`, probabilities of all classes, where the blend needs them.
    """

    mask: NDArray[np.uint8]
    levels: NDArray[np.uint8]
    scores: NDArray[np.uint8] | None = None


class Strip(NamedTuple):
    """Rows of an image: its mask `uint8[n, W]`, and what goes with it, `uint8[L, n, W]`; see `Tile`."""

    mask: NDArray[np.uint8]
    levels: NDArray[np.uint8]


class Blending(Protocol):
    """Makes the masks of tiles one mask. Tiles come row by row, and finished rows of pixels leave it."""

    def put(self, row: int, column: int, tile: Tile) -> None:
        """Take a tile."""
        ...

    def finish_row(self, row: int) -> Strip:
        """Return the next rows of the image: all that no later row of tiles can change."""
        ...


class NearestCentre:
    """Each pixel has the class that the tile with the nearest centre gives it; see `TileAxis.cuts`."""

    def __init__(self, rows: TileAxis, columns: TileAxis, levels: int) -> None:
        self._rows, self._columns = rows, columns
        self._strip = Strip(np.empty((0, columns.length), np.uint8), np.empty((levels, 0, columns.length), np.uint8))

    def put(self, row: int, column: int, tile: Tile) -> None:
        (top, bottom), (left, right) = self._rows.cuts[row : row + 2], self._columns.cuts[column : column + 2]
        if column == 0:
            shape = (bottom - top, self._columns.length)
            self._strip = Strip(np.empty(shape, np.uint8), np.empty((len(tile.levels), *shape), np.uint8))
        above, before = self._rows.starts[row], self._columns.starts[column]
        own = np.s_[..., top - above : bottom - above, left - before : right - before]
        self._strip.mask[:, left:right] = tile.mask[own]
        self._strip.levels[..., left:right] = tile.levels[own]

    def finish_row(self, row: int) -> Strip:
        return self._strip


class HighestConfidence:
    """Each pixel has the class of the tile whose confidence there, times a window, is the highest; else of the first.

    The window is a Hann window along both sides, 1 to 255: a tile counts least at its edges, where it sees least. It
    holds a class, its levels, and a score of 16 bits for each pixel of one row of tiles.
    """

    def __init__(self, rows: TileAxis, columns: TileAxis, levels: int) -> None:
        self._rows, self._columns = rows, columns
        self._window = hann_window(rows.tile, columns.tile).astype(np.uint16)[: rows.inside, : columns.inside]
        self._classes = np.zeros((rows.inside, columns.length), np.uint8)
        self._levels = np.zeros((levels, rows.inside, columns.length), np.uint8)
        self._scores = np.zeros((rows.inside, columns.length), np.uint16)

    def put(self, row: int, column: int, tile: Tile) -> None:
        height, width = self._window.shape
        inside, left = np.s_[..., :height, :width], self._columns.starts[column]
        held = np.s_[..., left : left + width]
        weighted = (tile.levels[0][inside] + np.uint16(1)) * self._window  # 65,280 at most
        better = weighted > self._scores[held]
        np.copyto(self._classes[held], tile.mask[inside], where=better)
        np.copyto(self._levels[held], tile.levels[inside], where=better)
        np.copyto(self._scores[held], weighted, where=better)

    def finish_row(self, row: int) -> Strip:
        done = _rows_done(self._rows, row)
        strip = Strip(self._classes[:done].copy(), self._levels[:, :done].copy())
        _move_up((self._classes, *self._levels, self._scores), done)
        return strip


class HighestMean:
    """Each pixel has the class of the highest probability, averaged over its tiles with a window as weights.

    All are whole numbers: probabilities in 255 steps, weights of a Hann window, sums of 16 bits, so that the order of
    tiles makes no difference. The class that a tile gives a pixel counts one step more than its probability: where one
    tile decides alone, its class stays, though rounding makes two probabilities equal. Levels are averaged alike.
    It holds a sum for each class and pixel of one row of tiles.

    Args:
        classes: number of classes.
        levels: number of levels, L.

    Raises:
        SampleError: the sums do not fit `MOST_SUMS`.
    """

    def __init__(self, rows: TileAxis, columns: TileAxis, classes: int, levels: int) -> None:
        shape = (classes, rows.inside, columns.length)
        if (needed := sums_size(classes + levels, *shape[1:])) > MOST_SUMS:
            numbers = f"{classes} classes x {rows.inside:,} rows x {columns.length:,} columns"
            raise SampleError("too_wide", f"{size(needed)} for {numbers}, at most {size(MOST_SUMS)}")
        self._rows, self._columns = rows, columns
        self._window = _weights(rows, columns)
        self._sums = np.zeros(shape, np.uint16)
        self._levels, self._weight = np.zeros((levels, *shape[1:]), np.uint16), np.zeros(shape[1:], np.uint16)

    def put(self, row: int, column: int, tile: Tile) -> None:
        assert tile.scores is not None, "the session is opened with probabilities"
        height, width = self._window.shape
        inside, left = np.s_[..., :height, :width], self._columns.starts[column]
        held = np.s_[..., left : left + width]
        mask = tile.mask[inside]
        for index, scores in enumerate(tile.scores):
            weighted = scores[inside].astype(np.uint16)
            weighted += mask == index
            weighted *= self._window
            self._sums[index][held] += weighted
        self._levels[held] += tile.levels[inside] * self._window
        self._weight[held] += self._window

    def finish_row(self, row: int) -> Strip:
        done = _rows_done(self._rows, row)
        best, mask = self._sums[0, :done].copy(), np.zeros((done, self._columns.length), np.uint8)
        for index, sums in enumerate(self._sums[1:, :done], 1):
            np.copyto(mask, np.uint8(index), where=sums > best)
            np.maximum(best, sums, out=best)
        levels, weight = (array[..., :done, :].astype(np.uint32) for array in (self._levels, self._weight))
        strip = Strip(mask, ((2 * levels + weight) // (2 * weight)).astype(np.uint8))
        _move_up((*self._sums, *self._levels, self._weight), done)
        return strip


def _rows_done(rows: TileAxis, row: int) -> int:
    """Return how many rows of pixels a row of tiles ends."""
    return (*rows.starts, rows.length)[row + 1] - rows.starts[row]


def _move_up(arrays: tuple[NDArray[np.uint8 | np.uint16], ...], done: int) -> None:
    """Drop the first rows of arrays `[rows, W]`, and add rows of zeros."""
    for array in arrays:
        array[:-done] = array[done:].copy()
        array[-done:] = 0


def hann_window(height: int, width: int, most: int = 255) -> NDArray[np.uint8]:
    """Return the product of two Hann windows, sampled at pixel centres and scaled to 1-`most`, `[height, width]`."""
    scaled = (most - 1) * np.outer(_hann(height), _hann(width))
    return np.asarray(1 + np.floor(scaled), dtype=np.uint8)


def _hann(side: int) -> NDArray[np.float64]:
    return np.asarray(np.square(np.sin(np.pi * (np.arange(side) + 0.5) / side)))


def _weights(rows: TileAxis, columns: TileAxis) -> NDArray[np.uint16]:
    """Return the Hann window of a tile, of the most steps with which no pixel has a weight above `_MOST_WEIGHT`."""
    (down, rows_weight), (across, columns_weight) = map(_cover, (rows, columns))
    steps = min(254, int((_MOST_WEIGHT - down * across) / (rows_weight * columns_weight)))
    return hann_window(rows.tile, columns.tile, 1 + steps).astype(np.uint16)[: rows.inside, : columns.inside]


def _cover(axis: TileAxis) -> tuple[int, float]:
    """Return the highest number of tiles over a pixel of a side, and the highest sum of their windows."""
    number, total = np.zeros(axis.length, int), np.zeros(axis.length)
    for start in axis.starts:
        number[start : start + axis.inside] += 1
        total[start : start + axis.inside] += _hann(axis.tile)[: axis.inside]
    return int(number.max()), float(total.max())


def sums_size(planes: int, rows: int, columns: int) -> int:
    """Return the bytes that `HighestMean` holds for so many classes and levels, rows of a tile, columns of an image."""
    return (planes + 1) * rows * columns * np.dtype(np.uint16).itemsize


def blending_of(tiles: Tiles, rows: TileAxis, columns: TileAxis, classes: int, levels: int) -> Blending:
    """Return the blending that a card names. Raises SampleError: it does not fit into memory."""
    if tiles.blend == "mean":
        return HighestMean(rows, columns, classes, levels)
    return (HighestConfidence if tiles.blend == "confidence" else NearestCentre)(rows, columns, levels)


def enlarged(strips: Iterator[Strip], factor: int, image: tuple[int, int]) -> Iterator[Strip]:
    """Yield strips with each pixel as a block of `factor` x `factor`, cut to an image of size (height, width).

    They have about `ROWS_AT_ONCE` rows: those of a row of tiles are `factor` times as many as the tile has.
    """
    (rows_left, width), step = image, max(1, ROWS_AT_ONCE // factor)

    def blocks(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return pixels.repeat(factor, axis=-2)[..., :rows_left, :].repeat(factor, axis=-1)[..., :width]

    for strip in strips:
        for first in range(0, len(strip.mask), step):
            found = Strip(*(blocks(part[..., first : first + step, :]) for part in strip))
            yield found
            rows_left -= len(found.mask)
