"""How long a run took: its attempts, from `runs/`, which is best effort."""

from __future__ import annotations

import datetime
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from segment.errors import SegmentError
from segment.output.ledger import Ledger
from segment.output.results import STAGES

log = logging.getLogger("segment.report")

_LATEST = 50  # attempts that are read


@dataclass(frozen=True, eq=False)
class Attempt:
    """One attempt at a run.

    Attributes:
        began: when, ISO 8601, UTC.
        facts: what was noted when it began: engine, workers, host.
        ended: whether it wrote its timings; if not, it was killed or is running.
        images: done in it.
        seconds: from its beginning to its last part; None if unknown.
        at, done: `float64[n]`, `int64[n]`: of each part: seconds since the beginning when it was committed, images.
        stages: worker seconds by stage.
        hosts: images by host.
        read_bytes, written_bytes: encoded input, output objects.
    """

    began: str
    facts: dict[str, Any]
    ended: bool
    images: int
    seconds: float | None
    at: NDArray[np.float64]
    done: NDArray[np.int64]
    stages: dict[str, float]
    hosts: dict[str, int]
    read_bytes: int
    written_bytes: int

    @property
    def rate(self) -> float | None:
        """Images a second, start of the engine included; None if unknown."""
        return self.images / self.seconds if self.seconds else None

    def rates(self, bins: int) -> NDArray[np.float64]:
        """Images a second in `bins` equal spans of the attempt; empty if unknown."""
        if not self.seconds:
            return np.empty(0)
        sums, _ = np.histogram(self.at, bins=bins, range=(0.0, self.seconds), weights=self.done)
        return np.asarray(sums * bins / self.seconds)


def read_attempts(ledger: Ledger) -> list[Attempt]:
    """Read the latest attempts, oldest first; one whose record cannot be read is left out with a warning."""
    names = {entry.url.rpartition("/")[2] for entry in ledger.store.list(ledger.url("runs"))}
    begun = sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))[-_LATEST:]
    found = []
    for name in begun:
        try:
            found.append(_read(ledger, name, ended=f"{name}.parquet" in names))
        except (SegmentError, pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
            log.warning("the record runs/%s cannot be read (%s)", name, type(error).__name__)
    return found


def _read(ledger: Ledger, name: str, *, ended: bool) -> Attempt:
    facts = json.loads(ledger.store.read(ledger.url("runs", f"{name}.json")))
    table = _parts(ledger.store.read(ledger.url("runs", f"{name}.parquet"))) if ended else pa.table({})
    columns = {column: table[column].to_numpy() for column in table.column_names}
    images = columns.get("images", np.empty(0)).astype(np.int64)
    began = datetime.datetime.fromisoformat(facts["began"]).timestamp()
    at = np.maximum(columns.get("ended", np.empty(0)) - began, 0.0)  # other hosts' clocks may be behind
    return Attempt(
        began=facts["began"],
        facts=facts,
        ended=ended,
        images=int(images.sum()),
        seconds=float(at.max()) if len(at) else None,
        at=at,
        done=images,
        stages={stage: float(columns[f"{stage}_seconds"].sum(dtype=np.float64)) for stage in STAGES if len(table)},
        hosts=_by_host(columns.get("host", np.empty(0)), images),
        read_bytes=int(columns["read_bytes"].sum()) if len(table) else 0,
        written_bytes=int(columns["written_bytes"].sum()) if len(table) else 0,
    )


def _parts(data: bytes) -> pa.Table:
    """The parts that the attempt committed: not those it found done, nor those that failed."""
    table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
    done = [not skipped and failure is None for skipped, failure in zip(
        table["skipped"].to_pylist(), table["failure"].to_pylist(), strict=True
    )]  # fmt: skip
    return table.filter(pa.array(done, pa.bool_())).drop_columns(["failure"])


def _by_host(hosts: NDArray[Any], images: NDArray[np.int64]) -> dict[str, int]:
    return {str(host): int(images[hosts == host].sum()) for host in sorted(set(hosts.tolist()))}


def total_stages(attempts: Sequence[Attempt]) -> dict[str, float]:
    """Worker seconds by stage over all attempts, in the order of the pipeline."""
    return {stage: sum(attempt.stages.get(stage, 0.0) for attempt in attempts) for stage in STAGES}
