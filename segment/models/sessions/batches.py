"""The batch size of a GPU session: measured by a short probe if the job does not set it."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from segment.models.buckets import USUAL
from segment.models.sessions.base import Session
from segment.models.sessions.sanity_check import random_images

LARGEST = 128
_MIN_GAIN = 1.05  # ratio of the rates of two successive sizes below which the search ends
_GOOD_ENOUGH = 0.95  # share of the best rate; the smallest such batch needs the least memory


@dataclass(frozen=True)
class BatchProbe:
    """Throughput by batch size.

    Attributes:
        rates: images per second by batch size.
        stopped: why the probe did not try larger batches.
    """

    rates: dict[int, float] = field(default_factory=dict)
    stopped: str = ""

    @property
    def best(self) -> int:
        """The smallest batch with 95 % of the best rate."""
        return min(size for size, rate in self.rates.items() if rate >= _GOOD_ENOUGH * max(self.rates.values()))

    def __str__(self) -> str:
        rates = ", ".join(f"{size}: {rate:.1f}" for size, rate in self.rates.items())
        return f"batch {self.best} (images/s by batch: {rates}; {self.stopped})"


def probe_batches(
    open_for: Callable[[int], Session], *, largest: int = LARGEST, in_flight: int = 2, seconds: float = 0.5
) -> BatchProbe:
    """Double the batch size while the throughput increases and the memory suffices.

    Args:
        open_for: returns the session for a batch size; may return the same one for every size.
        largest: maximum batch size: the size of a part, as a batch has images of one part only.
        in_flight: concurrent batches, as in the job.
        seconds: duration of the measurement of each size, after one warm-up call.

    Raises:
        Exception: the runtime's error if a single image fails.
    """
    rates: dict[int, float] = {}
    size = 1
    with ThreadPoolExecutor(in_flight) as pool:
        while size <= largest:
            try:
                rates[size] = _rate(open_for(size), size, in_flight, seconds, pool)
            except Exception as error:  # each runtime has its own type for 'out of memory'
                if size == 1:
                    raise
                return BatchProbe(rates, f"{size} failed: {str(error).strip().splitlines()[0][:100]}")
            if size > 1 and rates[size] < _MIN_GAIN * rates[size // 2]:
                return BatchProbe(rates, "larger batches are not faster")
            size *= 2
    return BatchProbe(rates, f"{largest} is the limit")


def _rate(session: Session, size: int, in_flight: int, seconds: float, pool: ThreadPoolExecutor) -> float:
    spec = session.card.input.at(USUAL)
    batch = random_images(size, spec.height, spec.width, spec.planes)
    session.predict(batch)  # warm-up: buffers, kernels, and the trial of batches (`GraphSession`)
    began = time.perf_counter()
    calls = sum(pool.map(lambda _: sum(1 for _ in _until(began + seconds, session, batch)), range(in_flight)))
    return calls * size / (time.perf_counter() - began)


def _until(deadline: float, session: Session, batch: NDArray[np.uint8]) -> Iterator[None]:
    """Predict until the deadline, at least three times."""
    calls = 0
    while calls < 3 or time.perf_counter() < deadline:
        session.predict(batch)
        calls += 1
        yield
