"""How fast an attempt was and what held it up, from its timings. Nothing of it is part of the run's truth."""

from __future__ import annotations

import datetime
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from segment.errors import SegmentError
from segment.output.attempts import SCHEMA, row_of
from segment.output.ledger import Ledger
from segment.output.results import STAGES, PartResult, Stage

log = logging.getLogger("segment.output.speed")

_COMPUTE: tuple[Stage, ...] = ("decode", "infer", "encode")  # a worker does these one after the other
_FULL = 0.5  # share of the pool's time above which a stage can be said to limit it
_LANES = 2  # batches in flight on a GPU


@dataclass(frozen=True)
class Speed:
    """One attempt in figures.

    Attributes:
        engine, device: where it ran.
        workers: size of the pool.
        images: done by this attempt.
        start: seconds from its begin until the first part was begun.
        seconds: from then until the last part was committed.
        stages: seconds by stage, summed over the workers.
        read_bytes, written_bytes: encoded input, masks files.
        memory: most bytes resident in a process with a model.
        expected_memory: what was expected of it; None if nothing was.
    """

    engine: str
    device: str
    workers: int
    images: int
    start: float
    seconds: float
    stages: dict[Stage, float]
    read_bytes: int
    written_bytes: int
    memory: int
    expected_memory: int | None

    @property
    def rate(self) -> float:
        """Images a second, the start left out."""
        return self.images / max(1e-9, self.seconds)

    @property
    def shares(self) -> dict[Stage, float]:
        """Of the pool's time, by stage, 0-1. Reads and writes go on beside the rest, so the sum may be more than 1."""
        pool = max(1e-9, self.seconds * self.workers)
        shares = {stage: self.stages[stage] / pool for stage in STAGES}
        if self.device != "cpu":  # a worker is a GPU: its calls overlap, and all other stages run beside it
            shares["infer"] /= _LANES
        return shares

    @property
    def idle(self) -> float:
        """Share of the pool's time in which a worker waited: for bytes, for a writer, or for others to end, 0-1."""
        busy = _COMPUTE if self.device == "cpu" else ("infer",)
        return max(0.0, 1.0 - sum(self.shares[stage] for stage in busy))

    @property
    def limit(self) -> Stage | None:
        """The stage that held the run up; None if none did, as with too few parts for so many workers."""
        shares = self.shares
        if self.device == "cpu" and self.idle < _FULL:
            return max(_COMPUTE, key=lambda stage: shares[stage])
        slowest = max(STAGES, key=lambda stage: shares[stage])
        return slowest if shares[slowest] >= _FULL else None

    def cost(self, price_per_hour: float) -> float:
        """Price of 1,000 images, the start included."""
        return price_per_hour * (self.start + self.seconds) / 3600 * 1000 / max(1, self.images)

    @staticmethod
    def of(table: pa.Table, facts: Mapping[str, Any]) -> Speed | None:
        """Sum up timings.

        Args:
            table: of `SCHEMA`.
            facts: of the attempt, as in `runs/<attempt>.json`.

        Returns:
            None if the attempt did no part, or is of a version that did not note what is needed.
        """
        if "ended" not in table.column_names or "device" not in facts:
            return None
        done = table.filter(pc.and_(pc.greater(table["ended"], 0.0), pc.invert(table["skipped"])))
        if not len(done):
            return None

        def total(name: str) -> Any:
            return pc.sum(done[name]).as_py()

        first, last = pc.min(done["began"]).as_py(), pc.max(done["ended"]).as_py()
        begun = datetime.datetime.fromisoformat(facts["began"]).timestamp()
        return Speed(
            facts["engine"],
            facts["device"],
            facts["workers"],
            total("images"),
            max(0.0, first - begun),
            last - first,
            {stage: float(total(f"{stage}_seconds")) for stage in STAGES},
            total("read_bytes"),
            total("written_bytes"),
            pc.max(done["memory"]).as_py(),
            facts.get("expected_memory"),
        )

    @staticmethod
    def of_results(results: Iterable[PartResult], facts: Mapping[str, Any]) -> Speed | None:
        """Sum up results; see `of`."""
        return Speed.of(pa.Table.from_pylist([row_of(result) for result in results], schema=SCHEMA), facts)


def last_speed(ledger: Ledger) -> Speed | None:
    """The speed of the last attempt that ended and did something; None if there is none.

    Best effort, as the records are: one that cannot be read is passed over with a warning.
    """
    names = sorted(entry.url.rpartition("/")[2] for entry in ledger.store.list(ledger.url("runs")))
    for name in reversed([name.removesuffix(".parquet") for name in names if name.endswith(".parquet")]):
        try:
            speed = _speed_of(ledger, name)
        except (SegmentError, pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
            log.warning("the record runs/%s cannot be read (%s)", name, type(error).__name__)
            continue
        if speed:
            return speed
    return None


def _speed_of(ledger: Ledger, name: str) -> Speed | None:
    record = ledger.store.read_if_exists(ledger.url("runs", f"{name}.json"))
    timings = ledger.store.read_if_exists(ledger.url("runs", f"{name}.parquet"))
    return Speed.of(pq.read_table(pa.BufferReader(timings)), json.loads(record)) if record and timings else None
