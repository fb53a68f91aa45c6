"""`segment.score`: every score of a run, with intervals and by slice, from the counts that it has stored."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segment.errors import SegmentError, UsageError, did_you_mean
from segment.metrics import CONVENTIONS
from segment.metrics.bootstrap import MOST_RESAMPLES, RESAMPLES
from segment.metrics.regroup import regroup
from segment.models.card import Convention, ModelCard
from segment.output.ledger import Ledger
from segment.output.mask_columns import ExtraColumns
from segment.output.plan import Plan
from segment.report.aggregate import RunReport, load_report
from segment.scores.boundaries import (
    REFUSED,
    ImageBoundaries,
    fraction_of,
    read_image_boundaries,
    score_boundaries,
)
from segment.scores.image_counts import ImageCounts, read_image_counts
from segment.scores.scored import FEW, Protocol, Scored, score_images, score_total
from segment.scores.slices import Slices, groups_of, kept_name, slices_by
from segment.store.client import Store
from segment.store.names import count, shown
from segment.store.urls import to_url

_FEW_RESAMPLES = 200  # below which the ends of a 95 % interval rest on a few draws


@dataclass(frozen=True, eq=False)
class RunScore:
    """The scores of a run.

    Attributes:
        report: of the run: what is committed, which the scores cover.
        protocol: the classes and the convention.
        overall: the scores of all images.
        slices: those of each slice, by its value.
        units: what resamples draw: `images`, or `groups`.
        without_slice: images in no slice.
        resamples: number; 0 for no intervals.
    """

    report: RunReport
    protocol: Protocol
    overall: Scored
    slices: Mapping[str, Scored] = field(default_factory=dict)
    units: str = "images"
    without_slice: int = 0
    resamples: int = 0

    @property
    def miou(self) -> float | None:
        """Mean IoU, 0-1; None if no class occurs."""
        return self.overall.miou

    @property
    def iou(self) -> dict[str, float]:
        """IoU by class name, 0-1; NaN for classes that do not occur."""
        return dict(zip(self.protocol.grouping.names, self.overall.score.iou.tolist(), strict=True))

    @property
    def notes(self) -> list[str]:
        """What else one must know of the scores, one line each."""
        report, grouping = self.report, self.protocol.grouping
        lines = [report.size_note] if report.size_note else []
        if report.total.errors:
            lines.append(f"{count(report.total.errors, 'image')} with an error in no score")
        if (unscored := report.total.images - report.total.errors - report.total.scored) > 0:
            lines.append(f"{count(unscored, 'image')} without a label that the card counts")
        if grouping.ignored:
            lines.append(f"ignored: {', '.join(shown(grouping.names[index]) for index in grouping.ignored)}")
        if grouping.chosen is not None:
            chosen = count(len(grouping.chosen), "class", "classes")
            lines.append(f"means over {chosen}; pixel accuracy and kappa are of all")
        if self.report.boundary and not _keeps_classes(self.protocol, report.card):
            lines.append(REFUSED)
        if self.without_slice:
            lines.append(f"{count(self.without_slice, 'image')} in no slice")
        return [*lines, *(self._interval_notes() if self.resamples else ())]

    def _interval_notes(self) -> Iterator[str]:
        yield from self.overall.notes(self.protocol.grouping.names, self.units)
        if few := sum(one.has_few for one in self.slices.values()):
            yield f"{count(few, 'slice')} of fewer than {FEW} {self.units}, whose intervals are somewhat too narrow"
        if self.overall.intervals and self.resamples < _FEW_RESAMPLES:
            yield f"{count(self.resamples, 'resample')} only: the intervals are coarse, and others with another seed"


def score(
    output: str | os.PathLike[str],
    *,
    convention: Convention | None = None,
    ignore: Sequence[str] | None = None,
    merge: Sequence[str] = (),
    classes: Sequence[str] | None = None,
    by: str | None = None,
    group_by: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    storage_options: Mapping[str, Any] | None = None,
) -> RunScore:
    """Score a run, running or not, from the counts that it has stored; no model runs.

    >>> found = score("out", convention="cityscapes", merge=["Pole+SignSymbol=Furniture"])
    >>> found.iou["Furniture"] == found.iou["Furniture"], found.overall.intervals["miou"] is not None
    (True, True)

    Args:
        output: path or URL of the prefix that the job wrote to.
        convention: see `segment.metrics.conventions`; None takes the card's.
        ignore: names of the classes that no score counts, in place of the card's; `["none"]` for no class.
        merge: unions of classes, as `Pole+SignSymbol=Furniture`.
        classes: the classes over which means are taken; None for all.
        by: slices to score besides: `size` of the image, `label:CLASS` (share of the class among its labelled pixels),
            metadata that the run keeps by its name, `folder`, or a regular expression whose first group, found in an
            image's id, names its slice. `speed:30,60` makes ranges of numbers, `meta:size` is metadata of that name.
        group_by: what resamples draw instead of single images, metadata, `folder` or an expression as in `by`: frames
            of one video are not independent.
        resamples: of the bootstrap behind the intervals; 0 for none, which reads the statistics only.
        seed: of the resamples.
        storage_options: fsspec options for a URL that is not local.

    Raises:
        UsageError: there is no run, nothing in it is labelled, or what is asked cannot be had from its counts.
        SegmentError: a file of statistics or masks is damaged.
    """
    asked = Request(convention, ignore, merge, classes, by, group_by, resamples, seed)
    return score_run(Ledger(Store(storage_options), to_url(os.fspath(output))), asked)


@dataclass(frozen=True)
class Request:
    """What is to be scored, and how; see `score`."""

    convention: Convention | None = None
    ignore: Sequence[str] | None = None
    merge: Sequence[str] = ()
    classes: Sequence[str] | None = None
    by: str | None = None
    group_by: str | None = None
    resamples: int = RESAMPLES
    seed: int = 0

    def protocol(self, card: ModelCard) -> Protocol:
        """Return classes and convention for the counts of a card. Raises UsageError."""
        check_convention(self.convention)
        grouping = regroup(card.classes, ignore=self.ignore, merge=self.merge, chosen=self.classes)
        own = card.metric.convention
        return Protocol(grouping, self.convention or own, "omz" if own == "image-mean" else own)

    def kept(self, run: Mapping[str, Any]) -> set[str]:
        """Return the names of the kept metadata that slices and groups need, given `run.json`. Raises UsageError."""
        known = ExtraColumns.of_run(run, ModelCard.model_validate(run["card"])).meta
        asked = {option: by for option, by in (("by", self.by), ("group_by", self.group_by)) if by}
        return {name for option, by in asked.items() if (name := kept_name(by, known, option))}

    def needs_images(self, protocol: Protocol) -> bool:
        """Return whether the counts of single images are needed; if not, those of shards do."""
        regrouped = self.ignore is not None or bool(self.merge) or self.classes is not None
        return bool(self.resamples) or self.by is not None or (protocol.convention == "image-mean" and regrouped)


def check_convention(name: str | None) -> None:
    """Raise UsageError unless it is None or names a convention."""
    if name is not None and name not in CONVENTIONS:
        known = f"{did_you_mean(name, CONVENTIONS)} Known: {', '.join(CONVENTIONS)}"
        raise UsageError(f"convention = {name!r} is none.{known}")


def check_resamples(resamples: int, seed: int, group_by: str | None) -> None:
    """Raise UsageError unless these are numbers of resamples and a seed, and ones that groups are of use for."""
    if not 0 <= resamples <= MOST_RESAMPLES:
        why = f"give 0 for no intervals, or a number up to {MOST_RESAMPLES}, such as {RESAMPLES}"
        raise UsageError(f"resamples = {resamples}: {why}")
    if seed < 0:
        raise UsageError(f"seed = {seed}: give a whole number from 0 on")
    if group_by is not None and not resamples:
        raise UsageError("group_by is for intervals, and resamples = 0 makes none: leave one of the two out")


def score_run(ledger: Ledger, asked: Request) -> RunScore:
    """Score the run of a ledger; see `score`."""
    check_resamples(asked.resamples, asked.seed, asked.group_by)
    report, plan = load_report(ledger), ledger.read_run_and_plan()[1]
    protocol = asked.protocol(report.card)
    if not report.is_scored:
        so_far = "" if report.is_whole else " so far"
        raise UsageError(f"no image of {shown(ledger.output)} has a label{so_far}: there is nothing to score")
    if not asked.needs_images(protocol):
        images = report.total.images - report.total.errors
        overall = score_total(report.total.confusion, images, protocol, report.total.image_miou)
        if report.boundary and _keeps_classes(protocol, report.card):
            overall = replace(overall, boundary=replace(report.boundary, chosen=protocol.grouping.chosen))
        return RunScore(report, protocol, overall)
    counts = read_counts(ledger, plan, report, asked.kept(report.run))
    boundaries = _read_boundaries(ledger, plan, report, protocol)
    groups = groups_of(counts.ids, asked.group_by, counts.meta).of_image if asked.group_by is not None else None
    slices = slices_by(counts, asked.by, report.card.classes.names) if asked.by is not None else None
    overall = _score(counts, boundaries, protocol, groups, asked)
    return RunScore(
        report,
        protocol,
        overall,
        _score_slices(counts, boundaries, slices, protocol, groups, asked) if slices else {},
        "images" if groups is None else "groups",
        0 if slices is None else int(np.count_nonzero(slices.of_image < 0)),
        asked.resamples,
    )


def read_counts(ledger: Ledger, plan: Plan, report: RunReport, meta: Collection[str] = ()) -> ImageCounts:
    """Read the counts of the images that a report covers, and the kept metadata of these names.

    Raises:
        SegmentError: a masks file is damaged or lost, or the counts are not those of the statistics.
    """
    counts = read_image_counts(ledger, plan, report.parts, len(report.card.classes), meta)
    check_counts(ledger, report, counts)
    return counts


def check_counts(ledger: Ledger, report: RunReport, counts: ImageCounts) -> None:
    """Raise SegmentError if the counts of all images that a report covers are not those of its statistics."""
    if counts.total() != report.total.confusion:
        raise SegmentError(
            f"the counts under {shown(ledger.url('masks'))} are not those under {shown(ledger.url('stats'))}: "
            "`segment audit` says which shard is wrong and what to do"
        )


def with_intervals(ledger: Ledger, plan: Plan, report: RunReport, most_parts: int | None = None) -> RunReport:
    """Return a report with the intervals of its scores, if any image has a label.

    Args:
        ledger, plan, report: of the run.
        most_parts: leave the report as it is if it covers more parts: the counts of all their images are read.

    Raises:
        SegmentError: see `read_counts`.
    """
    if not report.is_scored or (most_parts is not None and len(report.parts) > most_parts):
        return report
    asked = Request()
    protocol = asked.protocol(report.card)
    boundaries = _read_boundaries(ledger, plan, report, protocol)
    scored = _score(read_counts(ledger, plan, report), boundaries, protocol, None, asked)
    return replace(report, scored=scored, boundary=scored.boundary)


def _keeps_classes(protocol: Protocol, card: ModelCard) -> bool:
    """Return whether classes and ignored classes are those of the card."""
    grouping = protocol.grouping
    return grouping.names == tuple(card.classes.names) and set(grouping.ignored) == set(card.classes.ignored_classes)


def _read_boundaries(ledger: Ledger, plan: Plan, report: RunReport, protocol: Protocol) -> ImageBoundaries | None:
    fraction = fraction_of(report.run)
    if fraction is None or not _keeps_classes(protocol, report.card):
        return None
    return read_image_boundaries(ledger, plan, report.parts, len(report.card.classes), fraction)


def _score(
    counts: ImageCounts,
    boundaries: ImageBoundaries | None,
    protocol: Protocol,
    groups: NDArray[np.intp] | None,
    asked: Request,
) -> Scored:
    found = score_images(counts, protocol, groups, asked.resamples, asked.seed)
    if boundaries is None:
        return found
    return replace(found, boundary=score_boundaries(boundaries, counts, protocol, groups, asked.resamples, asked.seed))


def _score_slices(
    counts: ImageCounts,
    boundaries: ImageBoundaries | None,
    slices: Slices,
    protocol: Protocol,
    groups: NDArray[np.intp] | None,
    asked: Request,
) -> dict[str, Scored]:
    found = {}
    for number, value in enumerate(slices.values):
        images = np.flatnonzero(slices.of_image == number)
        some = None if groups is None else groups[images]
        outlines = boundaries and boundaries.take(images)
        found[value] = _score(counts.take(images), outlines, protocol, some, asked)
    return found
