"""The ledger: the state of a run, kept in the store and nowhere else.

OUTPUT/run.json, plan.parquet, masks/<shard>/<part>.parquet (the commit), stats/<shard>.parquet, manifest.parquet,
_SUCCESS.
"""

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from segment.errors import SegmentError, StoreError, UsageError
from segment.inputs.own_scope import scope_of_run
from segment.models.card import ModelCard
from segment.models.validation import validation_message
from segment.output.damage import DAMAGE, read_checked
from segment.output.manifest import masks_path, stats_path
from segment.output.plan import Plan
from segment.output.run_folder import RunFolder, to_json
from segment.output.shard_stats import MOST as MOST_STATS
from segment.output.shard_stats import ShardStats, fold, merge, read_stats, stats_table
from segment.output.stored import Stored
from segment.output.tables import footer_of, read_masks, read_table, to_parquet
from segment.process.temporaries import TemporaryFolder
from segment.store.background import in_order
from segment.store.fetching import fetch
from segment.store.local_files import with_hint
from segment.store.names import shown
from segment.store.temporary_room import needing_room

_FOLD_COLUMNS = ["status", "confusion", "miou"]
_FOLD_BLOCK = 1 << 16  # bytes per range request; small, so that the mask column between counts and footer is not read
_PLAN_IN_MEMORY = 16 << 20  # bytes of a plan that is written from memory
LOST = "has been lost: run the same `segment run` again, or try again if one is at work"
_MOST_SHARD_LISTINGS = 64  # for more unfinished shards than this, one listing of masks/ is cheaper


class Ledger(RunFolder):
    """Reads and writes the state of the run below one output prefix."""

    def read_run(self) -> dict[str, Any] | None:
        """Return `run.json`, or None if no run was started.

        Raises UsageError: the file exists but is not the `run.json` of this program.
        """
        data = self.read_record("run.json")
        if data is None:
            return None
        try:
            run = json.loads(data)
            if run["contract"] and isinstance(run["contract"], dict) and isinstance(run["fingerprint"], str):
                return dict(run)
        except (ValueError, LookupError, TypeError, RecursionError):
            pass
        where = shown(self.url("run.json"))
        raise UsageError(f"{where} is not a run of this program: restore it if it is damaged, or choose another output")

    def card_of(self, run: Mapping[str, Any]) -> ModelCard:
        """Return the card that `run.json` records.

        Raises SegmentError: it is damaged, or an earlier version allowed what is refused now.
        """
        try:
            return ModelCard.model_validate(run["card"])
        except DAMAGE as error:
            why = _words(error) if isinstance(error, ValidationError) else type(error).__name__
            raise SegmentError(
                f"the card in {shown(self.url('run.json'))} is refused: {shown(why)}. If the file is damaged, run the "
                "same command again with --verify; if an earlier version wrote it so, mend the card and choose another "
                "output"
            ) from None

    def refuse_replaced(self, fingerprint: str) -> None:
        """Refuse to continue if another run has replaced this one, which is possible before its first commit.

        Raises SegmentError: `run.json` belongs to another run.
        """
        run = self.read_run()
        if run is not None and run["fingerprint"] != fingerprint:
            raise SegmentError(f"another run has replaced this one at {shown(self.output)}: choose another output")

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
        """Return the frozen plan, or None if there is none yet. Raises SegmentError: the file is damaged."""
        url = self.url("plan.parquet")

        def read() -> Plan:
            with fetch(self.store, url) as file:
                return Plan.read(file)

        try:
            return read_checked(url, read)
        except FileNotFoundError:
            return None

    def read_run_and_plan(self) -> tuple[dict[str, Any], Plan]:
        """Return `run.json` and the plan of a run. The store then reads what the input of the run may name.

        Raises UsageError: there is no run at this output, it has no plan yet, or one of the two files is lost;
        SegmentError: one of the two files is damaged.
        """
        run, plan, place = self.read_run(), self.read_plan(), shown(self.output)
        if run is not None and plan is None:
            raise UsageError(f"the run at {place} has no plan.parquet: run the same `segment run` again to plan it")
        if run is None and (plan is not None or self.has_masks()):
            raise UsageError(f"{place} holds parts of a run but no run.json: restore it, or delete all and run again")
        if run is None or plan is None:
            message = f"no run at {place}: give the OUTPUT of a `segment run INPUT OUTPUT --model CARD`"
            raise UsageError(with_hint(message, self.output))
        from segment.output.record import misshapen  # here: a worker, which reads no record, starts sooner

        if key := misshapen(run):
            where = shown(self.url("run.json"))
            raise SegmentError(
                f"{where} is damaged ({key}): run the same `segment run` again with --verify, or restore it"
            )
        self.store.limit_inputs(scope_of_run(run, self.output))
        return run, plan

    def freeze_plan(self, plan: Plan) -> Plan:
        """Write the plan unless there is one, and return the stored plan: the one of the first driver."""
        self._write_plan(plan, self.store.write_if_absent)
        frozen = self.read_plan()
        if frozen is None:
            where = shown(self.url("plan.parquet"))
            raise StoreError(f"{where} was written, and is not there: if a link that leads nowhere is there, delete it")
        return frozen

    def _write_plan(self, plan: Plan, write: Callable[[str, bytes | Path], object]) -> None:
        """Write a plan by a method of the store; one that is large goes through a temporary file."""
        with needing_room("the plan"), TemporaryFolder() as folder:  # the store raises no OSError
            path = folder.path / "plan.parquet"
            with path.open("wb") as file:
                plan.write(file)
            write(self.url("plan.parquet"), path if path.stat().st_size > _PLAN_IN_MEMORY else path.read_bytes())

    def extend_plan(self, plan: Plan) -> Plan:
        """Freeze a plan that covers more tars, unless the stored one of another driver does; return the stored plan."""
        now = self.read_plan()
        if now is not None and now.tars_left <= plan.tars_left:  # of as many it is equal, or has followed the input
            return now
        return self.replace_plan(plan)

    def committed(self, plan: Plan, finished: set[str] | None = None) -> set[str]:
        """Return the ids of the committed parts of a plan.

        A finished shard costs one key of a listing; the folders of the others are listed.

        Args:
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

        Raises SegmentError: a masks file is damaged, lost, or was written by another run; or another run has replaced
        this one.
        """
        self.refuse_replaced(fingerprint)  # the other run would count our statistics as its own
        classes = len(card.classes)
        folded = in_order(lambda part: self.part_stats(shard, part, classes, fingerprint), parts, name="fold")
        try:
            stats = merge(folded, classes)
        except FileNotFoundError:
            raise SegmentError(f"a committed part of {shard} has been lost: run the same `segment run` again") from None
        table = stats_table(shard, stats, card)
        self.write_object(stats_path(shard), to_parquet(table), len(table))
        return stats

    def holds_stats(self, shard: str, stats: ShardStats, card: ModelCard) -> bool:
        """Return whether the statistics file of a shard holds exactly `stats`.

        Raises SegmentError: the file is damaged.
        """
        url = self.stats_url(shard)
        expected = stats_table(shard, stats, card)
        return read_checked(url, lambda: bool(read_table(self._stats(url), most=MOST_STATS).equals(expected)))

    def part_stats(self, shard: str, part: str, classes: int, fingerprint: str) -> ShardStats:
        """Return the statistics of a committed part, computed from its rows.

        Raises SegmentError: its file is damaged, or was written by another run; FileNotFoundError: the part is not
        committed.
        """
        table = self.read_rows(shard, part, _FOLD_COLUMNS)
        if footer_of(table).get("fingerprint") != fingerprint:
            raise SegmentError(
                f"{shown(self.masks_url(shard, part))} was written by another run: choose another output"
            )
        return read_checked(self.masks_url(shard, part), lambda: fold(table, classes))

    def stats_of(self, shard: str) -> ShardStats:
        """Read the statistics of a shard.

        Raises SegmentError: the file is damaged, or is not the one that is known; FileNotFoundError: there is none.
        """
        url, path = self.stats_url(shard), stats_path(shard)

        def read() -> ShardStats:
            data = self._stats(url)
            stats, known = read_stats(data), self.digests.get(path)
            found = Stored.of(path, data, len(stats.confusion.counts))
            if known and found != known:
                raise ValueError("these are other bytes than were written")
            self.digests.seen(found)
            return stats

        return read_checked(url, read)

    def _stats(self, url: str) -> bytes:
        return self.store.read(url, most=MOST_STATS)

    def shard_stats(self, shards: Iterable[str]) -> dict[str, ShardStats]:
        """Read the statistics of finished shards, in the given order. Raises SegmentError: as `stats_of`, or lost."""

        def read_one(shard: str) -> ShardStats:
            try:
                return self.stats_of(shard)
            except FileNotFoundError:  # since it was listed; another driver deletes it to make it again
                raise SegmentError(f"{shown(self.stats_url(shard))} {LOST}") from None

        names = list(shards)
        return dict(zip(names, in_order(read_one, names, name="stats"), strict=True))

    def reopen(self, shard: str, parts: Sequence[str]) -> None:
        """Undo the commit of some parts of a shard; `_SUCCESS` and the statistics that depend on them go first."""
        self.remove_success()
        self.store.delete(self.stats_url(shard))
        paths = [masks_path(shard, part) for part in parts]
        for path in paths:
            self.store.delete(self.url(path))
            for item in self.digests.group(path)[1:]:
                self.store.delete(self.url(item.path))
        self.digests.forget([stats_path(shard), *paths])

    def reopen_lost(self, plan: Plan) -> int:
        """Reopen the shards that have statistics but lack masks files; return the number of missing parts."""
        listed, planned = self.listed_parts(), plan.parts_by_shard()
        missing = {shard: [part for part in parts if (shard, part) not in listed] for shard, parts in planned.items()}
        lost = {shard: parts for shard, parts in missing.items() if parts}
        for shard in lost:
            self.reopen(shard, [])
        return sum(map(len, lost.values()))

    def replace_plan(self, plan: Plan) -> Plan:
        """Freeze a plan in place of the current one, and return it."""
        self._write_plan(plan, self.store.write)
        return plan

    def read_rows(
        self,
        shard: str,
        part: str,
        columns: Sequence[str] | None,
        *,
        rows: int | None = None,
        size: int | None = None,
    ) -> pa.Table:
        """Read the rows of a committed part; only the given columns are fetched (None: all).

        Args:
            rows: that the file is to have; None if that is not known.
            size: of the file in bytes, if it was listed: a small file is read by one request. That of a larger one is
                looked up, as a driver may have written it anew since.

        Raises:
            SegmentError: its file is damaged, or has other rows.
            FileNotFoundError: the part is not committed.
        """
        url = self.masks_url(shard, part)

        def read() -> pa.Table:
            if size is not None and 0 <= size <= _FOLD_BLOCK:
                return read_masks(io.BytesIO(self.store.read(url)), columns, rows)
            with self.store.open(url, block_size=_FOLD_BLOCK) as file:
                return read_masks(file, columns, rows)

        return read_checked(url, read)


def _words(error: ValidationError) -> str:
    return "; ".join(line.strip() for line in validation_message(error, ModelCard).splitlines())
