"""Audit: prove from the store alone that every planned image has exactly one row and that the statistics hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from segment.background import in_order
from segment.card import ModelCard
from segment.errors import SegmentError, StoreError
from segment.ledger import DAMAGE, Ledger
from segment.names import count, shown
from segment.plan import Plan
from segment.shards import Part, image_uri
from segment.tables import MASKS_SCHEMA, ShardStats, StatsSum, fold, footer_of, merge

_ROWS = ["id", "uri", "shard", "part", "index", "status", "error", "confusion", "miou"]  # all but what is large
_SHOWN = 10  # problems of a kind that are told in full
_MEND = "delete it and run the same command again"


@dataclass(frozen=True, slots=True)
class Read:
    """What a deep audit looked at: masks files, their rows, their bytes."""

    files: int
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found.

    Attributes:
        shards, parts, images, errors, scored: totals of what is committed.
        unfinished: what is still to be done, in one line; None where nothing is.
        wrong: what is wrong, a line each; of many of a kind the first few, and one line with the number of the others.
        faults: how many things are wrong.
        read: what a deep audit looked at.
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
    """What the listings say: planned parts that are there with their bytes, shards with statistics, what is to be done."""

    committed: dict[str, int]
    finished: list[str]
    unfinished: str | None


def audit_run(ledger: Ledger, *, deep: bool = False) -> Audit:
    """Audit a run: what is committed against the plan, the rows of each part, the statistics against their fold.

    A row is its planned image's by position, id and URI. The plan of Parquet knows no ids: there each id must be its
    shard's only one, unless its row is the error row of a repeated id, and the URI must be that of the id.

    Args:
        ledger: of the run.
        deep: read every byte of every masks file and check its page checksums; else all columns but the masks.

    Raises:
        UsageError: there is no run at this place.
    """
    run, plan = ledger.read_begun()
    classes = len(ModelCard.model_validate(run["card"]).classes)
    faults = _Faults()
    objects = _check_objects(ledger, plan, faults)
    stats = _check_stats(ledger, plan, objects.finished, faults)
    rows = _RowAudit(ledger, plan, run["fingerprint"], classes, deep, faults)
    rows.check(objects.committed, stats)
    found = _totals(objects, merge([*stats.values(), rows.others.total()], classes), len(stats), faults)
    read = Read(len(objects.committed), rows.rows, sum(objects.committed.values()))
    return replace(found, read=read) if deep else found


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


class _RowAudit:
    """Checks the rows of all committed parts, a few at once.

    Args:
        ledger, plan, fingerprint: of the run.
        classes: C.
        deep: see `audit_run`.
        faults: where what is wrong goes.

    Attributes:
        rows: how many were read.
        others: the sum of the shards without statistics.
    """

    def __init__(self, ledger: Ledger, plan: Plan, fingerprint: str, classes: int, deep: bool, faults: _Faults) -> None:
        self._ledger, self._plan, self._fingerprint = ledger, plan, fingerprint
        self._classes, self._deep, self._faults = classes, deep, faults
        self.rows, self.others = 0, StatsSum(classes)

    def check(self, committed: Container[str], stats: Mapping[str, ShardStats]) -> None:
        """Check the parts of these ids, and the statistics of their shards."""
        left = {shard: len(parts) for shard, parts in self._plan.parts_by_shard().items()}
        sums: dict[str, StatsSum] = {}
        ids: dict[str, set[str]] = {}
        wanted = (part for part in self._plan.parts() if part.id in committed)
        for part, table, folded, found in in_order(self._read, wanted, name="audit", ahead=16):
            self._faults.add(found)
            if table is None or folded is None:
                continue
            self.rows += len(table)
            self._faults.add(_repeated(part, table, ids.setdefault(part.shard, set())))
            if part.shard not in stats:
                self.others.add(folded)
                continue
            sums.setdefault(part.shard, StatsSum(self._classes)).add(folded)
            left[part.shard] -= 1
            if not left[part.shard]:  # all of its parts could be read
                self._faults.add(_wrong_sum(part.shard, stats[part.shard], sums.pop(part.shard).total()))
                ids.pop(part.shard)

    def _read(self, part: Part) -> tuple[Part, pa.Table | None, ShardStats | None, list[_Fault]]:
        """Read a part: its rows but for the masks, their fold, and what is wrong with them; None where damaged."""
        name = f"masks/{part.shard}/{part.id}.parquet"
        columns, block = (None, 1 << 20) if self._deep else (_ROWS, 1 << 16)
        try:
            table = self._ledger.read_rows(part.shard, part.id, columns, block_size=block)
            wrong = list(_wrong_rows(table, part, self._fingerprint, self._deep))
            rows, folded = table.select(_ROWS), fold(table, self._classes)
        except StoreError:
            raise
        except (SegmentError, *DAMAGE):  # cut, flipped, deleted meanwhile, no table of ours
            return part, None, None, [_Fault("damaged masks files", f"{name} is damaged: {_MEND}")]
        return part, rows, folded, [_Fault(kind, f"{name} {words}: {_MEND}") for kind, words in wrong]


def _wrong_rows(table: pa.Table, part: Part, fingerprint: str, deep: bool) -> Iterator[tuple[str, str]]:
    """Yield kind and words of what is wrong with the rows of a part."""
    footer = footer_of(table)
    planned = table["index"].to_pylist() == list(range(part.start, part.stop))
    if not planned:
        words = f"holds {len(table)} rows that are not the planned images {part.start} to {part.stop - 1}"
        yield "masks files of other rows than planned", words
    if footer.get("part") != part.id or footer.get("rows") != len(table):
        words = f"says in its footer that it is part {footer.get('part')} of {footer.get('rows')} rows"
        yield "masks files of another part by their footer", words
    if footer.get("fingerprint") != fingerprint:
        yield "masks files of another run", "was written by another run (fingerprint)"
    if planned and (wrong := _wrong_image(table, part)):
        yield "masks files that name other images than planned", wrong
    if deep and not table.schema.equals(MASKS_SCHEMA):
        yield "masks files of other columns", "has other columns than this version writes"
    if deep and _without_mask(table):
        yield "masks files without a mask", "has an image without error and without mask"


def _wrong_image(table: pa.Table, part: Part) -> str | None:
    """Return how the first row that says it is of another image than the planned one says so."""
    for name, value in (("shard", part.shard), ("part", part.id)):
        if set(table[name].to_pylist()) - {value}:
            return f"has rows that say they belong to another {name}"
    ids, uris = table["id"].to_pylist(), table["uri"].to_pylist()
    if part.members:
        expected = [(member.id, image_uri(part, member.id, member.image)) for member in part.members]
    else:
        expected = [(name, image_uri(part, name)) for name in ids]  # a plan of Parquet knows no ids
    for index, (found, wanted) in enumerate(zip(zip(ids, uris, strict=True), expected, strict=True), part.start):
        if found[0] != wanted[0]:
            return f"names image {index} '{shown(found[0])}', planned is '{shown(wanted[0])}'"
        if found[1] != wanted[1]:
            return f"says of image {index} that it is at {shown(found[1])}, planned is {shown(wanted[1])}"
    return None


def _repeated(part: Part, table: pa.Table, seen: set[str]) -> Iterator[_Fault]:
    """Yield a fault if ids come twice in a Parquet shard; `seen` are those of its parts so far."""
    if part.members:
        return  # they are the plan's
    twice = []
    for name, error in zip(table["id"].to_pylist(), table["error"].to_pylist(), strict=True):
        if name in seen and not (error or "").startswith("duplicate_id:"):
            twice.append(name)
        seen.add(name)
    if twice:
        where = f"masks/{part.shard}/{part.id}.parquet"
        words = f"has {count(len(twice), 'id')} of other rows of its shard, e.g. '{shown(twice[0])}'"
        yield _Fault("masks files with ids of other rows", f"{where} {words}: {_MEND}")


def _without_mask(table: pa.Table) -> bool:
    masked = pc.is_valid(pc.struct_field(table["mask"].combine_chunks(), "bytes"))
    return bool(pc.any(pc.and_(pc.equal(table["status"], "ok").combine_chunks(), pc.invert(masked))).as_py())


def _wrong_sum(shard: str, written: ShardStats, folded: ShardStats) -> Iterator[_Fault]:
    same = written.confusion == folded.confusion and written.image_miou_sum == folded.image_miou_sum
    if not same or any(getattr(written, name) != getattr(folded, name) for name in ("images", "errors", "scored")):
        yield _Fault(
            "statistics that are not the sum of their parts",
            f"stats/{shard}.parquet is not the sum of its parts: {_MEND}",
        )
