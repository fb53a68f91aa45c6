"""The audit of a run: proof, from the store alone, that every planned image has exactly one row.

It also proves that nothing else is there, and that the statistics of each shard are the sum of its rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import pyarrow as pa

from segment.errors import SegmentError, StoreError
from segment.inputs.discover import Part, read_ids
from segment.inputs.findings import LeftOut, by_reason
from segment.job import InputOptions
from segment.models.card import ModelCard
from segment.output.damage import DAMAGE
from segment.output.ledger import Ledger
from segment.output.mask_columns import ExtraColumns
from segment.output.mask_files import wrong_mask_files
from segment.output.plan import Plan
from segment.output.row_checks import repeated_ids, wrong_rows
from segment.output.tables import ShardStats, StatsSum, fold, merge
from segment.store.background import in_order
from segment.store.names import count, shown

_COLUMNS = ["id", "uri", "shard", "part", "index", "status", "error", "confusion", "miou"]  # all but the large ones
_WITHOUT_ID = ("undecodable:", "killed_worker:", "out_of_memory:")  # errors of Parquet rows whose id was not read
_SHOWN = 10  # faults of a kind that are listed one by one
_REMEDY = "delete it and run the same command again"


@dataclass(frozen=True, slots=True)
class Read:
    """The extent of a deep audit.

    Attributes:
        files, rows, bytes: masks files, their rows and their bytes.
        unseen: rows whose input is gone, changed or damaged, so that their ids were not compared with it.
    """

    files: int
    rows: int
    bytes: int
    unseen: int


@dataclass(frozen=True, slots=True)
class Audit:
    """The result of an audit.

    Attributes:
        shards, parts, images, errors, scored: totals over the committed parts.
        unfinished: the work that is left, in one line; None if there is none.
        wrong: one line per fault. Of a frequent kind, the first few and one line with the number of the others.
        faults: number of faults.
        read: the extent of a deep audit; None otherwise.
        left_out: objects and images of the input that are not planned, by reason. They are no fault.
    """

    shards: int
    parts: int
    images: int
    errors: int
    scored: int
    unfinished: str | None = None
    wrong: tuple[str, ...] = ()
    faults: int = 0
    read: Read | None = None
    left_out: tuple[LeftOut, ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        """The unfinished work and all faults; empty if the run is complete and correct."""
        return (*([self.unfinished] if self.unfinished else []), *self.wrong)

    @property
    def totals(self) -> dict[str, int]:
        """The totals by name, as `_SUCCESS` holds them."""
        return {name: getattr(self, name) for name in ("shards", "parts", "images", "errors", "scored")}


class _Fault(NamedTuple):
    """A fault: its kind, as in "10 more KIND", and the line that describes it."""

    kind: str
    line: str


@dataclass
class _Faults:
    """Collects faults in bounded memory: a run may have 100,000 parts, and one cause can damage them all."""

    lines: dict[str, list[str]] = field(default_factory=dict)
    numbers: Counter[str] = field(default_factory=Counter)

    def add(self, faults: Iterable[_Fault]) -> None:
        for kind, line in faults:
            self.numbers[kind] += 1
            if self.numbers[kind] <= _SHOWN:
                self.lines.setdefault(kind, []).append(line)

    def summary(self) -> tuple[str, ...]:
        summary = []
        for kind, lines in self.lines.items():
            more = self.numbers[kind] - len(lines)
            summary += [*lines, f"{more:,} more {kind}"] if more else lines
        return tuple(summary)


@dataclass(frozen=True)
class _Objects:
    """The result of the listings: bytes by committed part, shards with statistics, and the unfinished work."""

    committed: dict[str, int]
    finished: list[str]
    unfinished: str | None


def audit_run(ledger: Ledger, *, deep: bool = False) -> Audit:
    """Audit a run: the committed objects against the plan, the rows of each part, the statistics against the rows.

    Position, id and URI of a row must be those of its planned image. The plan holds no ids of Parquet input: there, an
    id must be unique within its shard, except in error rows of repeated ids, and the URI must match the id. A deep
    audit also reads these ids from the input again, where the input is unchanged.

    Args:
        ledger: of the run.
        deep: read every byte of every masks file and check its page checksums; otherwise all columns but the masks.

    Raises:
        UsageError: there is no run at this output.
    """
    run, plan = ledger.read_run_and_plan()
    card = ModelCard.model_validate(run["card"])
    faults = _Faults()
    objects = _check_objects(ledger, plan, faults)
    stats = _check_stats(ledger, plan, objects.finished, faults)
    rows = _RowAudit(ledger, plan, run, card, deep, faults)
    rows.check(objects.committed, stats)
    found = _totals(objects, merge([*stats.values(), rows.others.total()], len(card.classes)), len(stats), faults)
    read = Read(len(objects.committed), rows.rows, sum(objects.committed.values()), rows.unseen)
    return replace(found, read=read if deep else None, left_out=tuple(by_reason(plan.left_out)))


def audit_listing(ledger: Ledger, plan: Plan, card: ModelCard) -> Audit:
    """Audit a run by its listings and statistics, without reading masks files: the audit at the end of a run.

    The listings must hold exactly the planned objects. The statistics of a shard must count its planned images.

    Raises:
        SegmentError: a shard's statistics are damaged.
    """
    faults = _Faults()
    objects = _check_objects(ledger, plan, faults)
    stats = ledger.shard_stats(objects.finished)
    faults.add(_wrong_counts(plan, stats))
    return _totals(objects, merge(stats.values(), len(card.classes)), len(stats), faults)


def _totals(objects: _Objects, total: ShardStats, shards: int, faults: _Faults) -> Audit:
    numbers = (shards, len(objects.committed), total.images, total.errors, total.scored)
    return Audit(*numbers, objects.unfinished, faults.summary(), faults.numbers.total())


def _check_objects(ledger: Ledger, plan: Plan, faults: _Faults) -> _Objects:
    """Compare the listings of `masks/` and `stats/` with the plan."""
    masks, stats, images = ledger.listed("masks"), ledger.listed("stats"), plan.images_by_shard()
    finished = [shard for shard in images if stats.pop(f"{shard}.parquet", None) is not None]
    committed: dict[str, int] = {}
    undone = 0
    columns = (plan.table[name].to_pylist() for name in ("shard", "id", "start", "stop"))
    with_statistics = set(finished)
    for shard, part, start, stop in zip(*columns, strict=True):
        size = masks.pop(f"{shard}/{part}.parquet", None)
        if size is not None:
            committed[part] = size
        elif shard in with_statistics:
            line = f"masks/{shard}/{part}.parquet was committed and has been lost: run the same command again"
            faults.add([_Fault("committed parts that have been lost", line)])
        else:
            undone += stop - start
    if plan.unindexed:  # what is not planned here may be planned by now
        masks, stats = {}, {}
    for folder, unplanned in (("masks", masks), ("stats", stats)):
        kind = f"objects under {folder}/ that are in no plan"
        faults.add(_Fault(kind, f"{folder}/{shown(path)} is in no plan: delete it") for path in sorted(unplanned))
    unfinished = None
    if plan.unindexed:
        unfinished = f"{count(plan.tars_left, 'tar is', 'tars are')} not indexed yet: run the same command again"
    elif undone:
        unfinished = f"{undone:,} of {plan.images:,} images not done yet: run the same command again"
    elif uncounted := len(images) - len(finished):
        unfinished = f"{count(uncounted, 'shard has', 'shards have')} no statistics yet: run the same command again"
    return _Objects(committed, finished, unfinished)


def _check_stats(ledger: Ledger, plan: Plan, shards: Iterable[str], faults: _Faults) -> dict[str, ShardStats]:
    """Read the statistics of shards; damaged ones are faults and are left out."""

    def read(shard: str) -> tuple[str, ShardStats | None]:
        try:
            return shard, ledger.shard_stats([shard])[shard]
        except StoreError:
            raise
        except SegmentError:
            return shard, None

    found = dict(in_order(read, shards, name="audit"))
    damaged = (shard for shard, stats in found.items() if stats is None)
    faults.add(_Fault("damaged statistics", f"stats/{shard}.parquet is damaged: {_REMEDY}") for shard in damaged)
    sound = {shard: stats for shard, stats in found.items() if stats}
    faults.add(_wrong_counts(plan, sound))
    return sound


def _wrong_counts(plan: Plan, stats: Mapping[str, ShardStats]) -> Iterator[_Fault]:
    images = plan.images_by_shard()
    for shard, found in stats.items():
        if found.images != images[shard]:
            words = f"has {found.images} rows for {images[shard]} planned images: run again with --verify"
            yield _Fault("shards with another number of rows than planned", f"shard {shard} {words}")


class _PartRows(NamedTuple):
    """The rows of a part without masks, their statistics, and whether the input could not be read for their ids."""

    rows: pa.Table
    stats: ShardStats
    is_unseen: bool


class _RowAudit:
    """Checks the rows of all committed parts, several at once.

    Args:
        ledger, plan, run: of the run; `run` is its `run.json`.
        card: of the model.
        deep: see `audit_run`.
        faults: collects the faults.

    Attributes:
        rows: rows read.
        unseen: see `Read.unseen`.
        others: sum over the shards without statistics.
    """

    def __init__(
        self, ledger: Ledger, plan: Plan, run: Mapping[str, Any], card: ModelCard, deep: bool, faults: _Faults
    ) -> None:
        self._ledger, self._plan, self._fingerprint = ledger, plan, run["fingerprint"]
        self._card, self._classes, self._deep, self._faults = card, len(card.classes), deep, faults
        self._options = InputOptions.of_run(run)
        self._extra = ExtraColumns.of_run(run, card)
        self.rows, self.unseen, self.others = 0, 0, StatsSum(self._classes)

    def check(self, committed: Container[str], stats: Mapping[str, ShardStats]) -> None:
        """Check the parts with these ids, and the statistics of their shards."""
        left = {shard: len(parts) for shard, parts in self._plan.parts_by_shard().items()}
        sums: dict[str, StatsSum] = {}
        ids: dict[str, set[str]] = {}
        wanted = (part for part in self._plan.parts() if part.id in committed)
        for part, found, faults in in_order(self._read, wanted, name="audit", ahead=16):
            self._faults.add(faults)
            if found is None:
                continue
            self.rows += found.stats.images
            self.unseen += found.stats.images if found.is_unseen else 0
            self._faults.add(_of_file(part, repeated_ids(part, found.rows, ids.setdefault(part.shard, set()))))
            if part.shard not in stats:
                self.others.add(found.stats)
                continue
            sums.setdefault(part.shard, StatsSum(self._classes)).add(found.stats)
            left[part.shard] -= 1
            if not left[part.shard]:  # every part of the shard is readable
                self._check_sum(part.shard, sums.pop(part.shard).total())
                ids.pop(part.shard)

    def _check_sum(self, shard: str, folded: ShardStats) -> None:
        if not self._ledger.holds_stats(shard, folded, self._card):
            line = f"stats/{shard}.parquet is not the sum of its parts: {_REMEDY}"
            self._faults.add([_Fault("statistics that are not the sum of their parts", line)])

    def _read(self, part: Part) -> tuple[Part, _PartRows | None, list[_Fault]]:
        """Read a part and return its rows and faults; None instead of the rows if its file is damaged."""
        columns, block = (None, 1 << 20) if self._deep else (_COLUMNS, 1 << 16)
        try:
            table = self._ledger.read_rows(part.shard, part.id, columns, block_size=block)
            rows, stats = table.select(_COLUMNS), fold(table, self._classes)
            ids = self._input_ids(part, rows) if self._deep and not part.members else []
            wrong = _of_file(
                part, wrong_rows(table, part, self._fingerprint, ids=ids, deep=self._deep, extra=self._extra)
            )
            if self._deep:
                files = wrong_mask_files(self._ledger.store, self._ledger.output, part, table)
                wrong += _of_file(part, files, "run again with --verify")
        except StoreError:
            raise
        except (SegmentError, *DAMAGE):  # truncated, corrupted, deleted meanwhile, or not a masks file
            return part, None, _of_file(part, [("damaged masks files", "is damaged")])
        return part, _PartRows(rows, stats, ids is None), wrong

    def _input_ids(self, part: Part, rows: pa.Table) -> list[str] | None:
        """Read the ids of a Parquet part from the input; None if the input is gone, changed or damaged."""
        try:
            ids = read_ids(part, self._options, self._ledger.store)
        except (SegmentError, *DAMAGE):
            return None
        held = zip(ids, rows["id"].to_pylist(), rows["error"].to_pylist(), strict=True)
        return [own if (error or "").startswith(_WITHOUT_ID) else name for name, own, error in held]


def _of_file(part: Part, wrong: Iterable[tuple[str, str]], remedy: str = _REMEDY) -> list[_Fault]:
    name = f"masks/{part.shard}/{part.id}.parquet"
    return [_Fault(kind, f"{name} {words}: {remedy}") for kind, words in wrong]
