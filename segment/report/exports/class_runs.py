"""The pixels of each class of a mask as runs, in the order of the columns or of the rows."""

from __future__ import annotations

from collections.abc import Iterator
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


def class_runs(mask: NDArray[np.uint8], classes: int, order: Literal["columns", "rows"]) -> Iterator[ClassRuns]:
    """Yield the runs of each class that a mask has.

    Args:
        mask: `uint8[H, W]`, class indices; values from `classes` on are no class.
        classes: number of classes.
        order: whether the pixels are counted column by column, as COCO does, or row by row.
    """
    flat = mask.ravel(order="F" if order == "columns" else "C")
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1]).astype(np.int64)
    stops = np.append(starts[1:], flat.size)
    held = flat[starts]
    for index in np.unique(held).tolist():
        if index < classes:
            of_class = held == index
            yield ClassRuns(index, starts[of_class], stops[of_class], flat.size)
