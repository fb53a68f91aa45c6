"""Scores of confusion counts under named conventions, which differ where classes are ignored.

`omz`         Open Model Zoo's accuracy checker. Drops row and column of an ignored class: a pixel predicted as an
              ignored class is not an error of its label's class.
`cityscapes`  The Cityscapes scripts, TF-DeepLab. Drops only the row of an ignored class: a pixel predicted as an
              ignored class is a false negative of its label's class.
`mmseg`       mmsegmentation, Hugging Face `evaluate`, torchmetrics with `ignore_index=255`. As `cityscapes`, but an
              ignored class that is predicted counts in the means: its IoU and Dice are 0.
`image-mean`  The mean over images of each image's mIoU, as some model zoos publish it. The image's mIoU follows the
              card's convention, or `omz` if the card's convention is `image-mean`.

Where only void is ignored (label values that are no class, such as 255), the first three agree. A class that occurs
in neither label nor prediction is excluded from every mean. docs/metrics.md says which tool prints which number.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from segment.metrics.counts import Confusion, checked_counts
from segment.models.card import Convention

CONVENTIONS: tuple[Convention, ...] = get_args(Convention)
BOTH_LEFT_OUT = ("omz", "image-mean")  # pixels that are labelled and those that are predicted as an ignored class
_OF_COUNTS = tuple(name for name in CONVENTIONS if name != "image-mean")
FIGURES = ("miou", "frequency_weighted_iou", "mean_accuracy", "pixel_accuracy", "mean_dice", "kappa")


@dataclass(frozen=True, eq=False)
class Score:
    """Counts by class under one convention, and the scores that follow from them; several at once by leading axes.

    Shares are 0-1, and NaN where their denominator is 0: for classes that do not occur, and for ignored ones (except
    IoU and Dice by `mmseg`).

    Attributes:
        tp, fp, fn: `int64[..., C]`, or `float64` of resamples; zero for ignored classes (except `fp` by `mmseg`).

    Source: TP, FP, FN and IoU as in Everingham et al., 'The PASCAL VOC Challenge', IJCV 2010, section 4.
    """

    tp: NDArray[Any]
    fp: NDArray[Any]
    fn: NDArray[Any]

    @functools.cached_property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union (Jaccard) by class, TP / (TP + FP + FN)."""
        return ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def dice(self) -> NDArray[np.float64]:
        """Dice coefficient (F1) by class, 2 TP / (2 TP + FP + FN)."""
        return ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def precision(self) -> NDArray[np.float64]:
        """TP / (TP + FP) by class."""
        return ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> NDArray[np.float64]:
        """TP / (TP + FN) by class, also called the accuracy of a class."""
        return ratio(self.tp, self.labelled)

    @property
    def labelled(self) -> NDArray[Any]:
        """Counted pixels whose label is the class."""
        return np.asarray(self.tp + self.fn)

    @property
    def miou(self) -> float | None:
        """Mean IoU over the classes that occur; None if no class occurs. For a single score."""
        return IoU(self.iou).mean

    def figures(self, classes: Sequence[int] | None = None) -> dict[str, NDArray[np.float64]]:
        """Return the scores that are one number, by name (`FIGURES`), each `float64[...]`; NaN where undefined.

        `miou`, `mean_dice` and `mean_accuracy` (of recall) are means over classes; `frequency_weighted_iou` weights the
        IoU of a class by its labelled pixels; `pixel_accuracy` is the share of counted pixels that are right; `kappa`,
        in -1 to 1, is the agreement of label and prediction beyond chance.

        Args:
            classes: take the means over these classes only; pixel accuracy and kappa stay those of all.

        Sources: Long et al., 'Fully Convolutional Networks', CVPR 2015, section 5; Cohen, 'A Coefficient of Agreement
        for Nominal Scales', 1960.
        """
        chosen = slice(None) if classes is None else list(classes)
        iou, labelled = self.iou[..., chosen], self.labelled[..., chosen]
        pixels = self.labelled.sum(axis=-1)
        shares, predicted = (ratio(counts, pixels[..., None]) for counts in (self.labelled, self.tp + self.fp))
        right, chance = ratio(self.tp.sum(axis=-1), pixels), np.sum(shares * predicted, axis=-1)
        return {
            "miou": mean_of_defined(iou),
            "frequency_weighted_iou": ratio(np.nansum(iou * labelled, axis=-1), labelled.sum(axis=-1)),
            "mean_accuracy": mean_of_defined(self.recall[..., chosen]),
            "pixel_accuracy": right,
            "mean_dice": mean_of_defined(self.dice[..., chosen]),
            "kappa": ratio(right - chance, 1 - chance),
        }


def ratio(part: Any, whole: Any) -> NDArray[np.float64]:
    """Divide; NaN where the denominator is 0 or NaN."""
    part, whole = np.asarray(part), np.asarray(whole)
    shares: NDArray[np.float64] = np.full(np.broadcast(part, whole).shape, np.nan)
    np.divide(part, whole, out=shares, where=whole != 0)
    return shares


def defined(value: float) -> float | None:
    """Return a number, and None in place of NaN."""
    return None if math.isnan(value) else float(value)


def mean_of_defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the last axis of what is not NaN; NaN where nothing is."""
    held = ~np.isnan(values)
    return ratio(np.where(held, values, 0.0).sum(axis=-1), held.sum(axis=-1))


@functools.lru_cache(maxsize=8)
def roles(classes: int, ignore: tuple[int, ...], convention: Convention) -> NDArray[np.int16]:
    """Return for each cell of the confusion counts whose TP, FP and FN it counts: `int16[3, (C + 1) * C]`, C for none.

    Args:
        classes: C.
        ignore: indices of ignored classes.
        convention: `image-mean` counts as `omz`.
    """
    label, predicted = np.divmod(np.arange((classes + 1) * classes), classes)
    is_ignored = np.isin(np.arange(classes + 1), [*ignore, classes])  # void, too
    counted = ~is_ignored[label]
    if convention in BOTH_LEFT_OUT:
        counted &= ~is_ignored[predicted]
    right, wrong = counted & (label == predicted), counted & (label != predicted)
    extra = wrong if convention == "mmseg" else wrong & ~is_ignored[predicted]
    cells = (np.where(right, label, classes), np.where(extra, predicted, classes), np.where(wrong, label, classes))
    return np.stack(cells).astype(np.int16)


def score(confusion: Confusion, ignore: Sequence[int], convention: Convention) -> Score:
    """Compute the per-class scores of a confusion matrix.

    Args:
        confusion: counts of an image, a shard or a run.
        ignore: indices of ignored classes.
        convention: see the module. `image-mean` scores the matrix as `omz` does; the caller averages over images.
    """
    flat = confusion.counts.ravel()
    used = np.flatnonzero(flat)
    found = np.zeros((3, confusion.classes + 1), dtype=np.int64)
    for row, role in zip(found, roles(confusion.classes, tuple(ignore), convention), strict=True):
        np.add.at(row, role[used], flat[used])
    tp, fp, fn = found[:, :-1]
    return Score(tp, fp, fn)


@dataclass(frozen=True, eq=False)
class IoU:
    """Intersection over union under one convention.

    Attributes:
        per_class: `float64[C]`, 0-1; NaN for classes that do not occur and ignored ones (see `mmseg`).
    """

    per_class: NDArray[np.float64]

    @property
    def mean(self) -> float | None:
        """Mean IoU (mIoU) over the classes that occur, 0-1; None if no class occurs."""
        present = self.per_class[~np.isnan(self.per_class)]
        return float(present.mean()) if present.size else None


def iou(counts: Confusion | NDArray[Any], *, convention: Convention, ignore: Sequence[int] = ()) -> IoU:
    """Compute the IoU of each class, and their mean, from counts.

    >>> counts = Confusion.of(np.array([[0, 1], [1, 1]], np.uint8), np.array([[0, 0], [1, 255]], np.uint8), 2)
    >>> iou(counts, convention="cityscapes").per_class.tolist()
    [0.5, 0.5]
    >>> iou(counts, convention="cityscapes").mean
    0.5

    Args:
        counts: what `confusion` returns, or a sum of these; or the same as integers `[C + 1, C]`.
        convention: `cityscapes`, `mmseg` or `omz`; they differ where a pixel is predicted as an ignored class (see the
            module).
        ignore: class indices that no score counts, such as `card.classes.ignored_classes`.

    Raises:
        ValueError: another convention, an index in `ignore` that is no class, or counts of another shape or type.
    """
    if convention not in _OF_COUNTS:
        why = " (it averages the scores of images, which counts do not hold)" if convention == "image-mean" else ""
        known = " or ".join(repr(name) for name in sorted(_OF_COUNTS))
        raise ValueError(f"convention = {convention!r}: use {known}{why}")
    matrix = checked_counts(counts)
    unknown = [index for index in ignore if not 0 <= index < matrix.shape[1]]
    if unknown:
        raise ValueError(f"ignore = {list(ignore)}: {unknown[0]} is no class of {matrix.shape[1]}")
    return IoU(score(Confusion(matrix), ignore, convention).iou)


def pixel_accuracy(confusion: Confusion, ignore: Sequence[int]) -> float | None:
    """Return the share of labelled, not ignored pixels with a correct prediction, 0-1; None if there are none.

    This is every convention's but `omz`, which leaves out the pixels that are predicted as an ignored class.
    """
    matrix = confusion.counts[:-1].copy()
    matrix[list(ignore), :] = 0
    total = int(matrix.sum())
    return int(np.trace(matrix)) / total if total else None


def image_scores(
    confusion: Confusion, ignore: Sequence[int], convention: Convention
) -> tuple[float | None, float | None]:
    """Return (pixel accuracy, mIoU) of one image, 0-1; None where no pixel counts."""
    return pixel_accuracy(confusion, ignore), score(confusion, ignore, convention).miou
