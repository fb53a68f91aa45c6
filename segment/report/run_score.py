"""`segment.score`: every score of a run, with intervals and by slice, from the counts that it has stored."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from segment.errors import SegmentError, UsageError, did_you_mean
from segment.metrics import CONVENTIONS, Confusion
from segment.metrics.bootstrap import MOST_RESAMPLES, RESAMPLES, Bootstrap
from segment.metrics.regroup import regroup
from segment.models.card import Convention, ModelCard
from segment.output.ledger import Ledger
from segment.output.mask_columns import ExtraColumns
from segment.output.plan import Plan
from segment.report.aggregate import RunReport, load_report
from segment.scores.boundaries import REFUSED, fraction_of, keeps_classes
from segment.scores.run_images import BySlice, RunSums, Units, read_run_images, slices_at_once, sum_by_slice
from segment.scores.scored import FEW, Protocol, Scored, score_total
from segment.scores.slices import Groups, Slices, kept_name, slices_by
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
        asked: how it was scored.
        sliced: the scores of each slice.
    """

    report: RunReport
    protocol: Protocol
    overall: Scored
    asked: Request
    sliced: BySlice[Scored] = field(default_factory=lambda: BySlice({}))

    @property
    def slices(self) -> Mapping[str, Scored]:
        """The scores of each slice, by its value."""
        return self.sliced.results

    @property
    def units(self) -> str:
        """What resamples draw: `images`, or `groups`."""
        return self.asked.units

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
        is_known = self.asked.group_by is None and self.asked.needs_images(self.protocol)
        counted, by = (self.overall.units, "is counted") if is_known else (report.total.scored, "the card counts")
        if (unscored := report.total.images - report.total.errors - counted) > 0:
            lines.append(f"{count(unscored, 'image')} without a label that {by}")
        if grouping.ignored:
            lines.append(f"ignored: {', '.join(shown(grouping.names[index]) for index in grouping.ignored)}")
        lines += filter(None, [grouping.means_in_words])
        if report.boundary and not keeps_classes(grouping, report.card.classes):
            lines.append(REFUSED)
        return [*lines, *self.sliced.notes, *(self._interval_notes() if self.asked.resamples else ())]

    def _interval_notes(self) -> Iterator[str]:
        yield from self.overall.notes(self.protocol.grouping.names, self.units)
        if few := sum(one.has_few for one in self.slices.values()):
            yield f"{count(few, 'slice')} of fewer than {FEW} {self.units}, whose intervals are somewhat too narrow"
        if self.overall.intervals and self.asked.resamples < _FEW_RESAMPLES:
            resamples = count(self.asked.resamples, "resample")
            yield f"{resamples} only: the intervals are coarse, and others with another seed"


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
        by: slices to score besides: `size` or `brightness` (mean luma, 0-255) of the image, `label:CLASS` (share of the
            class among its labelled pixels), metadata that the run keeps by its name, `folder`, or a regular expression
            whose first group, found in an image's id, names its slice. `speed:30,60` makes ranges of numbers, as does
            `brightness:60,120`; `meta:size` is metadata of that name.
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
        return {name for option, by in self.asks.items() if (name := kept_name(by, known, option))}

    @property
    def units(self) -> str:
        """What resamples draw: `images`, or `groups`."""
        return "images" if self.group_by is None else "groups"

    @property
    def asks(self) -> dict[str, str]:
        """What slices and groups go by, by option."""
        return {option: by for option, by in (("by", self.by), ("group_by", self.group_by)) if by}

    def division(self, names: Sequence[str], meta: Collection[str]) -> tuple[Slices | None, Groups | None]:
        """Return slices and groups, None where none are asked for; `names` are of the classes. Raises UsageError."""
        slices = None if self.by is None else slices_by(self.by, names, meta)
        return slices, None if self.group_by is None else Groups(self.group_by, meta)

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
        so_far, errors = "" if report.is_whole else " so far", report.total.errors
        beside = f", beside {count(errors, 'image')} with an error," if errors else ""
        where = f"{shown(ledger.output)}{beside}"
        raise UsageError(f"no image of {where} has a labelled pixel{so_far}: there is nothing to score")
    if not asked.needs_images(protocol):
        images = report.total.images - report.total.errors
        overall = score_total(report.total.confusion, images, protocol, report.total.image_miou)
        if report.boundary and keeps_classes(protocol.grouping, report.card.classes):
            overall = replace(overall, boundary=replace(report.boundary, chosen=protocol.grouping.chosen))
        return RunScore(report, protocol, overall, asked)
    return _score_images(ledger, plan, report, protocol, asked)


def _score_images(ledger: Ledger, plan: Plan, report: RunReport, protocol: Protocol, asked: Request) -> RunScore:
    """Score a run from the counts of its images."""
    card, meta = report.card, asked.kept(report.run)
    fraction = fraction_of(report.run) if keeps_classes(protocol.grouping, card.classes) else None
    slices, groups = asked.division(card.classes.names, meta)
    units = Units(Bootstrap(asked.resamples, asked.seed) if asked.resamples else None, groups)
    overall = RunSums(protocol, units, fraction)
    sliced = sum_by_slice(
        lambda: read_run_images(ledger, plan, report.parts, len(card.classes), units, meta, fraction),
        overall,
        slices,
        lambda: RunSums(protocol, units, fraction),
        slices_at_once(asked.resamples, 6 * len(card.classes)),
    )
    check_counts(ledger, report, overall.scores.total)
    return RunScore(report, protocol, overall.result(), asked, sliced)


def check_counts(ledger: Ledger, report: RunReport, total: Confusion) -> None:
    """Raise SegmentError if the counts of all images that a report covers are not those of its statistics."""
    if total != report.total.confusion:
        raise SegmentError(
            f"the counts under {shown(ledger.url('masks'))} are not those under {shown(ledger.url('stats'))}: "
            "`segment audit` says which shard is wrong and what to do"
        )


def with_intervals(ledger: Ledger, plan: Plan, report: RunReport, most_parts: int | None = None) -> RunReport:
    """Return a report with the intervals of its scores, if any image has a label.

    Args:
        most_parts: leave the report as it is if it covers more parts: the counts of all their images are read.

    Raises:
        SegmentError: a masks file is damaged or lost, or the counts are not those of the statistics.
    """
    if not report.is_scored or (most_parts is not None and len(report.parts) > most_parts):
        return report
    asked = Request()
    scored = _score_images(ledger, plan, report, asked.protocol(report.card), asked).overall
    return replace(report, scored=scored, boundary=scored.boundary)
