"""What comes of comparing runs: the agreement of their masks and the change of their scores."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from segment.errors import UsageError
from segment.metrics.bootstrap import Bootstrap
from segment.metrics.common_classes import CommonClasses, common_classes, pairs_of_each
from segment.metrics.conventions import defined
from segment.metrics.regroup import Grouping
from segment.models.card import Convention
from segment.output.ledger import Ledger
from segment.output.mask_columns import ExtraColumns
from segment.output.part_rows import part_tables
from segment.output.plan import Plan
from segment.report.aggregate import RunReport, load_report
from segment.report.rows import Row, row_at
from segment.report.run_score import Request, check_convention, check_counts, check_resamples
from segment.scores.boundaries import CommonBoundary, common_boundary, fraction_of, keeps_classes
from segment.scores.compared import AllCompared, ComparedImages, ComparedSums, Pairs
from segment.scores.mask_pairs import Side, read_pairs
from segment.scores.matching import Matches, RunRows, match, read_run_rows, rows_at
from segment.scores.run_images import BySlice, Units, slices_at_once, sum_by_slice
from segment.scores.scored import Protocol
from segment.scores.slices import Groups, Slices, name_in
from segment.store.names import count, shown

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class ComparisonRequest(Request):
    """How runs are compared: how each is scored, by the convention of A's card unless asked, and with common classes.

    Attributes:
        map: pairs of classes, as `A-name=B-name`; of several runs, each takes those that name a class of it.
        masks: compare the masks, too; if not, only the stored counts, and no mask is read.
    """

    map: Sequence[str] = ()
    masks: bool = True


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """One of the runs.

    Attributes:
        letter: its name in the comparison; `A` is the baseline.
        report: what is committed, which the comparison covers.
        rows: of the committed parts.
    """

    letter: str
    ledger: Ledger
    plan: Plan
    report: RunReport
    rows: RunRows

    @property
    def side(self) -> Side:
        """The run as `scores.mask_pairs` takes it."""
        kept = ExtraColumns.of_run(self.report.run, self.report.card).meta
        return Side(self.ledger, self.plan, self.rows, self.report.card, tuple(kept))

    def row(self, number: int) -> Row:
        """Return the row with this number in `rows`."""
        part, position = self.rows.places(np.array([number]))
        return row_at(self.plan, int(part[0]), int(position[0]))


@dataclass(frozen=True, eq=False)
class Against:
    """A run compared with the baseline, which is `a`; it is `b`, whatever its letter is.

    Attributes:
        a, b: the runs.
        common: the classes of both.
        grouping: the classes that are compared, made from the common ones.
        protocols: how the counts of A and of B are scored.
        matches: the images of both.
        pairs: their counts.
        overall: of all these images.
        sliced: of each slice.
        asked: how they were compared.
        boundary: whether boundary IoU is compared.
        stored: id, width and height of all images; None to read them from the store when they are asked for.
    """

    a: ComparedRun
    b: ComparedRun
    common: CommonClasses
    grouping: Grouping
    protocols: tuple[Protocol, Protocol]
    matches: Matches
    pairs: Pairs
    overall: ComparedImages
    sliced: BySlice[ComparedImages]
    asked: ComparisonRequest
    boundary: CommonBoundary
    stored: pa.Table | None = None

    @property
    def slices(self) -> Mapping[str, ComparedImages]:
        """What comes of each slice, by its value."""
        return self.sliced.results

    @property
    def units(self) -> str:
        """What resamples draw: `images`, or `groups`."""
        return self.asked.units

    @property
    def agreement(self) -> float | None:
        """Share of the pixels to which both give one class, 0-1; None if masks were not compared."""
        return self.overall.agreement.figures["pixel_accuracy"] if self.overall.agreement else None

    @property
    def change(self) -> float | None:
        """Change of the mIoU, B minus A, of shares 0-1; None if no image is labelled in both."""
        return defined(self.overall.scores.changes["miou"].value) if self.overall.scores else None

    def images(self, chosen: Sequence[int] | None = None) -> pa.Table:
        """Return a row for each image: `id`, `pixels`, `agreement`, `miou_a`, `miou_b`, `change`; undefined is null.

        Args:
            chosen: numbers of the images; None for all, whose ids are read from the store.
        """
        numbers = np.arange(len(self.pairs)) if chosen is None else np.array(chosen, np.intp)
        stored = self._stored(numbers)
        mious = self.pairs.mious[:, numbers]
        columns = {
            "agreement": self.pairs.agreement[numbers],
            "miou_a": mious[0],
            "miou_b": mious[1],
            "change": mious[1] - mious[0],
        }
        pixels = np.asarray(stored["width"]).astype(np.int64) * np.asarray(stored["height"])
        return pa.table(
            {"id": stored["id"], "pixels": pixels}
            | {name: pa.array(values, from_pandas=True) for name, values in columns.items()}
        )

    def _stored(self, numbers: NDArray[np.intp]) -> pa.Table:
        if self.stored is not None:
            return self.stored.take(pa.array(numbers))
        read = functools.partial(part_tables, self.a.ledger, self.a.plan, columns=["id", "width", "height"])
        return rows_at(self.a.rows, self.pairs.rows_a[numbers], read)

    def without_store(self) -> Self:
        """Return the same with the ids of all images in memory: the outputs of the runs may go."""
        return replace(self, stored=self._stored(np.arange(len(self.pairs))))

    def changed_most(self, number: int) -> list[int]:
        """Return the images with the lowest agreement, lowest first; none of those without a changed pixel."""
        return _lowest(self.pairs.agreement, number, below=1.0)

    def lost_most(self, number: int) -> list[int]:
        """Return the images whose mIoU fell most."""
        return _lowest(self.pairs.mious[1] - self.pairs.mious[0], number, below=0.0)

    def gained_most(self, number: int) -> list[int]:
        """Return the images whose mIoU rose most."""
        return _lowest(self.pairs.mious[0] - self.pairs.mious[1], number, below=0.0)


def _lowest(values: NDArray[np.float64], number: int, below: float) -> list[int]:
    order = np.argsort(values, kind="stable")  # NaN last
    return [int(index) for index in order[:number] if values[index] < below]


@dataclass(frozen=True, eq=False)
class RunComparison:
    """Runs compared with the first of them.

    Attributes:
        runs: A, B and so on.
        against: each but A, compared with it.
        page: URL of the page, if one was written.
    """

    runs: tuple[ComparedRun, ...]
    against: tuple[Against, ...]
    page: str | None = None

    @property
    def agreement(self) -> float | None:
        """Share of the pixels that agree, of B; see `Against`."""
        return self.against[0].agreement

    @property
    def change(self) -> float | None:
        """Change of the mIoU, B minus A; see `Against`."""
        return self.against[0].change

    def images(self) -> pa.Table:
        """Return a row for each image of A and B; see `Against`."""
        return self.against[0].images()

    def _repr_markdown_(self) -> str:
        from segment.report.comparison.comparison_formats import to_markdown

        return to_markdown(self)


def compare_ledgers(ledgers: Sequence[Ledger], asked: ComparisonRequest) -> RunComparison:
    """Compare the runs of ledgers with the first one; see `segment.compare`.

    Raises:
        UsageError: fewer than two runs, no image or class in common, or what is asked cannot be had.
        SegmentError: a file of statistics or masks is damaged.
    """
    if not 2 <= len(ledgers) <= len(_LETTERS):
        raise UsageError(f"{count(len(ledgers), 'run')}: give two or more, {len(_LETTERS)} at most")
    check_convention(asked.convention)
    check_resamples(asked.resamples, asked.seed, asked.group_by)
    runs = tuple(_opened(letter, ledger) for letter, ledger in zip(_LETTERS, ledgers, strict=False))
    own, *others = (run.report.card.classes for run in runs)
    maps = pairs_of_each(asked.map, own, others)
    against = (_against(runs[0], run, replace(asked, map=pairs)) for run, pairs in zip(runs[1:], maps, strict=True))
    return RunComparison(runs, tuple(against))


def _opened(letter: str, ledger: Ledger) -> ComparedRun:
    report, plan = load_report(ledger), ledger.read_run_and_plan()[1]
    return ComparedRun(letter, ledger, plan, report, read_run_rows(ledger, plan, report.parts))


def _against(a: ComparedRun, b: ComparedRun, asked: ComparisonRequest) -> Against:
    common = common_classes(a.report.card.classes, b.report.card.classes, asked.map)
    grouping_a, grouping_b, grouping = common.regrouped(asked.ignore, asked.merge, asked.classes)
    own = a.report.card.metric.convention
    convention: Convention = asked.convention or own
    of_image: Convention = "omz" if own == "image-mean" else own
    protocols = Protocol(grouping_a, convention, of_image), Protocol(grouping_b, convention, of_image)
    matches = match(a.rows, b.rows, a.plan, b.plan)
    meta, slices, groups = _divided(a, b, asked, grouping.names)
    units = Units(Bootstrap(asked.resamples, asked.seed) if asked.resamples else None, groups)
    of_masks = Protocol(Grouping(grouping.names, grouping.of_class, (), _asked(grouping, asked)), "omz", "omz")
    boundary = _boundary(a, b, protocols)
    fraction = boundary.fraction
    overall = AllCompared(protocols, of_masks, units, fraction, asked.masks, len(matches))
    sliced = sum_by_slice(
        lambda: read_pairs(a.side, b.side, matches, common, grouping_a, units, asked.masks, meta, fraction),
        overall,
        slices,
        lambda: ComparedSums(protocols, of_masks, units, fraction),
        slices_at_once(asked.resamples, (9 if fraction is None else 15) * len(grouping.names)),
    )
    pairs = overall.pairs()
    if not len(pairs):
        raise UsageError(_nothing_in_common(a, b, matches))
    for run, total in zip((a, b), overall.totals, strict=True):
        if len(pairs) == np.count_nonzero(run.rows.sound):
            check_counts(run.ledger, run.report, total)
    return Against(a, b, common, grouping, protocols, matches, pairs, overall.result(), sliced, asked, boundary)


def _divided(
    a: ComparedRun, b: ComparedRun, asked: ComparisonRequest, names: Sequence[str]
) -> tuple[set[str], Slices | None, Groups | None]:
    """Return the metadata of A that slices and groups need, and these. Raises UsageError."""
    try:
        meta = asked.kept(a.report.run)
        return meta, *asked.division(names, meta)
    except UsageError:
        for option, by in asked.asks.items():
            if name_in(by, b.side.meta) and not name_in(by, a.side.meta):
                how = f"values are taken from {a.letter}: name {b.letter} first, or make {a.letter} anew with --keep"
                raise UsageError(
                    f"{option} = {by!r}: {b.letter} keeps this metadata and {a.letter} does not; {how}"
                ) from None
        raise


def _boundary(a: ComparedRun, b: ComparedRun, protocols: tuple[Protocol, Protocol]) -> CommonBoundary:
    kept = [
        keeps_classes(protocol.grouping, run.report.card.classes)
        for run, protocol in zip((a, b), protocols, strict=True)
    ]
    return common_boundary([fraction_of(run.report.run) for run in (a, b)], [a.letter, b.letter], all(kept))


def _asked(grouping: Grouping, asked: ComparisonRequest) -> tuple[int, ...] | None:
    """Return the classes over which the mean agreement is taken: those that are asked for, else all."""
    return None if asked.classes is None else grouping.chosen


def _nothing_in_common(a: ComparedRun, b: ComparedRun, matches: Matches) -> str:
    if len(matches):
        return "every image that both runs have has another size in the other one: these are runs of other images"
    held = []
    for run in (a, b):
        if run.rows.first_id is None:
            return f"{run.letter}, {shown(run.report.output)}, has no image{'' if run.report.is_whole else ' yet'}"
        held.append(f"{run.letter} has {shown(run.rows.first_id)!r}")
    words = f": {', '.join(held)}"
    failed = " without an error" if matches.only_a < len(a.rows) else ""
    return f"{a.letter} and {b.letter} have no image in common{failed}; they are matched by id{words}"
