"""Audit: prove from the store alone that every planned image has exactly one row and that the statistics hold."""

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
from segment.output.plan import Plan
from segment.output.row_checks import repeated_ids, wrong_rows
from segment.output.tables import ShardStats, StatsSum, fold, merge
from segment.store.background import in_order
from segment.store.names import count, shown

_ROWS = ["id", "uri", "shard", "part", "index", "status", "error", "confusion", "miou"]  # all but what is large
_NAMELESS = ("undecodable:", "killed_worker:", "out_of_memory:")  # rows of Parquet that could not be asked for their id
_SHOWN = 10  # problems of a kind that are told in full
_MEND = "delete it and run the same command again"


@dataclass(frozen=True, slots=True)
class Read:
    """What a deep audit looked at: masks files, their rows, their bytes; images whose input could not be had."""

    files: int
    rows: int
    bytes: int
    unseen: int


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found.

    Attributes:
        shards, parts, images, errors, scored: totals of what is committed.
        unfinished: what is still to be done, in one line; None where nothing is.
        wrong: what is wrong, a line each; of many of a kind the first few, and one line with the number of the others.
        faults: how many things are wrong.
        read: what a deep audit looked at.
        left_out: what the input holds besides the planned images, by reason: no fault, and no row.
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
        """All lines; empty when every planned image has exactly one row and the statistics hold."""
        return (*([self.unfinished] if self.unfinished else []), *self.wrong)

    @property
    def totals(self) -> dict[str, int]:
        """What is committed, by name: `_SUCCESS`."""
        return {name: getattr(self, name) for name in ("shards", "parts", "images", "errors", "scored")}


class _Fault(NamedTuple):
    """Something wrong: its kind, as in "10 more KIND", and the line that tells it."""

    kind: str
    line: str


@dataclass
class _Faults:
    """Collects faults in bounded memory: a run has 100,000 parts, and one cause can damage all of them."""

    lines: dict[str, list[str]] = field(default_factory=dict)
    numbers: Counter[str] = field(default_factory=Counter)

    def add(self, faults: Iterable[_Fault]) -> None:
        for kind, line in faults:
            self.numbers[kind] += 1
            if self.numbers[kind] <= _SHOWN:
                self.lines.setdefault(kind, []).append(line)

    def told(self) -> tuple[str, ...]:
        told = []
        for kind, lines in self.lines.items():
            more = self.numbers[kind] - len(lines)
            told += [*lines, f"{more:,} more {kind}"] if more else lines
        return tuple(told)


@dataclass(frozen=True)
class _Objects:
    """What the listings say: planned parts that are there, with their bytes; shards with statistics; what is left."""

    committed: dict[str, int]
    finished: list[str]
    unfinished: str | None


def audit_run(ledger: Ledger, *, deep: bool = False) -> Audit:
    """Audit a run: what is committed against the plan, the rows of each part, the statistics against their fold.

    A row is its planned image's by position, id and URI. The plan of Parquet knows no ids: there each id must be its
    shard's only one, unless its row is the error row of a repeated id, and the URI must be that of the id; a deep audit
    reads the ids of the input again, where it is still there as planned.

    Args:
        ledger: of the run.
        deep: read every byte of every masks file and check its page checksums; else all columns but the masks.

    Raises:
        UsageError: there is no run at this place.
    """
    run, plan = ledger.read_begun()
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
    """Audit by listings and statistics alone, as a run does at its end: no masks file is read.

    Every committed object of the plan is listed; the rows of each shard are counted by its statistics.

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
    return Audit(*numbers, objects.unfinished, faults.told(), faults.numbers.total())


def _check_objects(ledger: Ledger, plan: Plan, faults: _Faults) -> _Objects:
    """Compare the listings of masks/ and stats/ with the plan."""
    masks, stats, images = ledger.listed("masks"), ledger.listed("stats"), plan.images_by_shard()
    finished = [shard for shard in images if stats.pop(f"{shard}.parquet", None) is not None]
    committed: dict[str, int] = {}
    undone = 0
    columns = (plan.table[name].to_pylist() for name in ("shard", "id", "start", "stop"))
    has_statistics = set(finished)
    for shard, part, start, stop in zip(*columns, strict=True):
        size = masks.pop(f"{shard}/{part}.parquet", None)
        if size is not None:
            committed[part] = size
        elif shard in has_statistics:
            line = f"masks/{shard}/{part}.parquet was committed and has been lost: run the same command again"
            faults.add([_Fault("committed parts that have been lost", line)])
        else:
            undone += stop - start
    for folder, strangers in (("masks", masks), ("stats", stats)):
        kind = f"objects under {folder}/ that are in no plan"
        faults.add(_Fault(kind, f"{folder}/{shown(path)} is in no plan: delete it") for path in sorted(strangers))
    unfinished = None
    if undone:
        unfinished = f"{undone:,} of {plan.images:,} images not done yet: run the same command again"
    elif uncounted := len(images) - len(finished):
        unfinished = f"{count(uncounted, 'shard has', 'shards have')} no statistics yet: run the same command again"
    return _Objects(committed, finished, unfinished)


def _check_stats(ledger: Ledger, plan: Plan, shards: Iterable[str], faults: _Faults) -> dict[str, ShardStats]:
    """Read the statistics of shards that can be read."""

    def read(shard: str) -> tuple[str, ShardStats | None]:
        try:
            return shard, ledger.shard_stats([shard])[shard]
        except StoreError:
            raise
        except SegmentError:
            return shard, None

    found = dict(in_order(read, shards, name="audit"))
    damaged = (shard for shard, stats in found.items() if stats is None)
    faults.add(_Fault("damaged statistics", f"stats/{shard}.parquet is damaged: {_MEND}") for shard in damaged)
    sound = {shard: stats for shard, stats in found.items() if stats}
    faults.add(_wrong_counts(plan, sound))
    return sound


def _wrong_counts(plan: Plan, stats: Mapping[str, ShardStats]) -> Iterator[_Fault]:
    images = plan.images_by_shard()
    for shard, found in stats.items():
        if found.images != images[shard]:
            words = f"has {found.images} rows for {images[shard]} planned images: run again with --verify"
            yield _Fault("shards with another number of rows than planned", f"shard {shard} {words}")


class _Looked(NamedTuple):
    """A part that could be read: its rows but for the masks, their fold, and whether its input could not be had."""

    rows: pa.Table
    folded: ShardStats
    is_unseen: bool


class _RowAudit:
    """Checks the rows of all committed parts, a few at once.

    Args:
        ledger, plan, run: of the run; `run.json`.
        card: the model's.
        deep: see `audit_run`.
        faults: where what is wrong goes.

    Attributes:
        rows: how many were read.
        unseen: how many of them are of Parquet files that are gone or have changed (deep).
        others: the sum of the shards without statistics.
    """

    def __init__(
        self, ledger: Ledger, plan: Plan, run: Mapping[str, Any], card: ModelCard, deep: bool, faults: _Faults
    ) -> None:
        self._ledger, self._plan, self._fingerprint = ledger, plan, run["fingerprint"]
        self._card, self._classes, self._deep, self._faults = card, len(card.classes), deep, faults
        self._options = InputOptions.of_run(run)
        self.rows, self.unseen, self.others = 0, 0, StatsSum(self._classes)

    def check(self, committed: Container[str], stats: Mapping[str, ShardStats]) -> None:
        """Check the parts of these ids, and the statistics of their shards."""
        left = {shard: len(parts) for shard, parts in self._plan.parts_by_shard().items()}
        sums: dict[str, StatsSum] = {}
        ids: dict[str, set[str]] = {}
        wanted = (part for part in self._plan.parts() if part.id in committed)
        for part, looked, found in in_order(self._read, wanted, name="audit", ahead=16):
            self._faults.add(found)
            if looked is None:
                continue
            self.rows += looked.folded.images
            self.unseen += looked.folded.images if looked.is_unseen else 0
            self._faults.add(_of_file(part, repeated_ids(part, looked.rows, ids.setdefault(part.shard, set()))))
            if part.shard not in stats:
                self.others.add(looked.folded)
                continue
            sums.setdefault(part.shard, StatsSum(self._classes)).add(looked.folded)
            left[part.shard] -= 1
            if not left[part.shard]:  # all of its parts could be read
                self._check_sum(part.shard, sums.pop(part.shard).total())
                ids.pop(part.shard)

    def _check_sum(self, shard: str, folded: ShardStats) -> None:
        if not self._ledger.holds_stats(shard, folded, self._card):
            line = f"stats/{shard}.parquet is not the sum of its parts: {_MEND}"
            self._faults.add([_Fault("statistics that are not the sum of their parts", line)])

    def _read(self, part: Part) -> tuple[Part, _Looked | None, list[_Fault]]:
        """Read a part and say what is wrong with it; None where it is damaged."""
        columns, block = (None, 1 << 20) if self._deep else (_ROWS, 1 << 16)
        try:
            table = self._ledger.read_rows(part.shard, part.id, columns, block_size=block)
            rows, folded = table.select(_ROWS), fold(table, self._classes)
            ids = self._input_ids(part, rows) if self._deep and not part.members else []
            wrong = list(wrong_rows(table, part, self._fingerprint, ids=ids, deep=self._deep))
        except StoreError:
            raise
        except (SegmentError, *DAMAGE):  # cut, flipped, deleted meanwhile, no table of ours
            return part, None, _of_file(part, [("damaged masks files", "is damaged")])
        return part, _Looked(rows, folded, ids is None), _of_file(part, wrong)

    def _input_ids(self, part: Part, rows: pa.Table) -> list[str] | None:
        """Read the ids of a part of Parquet from the input; None where it is gone, has changed or is damaged."""
        try:
            ids = read_ids(part, self._options, self._ledger.store)
        except (SegmentError, *DAMAGE):
            return None
        held = zip(ids, rows["id"].to_pylist(), rows["error"].to_pylist(), strict=True)
        return [own if (error or "").startswith(_NAMELESS) else name for name, own, error in held]


def _of_file(part: Part, wrong: Iterable[tuple[str, str]]) -> list[_Fault]:
    name = f"masks/{part.shard}/{part.id}.parquet"
    return [_Fault(kind, f"{name} {words}: {_MEND}") for kind, words in wrong]
