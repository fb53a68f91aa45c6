"""The boundary counts of each image of a run, read from its masks files, and boundary IoU with intervals."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from segment.metrics import BoundaryCounts
from segment.metrics.bootstrap import FEWEST, RESAMPLES, interval, resampled_sums, score_of_resamples
from segment.metrics.boundary import BoundaryScore, mean_boundary_iou
from segment.models.card import ModelCard
from segment.output.ledger import Ledger
from segment.output.part_rows import numbers_of, part_tables
from segment.output.plan import Plan
from segment.scores.image_counts import ImageCounts, compact, taken, unit_chunks
from segment.scores.scored import Features, Protocol

REFUSED = (
    "no boundary IoU: boundaries were counted for the run's own classes and ignored classes, from which those of "
    "others do not follow; they need another run"
)


@dataclass(frozen=True, eq=False)
class ImageBoundaries:
    """The boundary counts of n images of C classes: 13 bytes for each class of an image that has a boundary.

    Attributes:
        classes: C.
        fraction: of the diagonal.
        offsets: `int64[n + 1]`: the values of image i are `offsets[i]:offsets[i + 1]`.
        class_ids: `uint8[m]`.
        counts: `uint32[3, m]`, or `int64`: the rows of `BoundaryCounts.counts`.
    """

    classes: int
    fraction: float
    offsets: NDArray[np.int64]
    class_ids: NDArray[np.uint8]
    counts: NDArray[np.integer]

    def take(self, images: NDArray[np.intp]) -> ImageBoundaries:
        """Return the counts of these images, in this order."""
        offsets, chosen = taken(self.offsets, images)
        return replace(self, offsets=offsets, class_ids=self.class_ids[chosen], counts=self.counts[:, chosen])

    def total(self) -> BoundaryCounts:
        """Return the sum over all images."""
        sums = np.zeros((3, self.classes), np.int64)
        for row, counts in zip(sums, self.counts, strict=True):
            np.add.at(row, self.class_ids, counts)
        return BoundaryCounts(sums)

    def by_role(self, units: NDArray[np.intp], number: int) -> NDArray[np.float64]:
        """Return TP, FP and FN by class of each unit, `float64[number, 3, C]`; whole numbers, exact below 2^53.

        Args:
            units: the unit of each image.
            number: of units.
        """
        owner = np.repeat(units * self.classes, np.diff(self.offsets)) + self.class_ids
        size = number * self.classes
        sums = [np.bincount(owner, weights=row, minlength=size).reshape(number, -1) for row in self.counts]
        both, label, predicted = sums
        return np.stack([both, predicted - both, label - both], axis=1)


def fraction_of(run: Mapping[str, Any]) -> float | None:
    """Return the fraction of the diagonal of a run's boundaries, given its `run.json`; None for a run without."""
    fraction: float | None = run["contract"].get("boundary")
    return fraction


def read_image_boundaries(
    ledger: Ledger, plan: Plan, parts: Collection[str], classes: int, fraction: float
) -> ImageBoundaries:
    """Read the boundary counts of the images that `read_image_counts` reads, in the same order.

    Raises:
        SegmentError: a masks file is damaged or lost.
    """
    lengths, ids = [np.empty(0, np.int64)], [np.empty(0, np.uint8)]
    counts: list[NDArray[np.integer]] = [np.empty((3, 0), np.uint32)]
    for length, class_ids, found in _stored(ledger, plan, parts):
        lengths.append(length)
        ids.append(class_ids)
        counts.append(compact(found))
    offsets = np.append(0, np.cumsum(np.concatenate(lengths)))
    return ImageBoundaries(classes, fraction, offsets, np.concatenate(ids), np.concatenate(counts, axis=1))


def read_boundary_score(
    ledger: Ledger, plan: Plan, run: Mapping[str, Any], card: ModelCard, parts: Collection[str]
) -> BoundaryScore | None:
    """Return the boundary IoU of committed parts, without intervals; None for a run without boundaries."""
    fraction = fraction_of(run)
    if fraction is None:
        return None
    total = BoundaryCounts.zeros(len(card.classes))
    for length, class_ids, counts in _stored(ledger, plan, parts):
        offsets = np.append(0, np.cumsum(length))
        total += ImageBoundaries(len(card.classes), fraction, offsets, class_ids, counts).total()
    return BoundaryScore(fraction, total.score)


def _stored(
    ledger: Ledger, plan: Plan, parts: Collection[str]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]]:
    """Yield, part by part, the number of classes of each image, these classes, and their counts, `int64[3, m]`."""
    for _, table in part_tables(ledger, plan, numbers_of(plan, parts), ["status", "boundary"]):
        stored = table.filter(pc.equal(table["status"], "ok"))["boundary"].combine_chunks()
        lists = [stored.field(index) for index in range(stored.type.num_fields)]
        class_ids, *counts = [np.asarray(values.flatten()) for values in lists]
        lengths = pc.fill_null(pc.list_value_length(lists[0]), 0)
        yield np.asarray(lengths).astype(np.int64), class_ids.astype(np.uint8), np.stack(counts).astype(np.int64)


def score_boundaries(
    boundaries: ImageBoundaries,
    counts: ImageCounts,
    protocol: Protocol,
    groups: NDArray[np.intp] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> BoundaryScore:
    """Score images; intervals as in `score_images`, of the same draws.

    The units are the images with a labelled pixel that is not ignored, as `cityscapes` counts them.

    Args:
        boundaries: of the images.
        counts, protocol, groups, resamples, seed: see `score_images`; the classes must be those of the card.
    """
    features = Features(counts, replace(protocol, convention="cityscapes"), groups)
    chosen = protocol.grouping.chosen
    point = BoundaryScore(boundaries.fraction, boundaries.total().score, chosen)
    if not resamples or features.units < FEWEST:
        return point

    def sums_of_units() -> Iterator[NDArray[np.float64]]:
        for unit, images in unit_chunks(features.images, features.unit):
            number = int(unit[-1]) + 1
            yield boundaries.take(images).by_role(unit, number).reshape(number, -1)

    drawn = score_of_resamples(resampled_sums(sums_of_units(), features.units, resamples, seed), point.score)
    return replace(
        point,
        interval=interval(mean_boundary_iou(drawn, chosen)),
        class_intervals=tuple(interval(draws) for draws in drawn.iou.T),
    )


def boundary_json(boundary: BoundaryScore, names: Sequence[str]) -> dict[str, Any]:
    """Return boundary IoU as plain JSON: shares 0-1, undefined ones None; pixels of the boundary regions."""
    score, interval = boundary.score, boundary.interval
    return {
        "fraction": boundary.fraction,
        "mean": boundary.mean,
        "interval": [interval.low, interval.high] if interval else None,
        "classes": [
            {
                "class": name,
                **boundary_of_class(boundary, index),
                "both_pixels": int(score.tp[index]),
                "label_pixels": int(score.labelled[index]),
                "predicted_pixels": int(score.tp[index] + score.fp[index]),
            }
            for index, name in enumerate(names)
        ],
    }


def boundary_of_class(boundary: BoundaryScore, index: int) -> dict[str, float | None]:
    """Return boundary IoU and its interval by name, 0-1; None where undefined."""
    iou = float(boundary.score.iou[index])
    bounds = boundary.class_intervals[index] if boundary.class_intervals else None
    return {
        "boundary_iou": None if math.isnan(iou) else iou,
        "boundary_iou_low": bounds.low if bounds else None,
        "boundary_iou_high": bounds.high if bounds else None,
    }
