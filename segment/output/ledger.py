"""The ledger: the state of a run, kept in the store and nowhere else.

OUTPUT/run.json, plan.parquet, masks/<shard>/<part>.parquet (the commit), stats/<shard>.parquet, _SUCCESS.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from segment.errors import SegmentError, UsageError
from segment.models.card import ModelCard
from segment.output.damage import read_checked
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
_FOLD_BLOCK = 1 << 16  # bytes per range request; small, so that the mask column between counts and footer is not read
_MOST_PLAN = 1 << 36  # bytes: a plan names every image, and this package wrote it
_PARQUET = re.compile(r"\.(parquet|parq|pq)(/|$)", re.IGNORECASE)
_MOST_SHARD_LISTINGS = 64  # for more unfinished shards than this, one listing of masks/ is cheaper


class Ledger:
    """Reads and writes the state of the run below one output prefix.

    Args:
        store: the store of the output.
        output: absolute URL of the prefix.
    """

    def __init__(self, store: Store, output: str) -> None:
        self.store = store
        self.output = output

    def url(self, *names: str) -> str:
        """Return the URL of an object or folder below the output."""
        return join_url(self.output, *names)

    def masks_url(self, shard: str, part: str) -> str:
        """Return the URL of the masks file of a part; its existence is the commit of the part."""
        return self.url("masks", shard, f"{part}.parquet")

    def stats_url(self, shard: str) -> str:
        """Return the URL of the statistics of a shard."""
        return self.url("stats", f"{shard}.parquet")

    def read_run(self) -> dict[str, Any] | None:
        """Return `run.json`, or None if no run was started.

        Raises:
            UsageError: the file exists but is not the `run.json` of this program.
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
        """Refuse to continue if another run has replaced this one, which is possible before its first commit.

        Raises:
            SegmentError: `run.json` belongs to another run.
        """
        run = self.read_run()
        if run is not None and run["fingerprint"] != fingerprint:
            raise SegmentError(f"another run has replaced this one at {shown(self.output)}: choose another output")

    def has_masks(self) -> bool:
        """Return whether any object exists under `masks/`."""
        return bool(self.listed("masks"))

    def listed(self, folder: str) -> dict[str, int]:
        """Return the size in bytes of each object below a folder that a Parquet reader may count, by relative path.

        These are, at any depth, objects with a Parquet suffix in any case, hidden or not, those in a folder with such a
        suffix, and every object that is not hidden: `pyarrow.dataset` reads a copy `x.parquet.bak`, too. Files that
        operating systems leave there are not counted.
        """
        below = self.url(folder) + "/"
        found = {entry.url.removeprefix(below): entry.size for entry in self.store.list(self.url(folder))}
        return {path: size for path, size in found.items() if _PARQUET.search(path) or not skip_reason(path)}

    def record_input(self, plan: Plan, fingerprint: str) -> None:
        """Update the input summary in `run.json` to the frozen plan, unless another run has replaced this one."""
        run, frozen = self.read_run(), plan.summary()
        if run is None or run["fingerprint"] != fingerprint or run.get("input") == frozen:
            return
        self.store.write(self.url("run.json"), to_json({**run, "input": frozen}))
        now = self.read_plan()
        if now is not None and now != plan:  # another driver has updated the plan meanwhile
            self.record_input(now, fingerprint)

    def is_planned(self) -> bool:
        """Return whether the plan is frozen."""
        return self.store.exists(self.url("plan.parquet"))

    def read_plan(self) -> Plan | None:
        """Return the frozen plan, or None if there is none yet.

        Raises:
            SegmentError: the file is damaged.
        """
        url = self.url("plan.parquet")

        def read() -> Plan | None:
            data = self.store.read_if_exists(url, most=_MOST_PLAN)
            return None if data is None else Plan.from_bytes(data)

        return read_checked(url, read)

    def read_run_and_plan(self) -> tuple[dict[str, Any], Plan]:
        """Return `run.json` and the plan of a run.

        Raises:
            UsageError: there is no run at this output, it has no plan yet, or one of the two files is lost.
        """
        run, plan, place = self.read_run(), self.read_plan(), shown(self.output)
        if run is not None and plan is None:
            raise UsageError(f"the run at {place} has no plan.parquet: run the same `segment run` again to plan it")
        if run is None and (plan is not None or self.has_masks()):
            raise UsageError(f"{place} holds parts of a run but no run.json: restore it, or delete all and run again")
        if run is None or plan is None:
            raise UsageError(f"no run at {place}: give the OUTPUT of a `segment run INPUT OUTPUT --model CARD`")
        return run, plan

    def freeze_plan(self, plan: Plan) -> Plan:
        """Write the plan unless there is one, and return the stored plan: the one of the first driver."""
        url = self.url("plan.parquet")
        data = plan.to_bytes()
        return read_checked(url, lambda: Plan.from_bytes(self.store.create(url, data)))

    def extend_plan(self, plan: Plan) -> Plan:
        """Freeze a plan that covers more tars, unless the stored one of another driver does; return the stored plan."""
        now = self.read_plan()
        if now is not None and now.tars_left <= plan.tars_left:  # of as many it is equal, or has followed the input
            return now
        return self.replace_plan(plan)

    def finished_shards(self) -> set[str]:
        """Return the shards with statistics; these are written after the last part of a shard is committed."""
        found = (path for path in self.listed("stats") if "/" not in path and path.endswith(".parquet"))
        return {path.removesuffix(".parquet") for path in found}

    def listed_parts(self) -> dict[tuple[str, str], int]:
        """Return the size in bytes of every committed part, planned or not, by shard and part id; one listing."""
        found = ((path.split("/"), size) for path, size in self.listed("masks").items() if path.endswith(".parquet"))
        return {(names[0], names[1].removesuffix(".parquet")): size for names, size in found if len(names) == 2}

    def committed(self, plan: Plan, finished: set[str] | None = None) -> set[str]:
        """Return the ids of the committed parts of a plan.

        A finished shard costs one key of a listing; the folders of the others are listed.

        Args:
            plan: the planned parts.
            finished: `finished_shards()`, if the caller has it already.
        """
        finished = self.finished_shards() if finished is None else finished
        parts = plan.parts_by_shard()
        done = {part for shard in parts.keys() & finished for part in parts[shard]}
        unfinished = [shard for shard in parts if shard not in finished]
        if len(unfinished) > _MOST_SHARD_LISTINGS:
            found = set(self.listed("masks"))
        else:
            found = {f"{shard}/{path}" for shard in unfinished for path in self.listed(f"masks/{shard}")}
        return done | {part for shard in unfinished for part in parts[shard] if f"{shard}/{part}.parquet" in found}

    def finish_shard(self, shard: str, parts: Sequence[str], card: ModelCard, fingerprint: str) -> ShardStats:
        """Sum the committed parts of a shard and write its statistics. Idempotent: the bytes are always the same.

        Raises:
            SegmentError: a masks file is damaged, lost, or was written by another run; or another run has replaced
                this one.
        """
        self.refuse_replaced(fingerprint)  # the other run would count our statistics as its own
        classes = len(card.classes)
        folded = in_order(lambda part: self.part_stats(shard, part, classes, fingerprint), parts, name="fold")
        try:
            stats = merge(folded, classes)
        except FileNotFoundError:
            raise SegmentError(f"a committed part of {shard} has been lost: run the same `segment run` again") from None
        self.store.write(self.stats_url(shard), to_parquet(stats_table(shard, stats, card)))
        return stats

    def holds_stats(self, shard: str, stats: ShardStats, card: ModelCard) -> bool:
        """Return whether the statistics file of a shard holds exactly `stats`.

        Raises:
            SegmentError: the file is damaged.
        """
        url = self.stats_url(shard)
        written = read_checked(url, lambda: read_table(self.store.read(url)))
        return bool(written.equals(stats_table(shard, stats, card)))

    def part_stats(self, shard: str, part: str, classes: int, fingerprint: str) -> ShardStats:
        """Return the statistics of a committed part, computed from its rows.

        Raises:
            SegmentError: its file is damaged, or was written by another run.
            FileNotFoundError: the part is not committed.
        """
        table = self.read_rows(shard, part, _FOLD_COLUMNS)
        if footer_of(table).get("fingerprint") != fingerprint:
            raise SegmentError(
                f"{shown(self.masks_url(shard, part))} was written by another run: choose another output"
            )
        return fold(table, classes)

    def shard_stats(self, shards: Iterable[str]) -> dict[str, ShardStats]:
        """Read the statistics of finished shards, in the given order.

        Raises:
            SegmentError: a file is damaged.
        """

        def read_one(shard: str) -> ShardStats:
            url = self.stats_url(shard)
            return read_checked(url, lambda: read_stats(self.store.read(url)))

        names = list(shards)
        return dict(zip(names, in_order(read_one, names, name="stats"), strict=True))

    def reopen(self, shard: str, parts: Sequence[str]) -> None:
        """Undo the commit of some parts of a shard; `_SUCCESS` and the statistics that depend on them go first."""
        self.remove_success()
        self.store.delete(self.stats_url(shard))
        for part in parts:
            self.store.delete(self.masks_url(shard, part))

    def reopen_lost(self, plan: Plan) -> int:
        """Reopen the shards that have statistics but lack masks files; return the number of missing parts."""
        listed, planned = self.listed_parts(), plan.parts_by_shard()
        missing = {shard: [part for part in parts if (shard, part) not in listed] for shard, parts in planned.items()}
        lost = {shard: parts for shard, parts in missing.items() if parts}
        if lost:
            self.remove_success()
        for shard in lost:
            self.store.delete(self.stats_url(shard))
        return sum(map(len, lost.values()))

    def replace_plan(self, plan: Plan) -> Plan:
        """Freeze a plan in place of the current one, and return it."""
        self.store.write(self.url("plan.parquet"), plan.to_bytes())
        return plan

    def read_rows(
        self, shard: str, part: str, columns: Sequence[str] | None, block_size: int = _FOLD_BLOCK
    ) -> pa.Table:
        """Read the rows of a committed part; only the given columns are fetched (None: all).

        Raises:
            SegmentError: its file is damaged.
            FileNotFoundError: the part is not committed.
        """
        url = self.masks_url(shard, part)

        def read() -> pa.Table:
            with self.store.open(url, block_size=block_size) as file:
                return read_masks(file, columns)

        return read_checked(url, read)

    def read_footer(self, shard: str, part: str, size: int) -> dict[str, object]:
        """Read the footer of a committed part of `size` bytes with one request; see `tables.read_footer`.

        Raises:
            SegmentError: its file is damaged.
        """
        url = self.masks_url(shard, part)

        def read() -> dict[str, object]:
            with self.store.open(url, block_size=_FOLD_BLOCK, size=size) as file:
                return read_footer(file)

        return read_checked(url, read)

    def succeed(self, totals: Mapping[str, int], fingerprint: str) -> None:
        """Write `_SUCCESS` with the totals of a successful audit."""
        self.store.write(self.url("_SUCCESS"), to_json({**totals, "fingerprint": fingerprint}))

    def is_complete(self) -> bool:
        """Return whether `_SUCCESS` exists."""
        return self.store.exists(self.url("_SUCCESS"))

    def remove_success(self) -> None:
        """Delete `_SUCCESS` if it exists."""
        if self.is_complete():  # deleting a missing object would already need the permission to delete
            self.store.delete(self.url("_SUCCESS"))


def to_json(value: Mapping[str, Any]) -> bytes:
    """Serialise `run.json` or `_SUCCESS`: keys sorted, one per line."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
