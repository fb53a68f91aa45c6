"""The report of a run: its figures, computed from the statistics of the committed parts."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from segment.inputs.discovery import Unindexed
from segment.inputs.findings import LeftOut, by_reason, choice_in_words
from segment.metrics import CONVENTIONS, Score, pixel_accuracy, score
from segment.metrics.bootstrap import LEVEL, bounds_of
from segment.metrics.boundary import BoundaryScore
from segment.metrics.conventions import defined
from segment.models.card import Convention, ModelCard
from segment.output.error_rate import too_many_errors
from segment.output.ledger import Ledger
from segment.output.plan import Plan
from segment.output.run_folder import to_json
from segment.output.shard_stats import ShardStats, StatsSum, merge
from segment.output.tables import to_parquet
from segment.report.certain_images import Certainty, read_certainty
from segment.report.error_examples import ErrorExample, read_error_examples
from segment.report.label_checks import holds_labels, label_warnings
from segment.report.published import Comparison, compare_with_published
from segment.scores.boundaries import boundary_json, read_boundary_score
from segment.scores.scored import Scored
from segment.store.background import in_order


@dataclass(frozen=True)
class RunReport:
    """The report of a run, from its committed parts.

    Attributes:
        output: URL of the output prefix.
        run: `run.json`.
        planned: planned images by shard.
        shards: statistics by shard with a committed part, in plan order.
        total: their sum.
        errors: the first error rows.
        complete: whether `_SUCCESS` exists.
        left_out: objects and images of the input that are not planned, by reason.
        parts: ids of the committed parts that the report covers.
        label_warnings: one line for each warning about the labels.
        certainty: how sure the model was; None for a run without `confidence`.
        scored: the scores under the card's convention with their intervals; None if these were not computed.
        boundary: boundary IoU; None for a run without `boundary`.
        unindexed: tars whose images are not known yet; None if all are.
        signed_by: id of the key that `_SUCCESS` says to be signed by, not verified; `""` if it is not signed.
    """

    output: str
    run: dict[str, Any]
    card: ModelCard
    planned: Mapping[str, int]
    shards: dict[str, ShardStats]
    total: ShardStats
    errors: tuple[ErrorExample, ...]
    complete: bool
    left_out: tuple[LeftOut, ...] = ()
    parts: frozenset[str] = frozenset()
    label_warnings: tuple[str, ...] = ()
    certainty: Certainty | None = None
    scored: Scored | None = None
    boundary: BoundaryScore | None = None
    unindexed: Unindexed | None = None
    signed_by: str = ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the figures, one line each; every form of the report shows them first."""
        failure = ""
        if self.is_whole and not self.complete:
            limit = self.run["job"]["max_error_rate"]
            failure = too_many_errors(self.total.errors, self.total.images, self.left_out, limit)
        left_out = (str(item) for item in self.left_out if item.matters)
        return (*([failure] if failure else []), *left_out, *self.label_warnings)

    @property
    def choice(self) -> str:
        """The choice of images of a run with `--limit` or `--sample`, in words; `""` for a run of all."""
        return choice_in_words(self.planned_images, self.left_out)

    @property
    def planned_images(self) -> int:
        """Number of planned images; an estimate where tars are not indexed yet."""
        return sum(self.planned.values()) + (self.unindexed.images if self.unindexed else 0)

    @property
    def planned_in_words(self) -> str:
        """The number of planned images as text."""
        return f"{'about ' * bool(self.unindexed)}{self.planned_images:,}"

    @property
    def planned_shards(self) -> int:
        """Number of planned shards; a tar that is not indexed yet is one."""
        return len(self.planned) + (len(self.unindexed.tars) if self.unindexed else 0)

    @property
    def finished_shards(self) -> int:
        """Number of shards whose images are all committed."""
        return sum(stats.images == self.planned[shard] for shard, stats in self.shards.items())

    @property
    def is_whole(self) -> bool:
        """Whether every planned image is committed."""
        return not self.unindexed and self.total.images == self.planned_images

    @property
    def conventions(self) -> list[Convention]:
        """The named conventions, the card's own first."""
        own = self.card.metric.convention
        return [own, *(name for name in CONVENTIONS if name != own)]

    @property
    def is_scored(self) -> bool:
        """Whether any pixel has a label."""
        return self.total.confusion.is_scored

    def score(self, convention: Convention | None = None) -> Score:
        """Return counts and IoU by class, under a convention (default: the card's own)."""
        return score(self.total.confusion, self.card.classes.ignored_classes, convention or self.card.metric.convention)

    def miou(self, convention: Convention | None = None) -> float | None:
        """Return the mIoU, 0-1, under a convention (default: the card's own); None if nothing is scored."""
        if (convention or self.card.metric.convention) == "image-mean":
            return self.total.image_miou
        return self.score(convention).miou

    @property
    def pixel_accuracy(self) -> float | None:
        """Share of correct pixels among those with a label that is not ignored, 0-1; None if there are none."""
        return pixel_accuracy(self.total.confusion, self.card.classes.ignored_classes)

    @property
    def omz_pixel_accuracy(self) -> float | None:
        """The pixel accuracy of Open Model Zoo, which leaves out pixels that are predicted as an ignored class, too."""
        return defined(float(self.score("omz").figures()["pixel_accuracy"]))

    @property
    def size_note(self) -> str:
        """Why a score computed from the stored masks is not the run's, in words; `""` where it is."""
        counted, stored = self.run["scored_at"], self.run["contract"].get("mask_size")
        if not self.is_scored or stored in (None, counted):
            return ""
        return f"Scored at {counted} size; scores of the stored masks ({stored} size) differ a little"

    @property
    def published(self) -> Comparison | None:
        """The published score of the card and whether this run is comparable with it; None if the card has none."""
        return compare_with_published(self.card, self.run, self.total.scored)

    def summary(self) -> dict[str, Any]:
        """Return the figures of the run as plain JSON, the content of `report/summary.json`."""
        extra: dict[str, Any] = {"confidence": self.certainty.to_json()} if self.certainty else {}
        if self.boundary:
            extra["boundary"] = boundary_json(self.boundary, self.card.classes.names)
        if self.unindexed:
            extra["tars_not_indexed"] = len(self.unindexed.tars)
        return {
            "model": self.card.name,
            "complete": self.complete,
            "images": self.total.images,
            "planned_images": self.planned_images,
            "shards": self.finished_shards,
            "planned_shards": self.planned_shards,
            "errors": self.total.errors,
            "left_out": [item.to_json() for item in self.left_out],
            "scored": self.total.scored,
            "convention": self.card.metric.convention,
            "scored_at": self.run["scored_at"],
            "miou": {name: self.miou(name) for name in self.conventions},
            "pixel_accuracy": self.pixel_accuracy,
            "pixel_accuracy_omz": self.omz_pixel_accuracy,
            "published": self.published.as_json() if self.published else None,
            "runtime": self.run["contract"]["runtime"],
            "fingerprint": self.run["fingerprint"],
            "classes": classes_table(self).to_pylist(),
            "warnings": list(self.warnings),
        } | extra

    def to_json(self) -> dict[str, Any]:
        """Return the summary and, where they were computed, the intervals, which `report/summary.json` lacks."""
        if self.scored is None:
            return self.summary()
        intervals = {
            "level": LEVEL,
            "notes": self.scored.notes(self.card.classes.names),
            "scores": {name: bounds_of(bounds) for name, bounds in self.scored.intervals.items()},
        }
        return self.summary() | {"intervals": intervals, "classes": class_rows(self)}


def load_report(ledger: Ledger) -> RunReport:
    """Compute the report of a run from its output; the run may be running, interrupted or complete.

    The statistics of finished shards are read from `stats/`; those of other shards are summed over committed parts.

    Raises:
        UsageError: there is no run at this output, or it has no plan yet.
        SegmentError: a file of statistics or masks is damaged.
    """
    run, plan = ledger.read_run_and_plan()
    card = ledger.card_of(run)
    finished = ledger.finished_shards()
    parts = ledger.committed(plan, finished)
    shards = _statistics(ledger, plan, finished, parts, len(card.classes), run["fingerprint"])
    total = merge(shards.values(), len(card.classes))
    errors = read_error_examples(ledger, plan, parts, {shard for shard, stats in shards.items() if stats.errors})
    warnings = label_warnings(
        total.confusion,
        card,
        remap=run["job"].get("label_remap") or {},
        labelled=total.confusion.is_scored or holds_labels(run, plan, ledger.store),
        so_far=total.images != plan.expected_images or plan.unindexed is not None,
    )
    return RunReport(
        ledger.output,
        run,
        card,
        plan.images_by_shard(),
        shards,
        total,
        errors,
        ledger.is_complete(),
        tuple(by_reason(plan.left_out)),
        frozenset(parts),
        tuple(warnings),
        read_certainty(ledger, plan, run, parts),
        boundary=read_boundary_score(ledger, plan, run, card, parts),
        unindexed=plan.unindexed,
        signed_by=ledger.signed_by(),
    )


def _statistics(
    ledger: Ledger, plan: Plan, finished: Collection[str], parts: set[str], classes: int, fingerprint: str
) -> dict[str, ShardStats]:
    """Read the statistics of every shard with a committed part, in plan order; remove vanished parts from `parts`."""
    planned = plan.parts_by_shard()

    def read(place: tuple[str, str | None]) -> ShardStats | None:
        shard, part = place
        with suppress(FileNotFoundError):  # reopened meanwhile
            return ledger.part_stats(shard, part, classes, fingerprint) if part else ledger.stats_of(shard)
        return None

    closed = [(shard, None) for shard in planned if shard in finished]
    stored = in_order(read, closed, name="stats")
    found = {shard: stats for (shard, _), stats in zip(closed, stored, strict=True) if stats}
    begun = [(shard, part) for shard in planned if shard not in found for part in planned[shard] if part in parts]
    sums: dict[str, StatsSum] = {}
    for (shard, part), stats in zip(begun, in_order(read, begun, name="fold"), strict=True):
        if stats is None:
            parts.remove(part)
        else:
            sums.setdefault(shard, StatsSum(classes)).add(stats)
    found |= {shard: total.total() for shard, total in sums.items()}
    return {shard: found[shard] for shard in planned if shard in found}


def classes_table(report: RunReport) -> pa.Table:
    """Return one row per class: pixel counts, and IoU under each convention; NaN is null."""
    own = report.score()
    predicted = report.total.confusion.predicted_pixels
    return pa.table(
        {
            "class_id": pa.array(range(len(report.card.classes)), pa.int32()),
            "class_name": pa.array(report.card.classes.names, pa.string()),
            "ignored": pa.array([i in report.card.classes.ignored_classes for i in range(len(predicted))], pa.bool_()),
            "tp": pa.array(own.tp, pa.int64()),
            "fp": pa.array(own.fp, pa.int64()),
            "fn": pa.array(own.fn, pa.int64()),
            "label_pixels": pa.array(report.total.confusion.label_pixels, pa.int64()),
            "predicted_pixels": pa.array(predicted, pa.int64()),
            "iou": _nullable(own.iou),
            **{f"iou_{name}": _nullable(report.score(name).iou) for name in ("omz", "cityscapes", "mmseg")},
        }
    )


def class_rows(report: RunReport) -> list[dict[str, Any]]:
    """Return the rows of `classes_table`; where intervals were computed, with the bounds of each class's IoU."""
    rows: list[dict[str, Any]] = classes_table(report).to_pylist()
    if report.scored is not None:
        for row, bounds in zip(rows, report.scored.class_intervals or [None] * len(rows), strict=True):
            row["iou_low"], row["iou_high"] = bounds_of(bounds) or (None, None)
    return rows


def shards_table(report: RunReport) -> pa.Table:
    """Return one row per shard with a committed part: images, errors, mIoU under the card's convention."""
    own, ignore = report.card.metric.convention, report.card.classes.ignored_classes
    rows = list(report.shards.values())
    mious = [s.image_miou if own == "image-mean" else score(s.confusion, ignore, own).miou for s in rows]
    return pa.table(
        {
            "shard": pa.array(list(report.shards), pa.string()),
            "images": pa.array([s.images for s in rows], pa.int64()),
            "errors": pa.array([s.errors for s in rows], pa.int64()),
            "scored": pa.array([s.scored for s in rows], pa.int64()),
            "miou": pa.array(mious, pa.float64()),
            "pixel_accuracy": pa.array([pixel_accuracy(s.confusion, ignore) for s in rows], pa.float64()),
        }
    )


def write_report(ledger: Ledger, report: RunReport) -> None:
    """Write `report/classes.parquet`, `report/shards.parquet` and `report/summary.json`."""
    for name, table in (("classes", classes_table(report)), ("shards", shards_table(report))):
        ledger.write_object(f"report/{name}.parquet", to_parquet(table), len(table))
    ledger.write_object("report/summary.json", to_json(report.summary()))


def _nullable(values: np.ndarray[Any, np.dtype[np.float64]]) -> pa.Array:
    return pa.array(values, pa.float64(), from_pandas=True)
