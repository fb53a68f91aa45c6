"""Audit: prove from the store alone that every planned image has exactly one row and that the statistics hold."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from segment.card import ModelCard
from segment.errors import SegmentError, StoreError
from segment.ledger import Ledger
from segment.plan import Plan
from segment.tables import MASKS_SCHEMA, ShardStats, fold, footer_of, merge

_Range = tuple[str, int, int]  # part id, first and last (exclusive) position in the shard
_COUNTED = ["id", "index", "status", "confusion", "miou"]


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found.

    Attributes:
        shards, parts, images, errors, scored: totals of what is committed.
        problems: one line each; empty when every planned image has exactly one row and the statistics hold.
    """

    shards: int
    parts: int
    images: int
    errors: int
    scored: int
    problems: tuple[str, ...]

    @property
    def totals(self) -> dict[str, int]:
        """All but the problems, by name."""
        return {name: getattr(self, name) for name in ("shards", "parts", "images", "errors", "scored")}


def audit_run(ledger: Ledger, *, deep: bool = False) -> Audit:
    """Audit a run: what is committed against the plan, the rows of each part, the statistics against their fold.

    Args:
        ledger: of the run.
        deep: read every byte of every masks file and check its page checksums; else only the columns of counts.

    Raises:
        UsageError: there is no run at this place.
    """
    run, plan = ledger.read_begun()
    card = ModelCard.model_validate(run["card"])
    found = audit_listing(ledger, plan, card)
    problems = [*found.problems, *_check_shards(ledger, plan, card, run["fingerprint"], deep)]
    return replace(found, problems=tuple(problems))


def audit_listing(ledger: Ledger, plan: Plan, card: ModelCard) -> Audit:
    """Audit by listings and statistics alone, as a run does at its end: no masks file is read.

    Every committed object of the plan is listed; the rows of each shard are counted by its statistics.
    """
    planned = plan.parts_by_shard()
    images = plan.images_by_shard()
    listed = ledger.listed_parts()
    expected = {(shard, part) for shard, parts in planned.items() for part in parts}
    problems = [
        f"part {part} of shard {shard} is not committed: run the same command again"
        for shard, part in sorted(expected - listed.keys())
    ]
    problems += [
        f"masks/{shard}/{part}.parquet is in no plan: delete it" for shard, part in sorted(listed.keys() - expected)
    ]
    finished = ledger.finished_shards()
    problems += [
        f"shard {shard} has no statistics: run the same command again" for shard in planned if shard not in finished
    ]
    problems += [f"stats/{shard}.parquet is in no plan: delete it" for shard in sorted(finished - planned.keys())]
    stats = ledger.shard_stats(shard for shard in planned if shard in finished)
    for shard, found in stats.items():
        if found.images != images[shard]:
            problems.append(
                f"shard {shard} has {found.images} rows for {images[shard]} planned images: run again with --verify"
            )
    total = merge(stats.values(), len(card.classes))
    committed = len(expected & listed.keys())
    return Audit(len(stats), committed, total.images, total.errors, total.scored, tuple(problems))


def _check_shards(ledger: Ledger, plan: Plan, card: ModelCard, fingerprint: str, deep: bool) -> Iterator[str]:
    finished = ledger.finished_shards()
    ranges = zip(*(plan.table[name].to_pylist() for name in ("shard", "id", "start", "stop")), strict=True)
    parts: dict[str, list[_Range]] = {}
    for shard, part, start, stop in ranges:
        if shard in finished:
            parts.setdefault(shard, []).append((part, start, stop))
    with ThreadPoolExecutor(8, thread_name_prefix="audit") as pool:
        for shard, members in parts.items():
            checks = pool.map(
                lambda planned, shard=shard: _check_part(ledger, shard, planned, card, fingerprint, deep), members
            )
            folded: list[ShardStats] = []
            for problems, stats in checks:
                yield from problems
                folded += [stats] if stats else []
            if len(folded) == len(members):
                yield from _check_stats(ledger, shard, merge(folded, len(card.classes)))


def _check_part(
    ledger: Ledger, shard: str, planned: _Range, card: ModelCard, fingerprint: str, deep: bool
) -> tuple[list[str], ShardStats | None]:
    part = planned[0]
    name = f"masks/{shard}/{part}.parquet"
    try:
        table = ledger.read_rows(shard, part, None if deep else _COUNTED, block_size=1 << 20 if deep else 1 << 16)
    except FileNotFoundError:
        return [], None  # told by the listing already
    except StoreError:
        raise
    except SegmentError:
        return [f"{name} is damaged: delete it and run the same command again"], None
    problems = [f"{name} {problem}" for problem in _problems(table, footer_of(table), planned, fingerprint, deep)]
    return problems, fold(table, len(card.classes))


def _problems(table: pa.Table, footer: dict[str, Any], planned: _Range, fingerprint: str, deep: bool) -> Iterator[str]:
    part, start, stop = planned
    mend = "delete it and run the same command again"
    if table["index"].to_pylist() != list(range(start, stop)):
        yield f"holds {len(table)} rows that are not the planned images {start} to {stop - 1}: {mend}"
    if footer.get("part") != part or footer.get("rows") != len(table):
        yield f"says in its footer that it is part {footer.get('part')} of {footer.get('rows')} rows: {mend}"
    if footer.get("fingerprint") != fingerprint:
        yield f"was written by another run (fingerprint): {mend}"
    if deep and not table.schema.equals(MASKS_SCHEMA):
        yield f"has other columns than this version writes: {mend}"
    ok = [status == "ok" for status in table["status"].to_pylist()]
    if deep and any(good and mask["bytes"] is None for good, mask in zip(ok, _masks(table), strict=True)):
        yield f"has an image without error and without mask: {mend}"


def _masks(table: pa.Table) -> list[dict[str, Any]]:
    return [mask or {"bytes": None} for mask in table["mask"].to_pylist()]


def _check_stats(ledger: Ledger, shard: str, folded: ShardStats) -> Iterator[str]:
    try:
        written = ledger.shard_stats([shard])[shard]
    except SegmentError as error:
        yield str(error)
        return
    same = written.confusion == folded.confusion and written.image_miou_sum == folded.image_miou_sum
    counts = ("images", "errors", "scored")
    if not same or any(getattr(written, name) != getattr(folded, name) for name in counts):
        yield f"stats/{shard}.parquet is not the sum of its parts: delete it and run the same command again"
