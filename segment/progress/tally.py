"""The tally of a running attempt: counts, rates, remaining time and shares of stages."""

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from segment.metrics import Confusion, score
from segment.models.card import ModelCard
from segment.output.results import STAGES, PartResult, Stage
from segment.store import inflight
from segment.store.names import count, rate

NOW = 30.0  # seconds of the window for current rates
_ETA_WINDOW = 300.0  # seconds of the window for the ETA
_HEARD_SECONDS = 20.0  # for which what is heard may still be of before a part's result; then a failed one runs again


class _Sample(NamedTuple):
    at: float
    total: NDArray[np.float64]


class _Result(NamedTuple):
    at: float
    is_committed: bool


class Pace:
    """Samples of growing numbers in the last minutes, at most one per second."""

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque()

    def sample(self, total: ArrayLike, at: float | None = None) -> None:
        """Add a sample.

        Args:
            total: the numbers as they are since the start.
            at: `time.monotonic()` of the sample; now by default.
        """
        now = time.monotonic() if at is None else at
        samples = self._samples
        if len(samples) > 1 and now - samples[-2].at < 1.0:
            samples.pop()
        samples.append(_Sample(now, np.array(total, np.float64)))
        while len(samples) > 1 and samples[1].at <= now - _ETA_WINDOW:
            samples.popleft()

    def __bool__(self) -> bool:
        return bool(self._samples)

    def rate(self, window: float) -> NDArray[np.float64]:
        """Return by how much the numbers grew a second; 0 where that is not known.

        The window begins at the latest sample that is at least `window` seconds old, or at the first sample, so that
        it holds a result even if results are rarer than the window is long.
        """
        samples = list(self._samples)
        if not samples:
            return np.zeros(())
        now, last = time.monotonic(), samples[-1]
        first = next((sample for sample in reversed(samples) if sample.at <= now - window), samples[0])
        seconds = now - first.at
        grown: NDArray[np.float64] = last.total - first.total
        return grown / seconds if seconds > 0 else np.zeros_like(grown)


@dataclass
class Tally:
    """The counts of a running attempt, for display; only the ledger proves what is committed.

    Attributes:
        images: planned images.
        done: committed images, including those of earlier attempts.
        resumed: images committed by earlier attempts.
        workers: size of the pool when the run began.
        title: model, engine and runtime, in one line.
        is_estimate: whether `images` is an estimate: tars are indexed while others are segmented.
        parts: parts committed by this attempt.
        errors: error rows of this attempt, by code.
        error_texts: text of the first error row, by code.
        remarks: images of this attempt by code of `segment.output.remarks.REMARKS`.
        labelled: images of this attempt whose label was used.
        failures, last_failure: number of parts that failed in this round, and the reason of the last failure.
        retries: repeated requests to stores, by kind.
        changed: reason by part whose input is not the planned one.
        confusion: counts of this attempt.
        seconds: `float64[len(STAGES)]`, worker seconds by stage, in the order of `STAGES`.
        started: `time.monotonic()` when the first round began.
        first_at: `time.monotonic()` when work on the first part began whose result arrived; until one did, when images
            were first seen to be segmented; None before.
        last_at: `time.monotonic()` when the last part ended whose result arrived.
        first_done: images done or segmented when `first_at` was first set.
        pace: samples of `reached`, in the last minutes.
        work: samples of `seconds`.
    """

    card: ModelCard
    images: int
    done: int
    resumed: int
    workers: int
    title: str = ""
    is_estimate: bool = False
    parts: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    error_texts: dict[str, str] = field(default_factory=dict)
    remarks: Counter[str] = field(default_factory=Counter)
    labelled: int = 0
    failures: int = 0
    last_failure: str | None = None
    retries: Counter[str] = field(default_factory=Counter)
    changed: dict[str, str] = field(default_factory=dict)
    confusion: Confusion | None = None
    seconds: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(STAGES)))
    started: float = field(default_factory=time.monotonic)
    first_at: float | None = None
    last_at: float = 0.0
    first_done: float = 0
    pace: Pace = field(default_factory=Pace)
    work: Pace = field(default_factory=Pace)
    _seen: float = 0.0  # the most images that were done or segmented
    _ended: dict[str, _Result] = field(default_factory=dict, repr=False)  # by part whose heartbeats do not count
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, result: PartResult) -> None:
        """Count one result."""
        with self._lock:
            self._ended[result.part] = _Result(time.monotonic(), result.failure is None)
            self._add(result)

    def tick(self) -> None:
        """Count the images that heartbeats tell of; to be called once a second.

        What a worker that dies had begun stays counted until others have done it again, so that no bar runs back.
        """
        with self._lock:
            now, heard = time.monotonic(), inflight.begun()
            self._ended = {
                part: result
                for part, result in self._ended.items()
                if now - result.at < _HEARD_SECONDS or (result.is_committed and part in heard)
            }
            begun = sum(images for part, images in heard.items() if part not in self._ended)
            self._seen = max(self._seen, self.done + begun)
            if self.first_at is None and begun:
                self.first_at, self.first_done = now, self.reached
            if self.first_at is not None:
                self.pace.sample(self.reached)

    def _add(self, result: PartResult) -> None:
        self.retries.update(result.retries)
        if result.failure is not None:
            self.failures += 1
            self.last_failure = result.failure
            if result.input_changed:
                self.changed[result.part] = result.failure
            return
        if not result.skipped:
            self._time(result)
        self.done += result.images
        self.parts += not result.skipped
        self.seconds += [result.seconds.get(stage, 0.0) for stage in STAGES]
        if self.first_at is not None:
            self.pace.sample(self.reached)
            self.work.sample(self.seconds)
        self.errors.update(result.errors)
        self.error_texts = {**result.error_texts, **self.error_texts}
        self.remarks.update(result.remarks)
        self.labelled += result.labelled
        if result.confusion is not None:
            self.confusion = result.confusion if self.confusion is None else self.confusion + result.confusion

    def _time(self, result: PartResult) -> None:
        """Note when the first part began and the last one ended.

        A rate that counted from the first result, which may arrive one part late, would count the first parts of all
        workers without their time. Clocks of hosts differ, so no part begins before the round or ends in the future.
        """
        now, took = time.monotonic(), result.ended - result.began
        began = max(self.started, now - max(time.time() - result.began, took, 0.0))
        self.last_at = max(self.last_at, min(now, began + took))
        if self.first_at is None or not self.parts:
            self.first_at, self.first_done = began, self.done
            self.work.sample(self.seconds, began)
            if not self.pace:
                self.pace.sample(self.done, began)
        self.first_at = min(self.first_at, began)

    @property
    def reached(self) -> float:
        """Images done, with those of parts in work that are segmented: of a large one its share of tiles."""
        return min(float(self.images), max(self._seen, self.done))

    @property
    def begun(self) -> float:
        """Images that are segmented and not committed yet."""
        return max(0.0, self.reached - self.done)

    @property
    def images_shown(self) -> str:
        """The number of planned images as text, with a tilde if it is an estimate."""
        return f"~{self.images:,}" if self.is_estimate else f"{self.images:,}"

    @property
    def has_begun(self) -> bool:
        """Whether something is done."""
        return self.first_at is not None or self.reached > self.resumed

    @property
    def rate(self) -> float:
        """Images per second since work on the first part began; the start of the workers is not included."""
        if self.first_at is None:  # others commit the parts
            return (self.reached - self.resumed) / max(1e-9, time.monotonic() - self.started)
        until = self.last_at if self.done >= self.images else time.monotonic()  # at the end, as the report counts
        return (self.reached - self.first_done) / max(1e-9, until - self.first_at)

    @property
    def rate_now(self) -> float:
        """Images per second over the last `NOW` seconds."""
        return float(self.pace.rate(NOW))

    @property
    def eta(self) -> float | None:
        """Seconds left for all remaining images, at the rate of the last minutes; None if that is 0."""
        rate = float(self.pace.rate(_ETA_WINDOW))
        return (self.images - self.reached) / rate if rate > 0 else None

    def busy(self, window: float = NOW) -> dict[Stage, float]:
        """Return the share of the workers' time by stage over the last `window` seconds, 0-1; {} if unknown.

        Reads and writes overlap the model, so the sum may exceed 1.
        """
        spent = self.work.rate(window)
        if not spent.any():
            return {}
        pool = max(1, self.workers, inflight.workers() or 0)  # the pool may have grown
        shares = np.minimum(1.0, spent / pool)
        return dict(zip(STAGES, shares.tolist(), strict=True))

    @property
    def miou(self) -> float | None:
        """mIoU of this attempt under the card's convention, 0-1; None without labels."""
        if self.confusion is None or not self.confusion.counts[:-1].any():
            return None
        return score(self.confusion, self.card.classes.ignored_classes, self.card.metric.convention).miou

    def iou(self) -> dict[str, float]:
        """Return the IoU of this attempt by class name, 0-1; classes that do not occur are left out."""
        if self.confusion is None or self.miou is None:
            return {}
        found = score(self.confusion, self.card.classes.ignored_classes, self.card.metric.convention).iou
        seen = zip(self.card.classes.names, found.tolist(), strict=True)
        return {name: value for name, value in seen if value == value}

    @property
    def percent(self) -> int:
        """Share of done images in percent; 100 only if none is left."""
        if self.done >= self.images and not self.is_estimate:
            return 100
        return min(99, round(100 * self.reached / self.images))

    def line(self) -> str:
        """Return the tally as one line for logs."""
        parts = [f"{self.done:,}/{'~' * self.is_estimate}{self.images:,} images ({self.percent} %)"]
        if self.begun >= 1:
            parts.append(f"{int(self.begun):,} more segmented")
        if self.rate > 0:
            parts.append(f"{rate(self.rate)} images/s")
        if self.eta is not None and self.done < self.images:
            parts.append(f"ETA {clock_time(self.eta)}")
        if self.miou is not None:
            parts.append(f"mIoU {100 * self.miou:.2f} %{' of the new ones' * bool(self.resumed)}")
        parts.append(count(self.errors.total(), "new error" if self.resumed else "error"))
        if self.failures:
            parts.append(f"{count(self.failures, 'part')} to retry")
        if self.retries:
            parts.append(f"{count(self.retries.total(), 'request')} to stores repeated")
        return ", ".join(parts)


def clock_time(seconds: float) -> str:
    """Format seconds: `75` becomes `1:15`, `3700` becomes `1:01:40`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
