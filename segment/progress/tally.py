"""What is known of a run while it goes: counts, rates, shares."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segment.metrics import Confusion, score
from segment.models.card import ModelCard
from segment.output.results import STAGES, PartResult, Stage
from segment.store import inflight
from segment.store.names import count

NOW = 30.0  # seconds that 'now' means
_LATELY = 300.0  # seconds whose rate the ETA assumes to go on


class _Sample(NamedTuple):
    at: float
    done: int
    seconds: NDArray[np.float64]  # by stage


class Pace:
    """Samples of what is done, at most one a second, of the last minutes."""

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque()

    def note(self, done: int, seconds: NDArray[np.float64], at: float | None = None) -> None:
        """So many images are done by now (or `at`), and so many seconds were spent by stage, both since the start."""
        now = time.monotonic() if at is None else at
        samples = self._samples
        if len(samples) > 1 and now - samples[-2].at < 1.0:
            samples.pop()
        samples.append(_Sample(now, done, seconds.copy()))
        while len(samples) > 1 and samples[1].at <= now - _LATELY:
            samples.popleft()

    def over(self, window: float) -> tuple[float, int, NDArray[np.float64]]:
        """Seconds looked at, images done in them, seconds spent by stage in them.

        From the last sample that is at least `window` seconds old, or the first of all: where results are rarer than
        the window is long, it holds one all the same.
        """
        samples = list(self._samples)
        if not samples:
            return 0.0, 0, np.zeros(len(STAGES))
        now, last = time.monotonic(), samples[-1]
        first = next((sample for sample in reversed(samples) if sample.at <= now - window), samples[0])
        return now - first.at, last.done - first.done, last.seconds - first.seconds

    def rate(self, window: float) -> float:
        """Images a second in the last `window` seconds."""
        seconds, images, _ = self.over(window)
        return images / seconds if seconds > 0 else 0.0


@dataclass
class Tally:
    """What is known of a run while it goes; the ledger, not this, is the truth.

    Attributes:
        card: the model's.
        images: planned.
        done: images committed, by earlier attempts too.
        resumed: of these, images committed by earlier attempts.
        workers: models loaded at once, when the run began.
        title: what runs where, in a few words.
        parts: parts committed by this attempt.
        errors: error rows of this attempt by code.
        error_texts: of each code the text of the first row that came.
        remarks: images of this attempt by code of `segment.output.remarks.REMARKS`.
        labelled: images of this attempt whose label could be used.
        failures, last_failure: parts that could not be committed, and why the last one could not.
        retries: requests to stores that were repeated, by kind.
        changed: why, by part, what is there is not what was planned.
        confusion: counts of this attempt.
        seconds: spent by stage, in the order of `STAGES`, by all workers.
        started: `time.monotonic()` when the first round began.
        first_at, first_done: when work on the first part began, and `done` then; None until its result came.
    """

    card: ModelCard
    images: int
    done: int
    resumed: int
    workers: int
    title: str = ""
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
    first_done: int = 0
    pace: Pace = field(default_factory=Pace)

    def add(self, result: PartResult) -> None:
        """Count one result."""
        self.retries.update(result.retries)
        if result.failure is not None:
            self.failures += 1
            self.last_failure = result.failure
            if result.input_changed:
                self.changed[result.part] = result.failure
            return
        if self.first_at is None and not result.skipped:
            self.first_at, self.first_done = self._begun(result), self.done
            self.pace.note(self.done, self.seconds, self.first_at)
        self.done += result.images
        self.parts += not result.skipped
        self.seconds += [result.seconds.get(stage, 0.0) for stage in STAGES]
        if self.first_at is not None:
            self.pace.note(self.done, self.seconds)
        self.errors.update(result.errors)
        self.error_texts = {**result.error_texts, **self.error_texts}
        self.remarks.update(result.remarks)
        self.labelled += result.labelled
        if result.confusion is not None:
            self.confusion = result.confusion if self.confusion is None else self.confusion + result.confusion

    def _begun(self, result: PartResult) -> float:
        """When work on a part began, by our clock. A clock that counted from its result, which may come a part late,
        would give each worker's first parts for nothing. Hosts' clocks differ: never before the round, never negative.
        """
        now = time.monotonic()
        age = max(time.time() - result.began, result.ended - result.began, 0.0)
        return max(self.started, now - age)

    @property
    def rate(self) -> float:
        """Images a second since work on the first part began: the start of the workers is no part of it."""
        since, before = (self.first_at, self.first_done) if self.first_at is not None else (self.started, self.resumed)
        return (self.done - before) / max(1e-9, time.monotonic() - since)

    @property
    def rate_now(self) -> float:
        """Images a second in the last half minute."""
        return self.pace.rate(NOW)

    @property
    def eta(self) -> float | None:
        """Seconds to go at the rate of the last minutes, all that is left of the run; None where nothing moves."""
        rate = self.pace.rate(_LATELY)
        return (self.images - self.done) / rate if rate > 0 else None

    def busy(self, window: float = NOW) -> dict[Stage, float]:
        """Share of the workers' time that each stage took in the last `window` seconds, 0-1; {} before it is known.

        Reading and writing go on beside the model, so the shares may add up to more than 1.
        """
        seconds, _, spent = self.pace.over(window)
        if seconds <= 0 or not spent.any():
            return {}
        pool = max(1, self.workers, inflight.workers() or 0)  # it may have grown since
        shares = np.minimum(1.0, spent / (seconds * pool))
        return dict(zip(STAGES, shares.tolist(), strict=True))

    @property
    def miou(self) -> float | None:
        """mIoU of this attempt so far under the card's convention, 0-1; None without labels."""
        if self.confusion is None or not self.confusion.counts[:-1].any():
            return None
        return score(self.confusion, self.card.classes.ignored_classes, self.card.metric.convention).miou

    def iou(self) -> dict[str, float]:
        """IoU by class of this attempt so far, 0-1; classes that have not been seen are left out."""
        if self.confusion is None or self.miou is None:
            return {}
        found = score(self.confusion, self.card.classes.ignored_classes, self.card.metric.convention).iou
        seen = zip(self.card.classes.names, found.tolist(), strict=True)
        return {name: value for name, value in seen if value == value}

    @property
    def percent(self) -> int:
        """Images done of those planned, in percent; 100 when none is left, and not before."""
        return 100 if self.done >= self.images else min(99, round(100 * self.done / self.images))

    def line(self) -> str:
        """One plain line for logs."""
        parts = [f"{self.done}/{self.images} images ({self.percent} %)"]
        if self.rate > 0:
            parts.append(f"{self.rate:.1f} images/s")
        if self.eta is not None and self.done < self.images:
            parts.append(f"ETA {clock_time(self.eta)}")
        if self.miou is not None:
            parts.append(f"mIoU {100 * self.miou:.2f} %")
        parts.append(count(self.errors.total(), "error"))
        if self.failures:
            parts.append(f"{count(self.failures, 'part')} to retry")
        if self.retries:
            parts.append(f"{count(self.retries.total(), 'request')} to stores repeated")
        return ", ".join(parts)


def clock_time(seconds: float) -> str:
    """`75` becomes `1:15`, `3700` becomes `1:01:40`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
