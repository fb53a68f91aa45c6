"""Boundary IoU: how well the outlines of classes are found, from counts that are summed like confusion counts.

The boundary region of a class holds its pixels whose Chebyshev distance to a pixel of another class, or to the outside
of the image, is at most d: the class minus its erosion by d steps of 3 x 3. The boundary IoU of a class is the IoU of
its two boundary regions, in the label and in the prediction. d is a fraction of the image's diagonal, at least 1.

Source: Cheng et al., 'Boundary IoU: Improving Object-Centric Image Segmentation Evaluation', CVPR 2021; details as in
the authors' code (github.com/bowenc0221/boundary-iou-api), which counts the outside of the image as another class, and
for panoptic segmentation leaves out the pixels whose label is void. Here those whose label is an ignored class are left
out, too. Both count as another class when the label's boundary regions are found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segment.metrics.bootstrap import Interval
from segment.metrics.conventions import Score, defined, mean_of_defined
from segment.metrics.counts import checked_classes, histogram
from segment.models.classes import VOID

FRACTION = 0.02  # of the paper, for images of ordinary size; Cityscapes' are scored with 0.005 there


@dataclass(frozen=True, eq=False)
class BoundaryCounts:
    """Pixels of boundary regions by class. Immutable; `+` merges exactly, in any order.

    Attributes:
        counts: `int64[3, C]`: pixels in both regions of a class, in that of the label, in that of the prediction. The
            three are 0 for ignored classes.
    """

    counts: NDArray[np.int64]

    @staticmethod
    def zeros(classes: int) -> BoundaryCounts:
        """Return the counts of no pixels."""
        return BoundaryCounts(np.zeros((3, classes), np.int64))

    @staticmethod
    def of(
        prediction: NDArray[np.uint8],
        label: NDArray[np.uint8],
        classes: int,
        *,
        fraction: float,
        ignore: Sequence[int] = (),
    ) -> BoundaryCounts:
        """Count the pixels of one image.

        Args:
            prediction: `uint8[H, W]`, every value below `classes`.
            label: `uint8[H, W]`, every value below `classes` or `VOID`.
            classes: C.
            fraction: of the diagonal: d = round(fraction x diagonal), at least 1.
            ignore: indices of ignored classes.
        """
        height, width = prediction.shape
        strips = BoundaryStrips((height, width), classes, fraction=fraction, ignore=ignore)
        strips.add(prediction, label)
        return strips.total

    def __add__(self, other: BoundaryCounts) -> BoundaryCounts:
        return BoundaryCounts(self.counts + other.counts)

    def __radd__(self, start: int) -> BoundaryCounts:
        return self if start == 0 else NotImplemented  # `sum` begins with 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BoundaryCounts) and np.array_equal(self.counts, other.counts)

    __hash__ = None  # type: ignore[assignment]

    @property
    def score(self) -> Score:
        """The score of the regions: its `iou` is the boundary IoU by class, NaN where neither side has a boundary."""
        both, label, predicted = self.counts
        return Score(both, predicted - both, label - both)


@dataclass(frozen=True, eq=False)
class BoundaryScore:
    """The boundary IoU of a set of images, from their summed counts.

    Attributes:
        fraction: of the diagonal, which gave each image its distance d.
        score: of the boundary regions; its `iou` is the boundary IoU by class, 0-1.
        chosen: classes over which the mean is taken; None for all.
        interval: of the mean, 95 %; None if there is none.
        class_intervals: of each class; empty if there are none.
    """

    fraction: float
    score: Score
    chosen: Sequence[int] | None = None
    interval: Interval | None = None
    class_intervals: Sequence[Interval | None] = ()

    @property
    def mean(self) -> float | None:
        """Mean boundary IoU, 0-1, over the classes that have a boundary; None if none has."""
        return defined(float(mean_boundary_iou(self.score, self.chosen)))


def mean_boundary_iou(score: Score, chosen: Sequence[int] | None) -> NDArray[np.float64]:
    """Return the mean IoU over the classes (`chosen`; None: all) with a boundary, `float64[...]`; NaN for none."""
    return mean_of_defined(score.iou if chosen is None else score.iou[..., list(chosen)])


class BoundaryStrips:
    """Counts one image in strips of whole rows, from the top; holds about 3 d rows of it besides a strip.

    Args:
        size: (height, width) of the image.
        classes, fraction, ignore: see `BoundaryCounts.of`.

    Attributes:
        total: counts of the image, once all its rows are added.
    """

    def __init__(self, size: tuple[int, int], classes: int, *, fraction: float, ignore: Sequence[int] = ()) -> None:
        self.total = BoundaryCounts.zeros(classes)
        self._distance = boundary_distance(size, fraction)
        self._scored = np.full(256, classes, np.uint8)  # by class index: itself, or C where no score counts it
        self._scored[:classes] = np.arange(classes)
        self._scored[list(ignore)] = classes
        self._to_come = size[0]
        self._held: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]] = []
        self._counted = 0  # rows at the top of those held, which the rows below need for their distance

    def add(self, prediction: NDArray[np.uint8], label: NDArray[np.uint8]) -> None:
        """Add the next rows: two `uint8[n, W]`."""
        self._to_come -= len(prediction)
        self._held.append((prediction.copy() if self._to_come else prediction, label))
        waiting = sum(len(rows) for rows, _ in self._held) - self._counted
        if not self._to_come or waiting >= 2 * self._distance:
            self._count()

    def _count(self) -> None:
        """Count the rows whose neighbours within d are there."""
        prediction, label = (np.concatenate(planes) for planes in zip(*self._held, strict=True))
        stop = len(prediction) - (self._distance if self._to_come else 0)
        rows = slice(self._counted, stop)
        self.total += self._of_rows(prediction, label, rows)
        start = max(0, stop - self._distance)
        self._held, self._counted = [(prediction[start:].copy(), label[start:].copy())], stop - start

    def _of_rows(self, prediction: NDArray[np.uint8], label: NDArray[np.uint8], rows: slice) -> BoundaryCounts:
        classes = self.total.counts.shape[1]
        nothing = np.uint8(classes)
        labelled, predicted = (
            np.asarray(cv2.LUT(plane[rows], self._scored), np.uint8) for plane in (label, prediction)
        )
        in_label, in_prediction = (boundary_region(plane, self._distance)[rows] for plane in (label, prediction))
        predicted = np.where(in_prediction & (labelled != nothing), predicted, nothing)
        labelled = np.where(in_label, labelled, nothing)
        joint = histogram([labelled, predicted], [classes + 1, classes + 1])
        return BoundaryCounts(np.stack([joint.diagonal()[:-1], joint[:-1].sum(axis=1), joint[:, :-1].sum(axis=0)]))


def boundary_distance(size: tuple[int, int], fraction: float) -> int:
    """Return d in pixels for an image of `size` (height, width): round(fraction x diagonal), at least 1."""
    height, width = size
    return max(1, round(fraction * math.sqrt(height**2 + width**2)))


def boundary_region(classes: NDArray[np.uint8], distance: int) -> NDArray[np.bool_]:
    """Return which pixels are in the boundary region of their class, `bool[H, W]`; undefined for `VOID` pixels.

    These are the pixels less than `distance` from one that touches another class or the outside, whichever class that
    one has: it is either of the same class, or another class itself. So one dilation finds the regions of all classes.

    >>> boundary_region(np.zeros((5, 5), np.uint8), 2).astype(int).tolist()
    [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]]

    Args:
        classes: `uint8[H, W]` of class indices and `VOID`.
        distance: d, 1 or more.
    """
    if 2 * distance >= min(classes.shape):  # no pixel is farther from the outside
        return np.ones(classes.shape, np.bool_)
    within_image = cv2.copyMakeBorder(classes, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=VOID)
    edges = cv2.morphologyEx(within_image, cv2.MORPH_GRADIENT, _square(3))[1:-1, 1:-1]  # 0 where all neighbours agree
    return np.asarray(cv2.dilate(edges, _square(2 * distance - 1)), np.bool_)


def _square(side: int) -> NDArray[np.uint8]:
    return np.ones((side, side), np.uint8)


def boundary_counts(
    mask: NDArray[Any], label: NDArray[Any], *, classes: int, fraction: float = FRACTION, ignore: Sequence[int] = ()
) -> BoundaryCounts:
    """Count the pixels of the boundary regions of one image, in its mask and in its label.

    >>> mask, label = np.zeros((4, 6), int), np.zeros((4, 6), int)
    >>> mask[:, 3:], label[:, 2:] = 1, 1
    >>> counts = boundary_counts(mask, label, classes=2, fraction=0.1)  # diagonal 7.2: d = 1
    >>> counts.counts.tolist()  # in both regions, in the label's, in the prediction's
    [[6, 8], [8, 12], [10, 10]]
    >>> counts.score.iou.round(4).tolist()  # 6 / 12 and 8 / 14
    [0.5, 0.5714]

    Args:
        mask: class indices below `classes`, integers `[H, W]`.
        label: class indices below `classes`, or 255 (void: not counted); integers `[H, W]`.
        classes: number of classes C, 1-255.
        fraction: the distance d is this part of the image's diagonal, at least one pixel; above 0, at most 1.
        ignore: class indices that are not scored; pixels labelled as one are not counted.

    Raises:
        TypeError: an array holds no integers.
        ValueError: the shapes differ, a value is no class, or a number is out of range.
    """
    predicted, labelled = checked_classes(mask, label, classes)
    if predicted.ndim != 2:
        raise ValueError(f"the mask has shape {predicted.shape}: give one image, [H, W]")
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction = {fraction}: give a number above 0, at most 1")
    if unknown := [index for index in ignore if not 0 <= index < classes]:
        raise ValueError(f"ignore = {list(ignore)}: {unknown[0]} is no class of {classes}")
    assert labelled is not None
    return BoundaryCounts.of(predicted, labelled, classes, fraction=fraction, ignore=ignore)
