"""How many images a call: found by a short probe where nobody says, on GPUs, whose throughput depends on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from segment.models.sessions.base import Session
from segment.models.sessions.vetting import random_images

LARGEST = 128
_GAIN = 1.05  # twice the batch must give so much more, or the search ends
_ENOUGH = 0.95  # of the best rate: the smallest batch that gives it is taken, it needs the least memory


@dataclass(frozen=True)
class BatchProbe:
    """Throughput against batch size.

    Attributes:
        rates: images a second by batch size, as far as the probe went.
        stopped: why it went no further.
    """

    rates: dict[int, float] = field(default_factory=dict)
    stopped: str = ""

    @property
    def best(self) -> int:
        """The smallest batch that gives 95 % of the best rate."""
        return min(size for size, rate in self.rates.items() if rate >= _ENOUGH * max(self.rates.values()))

    def __str__(self) -> str:
        rates = ", ".join(f"{size}: {rate:.1f}" for size, rate in self.rates.items())
        return f"batch {self.best} (images/s by batch: {rates}; {self.stopped})"


def probe_batches(
    open_for: Callable[[int], Session], *, largest: int = LARGEST, in_flight: int = 2, seconds: float = 0.5
) -> BatchProbe:
    """Double the batch while that gives more images a second, or until memory runs out.

    Args:
        open_for: gives the loaded model for a batch; the same one each time, where it takes any.
        largest: batch to try; a batch never holds images of two parts.
        in_flight: batches at once, as the job will have them.
        seconds: to measure each size for, after one call that does not count.

    Raises:
        Exception: what the runtime raises if even a single image fails.
    """
    rates: dict[int, float] = {}
    size = 1
    with ThreadPoolExecutor(in_flight) as pool:
        while size <= largest:
            try:
                rates[size] = _rate(open_for(size), size, in_flight, seconds, pool)
            except Exception as error:  # each runtime has its own types for memory that ran out
                if size == 1:
                    raise
                return BatchProbe(rates, f"{size} failed: {str(error).strip().splitlines()[0][:100]}")
            if size > 1 and rates[size] < _GAIN * rates[size // 2]:
                return BatchProbe(rates, "more gives no more")
            size *= 2
    return BatchProbe(rates, f"{largest} is the limit")


def _rate(session: Session, size: int, in_flight: int, seconds: float, pool: ThreadPoolExecutor) -> float:
    spec = session.card.input
    batch = random_images(size, spec.height, spec.width)
    session.predict(batch)  # buffers, kernels, and the trial whether the graph takes batches at all
    began = time.perf_counter()
    calls = sum(pool.map(lambda _: sum(1 for _ in _until(began + seconds, session, batch)), range(in_flight)))
    return calls * size / (time.perf_counter() - began)


def _until(deadline: float, session: Session, batch: NDArray[np.uint8]) -> Iterator[None]:
    """Predict until a time has come, three times at least."""
    calls = 0
    while calls < 3 or time.perf_counter() < deadline:
        session.predict(batch)
        calls += 1
        yield
