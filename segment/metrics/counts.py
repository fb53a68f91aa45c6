"""Confusion counts: pixels by label and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segment.models.classes import VOID

_STRIP_PIXELS = 1 << 20  # that are counted at a time; OpenCV's float32 counts are exact up to 2^24
_RUN_PIXELS = 8  # mean length of runs from which on they are counted instead of pixels


@dataclass(frozen=True, eq=False)
class Confusion:
    """Pixel counts by label and prediction. Immutable; `+` merges exactly, in any order.

    Attributes:
        counts: `int64[C + 1, C]`: rows are labels, columns are predictions; the last row counts the pixels whose
            label is void or absent.
    """

    counts: NDArray[np.int64]

    @staticmethod
    def zeros(classes: int) -> Confusion:
        """Return the matrix of no pixels."""
        return Confusion(np.zeros((classes + 1, classes), dtype=np.int64))

    @staticmethod
    def of(prediction: NDArray[np.uint8], label: NDArray[np.uint8] | None, classes: int) -> Confusion:
        """Count the pixels of one image.

        Args:
            prediction: `uint8[H, W]`, every value below `classes`.
            label: `uint8[H, W]`, every value below `classes` or `VOID`; None counts every pixel as void.
            classes: C.

        Raises:
            ValueError: shapes differ, or a value is out of range.
        """
        if label is not None and label.shape != prediction.shape:
            raise ValueError(f"label {label.shape} and prediction {prediction.shape} differ in shape")
        if prediction.size and int(prediction.max()) >= classes:
            raise ValueError(f"prediction contains {int(prediction.max())}; the classes are 0 to {classes - 1}")
        counts = np.zeros((classes + 1, classes), dtype=np.int64)
        if not prediction.size:
            return Confusion(counts)
        if label is None:
            counts[classes] = histogram([prediction], [classes])
        else:
            by_value = histogram([label, prediction], [256, classes])
            counts[:classes], counts[classes] = by_value[:classes], by_value[VOID]
        if counts.sum() != prediction.size:
            raise ValueError("label contains a value that is neither a class nor void")
        return Confusion(counts)

    @staticmethod
    def from_cells(cells: Sequence[int], counts: Sequence[int], classes: int) -> Confusion:
        """Return the matrix that `to_cells` has stored."""
        flat = np.zeros((classes + 1) * classes, dtype=np.int64)
        flat[np.asarray(cells, dtype=np.int64)] = np.asarray(counts, dtype=np.int64)
        return Confusion(flat.reshape(classes + 1, classes))

    def to_cells(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the non-zero cells as `label * C + prediction`, ascending, and their counts."""
        flat = self.counts.ravel()
        cells = np.flatnonzero(flat)
        return cells.astype(np.int32), flat[cells]

    def __add__(self, other: Confusion | NDArray[Any]) -> Confusion:
        """Add counts of as many classes: a `Confusion`, or an array of integers `[C + 1, C]`. Raises ValueError."""
        if not isinstance(other, Confusion | np.ndarray):
            return NotImplemented
        added = other if isinstance(other, Confusion) else Confusion(checked_counts(other))
        if self.classes != added.classes:
            raise ValueError(f"counts of {self.classes} and of {added.classes} classes cannot be added")
        return Confusion(self.counts + added.counts)

    def __radd__(self, start: int) -> Confusion:
        return self if start == 0 else NotImplemented  # `sum` begins with 0

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.counts, dtype=dtype, copy=copy)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Confusion) and np.array_equal(self.counts, other.counts)

    __hash__ = None  # type: ignore[assignment]

    @property
    def classes(self) -> int:
        """C."""
        return int(self.counts.shape[1])

    @property
    def predicted_pixels(self) -> NDArray[np.int64]:
        """`int64[C]`: pixels predicted as each class, with any label."""
        return np.asarray(self.counts.sum(axis=0))

    @property
    def label_pixels(self) -> NDArray[np.int64]:
        """`int64[C]`: pixels labelled as each class."""
        return np.asarray(self.counts[:-1].sum(axis=1))

    @property
    def is_scored(self) -> bool:
        """Whether the label of any pixel is a class."""
        return bool(self.counts[:-1].any())


def confusion(mask: NDArray[Any], label: NDArray[Any] | None, *, classes: int) -> Confusion:
    """Count the pixels of a predicted mask by label and prediction.

    >>> counts = confusion(np.array([[0, 1], [1, 1]]), np.array([[0, 0], [1, 255]]), classes=2)
    >>> counts.counts.tolist()  # rows are labels 0, 1 and void; columns are predictions 0 and 1
    [[1, 1], [0, 1], [0, 1]]
    >>> sum([counts, counts]).counts.sum()
    np.int64(8)

    Args:
        mask: class indices below `classes`; integers of any shape, such as `uint8[H, W]` or `uint8[N, H, W]`.
        label: class indices below `classes`, or 255 (void: counted, but in no score); integers of the same shape. None
            counts every pixel as void.
        classes: number of classes C, 1-255.

    Raises:
        TypeError: an array holds no integers.
        ValueError: the shapes differ, or a value is no class; the message names it.
    """
    predicted, labelled = checked_classes(mask, label, classes)
    column = None if labelled is None else labelled.reshape(-1, 1)
    return Confusion.of(predicted.reshape(-1, 1), column, classes)


def checked_classes(
    mask: NDArray[Any], label: NDArray[Any] | None, classes: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Return mask and label as `uint8` of their shape. Raises as `confusion`."""
    if not 1 <= classes <= VOID:
        raise ValueError(f"classes = {classes}: give a number from 1 to {VOID}")
    predicted = _checked("mask", mask, classes, void=False)
    labelled = None if label is None else _checked("label", label, classes, void=True)
    if labelled is not None and labelled.shape != predicted.shape:
        raise ValueError(f"the label's shape {labelled.shape} is not that of the mask, {predicted.shape}")
    return predicted, labelled


def _checked(name: str, values: NDArray[Any], classes: int, *, void: bool) -> NDArray[np.uint8]:
    """Return `uint8` of the same shape."""
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise TypeError(f"the {name} holds {array.dtype}: class indices are integers")
    outside = (array < 0) | (array >= classes)
    if void:
        outside &= array != VOID
    if outside.any():
        wrong = ", ".join(map(str, np.unique(array[outside])[:5].tolist()))
        also = f" or {VOID} (void)" if void else ""
        raise ValueError(f"the {name} holds {wrong}: a class index of {classes} classes is 0 to {classes - 1}{also}")
    return array.astype(np.uint8)


def checked_counts(counts: Confusion | NDArray[Any]) -> NDArray[np.int64]:
    """Return counts as `int64[C + 1, C]`. Raises ValueError for another shape or type."""
    matrix = np.asarray(counts)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] + 1 or matrix.dtype.kind not in "iu":
        raise ValueError(f"counts are integers [C + 1, C], the last row for void, not {matrix.dtype} {matrix.shape}")
    return matrix.astype(np.int64)


def histogram(planes: list[NDArray[np.uint8]], bins: list[int]) -> NDArray[np.int64]:
    """Count the joint values of one or two planes `uint8[H, W]`; values outside all bins are skipped.

    Masks and labels are flat areas: runs of equal pixels are counted, by the bins of their last pixels. Where runs are
    short, OpenCV counts every pixel.
    """
    counts = np.zeros(bins, dtype=np.int64)
    height, width = planes[0].shape
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        strips = [np.ascontiguousarray(plane[top : top + rows]) for plane in planes]
        values = (strips[0] if len(strips) == 1 else cv2.merge(strips[::-1]).view("<u2")).ravel()
        ends = values[1:] != values[:-1]
        if _RUN_PIXELS * np.count_nonzero(ends) > values.size:
            counts += _by_pixel(strips, bins)
        else:
            counts += _by_run(values, ends, bins)
    return counts


def _by_run(values: NDArray[Any], ends: NDArray[np.bool_], bins: list[int]) -> NDArray[np.int64]:
    """Count values, of two planes as `256 * first + second`; `ends`: whether the next value is another one."""
    last = np.append(np.flatnonzero(ends), values.size - 1)
    lengths = np.diff(last, prepend=-1)
    found = np.bincount(values[last], lengths, minlength=256 ** len(bins)).reshape([256] * len(bins))
    return found[tuple(slice(size) for size in bins)].astype(np.int64)


def _by_pixel(strips: list[NDArray[np.uint8]], bins: list[int]) -> NDArray[np.int64]:
    """Count pixels by OpenCV. It counts in float32, exactly up to 2^24 pixels."""
    ranges = [edge for size in bins for edge in (0, size)]
    return cv2.calcHist(strips, range(len(bins)), None, bins, ranges).reshape(bins).astype(np.int64)
