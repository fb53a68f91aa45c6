"""The scores of a set of images, with their intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from segment.metrics import Confusion, Score, score
from segment.metrics.bootstrap import FEWEST, Interval, interval, score_of_resamples
from segment.metrics.boundary import BoundaryScore
from segment.metrics.conventions import defined, ratio, roles
from segment.metrics.regroup import Grouping
from segment.models.card import Convention
from segment.scores.image_counts import ImageCounts
from segment.store.names import count, listed, shown

FEW = 30  # units below which an interval of the percentile bootstrap is noticeably too narrow,
_VERY_FEW = 10  # and below which it misses the truth in more than a tenth of the cases: of two units, in half of them
_RARE = 0.01  # share of resamples without a class from which on it is told
_TOLD = 5  # such classes that are named
_MERGED = 4096  # units that are merged into those known at a time, at least


@dataclass(frozen=True)
class Protocol:
    """How counts are scored.

    Attributes:
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
        class_intervals: of each class's IoU; None for a class without a label, or with labels in one unit alone.
        unlabelled: share of the resamples without a label of the class, by class: these are not in its interval. Of a
            few units some resamples draw none: these are in no interval, and not counted here.
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
        return defined(self.figures["miou"])

    def notes(self, names: Sequence[str], kind: str = "images") -> list[str]:
        """Return what one must know of the intervals, one line each.

        Args:
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
        alone = [
            name
            for name, bounds, labelled in zip(names, self.class_intervals, self.score.labelled, strict=False)
            if bounds is None and labelled
        ]
        if alone:
            lines.append(f"labelled in one {kind[:-1]} alone, and so without an interval: {listed(alone, _TOLD)}")
        rare = [name for name in sorted(shares, key=shares.__getitem__, reverse=True) if shares[name] >= _RARE]
        if rare:
            told = ", ".join(f"{shown(name)} ({100 * shares[name]:.0f} %)" for name in rare[:_TOLD])
            more = f" and {count(len(rare) - _TOLD, 'other')}" if len(rare) > _TOLD else ""
            what = "classes without a label in some resamples, which leave them out, also of means"
            lines.append(f"{what}: {told}{more}")
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


@dataclass(frozen=True, eq=False)
class Draws:
    """The scores of resamples: those by class, and those that are one number, `float64[resamples]` by name.

    `varied` says of each class whether several units have labels of it, so that there is an interval.
    """

    score: Score
    figures: Mapping[str, NDArray[np.float64]]
    varied: NDArray[np.bool_]


def with_intervals_of(point: Scored, draws: Draws) -> Scored:
    """Return a score with the intervals of its resamples."""
    labelled = draws.score.labelled
    held = labelled.any(axis=1)
    missing = (labelled[held] == 0) & (point.score.labelled > 0)
    return replace(
        point,
        intervals={name: interval(values) for name, values in draws.figures.items()},
        class_intervals=intervals_of(draws.score.iou, draws.varied),
        unlabelled=tuple(missing.mean(axis=0).tolist()) if held.any() else (),
    )


def intervals_of(draws: NDArray[np.float64], varied: NDArray[np.bool_]) -> tuple[Interval | None, ...]:
    """Return the interval of each class, given draws `float64[resamples, C]`; None where units do not vary."""
    return tuple(interval(values) if varies else None for values, varies in zip(draws.T, varied, strict=True))


def image_mious(counts: ImageCounts, protocol: Protocol) -> NDArray[np.float64]:
    """Return the mIoU of each image, `float64[n]`; NaN where it is undefined. Counts are by the classes of the card."""
    grouping = protocol.grouping
    by_image = roles(len(grouping.names), grouping.ignored, protocol.of_image)
    tp, fp, fn = counts.regrouped(grouping).by_role(by_image).swapaxes(0, 1)
    return Score(tp, fp, fn).figures(grouping.chosen)["miou"]


class UnitCount:
    """The number of different units, which are added a block at a time.

    Args:
        repeated: whether a unit may come several times (groups), so that 8 bytes of each are kept.
    """

    def __init__(self, *, repeated: bool) -> None:
        self._repeated = repeated
        self._known = np.empty(0, np.uint64)
        self._new: list[NDArray[np.uint64]] = []
        self._waiting = 0

    def add(self, units: NDArray[np.uint64]) -> None:
        """Count units; within a call they may repeat if they may at all."""
        if not self._repeated:
            self._waiting += len(units)
            return
        self._new.append(np.unique(units))
        self._waiting += len(self._new[-1])
        if self._waiting > max(len(self._known), _MERGED):  # so that merging costs little
            self._merge()

    def _merge(self) -> None:
        self._known = np.unique(np.concatenate([self._known, *self._new]))
        self._new, self._waiting = [], 0

    def __int__(self) -> int:
        if not self._repeated:
            return self._waiting
        self._merge()
        return len(self._known)


class ClassUnits:
    """Whether a class has labels in several units, which are added a block at a time.

    With those of one alone, resamples would vary what is predicted elsewhere, and not how well the class is found.

    Attributes:
        several: `bool[C]`.
    """

    def __init__(self, classes: int) -> None:
        self.several = np.zeros(classes, np.bool_)
        self._first, self._is_known = np.zeros(classes, np.uint64), np.zeros(classes, np.bool_)

    def add(self, units: NDArray[np.uint64], by_role: NDArray[np.float64]) -> None:
        """Add the units of n images, and their TP, FP and FN by class, `float64[n, 3, C]`."""
        if not len(units):
            return
        labelled = by_role[:, [0, 2]].any(axis=1)
        self._first = np.where(self._is_known, self._first, units[labelled.argmax(axis=0)])
        self._is_known |= labelled.any(axis=0)
        self.several |= (labelled & (units[:, None] != self._first)).any(axis=0)


class ScoreSums:
    """A set of images as it is scored: what is summed over them, a block at a time.

    The bootstrap sums TP, FP and FN by class; for `image-mean` also the sum and the number of mIoUs.

    Args:
        protocol: how the images are scored.
        resamples: number; 0 for no intervals.
        grouped: whether units are groups of images.

    Attributes:
        total: summed counts, by the classes of the card.
    """

    def __init__(self, protocol: Protocol, resamples: int, *, grouped: bool) -> None:
        grouping = protocol.grouping
        self._protocol = protocol
        self._roles = roles(len(grouping.names), grouping.ignored, protocol.convention)
        self._units, self._class_units = UnitCount(repeated=grouped), ClassUnits(len(grouping.names))
        self._sums = np.zeros((resamples, 3 * len(grouping.names) + 2 * self._is_mean)) if resamples else None
        self._mious, self._scored = 0.0, 0
        self.total = Confusion.zeros(len(grouping.of_class))
        self.images = 0

    @property
    def _is_mean(self) -> bool:
        return self._protocol.convention == "image-mean"

    def add(
        self,
        counts: ImageCounts,
        units: NDArray[np.uint64],
        draws: NDArray[np.float64] | None,
        counted: NDArray[np.bool_] | None = None,
    ) -> None:
        """Add images.

        Args:
            counts: by the classes of the card.
            units: the unit of each image.
            draws: how often each resample draws it, `float64[n, resamples]` (`Bootstrap.draws`); None without them.
            counted: `bool[n]`, the images that count as units; None for those that the convention counts.
        """
        self.images += len(counts)
        self.total += counts.total()
        by_role = counts.regrouped(self._protocol.grouping).by_role(self._roles)
        self._units.add(units[by_role.any(axis=(1, 2)) if counted is None else counted])
        self._class_units.add(units, by_role)
        features = [by_role.reshape(len(counts), 3 * len(self._protocol.grouping.names))]
        if self._is_mean:
            mious = image_mious(counts, self._protocol)
            held = ~np.isnan(mious)
            features.append(np.stack([np.where(held, mious, 0.0), held], axis=1))
            self._mious += math.fsum(features[1][:, 0])
            self._scored += int(held.sum())
        if self._sums is not None and draws is not None:
            self._sums += draws.T @ np.hstack(features)

    def point(self) -> Scored:
        """Return the score of all images, without intervals."""
        mean = self._mious / self._scored if self._scored else None
        found = score_total(self.total, self.images, self._protocol, mean if self._is_mean else None)
        return replace(found, units=int(self._units))

    def draws(self, point: Scored) -> Draws | None:
        """Return the scores of the resamples; None without them, or with too few units."""
        if self._sums is None or point.units < FEWEST:
            return None
        drawn = score_of_resamples(self._sums[:, : 3 * len(self._protocol.grouping.names)], point.score)
        figures = drawn.figures(self._protocol.grouping.chosen)
        if self._is_mean:
            figures["miou"] = ratio(self._sums[:, -2], self._sums[:, -1])
        return Draws(drawn, figures, self._class_units.several)

    def scored(self) -> Scored:
        """Return the score of all images, with intervals if there are resamples and two or more units."""
        point = self.point()
        draws = self.draws(point)
        return point if draws is None else with_intervals_of(point, draws)
