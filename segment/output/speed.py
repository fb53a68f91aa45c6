"""The speed of an attempt: throughput, time by stage, the stage that limits it, and cost, computed from its timings."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from segment.output.attempts import Attempt, read_attempts, read_timings
from segment.output.ledger import Ledger
from segment.output.results import STAGES, Stage

log = logging.getLogger("segment.output.speed")

_COMPUTE: tuple[Stage, ...] = ("decode", "infer", "encode")  # a CPU worker runs these one after the other
_LATEST = 50  # attempts of which one may have committed a part
_LIMITING = 0.5  # share of the pool's time above which a stage limits the run
_GPU_BATCHES = 2  # batches in flight on a GPU


class Price(NamedTuple):
    """What all machines together cost per hour."""

    per_hour: float
    currency: str = ""

    @staticmethod
    def of(job: Mapping[str, Any]) -> Price | None:
        """Return the price in the values of a job; None if it has none."""
        per_hour = job.get("price_per_hour")
        return None if per_hour is None else Price(per_hour, job.get("currency") or "")

    def amount(self, number: float, decimals: int) -> str:
        """Return a sum of money as text: `0.0123 EUR`."""
        return f"{number:,.{decimals}f} {self.currency}".rstrip()

    def __str__(self) -> str:
        return f"{self.per_hour:g} {self.currency}".rstrip() + " per hour"


@dataclass(frozen=True)
class Speed:
    """The speed of one attempt.

    Attributes:
        engine, device: where it ran.
        workers: size of the pool.
        images: images committed by this attempt.
        start: seconds from the beginning of the attempt until work on the first part began.
        seconds: seconds from then until the last commit.
        stages: seconds by stage, summed over the workers.
        hosts: images by host.
        read_bytes, written_bytes: bytes of encoded input and of masks files.
        memory: peak resident bytes of a process with a model.
        expected_memory: the forecast of `memory`; None if there was none.
        at, done: `float64[n]`, `int64[n]`: for each part, its commit in seconds since the beginning, and its images.
    """

    engine: str
    device: str
    workers: int
    images: int
    start: float
    seconds: float
    stages: dict[Stage, float]
    hosts: dict[str, int]
    read_bytes: int
    written_bytes: int
    memory: int
    expected_memory: int | None
    at: NDArray[np.float64] = field(repr=False, compare=False)
    done: NDArray[np.int64] = field(repr=False, compare=False)

    @property
    def rate(self) -> float:
        """Images per second, without the start."""
        return self.images / max(1e-9, self.seconds)

    @property
    def total_seconds(self) -> float:
        """Seconds from the beginning of the attempt until the last commit."""
        return self.start + self.seconds

    @property
    def total_rate(self) -> float:
        """Images per second, including the start."""
        return self.images / max(1e-9, self.total_seconds)

    def rates(self, bins: int) -> NDArray[np.float64]:
        """Images per second in `bins` equal spans of the attempt, `float64[bins]`."""
        images, _ = np.histogram(self.at, bins=bins, range=(0.0, self.total_seconds), weights=self.done)
        return np.asarray(images * bins / max(1e-9, self.total_seconds))

    @property
    def shares(self) -> dict[Stage, float]:
        """Share of the pool's time by stage, 0-1. Reads and writes overlap the rest, so the sum may exceed 1."""
        pool = max(1e-9, self.seconds * self.workers)
        shares = {stage: self.stages[stage] / pool for stage in STAGES}
        if self.device != "cpu":  # a worker is a GPU: its calls overlap, and all other stages run beside it
            shares["infer"] /= _GPU_BATCHES
        return shares

    @property
    def idle(self) -> float:
        """Share of the pool's time in which workers waited for bytes, for a writer, or for the end of the run, 0-1."""
        busy = _COMPUTE if self.device == "cpu" else ("infer",)
        return max(0.0, 1.0 - sum(self.shares[stage] for stage in busy))

    @property
    def limit(self) -> Stage | None:
        """The stage that limits the run; None if no stage does, as with fewer parts than workers."""
        shares = self.shares
        if self.device == "cpu" and self.idle < _LIMITING:
            return max(_COMPUTE, key=lambda stage: shares[stage])
        slowest = max(STAGES, key=lambda stage: shares[stage])
        return slowest if shares[slowest] >= _LIMITING else None

    def cost(self, price_per_hour: float) -> float:
        """Price of 1,000 images, including the start."""
        return price_per_hour * self.total_seconds / 3600 * 1000 / max(1, self.images)

    @staticmethod
    def of(timings: pa.Table, facts: Mapping[str, Any]) -> Speed | None:
        """Compute the speed of an attempt; None if it committed no part.

        Args:
            timings: a table of `segment.output.attempts.TIMINGS_SCHEMA`.
            facts: `began` (ISO 8601), `engine`, `device`, `workers`, and `expected_memory` if known.
        """
        committed = timings.filter(pc.and_(pc.greater(timings["ended"], 0.0), pc.invert(timings["skipped"])))
        if not len(committed):
            return None

        def total(name: str) -> Any:
            return pc.sum(committed[name]).as_py()

        first, last = pc.min(committed["began"]).as_py(), pc.max(committed["ended"]).as_py()
        began = datetime.datetime.fromisoformat(facts["began"]).timestamp()
        hosts = committed.group_by("host").aggregate([("images", "sum")]).sort_by("host")
        return Speed(
            engine=facts["engine"],
            device=facts["device"],
            workers=facts["workers"],
            images=total("images"),
            start=max(0.0, first - began),  # clocks of other hosts may be behind
            seconds=max(0.0, last - first),
            stages={stage: float(total(f"{stage}_seconds")) for stage in STAGES},
            hosts=dict(zip(hosts["host"].to_pylist(), hosts["images_sum"].to_pylist(), strict=True)),
            read_bytes=total("read_bytes"),
            written_bytes=total("written_bytes"),
            memory=pc.max(committed["memory"]).as_py(),
            expected_memory=facts.get("expected_memory"),
            at=np.maximum(committed["ended"].to_numpy() - began, 0.0),
            done=committed["images"].to_numpy().astype(np.int64),
        )


def read_speed(ledger: Ledger, attempt: Attempt) -> Speed | None:
    """Read the speed of an attempt; None if it committed no part, or if its records are damaged (logged)."""
    timings = read_timings(ledger, attempt)
    if timings is None:
        return None
    try:
        return Speed.of(timings, attempt.facts)
    except (LookupError, TypeError, ValueError) as error:
        log.warning("runs/%s.json cannot be read (%s)", attempt.name, type(error).__name__)
        return None


def last_speed(ledger: Ledger) -> Speed | None:
    """Read the speed of the last attempt that ended and committed a part; None if none of the latest did."""
    for attempt in reversed(read_attempts(ledger)[-_LATEST:]):
        if speed := read_speed(ledger, attempt):
            return speed
    return None
