"""The change of scores from one run to another, with intervals of the paired bootstrap.

Both runs are scored on the same images, and a resample draws the same images for both: the interval is that of the
difference, in which what makes an image hard for both cancels out. Two intervals of single runs that overlap do not
mean that the runs do not differ.

Source: Efron and Tibshirani, 'An Introduction to the Bootstrap', 1993; Koehn, 'Statistical Significance Tests for
Machine Translation Evaluation', EMNLP 2004, for pairs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segment.metrics.bootstrap import Interval, interval
from segment.metrics.boundary import BoundaryScore, mean_boundary_iou
from segment.metrics.conventions import FIGURES, Score, roles
from segment.metrics.regroup import Grouping
from segment.scores.boundaries import BoundarySums, ImageBoundaries
from segment.scores.image_counts import ImageCounts
from segment.scores.scored import Draws, Protocol, Scored, ScoreSums, with_intervals_of

OF_CLASS = ("iou", "dice", "precision", "recall")


@dataclass(frozen=True, eq=False)
class Change:
    """The difference of a score, B minus A, and its interval of 95 %; NaN and None where undefined."""

    value: float
    interval: Interval | None = None


@dataclass(frozen=True, eq=False)
class PairedBoundaries:
    """The boundary IoU of two runs on the images that are labelled in both.

    Attributes:
        a, b: of each, with intervals of their own.
        change: of the mean.
        class_changes: of each class.
    """

    a: BoundaryScore
    b: BoundaryScore
    change: Change
    class_changes: tuple[Change, ...]


@dataclass(frozen=True, eq=False)
class PairedScores:
    """The scores of two runs on the images that are labelled in both.

    Attributes:
        images: number of these images.
        a, b: the scores of each, with intervals of their own.
        changes: by figure (`metrics.conventions.FIGURES`).
        class_changes: by score of a class (`OF_CLASS`): a change for each class.
        boundary: None where boundary counts are not compared.
    """

    images: int
    a: Scored
    b: Scored
    changes: Mapping[str, Change]
    class_changes: Mapping[str, tuple[Change, ...]]
    boundary: PairedBoundaries | None = None


class PairSums:
    """The same images in two runs as they are scored, a block at a time.

    Args:
        protocols: of A and of B; classes and convention are the same after regrouping.
        resamples: number; 0 for no intervals.
        grouped: whether units are groups of images.
        fraction: of the boundaries of both runs; None to compare none.
    """

    def __init__(
        self, protocols: tuple[Protocol, Protocol], resamples: int, *, grouped: bool, fraction: float | None = None
    ) -> None:
        self._protocols, self._chosen = protocols, protocols[0].grouping.chosen
        self._sides = [ScoreSums(protocol, resamples, grouped=grouped) for protocol in protocols]
        self._boundaries = [
            BoundarySums(len(protocol.grouping.names), fraction, self._chosen, resamples, grouped=grouped)
            for protocol in protocols
            if fraction is not None
        ]

    def add(
        self,
        a: ImageCounts,
        b: ImageCounts,
        units: NDArray[np.uint64],
        draws: NDArray[np.float64] | None,
        boundaries: tuple[ImageBoundaries, ...] = (),
    ) -> None:
        """Add the images that are labelled in both runs.

        Args:
            a, b: counts of n images each, in the same order, by the classes of the cards.
            boundaries: of A and of B, by the classes of the cards; none where they are not compared.
        """
        labelled = [
            _is_labelled(counts, protocol.grouping) for counts, protocol in zip((a, b), self._protocols, strict=True)
        ]
        images = np.flatnonzero(labelled[0] & labelled[1])
        some = None if draws is None else draws[images]
        for side, counts in zip(self._sides, (a, b), strict=True):
            side.add(counts.take(images), units[images], some, np.full(len(images), True))
        if self._boundaries:
            for sums, held, protocol in zip(self._boundaries, boundaries, self._protocols, strict=True):
                sums.add(held.take(images).regrouped(protocol.grouping), units[images], some)

    def result(self) -> PairedScores | None:
        """Return the scores of both, and the change between them; None if no image is labelled in both."""
        images = self._sides[0].images
        if not images:
            return None
        points = [side.point() for side in self._sides]
        draws = [found for side, point in zip(self._sides, points, strict=True) if (found := side.draws(point))]
        if draws:
            points = [with_intervals_of(*one) for one in zip(points, draws, strict=True)]
        return PairedScores(
            images,
            points[0],
            points[1],
            {
                name: _change([one.figures[name] for one in points], [one.figures[name] for one in draws])
                for name in FIGURES
            },
            {kind: _class_changes(kind, [one.score for one in points], draws) for kind in OF_CLASS},
            self._boundary() if self._boundaries else None,
        )

    def _boundary(self) -> PairedBoundaries:
        a, b = (sums.scored() for sums in self._boundaries)
        draws = [found for sums in self._boundaries if (found := sums.draws()) is not None]
        means = [float(mean_boundary_iou(one.score, self._chosen)) for one in (a, b)]
        scores = a.score, b.score
        return PairedBoundaries(
            a,
            b,
            _change(means, [one.figures["mean"] for one in draws]),
            _class_changes("iou", scores, draws),
        )


def _is_labelled(counts: ImageCounts, grouping: Grouping) -> NDArray[np.bool_]:
    """Return whether each image has a label that is not ignored, whatever is predicted there."""
    role = roles(len(grouping.names), grouping.ignored, "cityscapes")
    return counts.regrouped(grouping).pixels_in(np.any(role < len(grouping.names), axis=0)) > 0


def _class_changes(kind: str, points: Sequence[Score], draws: Sequence[Draws]) -> tuple[Change, ...]:
    """Return the change of a score of each class; no interval where a run has none."""
    values = zip(*(getattr(one, kind).tolist() for one in points), strict=True)
    drawn = [getattr(one.score, kind).T for one in draws]
    return tuple(
        _change(pair, [one[index] for one in drawn] if all(one.varied[index] for one in draws) else [])
        for index, pair in enumerate(values)
    )


def _change(values: Sequence[float], draws: Sequence[NDArray[np.float64]]) -> Change:
    """Return the change from the first value to the second, given the draws of both, or none."""
    return Change(values[1] - values[0], interval(draws[1] - draws[0]) if draws else None)
