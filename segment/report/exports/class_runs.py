"""The pixels of each class of a mask as runs, in the order of the columns or of the rows."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ClassRuns:
    """The pixels of one class.

    Attributes:
        index: of the class.
        starts, stops: `int64[n]`, first pixel of each run and the one behind its last; ascending.
        pixels: number of pixels of the mask.
    """

    index: int
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    pixels: int

    @property
    def area(self) -> int:
        """Number of pixels of the class."""
        return int((self.stops - self.starts).sum())

    @property
    def counts(self) -> NDArray[np.int64]:
        """Lengths of runs, of other pixels and of the class by turns, `int64[m]`; only the first may be 0."""
        edges = np.stack([self.starts, self.stops], axis=1).ravel()
        behind = [] if edges[-1] == self.pixels else [self.pixels]
        bounds = np.concatenate([[0], edges, behind]).astype(np.int64)
        return bounds[1:] - bounds[:-1]

    def box(self, height: int) -> list[int]:
        """Return the bounding box, x, y, width and height, of runs in the order of the columns."""
        first, last = self.starts, self.stops - 1
        left, right = int(first[0] // height), int(last[-1] // height)
        crosses = bool((first // height != last // height).any())  # from the end of a column to the next one's begin
        top = 0 if crosses else int((first % height).min())
        bottom = height - 1 if crosses else int((last % height).max())
        return [left, top, right - left + 1, bottom - top + 1]


def class_runs(
    strips: Iterable[NDArray[np.uint8]], size: tuple[int, int], classes: int, order: Literal["columns", "rows"]
) -> Iterator[ClassRuns]:
    """Yield the runs of each class that a mask has. The runs are held, and one strip.

    Args:
        strips: the mask from the top, `uint8[n, W]`, class indices; values from `classes` on are no class.
        size: (height, width) of the mask.
        order: whether the pixels are counted column by column, as COCO does, or row by row.
    """
    starts, held = _down_columns(strips, size[0]) if order == "columns" else _along_rows(strips)
    stops = np.append(starts[1:], size[0] * size[1])
    for index in np.unique(held).tolist():
        if index < classes:
            of_class = held == index
            yield ClassRuns(index, starts[of_class], stops[of_class], size[0] * size[1])


def _along_rows(strips: Iterable[NDArray[np.uint8]]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return the first pixel of each run, in the order of the rows, and its class."""
    starts, held, done, last = [], [], 0, -1
    for strip in strips:
        flat = strip.ravel()
        changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        found = changes if flat[0] == last else np.append(0, changes)
        starts.append(found + done)
        held.append(flat[found])
        done, last = done + flat.size, int(flat[-1])
    return np.concatenate(starts), np.concatenate(held)


def _down_columns(strips: Iterable[NDArray[np.uint8]], height: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return the first pixel of each run, in the order of the columns, and its class."""
    starts, held, done = [], [], 0
    top = bottom = np.empty(0, np.uint8)
    for strip in strips:
        changes = np.ones(strip.shape, np.bool_)
        np.not_equal(strip[1:], strip[:-1], out=changes[1:])
        if done:
            np.not_equal(strip[0], bottom, out=changes[0])
        else:
            top = strip[0].copy()
        columns, rows = np.nonzero(changes.T)
        starts.append(columns * height + rows + done)
        held.append(strip[rows, columns])
        done, bottom = done + len(strip), strip[-1].copy()
    found, classes = np.concatenate(starts), np.concatenate(held)
    order = np.argsort(found, kind="stable")
    goes_on = (
        np.flatnonzero(top[1:] == bottom[:-1]) + 1
    )  # columns that begin with the class that the last one ends with
    order = order[~np.isin(found[order], goes_on * height, assume_unique=True)]
    return found[order], classes[order]
