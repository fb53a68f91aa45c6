"""Scores of a reading on a few images, with their noise."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segment.metrics.conventions import roles
from segment.models.card import ModelCard

FEWEST_IMAGES = 4  # fewer have no spread to speak of
LEAST_DIFFERENCE = 0.02  # a wrong setting costs more; less, as by a slight change of the aspect ratio, is tuning
LEAST_EXCESS = 0.05  # a right reading is further above chance; among many wrong ones some are above it by accident
_RESAMPLES = 1000
_DEVIATIONS = 2.0  # a 95 % interval


@dataclass(frozen=True, eq=False)
class Evidence:
    """Pixels of each image and class, as far as a metric counts them.

    Attributes:
        correct: `float64[N, C]`, label and prediction are the class.
        labelled: `float64[N, C]`, the label is.
        predicted: `float64[N, C]`, the prediction is, and the label is a class.
    """

    correct: NDArray[np.float64]
    labelled: NDArray[np.float64]
    predicted: NDArray[np.float64]

    @staticmethod
    def of(counts: NDArray[np.int64], card: ModelCard) -> Evidence:
        """Return what a card's metric counts, by its convention (`omz` for `image-mean`): see `conventions.roles`.

        Args:
            counts: `int64[N, C, C + 1]`, pixels of N images by label and prediction; the last column counts those
                without a usable prediction, which are errors.
            card: names the ignored classes and the convention.
        """
        images, classes = counts.shape[:2]
        ignored = card.classes.ignored_classes
        cells = counts[:, :, :classes].reshape(images, -1)
        found = np.zeros((3, images, classes + 1))
        for sums, role in zip(found, roles(classes, ignored, card.metric.convention), strict=True):
            np.add.at(sums.T, role[: cells.shape[1]], cells.T)  # the rest is the row of void
        tp, fp, fn = found[:, :, :-1]
        fn += np.where(np.isin(np.arange(classes), ignored), 0, counts[:, :, classes])
        return Evidence(tp, tp + fn, tp + fp)

    def miou(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mIoU, 0-1, of each weighting of the images: `float64[B]` for `[B, N]`; 0 where no pixel counts."""
        return _mean_iou(weights @ self.correct, weights @ self.labelled, weights @ self.predicted)

    def chance(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mIoU, as `miou`, of predictions that are as frequent and have nothing to do with the labels."""
        labelled, predicted = weights @ self.labelled, weights @ self.predicted
        total = np.maximum(labelled.sum(axis=1, keepdims=True), 1)
        return _mean_iou(labelled * predicted / total, labelled, predicted)

    def by_image(self) -> NDArray[np.float64]:
        """Return the mean IoU of each image over the classes that its label shows: `float64[N]`, 0-1."""
        shown = self.labelled > 0
        union = self.labelled + self.predicted - self.correct
        iou = np.divide(self.correct, union, out=np.zeros_like(union), where=shown)
        return np.asarray(iou.sum(axis=1) / np.maximum(shown.sum(axis=1), 1))

    def __len__(self) -> int:
        return len(self.correct)

    def first(self, images: int) -> Evidence:
        """Return the evidence of the first images."""
        return Evidence(self.correct[:images], self.labelled[:images], self.predicted[:images])

    def __add__(self, more: Evidence) -> Evidence:
        pairs = ((self.correct, more.correct), (self.labelled, more.labelled), (self.predicted, more.predicted))
        return Evidence(*(np.concatenate(pair) for pair in pairs))


def _mean_iou(
    correct: NDArray[np.float64], labelled: NDArray[np.float64], predicted: NDArray[np.float64]
) -> NDArray[np.float64]:
    union = labelled + predicted - correct
    occurs = union > 0
    iou = np.divide(correct, union, out=np.zeros_like(union), where=occurs)
    return np.asarray(iou.sum(axis=1) / np.maximum(occurs.sum(axis=1), 1))


@dataclass(frozen=True)
class Difference:
    """How much one score exceeds another, and the noise of that; both 0-1."""

    value: float
    noise: float

    @property
    def matters(self) -> bool:
        """Whether it is beyond the noise, and large enough for a wrong setting."""
        return self.value > max(self.noise, LEAST_DIFFERENCE)

    @property
    def is_clear(self) -> bool:
        """Whether it is so far beyond the noise that neither chance nor the number of readings makes it."""
        return self.matters and self.value > 2 * self.noise

    @property
    def may_matter(self) -> bool:
        """Whether more images may show that it matters."""
        return self.value + self.noise > LEAST_DIFFERENCE

    def __abs__(self) -> Difference:
        return Difference(abs(self.value), self.noise)

    def __str__(self) -> str:
        return f"{100 * self.value:+.1f} ± {100 * self.noise:.1f}"


@dataclass(frozen=True)
class Comparison:
    """How much better one reading is than another on the same images.

    Attributes:
        miou: by mIoU over all pixels.
        by_image: by the mean over images of each image's mean IoU; it varies less where classes are rare.
    """

    miou: Difference
    by_image: Difference

    @property
    def is_better(self) -> bool:
        """Whether the one reading is better beyond the noise: by one measure, and not worse by the other."""
        return (self.miou.matters and self.by_image.value > 0) or (self.by_image.matters and self.miou.value > 0)

    @property
    def contradicts(self) -> bool:
        """Whether either reading is better beyond the noise by one measure, and worse by the other."""
        is_beyond = any(abs(each).matters for each in (self.miou, self.by_image))
        return is_beyond and self.miou.value * self.by_image.value < 0

    @property
    def is_open(self) -> bool:
        """Whether more images may show that it is better."""
        return self.miou.may_matter or self.by_image.may_matter


def compare(one: Evidence, other: Evidence) -> Comparison:
    """Compare two readings on the images that both have seen, the first of each."""
    images = min(len(one), len(other))
    one, other, weights = one.first(images), other.first(images), resamples(images)
    rows = (one.by_image() - other.by_image()) @ weights.T / images
    return Comparison(_difference(one.miou(weights) - other.miou(weights), images), _difference(rows, images))


def excess_over_chance(evidence: Evidence) -> Difference:
    """Return how much better a reading is than one that has nothing to do with the labels, by mIoU."""
    weights = resamples(len(evidence))
    return _difference(evidence.miou(weights) - evidence.chance(weights), len(evidence))


@functools.cache
def resamples(images: int) -> NDArray[np.float64]:
    """Return weightings of images, `float64[B, N]`: all of them once, then bootstrap resamples, the same every time.

    Every reading gets the same ones, so that differences are paired.

    Source: Efron and Tibshirani, 'An Introduction to the Bootstrap', 1993, chapter 6.
    """
    drawn = np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), size=_RESAMPLES)
    return np.concatenate([np.ones((1, images)), drawn.astype(np.float64)])


def _difference(values: NDArray[np.float64], images: int) -> Difference:
    """Return the difference of each of `resamples`, the first being that of the images, as one with its noise.

    The noise is two standard deviations. A resample's deviation is too small by the factor under the root.
    """
    deviation = float(values[1:].std()) * math.sqrt(images / (images - 1))
    return Difference(float(values[0]), _DEVIATIONS * deviation)
