"""What is asked, what is planned, what is committed: the truth about a run, kept in the store and nowhere else.

OUTPUT/run.json, plan.parquet, masks/<shard>/<part>.parquet (the commit), stats/<shard>.parquet, _SUCCESS.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa

from segment.card import ModelCard
from segment.errors import SegmentError, UsageError
from segment.metrics import score
from segment.names import shown
from segment.plan import Plan
from segment.store import Store
from segment.tables import ShardStats, fold, footer_of, merge, read_masks, read_stats, stats_table, to_parquet
from segment.urls import join_url

T = TypeVar("T")
log = logging.getLogger("segment.ledger")

_DAMAGE = (pa.ArrowException, LookupError, TypeError, ValueError, OSError)
_FOLD_COLUMNS = ["status", "confusion", "miou"]
_FOLD_BLOCK = 1 << 16  # bytes a range request: the mask column between footer and counts is not worth reading
_LIST_SHARDS_ONE_BY_ONE = 64  # more unfinished shards than this are found by one listing of masks/


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


def contract_of(card: ModelCard, **settings: Any) -> dict[str, Any]:
    """Everything that can change a mask or a count, as plain JSON: what a resumed run must have in common."""
    cosmetic = {
        "description": True,
        "licence": True,
        "source": True,
        "gflops": True,
        "mparams": True,
        "weights": True,
    }
    dumped = card.model_dump(mode="json", exclude={**cosmetic, "metric": {"published", "note"}})
    return {"card": dumped, **settings}


def fingerprint_of(contract: Mapping[str, Any]) -> str:
    """SHA-256 of the contract, hexadecimal."""
    return hashlib.sha256(json.dumps(contract, sort_keys=True).encode()).hexdigest()


def differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Name the leaves in which two contracts differ: `runtime.precision: 'bf16' there, 'f32' now`."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        keys = sorted({*ours, *theirs})
        return [
            line for k in keys for line in differences(ours.get(k), theirs.get(k), f"{path}.{k}" if path else str(k))
        ]
    return [] if ours == theirs else [f"{path}: {theirs!r} there, {ours!r} now"]


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

    def begin(self, run: Mapping[str, Any]) -> None:
        """Write `run.json`, unless the very same run is there.

        Raises:
            UsageError: another run is there and has committed something, or begins in this moment; or there are masks
                of an unknown run.
        """
        url, data = self.url("run.json"), _json(run)
        existing = self.read_run()
        if existing is None:
            if self._has_masks():
                raise UsageError(f"{shown(self.output)} holds masks but no run.json: choose another output")
            self.store.create(url, data)
        elif not self.goes_on(existing, run["contract"]):
            self.store.delete(self.url("plan.parquet"))
            self.store.write(url, data)
        if (self.read_run() or run)["fingerprint"] != run["fingerprint"]:
            raise UsageError(f"another run has just begun at {shown(self.output)}: choose another output")

    def refuse_replaced(self, fingerprint: str) -> None:
        """Refuse to go on if another run has taken the place of ours while we had committed nothing.

        Raises:
            SegmentError: so it is.
        """
        run = self.read_run()
        if run is not None and run["fingerprint"] != fingerprint:
            raise SegmentError(f"another run has taken the place of this one at {shown(self.output)}: choose another")

    def _is_given_up(self) -> bool:
        """Whether every attempt at the run has ended, and there was one."""
        names = [entry.url.rpartition("/")[2] for entry in self.store.list(self.url("runs"))]
        begun, ended = ({n.removesuffix(x) for n in names if n.endswith(x)} for x in (".json", ".parquet"))
        return bool(begun) and begun <= ended

    def _has_masks(self) -> bool:
        return any(self._parquet(self.url("masks")))

    def _parquet(self, prefix: str) -> list[str]:
        """URLs of the Parquet files below a prefix: whatever else a file manager leaves there is not ours."""
        return [entry.url for entry in self.store.list(prefix) if entry.url.endswith(".parquet")]

    def goes_on(self, run: Mapping[str, Any], contract: Mapping[str, Any]) -> bool:
        """Whether the run that is there is the one asked for; False if it may be replaced, having committed nothing.

        A run that is being begun, or was killed, is not replaced: nobody can tell whether its driver lives.

        Raises:
            UsageError: it is another one, with the differences, and its masks would mix with ours.
        """
        if run["fingerprint"] == fingerprint_of(contract):
            return True
        if not self._has_masks():
            if self._is_given_up():
                return False
            raise UsageError(
                f"another run is being begun at {shown(self.output)}, or was killed before its first commit. If none "
                f"is at work there, delete {shown(self.url('run.json'))} and run again; else choose another output"
            )
        lines = "\n".join(f"  {line}" for line in differences(contract, run["contract"]))
        raise UsageError(
            f"{shown(self.output)} holds another run; its masks would mix with these:\n{lines}\n"
            "Choose another output, or ask for what that run was asked for."
        )

    def read_plan(self) -> Plan | None:
        """Return the frozen plan, or None where there is none yet.

        Raises:
            SegmentError: it is damaged.
        """
        url = self.url("plan.parquet")

        def read() -> Plan | None:
            data = self.store.read_if_exists(url)
            return None if data is None else Plan.from_bytes(data)

        return _sound(url, read)

    def read_begun(self) -> tuple[dict[str, Any], Plan]:
        """Return `run.json` and the plan of a run that was begun.

        Raises:
            UsageError: there is no run at this place, or it has not planned yet.
        """
        run, plan = self.read_run(), self.read_plan()
        if run is None or plan is None:
            place = shown(self.output)
            raise UsageError(f"no run at {place}: `segment run INPUT {place} --model CARD` makes one")
        return run, plan

    def freeze_plan(self, plan: Plan) -> Plan:
        """Write the plan if there is none, and read back the one that is there: the first driver's."""
        url = self.url("plan.parquet")
        data = plan.to_bytes()
        return _sound(url, lambda: Plan.from_bytes(self.store.create(url, data)))

    def finished_shards(self) -> set[str]:
        """Shards whose statistics are written, which happens after their last commit."""
        return {_stem(url) for url in self._parquet(self.url("stats"))}

    def committed(self, plan: Plan) -> set[str]:
        """Ids of the parts that are committed: by one key a finished shard, and a listing of the others."""
        finished = self.finished_shards()
        parts = plan.parts_by_shard()
        done = {part for shard in parts.keys() & finished for part in parts[shard]}
        unfinished = [shard for shard in parts if shard not in finished]
        if len(unfinished) > _LIST_SHARDS_ONE_BY_ONE:
            prefixes = [self.url("masks")]
        else:
            prefixes = [self.url("masks", shard) for shard in unfinished]
        return done | {_stem(url) for prefix in prefixes for url in self._parquet(prefix)}

    def finish_shard(self, shard: str, parts: Sequence[str], card: ModelCard, fingerprint: str) -> ShardStats:
        """Fold a shard's committed parts and write its statistics. Idempotent: the same bytes every time.

        Raises:
            SegmentError: a masks file is damaged, or was written by another run; or another run is here now.
        """
        self.refuse_replaced(fingerprint)  # it would take our statistics for its own
        classes = len(card.classes)

        def fold_part(part: str) -> ShardStats:
            table = self.read_rows(shard, part, _FOLD_COLUMNS)
            if footer_of(table).get("fingerprint") != fingerprint:
                raise SegmentError(
                    f"{shown(self.masks_url(shard, part))} was written by another run: choose another output"
                )
            return fold(table, classes)

        with ThreadPoolExecutor(8, thread_name_prefix="fold") as pool:
            stats = merge(pool.map(fold_part, parts), classes)
        table = stats_table(
            shard,
            stats,
            card.classes,
            score(stats.confusion, card.classes.ignored_classes, card.metric.convention),
        )
        self.store.write(self.stats_url(shard), to_parquet(table))
        return stats

    def shard_stats(self, shards: Iterable[str]) -> dict[str, ShardStats]:
        """Read the statistics of finished shards, in the order given.

        Raises:
            SegmentError: one of them is damaged.
        """

        def read_one(shard: str) -> ShardStats:
            url = self.stats_url(shard)
            return _sound(url, lambda: read_stats(self.store.read(url)))

        names = list(shards)
        with ThreadPoolExecutor(8, thread_name_prefix="stats") as pool:
            return dict(zip(names, pool.map(read_one, names), strict=True))

    def audit(self, plan: Plan, card: ModelCard) -> Audit:
        """Prove that every planned image has exactly one row and nothing else is there.

        Every committed object of the plan is listed; the rows of each shard are counted by its statistics.
        """
        planned = plan.parts_by_shard()
        images = plan.images_by_shard()
        listed = {(_folder(url), _stem(url)) for url in self._parquet(self.url("masks"))}
        expected = {(shard, part) for shard, parts in planned.items() for part in parts}
        problems = [f"part {part} of shard {shard} is not committed" for shard, part in sorted(expected - listed)]
        problems += [f"masks/{shard}/{part}.parquet is in no plan" for shard, part in sorted(listed - expected)]
        finished = self.finished_shards()
        problems += [f"shard {shard} has no statistics" for shard in planned if shard not in finished]
        problems += [f"stats/{shard}.parquet is in no plan" for shard in sorted(finished - planned.keys())]
        stats = self.shard_stats(shard for shard in planned if shard in finished)
        for shard, found in stats.items():
            if found.images != images[shard]:
                problems.append(f"shard {shard} has {found.images} rows for {images[shard]} planned images")
        total = merge(stats.values(), len(card.classes))
        committed = len(expected & listed)
        return Audit(len(stats), committed, total.images, total.errors, total.scored, tuple(problems))

    def reopen(self, shard: str, parts: Sequence[str]) -> None:
        """Take back the commit of some parts of a shard: what follows from them first."""
        self.take_back_success()
        self.store.delete(self.stats_url(shard))
        for part in parts:
            self.store.delete(self.masks_url(shard, part))

    def reopen_lost(self, plan: Plan) -> None:
        """Let a rerun do what was finished and is not there any more."""
        self.take_back_success()
        listed = {_stem(url) for url in self._parquet(self.url("masks"))}
        for shard, parts in plan.parts_by_shard().items():
            if any(part not in listed for part in parts):
                self.store.delete(self.stats_url(shard))

    def extend_plan(self, plan: Plan, new: Plan) -> Plan:
        """Freeze a plan that has more parts than before."""
        self.take_back_success()
        longer = Plan(pa.concat_tables([plan.table, new.table]))
        self.store.write(self.url("plan.parquet"), longer.to_bytes())
        return longer

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

        return _sound(url, read)

    def succeed(self, audit: Audit, fingerprint: str) -> None:
        """Write `_SUCCESS`: the totals of an audit that held."""
        totals = {name: getattr(audit, name) for name in ("shards", "parts", "images", "errors", "scored")}
        self.store.write(self.url("_SUCCESS"), _json({**totals, "fingerprint": fingerprint}))

    def is_complete(self) -> bool:
        """Whether `_SUCCESS` is there."""
        return self.store.exists(self.url("_SUCCESS"))

    def take_back_success(self) -> None:
        """Delete `_SUCCESS` if it is there."""
        if self.is_complete():  # or who may not delete could not even run
            self.store.delete(self.url("_SUCCESS"))


def _sound(url: str, read: Callable[[], T]) -> T:
    """Return what `read` makes of an object, fetching it; if it came damaged, once more.

    Raises:
        SegmentError: it is damaged where it is.
    """
    try:
        try:
            return read()
        except _DAMAGE as error:
            if isinstance(error, FileNotFoundError):
                raise
            log.warning("%s came damaged (%s): reading it again", shown(url), type(error).__name__)
            return read()
    except _DAMAGE as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise SegmentError(
            f"{shown(url)} is damaged: delete it, and the same command makes it anew ({type(error).__name__})"
        ) from None


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _stem(url: str) -> str:
    return url.rpartition("/")[2].removesuffix(".parquet")


def _folder(url: str) -> str:
    return url.split("/")[-2]
