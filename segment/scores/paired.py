"""The change of scores from one run to another, with intervals of the paired bootstrap.

Both runs are scored on the same images, and a resample draws the same images for both: the interval is that of the
difference, in which what makes an image hard for both cancels out. Two intervals of single runs that overlap do not
mean that the runs do not differ.

Source: Efron and Tibshirani, 'An Introduction to the Bootstrap', 1993; Koehn, 'Statistical Significance Tests for
Machine Translation Evaluation', EMNLP 2004, for pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segment.metrics.bootstrap import FEWEST, RESAMPLES, Interval, interval, resampled_sums
from segment.metrics.conventions import FIGURES, roles
from segment.metrics.regroup import Grouping
from segment.scores.image_counts import ImageCounts
from segment.scores.scored import Draws, Features, Protocol, Scored, draws_of, with_intervals_of

OF_CLASS = ("iou", "dice", "precision", "recall")


@dataclass(frozen=True, eq=False)
class Change:
    """The difference of a score, B minus A, and its interval of 95 %; NaN and None where undefined."""

    value: float
    interval: Interval | None = None


@dataclass(frozen=True, eq=False)
class PairedScores:
    """The scores of two runs on the images that are labelled in both.

    Attributes:
        images: `int64[m]`, indices of these images.
        a, b: the scores of each, with intervals of their own.
        changes: by figure (`metrics.conventions.FIGURES`).
        class_changes: by score of a class (`OF_CLASS`): a change for each class.
    """

    images: NDArray[np.intp]
    a: Scored
    b: Scored
    changes: Mapping[str, Change]
    class_changes: Mapping[str, tuple[Change, ...]]


def score_pairs(
    a: ImageCounts,
    b: ImageCounts,
    protocols: tuple[Protocol, Protocol],
    groups: NDArray[np.intp] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairedScores | None:
    """Score the same images in two runs, and the change between them; None if no image is labelled in both.

    Args:
        a, b: counts of n images each, in the same order, by the classes of the cards.
        protocols: of A and of B; classes and convention are the same after regrouping.
        groups: number of the group of each image, `int64[n]`; None resamples single images.
        resamples: number; 0 for no intervals.
        seed: of the draws.
    """
    images = np.intersect1d(_labelled(a, protocols[0].grouping), _labelled(b, protocols[1].grouping))
    if not len(images):
        return None
    if len(images) < len(a):
        a, b, groups = a.take(images), b.take(images), None if groups is None else groups[images]
    every = np.arange(len(images))
    sides = [Features(counts, protocol, groups, every) for counts, protocol in zip((a, b), protocols, strict=True)]
    points = [side.point() for side in sides]
    draws: list[Draws] = []
    if resamples and sides[0].units >= FEWEST:
        sums = resampled_sums(_beside(*sides), sides[0].units, resamples, seed)
        halves = np.split(sums, 2, axis=1)
        draws = [draws_of(*one) for one in zip(halves, points, protocols, strict=True)]
        points = [with_intervals_of(*one) for one in zip(points, draws, strict=True)]
    return PairedScores(
        images,
        points[0],
        points[1],
        {
            name: _change([one.figures[name] for one in points], [one.figures[name] for one in draws])
            for name in FIGURES
        },
        {kind: _class_changes(kind, points, draws) for kind in OF_CLASS},
    )


def _labelled(counts: ImageCounts, grouping: Grouping) -> NDArray[np.intp]:
    """Return the images with a label that is not ignored, whatever is predicted there."""
    role = roles(len(grouping.names), grouping.ignored, "cityscapes")
    return counts.regrouped(grouping).holding(np.any(role < len(grouping.names), axis=0))


def _beside(a: Features, b: Features) -> Iterator[NDArray[np.float64]]:
    """Yield the features of both runs beside each other, of the next units."""
    return (np.hstack(both) for both in zip(a, b, strict=True))


def _class_changes(kind: str, points: list[Scored], draws: list[Draws]) -> tuple[Change, ...]:
    values = zip(*(getattr(one.score, kind).tolist() for one in points), strict=True)
    drawn = [getattr(one.score, kind).T for one in draws]
    return tuple(_change(pair, [one[index] for one in drawn]) for index, pair in enumerate(values))


def _change(values: Sequence[float], draws: Sequence[NDArray[np.float64]]) -> Change:
    """Return the change from the first value to the second, given the draws of both, or none."""
    return Change(values[1] - values[0], interval(draws[1] - draws[0]) if draws else None)
