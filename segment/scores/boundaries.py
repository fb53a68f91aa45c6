"""The boundary counts of single images, and boundary IoU of sets of images, with intervals."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from segment.metrics import BoundaryCounts
from segment.metrics.bootstrap import FEWEST, bounds_of, interval, score_of_resamples
from segment.metrics.boundary import BoundaryScore, mean_boundary_iou
from segment.metrics.conventions import defined
from segment.metrics.regroup import Grouping
from segment.models.card import ModelCard
from segment.models.classes import Classes
from segment.output.ledger import Ledger
from segment.output.part_rows import numbers_of, part_tables
from segment.output.plan import Plan
from segment.output.readable_rows import check_indices, column_of
from segment.scores.image_counts import taken
from segment.scores.scored import ClassUnits, Draws, UnitCount, intervals_of

REFUSED = (
    "no boundary IoU: boundaries were counted for the run's own classes and ignored classes, from which those of "
    "others do not follow; they need another run"
)


@dataclass(frozen=True, eq=False)
class ImageBoundaries:
    """The boundary counts of n images of C classes, of which those without a label have none.

    Attributes:
        fraction: of the diagonal.
        offsets: `int64[n + 1]`: the values of image i are `offsets[i]:offsets[i + 1]`.
        class_ids: `uint8[m]`.
        counts: `int64[3, m]`: the rows of `BoundaryCounts.counts`.
    """

    classes: int
    fraction: float
    offsets: NDArray[np.int64]
    class_ids: NDArray[np.uint8]
    counts: NDArray[np.int64]

    def take(self, images: NDArray[np.intp]) -> Self:
        """Return the counts of these images, in this order."""
        offsets, chosen = taken(self.offsets, images)
        return replace(self, offsets=offsets, class_ids=self.class_ids[chosen], counts=self.counts[:, chosen])

    def regrouped(self, grouping: Grouping) -> Self:
        """Return the counts by other classes, which must keep those of the card apart (`keeps_classes`)."""
        of_class = np.array(grouping.of_class, np.uint8)
        return replace(self, classes=len(grouping.names), class_ids=of_class[self.class_ids])

    def total(self) -> BoundaryCounts:
        """Return the sum over all images."""
        sums = np.zeros((3, self.classes), np.int64)
        for row, counts in zip(sums, self.counts, strict=True):
            np.add.at(row, self.class_ids, counts)
        return BoundaryCounts(sums)

    def by_role(self) -> NDArray[np.float64]:
        """Return TP, FP and FN by class of each image, `float64[n, 3, C]`; whole numbers, exact below 2^53."""
        images = len(self.offsets) - 1
        owner = np.repeat(np.arange(images) * self.classes, np.diff(self.offsets)) + self.class_ids
        size = images * self.classes
        sums = [np.bincount(owner, weights=row, minlength=size).reshape(images, self.classes) for row in self.counts]
        both, label, predicted = sums
        return np.stack([both, predicted - both, label - both], axis=1)


def fraction_of(run: Mapping[str, Any]) -> float | None:
    """Return the fraction of the diagonal of a run's boundaries, given its `run.json`; None for a run without."""
    fraction: float | None = run["contract"].get("boundary")
    return fraction


@dataclass(frozen=True)
class CommonBoundary:
    """Whether the boundary counts of two runs can be compared.

    Attributes:
        fraction: of the diagonal, of both; None where they are not compared.
        note: why they are not, or how they are; empty where neither run has any.
    """

    fraction: float | None = None
    note: str = ""


def common_boundary(fractions: Sequence[float | None], letters: Sequence[str], keep_classes: bool) -> CommonBoundary:
    """Return whether boundary counts can be compared.

    Args:
        fractions: of the diagonal, of A and of B; None for a run without.
        letters: the names of both runs.
        keep_classes: whether the classes that are compared are those of both runs (`keeps_classes`).
    """
    a, b = fractions
    if a is None and b is None:
        return CommonBoundary()
    if a is None or b is None:
        has, lacks = letters if b is None else reversed(letters)
        how = f"{lacks} has no boundary counts, as {has} has (segment run --boundary {a or b:g})"
        return CommonBoundary(note=f"boundary IoU is not compared: {how}")
    if a != b:
        how = f"{letters[0]} counts it within {100 * a:g} % of the diagonal, {letters[1]} within {100 * b:g} %"
        return CommonBoundary(note=f"boundary IoU is not compared: {how}")
    if not keep_classes:
        return CommonBoundary(note=REFUSED)
    return CommonBoundary(a, f"boundary IoU: d = {100 * a:g} % of the diagonal")


def keeps_classes(grouping: Grouping, classes: Classes) -> bool:
    """Return whether other classes are those of a card, maybe in another order, and ignored ones are the same.

    The boundary counts by the classes of the card are then those by the other classes.
    """
    of_class = grouping.of_class
    ignored = {of_class[index] for index in classes.ignored_classes}
    return len(set(of_class)) == len(of_class) and ignored == set(grouping.ignored) & set(of_class)


def joined_boundaries(blocks: Sequence[ImageBoundaries]) -> ImageBoundaries:
    """Return the counts of the images of one or more blocks, in order."""
    return replace(
        blocks[0],
        offsets=np.append(0, np.cumsum(np.concatenate([np.diff(block.offsets) for block in blocks]))),
        class_ids=np.concatenate([block.class_ids for block in blocks]),
        counts=np.concatenate([block.counts for block in blocks], axis=1),
    )


def boundaries_of_rows(classes: int, fraction: float, rows: pa.Table) -> ImageBoundaries:
    """Return the boundary counts of rows of a masks file; an image without a label has none.

    Raises SegmentError: they are not there, or a class is none of so many.
    """
    stored = column_of(rows, "boundary").combine_chunks()
    lists = [stored.field(index) for index in range(stored.type.num_fields)]
    class_ids, *counts = [np.asarray(values.flatten()) for values in lists]
    lengths = np.asarray(pc.fill_null(pc.list_value_length(lists[0]), 0)).astype(np.int64)
    offsets = np.append(0, np.cumsum(lengths))
    check_indices(class_ids, classes, "a class of a boundary")
    return ImageBoundaries(classes, fraction, offsets, class_ids.astype(np.uint8), np.stack(counts).astype(np.int64))


def read_boundary_score(
    ledger: Ledger, plan: Plan, run: Mapping[str, Any], card: ModelCard, parts: Collection[str]
) -> BoundaryScore | None:
    """Return the boundary IoU of committed parts, without intervals; None for a run without boundaries."""
    fraction = fraction_of(run)
    if fraction is None:
        return None
    sums = BoundarySums(len(card.classes), fraction)
    for _, table in part_tables(ledger, plan, numbers_of(plan, parts), ["status", "boundary"]):
        rows = table.filter(pc.equal(table["status"], "ok"))
        sums.add(boundaries_of_rows(len(card.classes), fraction, rows))
    return sums.scored()


class BoundarySums:
    """The boundary counts of a set of images, a block at a time; of the same draws as those of `ScoreSums`.

    Args:
        fraction: of the diagonal.
        chosen: classes over which the mean is taken; None for all.
        resamples: number; 0 for no intervals.
        grouped: whether units are groups of images.
    """

    def __init__(
        self, classes: int, fraction: float, chosen: Sequence[int] | None = None, resamples: int = 0, *,
        grouped: bool = False,
    ) -> None:  # fmt: skip
        self._fraction, self._chosen = fraction, chosen
        self._total = BoundaryCounts.zeros(classes)
        self._units, self._class_units = UnitCount(repeated=grouped), ClassUnits(classes)
        self._sums = np.zeros((resamples, 3 * classes))

    def add(
        self,
        boundaries: ImageBoundaries,
        units: NDArray[np.uint64] | None = None,
        draws: NDArray[np.float64] | None = None,
    ) -> None:
        """Add images; see `ScoreSums.add`. Without resamples units are not needed."""
        self._total += boundaries.total()
        if units is not None and draws is not None:
            self._units.add(units[np.diff(boundaries.offsets) > 0])
            by_role = boundaries.by_role()
            self._class_units.add(units, by_role)
            self._sums += draws.T @ by_role.reshape(len(draws), 3 * boundaries.classes)

    def draws(self) -> Draws | None:
        """Return the scores of the resamples; None without them, or with too few units."""
        if int(self._units) < FEWEST:
            return None
        point = self._total.score
        drawn = score_of_resamples(self._sums, point)
        return Draws(drawn, {"mean": mean_boundary_iou(drawn, self._chosen)}, self._class_units.several)

    def scored(self) -> BoundaryScore:
        """Return the boundary IoU, with intervals if there are resamples and two or more units."""
        point = BoundaryScore(self._fraction, self._total.score, self._chosen)
        drawn = self.draws()
        if drawn is None:
            return point
        return replace(
            point,
            interval=interval(drawn.figures["mean"]),
            class_intervals=intervals_of(drawn.score.iou, drawn.varied),
        )


def boundary_json(boundary: BoundaryScore, names: Sequence[str]) -> dict[str, Any]:
    """Return boundary IoU as plain JSON: shares 0-1, undefined ones None; pixels of the boundary regions."""
    score = boundary.score
    return {
        "fraction": boundary.fraction,
        "mean": boundary.mean,
        "interval": bounds_of(boundary.interval),
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
    bounds = boundary.class_intervals[index] if boundary.class_intervals else None
    return {
        "boundary_iou": defined(boundary.score.iou[index]),
        "boundary_iou_low": bounds.low if bounds else None,
        "boundary_iou_high": bounds.high if bounds else None,
    }
