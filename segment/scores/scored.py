"""The scores of a set of images, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from segment.metrics import Confusion, Score, score
from segment.metrics.bootstrap import FEWEST, RESAMPLES, Interval, interval, resampled_sums, score_of_resamples
from segment.metrics.boundary import BoundaryScore
from segment.metrics.conventions import ratio, roles
from segment.metrics.regroup import Grouping
from segment.models.card import Convention
from segment.scores.image_counts import ImageCounts
from segment.store.names import count, shown

FEW = 30  # units below which an interval of the percentile bootstrap is noticeably too narrow,
_VERY_FEW = 10  # and below which it misses the truth in more than a tenth of the cases: of two units, in half of them
_RARE = 0.01  # share of resamples without a class from which on it is told
_TOLD = 5  # such classes that are named


@dataclass(frozen=True)
class Protocol:
    """How counts are scored.

    Attributes:
        grouping: the classes.
        convention: see `segment.metrics.conventions`.
        of_image: convention of the images' mIoU, of which `image-mean` takes the mean.
    """

    grouping: Grouping
    convention: Convention
    of_image: Convention


@dataclass(frozen=True, eq=False)
class Scored:
    """The scores of a set of images.

    Attributes:
        images: with counts, labelled or not.
        units: images that the convention counts, or groups of them, of which resamples are drawn; 0 if not known.
        confusion: summed counts, by the classes of the protocol.
        score: by class.
        figures: the scores that are one number, by name (`metrics.conventions.FIGURES`); NaN where undefined.
        intervals: of 95 %, by figure; empty where there are none.
        class_intervals: of each class's IoU.
        unlabelled: share of the resamples without a label of the class, by class: these are not in its interval.
        boundary: boundary IoU; None for a run without, or where the classes are not those of the run.
    """

    images: int
    units: int
    confusion: Confusion
    score: Score
    figures: Mapping[str, float]
    intervals: Mapping[str, Interval | None] = field(default_factory=dict)
    class_intervals: Sequence[Interval | None] = ()
    unlabelled: Sequence[float] = ()
    boundary: BoundaryScore | None = None

    @property
    def miou(self) -> float | None:
        """Mean IoU, 0-1; None if no class occurs."""
        value = self.figures["miou"]
        return None if np.isnan(value) else value

    def notes(self, names: Sequence[str], kind: str = "images") -> list[str]:
        """Return what one must know of the intervals, one line each.

        Args:
            names: of the classes.
            kind: of the units: `images` or `groups`.
        """
        units = count(self.units, kind[:-1])
        if self.units < FEWEST:
            be = "is" if self.units == 1 else "are"
            return [f"no intervals: they follow from differences between {kind}, and there {be} {units}"]
        lines = [f"95 % intervals by bootstrap of {units}"]
        if self.has_few:
            how = (
                "so few make them much too narrow"
                if self.units < _VERY_FEW
                else f"below about {FEW} they are somewhat too narrow"
            )
            lines[0] += f": {how}"
        shares = dict(zip(names, self.unlabelled, strict=False))
        rare = [name for name in sorted(shares, key=shares.__getitem__, reverse=True) if shares[name] >= _RARE]
        lines += [
            f"{shown(name)}: no label in {100 * shares[name]:.0f} % of the resamples, which leave it out"
            for name in rare[:_TOLD]
        ]
        if (others := len(rare) - _TOLD) > 0:
            lines.append(f"no label in some resamples: {count(others, 'other class', 'other classes')}")
        return lines

    @property
    def has_few(self) -> bool:
        """Whether there are so few units that the intervals are noticeably too narrow."""
        return FEWEST <= self.units < FEW


def score_total(confusion: Confusion, images: int, protocol: Protocol, image_mean: float | None) -> Scored:
    """Score summed counts, without intervals.

    Args:
        confusion: by the classes of the card.
        images: with counts.
        protocol: how.
        image_mean: mean of the images' mIoU, for the convention of this name.
    """
    total = protocol.grouping.confusion(confusion)
    found = score(total, protocol.grouping.ignored, protocol.convention)
    figures = {name: float(value) for name, value in found.figures(protocol.grouping.chosen).items()}
    if protocol.convention == "image-mean":
        figures["miou"] = np.nan if image_mean is None else image_mean
    return Scored(images, 0, total, found, figures)


def score_images(
    counts: ImageCounts,
    protocol: Protocol,
    groups: NDArray[np.intp] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Scored:
    """Score images, with intervals by the bootstrap (`segment.metrics.bootstrap`) if there are two or more units.

    Args:
        counts: by the classes of the card.
        protocol: how.
        groups: number of the group of each image, `int64[n]`; None resamples single images.
        resamples: number; 0 for no intervals.
        seed: of the draws.
    """
    features = Features(counts, protocol, groups)
    point = features.point()
    if not resamples or features.units < FEWEST:
        return point
    return with_intervals_of(
        point, draws_of(resampled_sums(features, features.units, resamples, seed), point, protocol)
    )


@dataclass(frozen=True, eq=False)
class Draws:
    """The scores of resamples: those by class, and those that are one number, `float64[resamples]` by name."""

    score: Score
    figures: Mapping[str, NDArray[np.float64]]


def draws_of(sums: NDArray[np.float64], point: Scored, protocol: Protocol) -> Draws:
    """Return the scores of resamples, given the sums of their `Features`, `float64[resamples, F]`."""
    drawn = score_of_resamples(sums[:, : 3 * len(protocol.grouping.names)], point.score)
    figures = drawn.figures(protocol.grouping.chosen)
    if protocol.convention == "image-mean":
        figures["miou"] = ratio(sums[:, -2], sums[:, -1])
    return Draws(drawn, figures)


def with_intervals_of(point: Scored, draws: Draws) -> Scored:
    """Return a score with the intervals of its resamples."""
    missing = (draws.score.labelled == 0) & (point.score.labelled > 0)
    return replace(
        point,
        intervals={name: interval(values) for name, values in draws.figures.items()},
        class_intervals=tuple(interval(values) for values in draws.score.iou.T),
        unlabelled=tuple(missing.mean(axis=0).tolist()),
    )


def image_mious(counts: ImageCounts, protocol: Protocol) -> NDArray[np.float64]:
    """Return the mIoU of each image, `float64[n]`; NaN where it is undefined. Counts are by the classes of the card."""
    features = Features(counts, protocol)
    return np.concatenate([np.empty(0), *(features.mious(some) for _, some in features.counts.blocks())])


class Features:
    """What the bootstrap sums, unit by unit: TP, FP and FN by class; for `image-mean` also the sum and number of mIoUs.

    Iterating yields `float64[m, F]` of the next units, as `metrics.bootstrap.resampled_sums` takes them.

    Args:
        counts, protocol, groups: see `score_images`.
        images: indices of the images to use; None for all that the convention counts.

    Attributes:
        counts: by the classes of the protocol.
        images: indices of the images that the convention counts, or those that are given.
        unit: the unit of each of these images, from 0.
        units: number of these images, or of their groups.
    """

    def __init__(
        self,
        counts: ImageCounts,
        protocol: Protocol,
        groups: NDArray[np.intp] | None = None,
        images: NDArray[np.intp] | None = None,
    ) -> None:
        grouping = protocol.grouping
        self.counts, self._given = counts.regrouped(grouping), counts
        self._roles = roles(len(grouping.names), grouping.ignored, protocol.convention)
        self._roles_of_image = roles(len(grouping.names), grouping.ignored, protocol.of_image)
        self._protocol = protocol
        counted = np.any(self._roles < len(grouping.names), axis=0)
        self.images = self.counts.holding(counted) if images is None else images
        self.unit = np.arange(len(self.images))
        if groups is not None:
            self.unit = np.unique(groups[self.images], return_inverse=True)[1]
        self.units = int(self.unit.max()) + 1 if len(self.unit) else 0

    def __iter__(self) -> Iterator[NDArray[np.float64]]:
        for unit, some in self.counts.chunks(self.images, self.unit):
            number = int(unit[-1]) + 1
            sums = [some.by_role(self._roles, unit, number).reshape(number, -1)]
            if self._protocol.convention == "image-mean":
                mious = self.mious(some)
                held = ~np.isnan(mious)
                sums.append(np.zeros((number, 2)))
                np.add.at(sums[1], unit, np.stack([np.where(held, mious, 0.0), held.astype(np.float64)], axis=1))
            yield np.hstack(sums)

    def point(self) -> Scored:
        """Return the score of all images, without intervals."""
        found = score_total(self._given.total(), len(self._given), self._protocol, self._image_mean())
        return replace(found, units=self.units)

    def _image_mean(self) -> float | None:
        if self._protocol.convention != "image-mean":
            return None
        mious = [self.mious(some) for _, some in self.counts.blocks()]
        scored = [value for block in mious for value in block[~np.isnan(block)].tolist()]
        return math.fsum(scored) / len(scored) if scored else None

    def mious(self, some: ImageCounts) -> NDArray[np.float64]:
        """Return the mIoU of each image, `float64[n]`, by the convention of images; NaN where it is undefined."""
        tp, fp, fn = some.by_role(self._roles_of_image).swapaxes(0, 1)
        return Score(tp, fp, fn).figures(self._protocol.grouping.chosen)["miou"]
