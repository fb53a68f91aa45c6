"""What is asked, what is planned, what is committed: the truth about a run, kept in the store and nowhere else.

OUTPUT/run.json, plan.parquet, masks/<shard>/<part>.parquet (the commit), stats/<shard>.parquet, _SUCCESS.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from segment.errors import SegmentError, UsageError
from segment.inputs.findings import LeftOut
from segment.metrics import score
from segment.models.card import ModelCard
from segment.output.damage import sound
from segment.output.plan import Plan
from segment.output.tables import (
    ShardStats,
    fold,
    footer_of,
    merge,
    read_footer,
    read_masks,
    read_stats,
    read_table,
    stats_table,
    to_parquet,
)
from segment.store.background import in_order
from segment.store.client import Store
from segment.store.names import shown, skip_reason
from segment.store.urls import join_url

_FOLD_COLUMNS = ["status", "confusion", "miou"]
_FOLD_BLOCK = 1 << 16  # bytes a range request: the mask column between footer and counts is not worth reading
_COUNTED = re.compile(r"\.(parquet|parq|pq)(/|$)", re.IGNORECASE)
_LIST_SHARDS_ONE_BY_ONE = 64  # more unfinished shards than this are found by one listing of masks/


class Ledger:
    """The books of one output prefix.

    Args:
        store: how to reach it.
        output: absolute URL of the prefix.
    """

    def __init__(self, store: Store, output: str) -> None:
        self.store = store
        self.output = output

    def url(self, *names: str) -> str:
        """URL of something below the output."""
        return join_url(self.output, *names)

    def masks_url(self, shard: str, part: str) -> str:
        """URL whose existence is the commit of a part."""
        return self.url("masks", shard, f"{part}.parquet")

    def stats_url(self, shard: str) -> str:
        """URL of a shard's statistics."""
        return self.url("stats", f"{shard}.parquet")

    def read_run(self) -> dict[str, Any] | None:
        """Return `run.json`, or None where no run was started.

        Raises:
            UsageError: it is there but is not ours.
        """
        data = self.store.read_if_exists(self.url("run.json"))
        if data is None:
            return None
        try:
            run = json.loads(data)
            if isinstance(run, dict) and run["contract"] and run["fingerprint"]:
                return run
        except (ValueError, KeyError):
            pass
        raise UsageError(f"{shown(self.url('run.json'))} is not a run of this program: choose another output")

    def refuse_replaced(self, fingerprint: str) -> None:
        """Refuse to go on if another run has taken the place of ours while we had committed nothing.

        Raises:
            SegmentError: so it is.
        """
        run = self.read_run()
        if run is not None and run["fingerprint"] != fingerprint:
            raise SegmentError(f"another run has taken the place of this one at {shown(self.output)}: choose another")

    def has_masks(self) -> bool:
        """Whether anything is committed."""
        return bool(self.listed("masks"))

    def listed(self, folder: str) -> dict[str, int]:
        """Return path below a folder of the output, and bytes, of all there that a reader of its Parquet may count.

        That is at any depth: by its suffix, in any case, hidden or not, and what lies in a folder so named; and every
        file that is not hidden, for `pyarrow.dataset` reads a copy `x.parquet.bak`, too. What file managers leave there
        is nobody's row.
        """
        below = self.url(folder) + "/"
        found = {entry.url.removeprefix(below): entry.size for entry in self.store.list(self.url(folder))}
        return {path: size for path, size in found.items() if _COUNTED.search(path) or not skip_reason(path)}

    def record_input(self, plan: Plan, fingerprint: str) -> None:
        """Bring what `run.json` says of the input in line with the frozen plan, unless the run is another one now."""
        run, frozen = self.read_run(), plan.summary()
        if run is None or run["fingerprint"] != fingerprint or run.get("input") == frozen:
            return
        self.store.write(self.url("run.json"), to_json({**run, "input": frozen}))
        now = self.read_plan()
        if now is not None and now != plan:  # another driver's --update came in between
            self.record_input(now, fingerprint)

    def is_planned(self) -> bool:
        """Whether there is a plan."""
        return self.store.exists(self.url("plan.parquet"))

    def read_plan(self) -> Plan | None:
        """Return the frozen plan, or None where there is none yet.

        Raises:
            SegmentError: it is damaged.
        """
        url = self.url("plan.parquet")

        def read() -> Plan | None:
            data = self.store.read_if_exists(url)
            return None if data is None else Plan.from_bytes(data)

        return sound(url, read)

    def read_begun(self) -> tuple[dict[str, Any], Plan]:
        """Return `run.json` and the plan of a run that was begun.

        Raises:
            UsageError: there is no run at this place, it has not planned yet, or a file of it is lost.
        """
        run, plan, place = self.read_run(), self.read_plan(), shown(self.output)
        if run is not None and plan is None:
            raise UsageError(f"the run at {place} has no plan.parquet: the `segment run` that began it makes it")
        if run is None and (plan is not None or self.has_masks()):
            raise UsageError(f"{place} holds what a run made, but no run.json: put it back, or delete all and run anew")
        if run is None or plan is None:
            raise UsageError(f"no run at {place}: `segment run INPUT {place} --model CARD` makes one")
        return run, plan

    def freeze_plan(self, plan: Plan) -> Plan:
        """Write the plan if there is none, and read back the one that is there: the first driver's."""
        url = self.url("plan.parquet")
        data = plan.to_bytes()
        return sound(url, lambda: Plan.from_bytes(self.store.create(url, data)))

    def finished_shards(self) -> set[str]:
        """Shards whose statistics are written, which happens after their last commit."""
        found = (path for path in self.listed("stats") if "/" not in path and path.endswith(".parquet"))
        return {path.removesuffix(".parquet") for path in found}

    def listed_parts(self) -> dict[tuple[str, str], int]:
        """Shard and id of every part that is committed, planned or not, with its bytes: by one listing of all."""
        found = ((path.split("/"), size) for path, size in self.listed("masks").items() if path.endswith(".parquet"))
        return {(names[0], names[1].removesuffix(".parquet")): size for names, size in found if len(names) == 2}

    def committed(self, plan: Plan, finished: set[str] | None = None) -> set[str]:
        """Ids of the parts that are committed: by one key a finished shard, and a listing of the others.

        Args:
            plan: whose parts.
            finished: `finished_shards()`, where the caller has looked already.
        """
        finished = self.finished_shards() if finished is None else finished
        parts = plan.parts_by_shard()
        done = {part for shard in parts.keys() & finished for part in parts[shard]}
        unfinished = [shard for shard in parts if shard not in finished]
        if len(unfinished) > _LIST_SHARDS_ONE_BY_ONE:
            found = set(self.listed("masks"))
        else:
            found = {f"{shard}/{path}" for shard in unfinished for path in self.listed(f"masks/{shard}")}
        return done | {part for shard in unfinished for part in parts[shard] if f"{shard}/{part}.parquet" in found}

    def finish_shard(self, shard: str, parts: Sequence[str], card: ModelCard, fingerprint: str) -> ShardStats:
        """Fold a shard's committed parts and write its statistics. Idempotent: the same bytes every time.

        Raises:
            SegmentError: a masks file is damaged, lost, or was written by another run; or another run is here now.
        """
        self.refuse_replaced(fingerprint)  # it would take our statistics for its own
        classes = len(card.classes)
        folded = in_order(lambda part: self.part_stats(shard, part, classes, fingerprint), parts, name="fold")
        try:
            stats = merge(folded, classes)
        except FileNotFoundError:
            raise SegmentError(f"a committed part of {shard} has been lost: run the same command again") from None
        self.store.write(self.stats_url(shard), to_parquet(_stats_table(shard, stats, card)))
        return stats

    def holds_stats(self, shard: str, stats: ShardStats, card: ModelCard) -> bool:
        """Whether a shard's file of statistics is what these make, column for column; SegmentError if it is damaged."""
        url = self.stats_url(shard)
        written = sound(url, lambda: read_table(self.store.read(url)))
        return bool(written.equals(_stats_table(shard, stats, card)))

    def part_stats(self, shard: str, part: str, classes: int, fingerprint: str) -> ShardStats:
        """Fold the rows of a committed part.

        Raises:
            SegmentError: its file is damaged, or was written by another run.
            FileNotFoundError: it is not committed.
        """
        table = self.read_rows(shard, part, _FOLD_COLUMNS)
        if footer_of(table).get("fingerprint") != fingerprint:
            raise SegmentError(
                f"{shown(self.masks_url(shard, part))} was written by another run: choose another output"
            )
        return fold(table, classes)

    def shard_stats(self, shards: Iterable[str]) -> dict[str, ShardStats]:
        """Read the statistics of finished shards, in the order given.

        Raises:
            SegmentError: one of them is damaged.
        """

        def read_one(shard: str) -> ShardStats:
            url = self.stats_url(shard)
            return sound(url, lambda: read_stats(self.store.read(url)))

        names = list(shards)
        return dict(zip(names, in_order(read_one, names, name="stats"), strict=True))

    def reopen(self, shard: str, parts: Sequence[str]) -> None:
        """Take back the commit of some parts of a shard: what follows from them first."""
        self.take_back_success()
        self.store.delete(self.stats_url(shard))
        for part in parts:
            self.store.delete(self.masks_url(shard, part))

    def reopen_lost(self, plan: Plan) -> int:
        """Let a round do what was committed and is not there any more; return how many parts that is."""
        listed, planned = self.listed_parts(), plan.parts_by_shard()
        missing = {shard: [part for part in parts if (shard, part) not in listed] for shard, parts in planned.items()}
        lost = {shard: parts for shard, parts in missing.items() if parts}
        if lost:
            self.take_back_success()
        for shard in lost:
            self.store.delete(self.stats_url(shard))
        return sum(map(len, lost.values()))

    def extend_plan(self, plan: Plan, new: Plan) -> Plan:
        """Freeze a plan that has more parts than before; what is left out is as the new one says."""
        self.take_back_success()
        longer = Plan(pa.concat_tables([plan.table, new.table]), new.left_out)
        self.store.write(self.url("plan.parquet"), longer.to_bytes())
        return longer

    def recount(self, plan: Plan, left_out: Sequence[LeftOut]) -> Plan:
        """Freeze a plan of the same parts, where something else is left out of the input now."""
        counted = Plan(plan.table, left_out)
        self.store.write(self.url("plan.parquet"), counted.to_bytes())
        return counted

    def read_rows(
        self, shard: str, part: str, columns: Sequence[str] | None, block_size: int = _FOLD_BLOCK
    ) -> pa.Table:
        """Read some columns of a committed part (None: all); the others are not fetched.

        Raises:
            SegmentError: it is damaged.
            FileNotFoundError: it is not committed.
        """
        url = self.masks_url(shard, part)

        def read() -> pa.Table:
            with self.store.open(url, block_size=block_size) as file:
                return read_masks(file, columns)

        return sound(url, read)

    def read_footer(self, shard: str, part: str, size: int) -> dict[str, object]:
        """Read what a committed part of `size` bytes says of itself (`tables.read_footer`), by one request.

        Raises:
            SegmentError: it is damaged.
        """
        url = self.masks_url(shard, part)

        def read() -> dict[str, object]:
            with self.store.open(url, block_size=_FOLD_BLOCK, size=size) as file:
                return read_footer(file)

        return sound(url, read)

    def succeed(self, totals: Mapping[str, int], fingerprint: str) -> None:
        """Write `_SUCCESS`: the totals of an audit that held."""
        self.store.write(self.url("_SUCCESS"), to_json({**totals, "fingerprint": fingerprint}))

    def is_complete(self) -> bool:
        """Whether `_SUCCESS` is there."""
        return self.store.exists(self.url("_SUCCESS"))

    def take_back_success(self) -> None:
        """Delete `_SUCCESS` if it is there."""
        if self.is_complete():  # or who may not delete could not even run
            self.store.delete(self.url("_SUCCESS"))


def _stats_table(shard: str, stats: ShardStats, card: ModelCard) -> pa.Table:
    scored = score(stats.confusion, card.classes.ignored_classes, card.metric.convention)
    return stats_table(shard, stats, card.classes, scored)


def to_json(value: Mapping[str, Any]) -> bytes:
    """`run.json` and `_SUCCESS`: keys sorted, one to a line."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
