"""The audit of a run: proof, from the store alone, that every planned image has exactly one row.

It also proves that nothing else is there, that the statistics of each shard are the sum of its rows, and that every
object is the one that was written, as far as the manifest of the run says.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from segment.errors import SegmentError, StoreError
from segment.inputs.findings import LeftOut, by_reason
from segment.models.card import ModelCard
from segment.output.damage import DAMAGE
from segment.output.faults import Fault, Faults
from segment.output.ledger import Ledger
from segment.output.manifest import FIGURES
from segment.output.object_checks import AGAIN, VERIFY, Objects, check_manifest, check_objects, wrong_sizes
from segment.output.part_audit import PartAuditor, of_part
from segment.output.plan import Plan
from segment.output.row_checks import repeated_ids
from segment.output.shard_stats import ShardStats, StatsSum, merge
from segment.output.signing import PublicKey
from segment.output.success import check_record, check_success, check_totals
from segment.store.background import in_order
from segment.store.names import shown

_NO_MANIFEST = (
    "whether the bytes are those that were written, as there is no manifest.parquet: the run did not end yet, or by an "
    "earlier version of segment. The same `segment run` writes one"
)
_NO_SUCCESS = (
    "whether run.json, the plan and the manifest are those of the run, as there is no _SUCCESS: it did not end yet, or "
    "failed, or somebody has deleted it. The same `segment run` writes it"
)


@dataclass(frozen=True, slots=True)
class Read:
    """The extent of a deep audit.

    Attributes:
        files, rows, bytes: masks files, their rows and their bytes.
        unseen: rows whose input is gone, changed, damaged or not allowed, so that their ids were not compared with it.
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
        read: the extent of a deep audit; None otherwise.
        left_out: objects and images of the input that are not planned, by reason. They are no fault.
        unchecked: what could not be checked, a line each.
        damaged: shard and id of the parts that have a fault, or are lost.
        miscounted: shards whose statistics have a fault.
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
    unchecked: tuple[str, ...] = ()
    damaged: tuple[tuple[str, str], ...] = ()
    miscounted: tuple[str, ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        """The unfinished work and all faults; empty if the run is complete and correct."""
        return (*([self.unfinished] if self.unfinished else []), *self.wrong)

    @property
    def totals(self) -> dict[str, int]:
        """The totals by name, as `_SUCCESS` holds them."""
        return {name: getattr(self, name) for name in ("shards", "parts", "images", "errors", "scored")}


def audit_run(ledger: Ledger, *, deep: bool = False, key: PublicKey | None = None) -> Audit:
    """Audit a run: the committed objects against plan and manifest, the rows of each part, the statistics.

    Position, id and URI of a row must be those of its planned image. The plan holds no ids of Parquet input: there, an
    id must be unique within its shard, except in error rows of repeated ids, and the URI must match the id. The scores
    of a row must follow from its counts. A deep audit compares every byte with the manifest, decodes every mask, which
    must be the one that was counted, and reads the ids of Parquet from the input again, where that is unchanged.

    Args:
        deep: read every byte of every object; otherwise sizes, and all columns but the masks.
        key: must have signed `_SUCCESS`.

    Raises:
        UsageError: there is no run at this output.
        SegmentError: `run.json` or the plan is damaged.
    """
    run, plan = ledger.read_run_and_plan()
    card, auditor = _card_and_auditor(ledger, run, deep)
    faults = Faults()
    has_manifest, success = check_success(ledger, key, faults)
    check_record(run, plan, complete=bool(success), faults=faults)
    objects = check_objects(ledger, plan, faults)
    sizes = list(wrong_sizes(ledger, plan, objects))
    if has_manifest and not objects.unfinished:
        check_manifest(ledger, plan, objects, faults)
    faults.add(_wrong_figures(ledger, deep))
    stats = _check_stats(ledger, plan, card, objects.finished, faults)
    rows = _RowAudit(ledger, plan, card, auditor, faults)
    rows.check(objects.committed, stats)
    for shard, part, fault in sizes:
        if not faults.has(shard, part):  # else its content has told more
            faults.add_of(shard, part, [fault])
    found = _totals(objects, merge([*stats.values(), rows.others.total()], len(card.classes)), len(stats), faults)
    if not faults.number and not objects.unfinished:
        check_totals(success, found.totals, run["fingerprint"], faults)
        found = replace(found, wrong=faults.summary(), faults=faults.number)
    read = Read(len(objects.committed), rows.rows, sum(objects.committed.values()), rows.unseen)
    unchecked = () if objects.unfinished else _unchecked(has_manifest, bool(success))
    left_out = tuple(by_reason(plan.left_out))
    return replace(found, read=read if deep else None, left_out=left_out, unchecked=unchecked)


def _unchecked(has_manifest: bool, has_success: bool) -> tuple[str, ...]:
    if not has_manifest:
        return (_NO_MANIFEST,)
    return () if has_success else (_NO_SUCCESS,)


def _card_and_auditor(ledger: Ledger, run: Mapping[str, Any], deep: bool) -> tuple[ModelCard, PartAuditor]:
    card = ledger.card_of(run)
    try:
        return card, PartAuditor(ledger, run, card, deep=deep)
    except DAMAGE as error:
        where = shown(ledger.url("run.json"))
        raise SegmentError(f"{where} is damaged ({type(error).__name__}): {VERIFY}, or restore it") from None


def audit_listing(ledger: Ledger, plan: Plan, card: ModelCard) -> Audit:
    """Audit a run by its listings and statistics, without reading masks files: the audit at the end of a run.

    The listings must hold exactly the planned objects, of the sizes that are known. The statistics of a shard must
    count its planned images.

    Raises:
        SegmentError: a shard's statistics are damaged.
    """
    faults = Faults()
    objects = check_objects(ledger, plan, faults)
    for shard, part, fault in wrong_sizes(ledger, plan, objects):
        faults.add_of(shard, part, [fault])
    stats = ledger.shard_stats(objects.finished)
    _add_wrong_counts(plan, stats, faults)
    return _totals(objects, merge(stats.values(), len(card.classes)), len(stats), faults)


def audit_parts(ledger: Ledger, card: ModelCard, plan: Plan) -> tuple[str, ...]:
    """Read the parts of a plan whole, keep their digests in the ledger, and return their faults, a line each."""
    auditor = PartAuditor(ledger, ledger.read_run_and_plan()[0], card, deep=True, with_input=False)
    faults = Faults()
    for audit in in_order(auditor.audit, plan.parts(), name="audit", ahead=16):
        faults.add(audit.faults)
        if not audit.faults:
            ledger.digests.seen(*audit.objects)
    return faults.summary()


def _totals(objects: Objects, total: ShardStats, shards: int, faults: Faults) -> Audit:
    numbers = (shards, len(objects.committed), total.images, total.errors, total.scored)
    found = Audit(*numbers, objects.unfinished, faults.summary(), faults.number)
    return replace(found, damaged=tuple(faults.parts), miscounted=tuple(faults.shards))


def _wrong_figures(ledger: Ledger, deep: bool) -> Iterator[Fault]:
    entries = ledger.entries("report")
    for path in FIGURES:
        known, entry = ledger.digests.get(path), entries.get(path)
        if not known or not entry:
            continue
        how = "size" if entry.size not in (known.size, -1) else ""
        if deep and not how:
            data = ledger.store.read_if_exists(ledger.url(path))
            how = "SHA-256" if data is not None and hashlib.sha256(data).digest() != known.sha256 else ""
        if how:
            yield Fault("figures that were changed", f"{path} is not the file that was written ({how}): {AGAIN}")


def _check_stats(
    ledger: Ledger, plan: Plan, card: ModelCard, shards: Iterable[str], faults: Faults
) -> dict[str, ShardStats]:
    """Read the statistics of shards; damaged ones are faults and are left out."""

    def read(shard: str) -> tuple[str, ShardStats | None]:
        try:
            stats = ledger.shard_stats([shard])[shard]
        except StoreError:
            raise
        except (SegmentError, FileNotFoundError):
            return shard, None
        return shard, stats if stats.confusion.classes == len(card.classes) else None

    found = dict(in_order(read, shards, name="audit"))
    for shard, stats in found.items():
        if stats is None:
            faults.add_of(shard, "", [Fault("damaged statistics", f"stats/{shard}.parquet is damaged: {VERIFY}")])
    sound = {shard: stats for shard, stats in found.items() if stats}
    _add_wrong_counts(plan, sound, faults)
    return sound


def _add_wrong_counts(plan: Plan, stats: Mapping[str, ShardStats], faults: Faults) -> None:
    images = plan.images_by_shard()
    for shard, found in stats.items():
        if found.images != images[shard]:
            line = f"shard {shard} has {found.images} rows for {images[shard]} planned images: {VERIFY}"
            faults.add_of(shard, "", [Fault("shards with another number of rows than planned", line)])


class _RowAudit:
    """Checks the rows of all committed parts, several at once.

    Attributes:
        others: sum over the shards without statistics.
    """

    def __init__(self, ledger: Ledger, plan: Plan, card: ModelCard, auditor: PartAuditor, faults: Faults) -> None:
        self._ledger, self._plan, self._card, self._auditor, self._faults = ledger, plan, card, auditor, faults
        self._classes = len(card.classes)
        self.rows, self.unseen, self.others = 0, 0, StatsSum(self._classes)

    def check(self, committed: Mapping[str, int], stats: Mapping[str, ShardStats]) -> None:
        """Check the parts with these ids and sizes, and the statistics of their shards."""
        left = {shard: len(parts) for shard, parts in self._plan.parts_by_shard().items()}
        sums: dict[str, StatsSum] = {}
        ids: dict[str, set[str]] = {}
        wanted = (part for part in self._plan.parts() if part.id in committed)
        for audit in in_order(lambda p: self._auditor.audit(p, committed[p.id]), wanted, name="audit", ahead=16):
            part, found = audit.part, audit.found
            self._faults.add_of(part.shard, part.id, audit.faults)
            if audit.objects and not audit.faults:
                self._ledger.digests.seen(*audit.objects)
            if found is None:
                continue
            self.rows += found.stats.images
            self.unseen += found.stats.images if found.is_unseen else 0
            repeated = of_part(part, repeated_ids(part, found.rows, ids.setdefault(part.shard, set())))
            self._faults.add_of(part.shard, part.id, repeated)
            if part.shard not in stats:
                self.others.add(found.stats)
                continue
            sums.setdefault(part.shard, StatsSum(self._classes)).add(found.stats)
            left[part.shard] -= 1
            if not left[part.shard]:  # every part of the shard is readable
                self._check_sum(part.shard, sums.pop(part.shard).total())
                ids.pop(part.shard)

    def _check_sum(self, shard: str, folded: ShardStats) -> None:
        try:
            holds = self._ledger.holds_stats(shard, folded, self._card)
        except StoreError:
            raise
        except (SegmentError, FileNotFoundError):
            holds = False
        if not holds:
            line = f"stats/{shard}.parquet is not the sum of its parts: {VERIFY}"
            self._faults.add_of(shard, "", [Fault("statistics that are not the sum of their parts", line)])
