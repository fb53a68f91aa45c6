"""Watching a run: a tally of what came back from the engine, and ways to show it."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from segment.card import ModelCard
from segment.metrics import Confusion, score
from segment.names import count
from segment.stages import PartResult

if TYPE_CHECKING:
    from rich.progress import TaskID


@dataclass
class Tally:
    """What is known of a run while it goes; the ledger, not this, is the truth.

    Attributes:
        card: the model's.
        images: planned.
        done: images committed, by earlier attempts too.
        resumed: of these, images committed by earlier attempts.
        errors: error rows of this attempt by code.
        workers: models loaded at once.
        failures, last_failure: parts that could not be committed, and why the last one could not.
        retries: requests to stores that were repeated, by kind.
        changed: why, by part, what is there is not what was planned.
        confusion: counts of this attempt.
        started: `time.monotonic()` when the first round began.
        first_at, first_done: when the first result came, and `done` then.
    """

    card: ModelCard
    images: int
    done: int
    resumed: int
    workers: int
    errors: Counter[str] = field(default_factory=Counter)
    failures: int = 0
    last_failure: str | None = None
    retries: Counter[str] = field(default_factory=Counter)
    changed: dict[str, str] = field(default_factory=dict)
    confusion: Confusion | None = None
    started: float = field(default_factory=time.monotonic)
    first_at: float | None = None
    first_done: int = 0

    def add(self, result: PartResult) -> None:
        """Count one result."""
        self.retries.update(result.retries)
        if result.failure is not None:
            self.failures += 1
            self.last_failure = result.failure
            if result.input_changed:
                self.changed[result.part] = result.failure
            return
        self.done += result.images
        if self.first_at is None and not result.skipped:
            self.first_at, self.first_done = time.monotonic(), self.done
        self.errors.update(result.errors)
        if result.confusion is not None:
            self.confusion = result.confusion if self.confusion is None else self.confusion + result.confusion

    @property
    def rate(self) -> float:
        """Images a second since the first result: the start of the workers is no part of it."""
        since, before = (self.first_at, self.first_done) if self.first_at else (self.started, self.resumed)
        return (self.done - before) / max(1e-9, time.monotonic() - since)

    @property
    def eta(self) -> float | None:
        """Seconds to go at that rate; None before there is one."""
        return (self.images - self.done) / self.rate if self.rate > 0 else None

    @property
    def miou(self) -> float | None:
        """mIoU of this attempt so far under the card's convention, 0-1."""
        if self.confusion is None:
            return None
        return score(self.confusion, self.card.classes.ignored_classes, self.card.metric.convention).miou

    def line(self) -> str:
        """One plain line for logs."""
        percent = 100 * self.done / max(1, self.images)
        parts = [f"{self.done}/{self.images} images ({percent:.0f} %)"]
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


class Progress:
    """Shows nothing. The base of those that do."""

    def note(self, message: str) -> None:
        """Something the user should know: a warning, a phase."""

    def download(self, name: str, done: int, total: int) -> None:
        """Bytes of a file of weights came; `total` is -1 where the size is not known."""

    def begin(self, tally: Tally) -> None:
        """The first round begins."""

    def update(self, tally: Tally) -> None:
        """A result was counted."""

    def end(self, tally: Tally) -> None:
        """The last round ended, well or not."""

    def close(self) -> None:
        """Nothing more comes: give the terminal back."""


class QuietProgress(Progress):
    """Shows warnings, and nothing else."""

    def note(self, message: str) -> None:
        """See `Progress.note`."""
        if message.startswith("warning:"):
            print(message, file=sys.stderr, flush=True)


class PlainProgress(Progress):
    """One line at the first result, then every `interval` seconds, and at the end; for logs."""

    def __init__(self, stream: TextIO | None = None, interval: float = 10.0) -> None:
        self._stream = stream or sys.stderr
        self._interval = interval
        self._last = -math.inf

    def note(self, message: str) -> None:
        """See `Progress.note`."""
        print(message, file=self._stream, flush=True)

    def download(self, name: str, done: int, total: int) -> None:
        """See `Progress.download`."""
        if self._is_due() or done == total:
            self.note(f"fetching {name}: {done / 1e6:.1f} of {total / 1e6:.1f} MB")

    def begin(self, tally: Tally) -> None:
        """See `Progress.begin`."""
        self._last = -math.inf

    def update(self, tally: Tally) -> None:
        """See `Progress.update`."""
        if self._is_due():
            self.note(tally.line())

    def _is_due(self) -> bool:
        if time.monotonic() - self._last < self._interval:
            return False
        self._last = time.monotonic()
        return True

    def end(self, tally: Tally) -> None:
        """See `Progress.end`."""
        self.note(tally.line())


class RichProgress(Progress):
    """A live bar for terminals."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        self._console = Console(stderr=True)
        self._bar = Bar(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[line]}", markup=False),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("segment", total=None, line="", visible=False)
        self._fetching: TaskID | None = None

    def note(self, message: str) -> None:
        """See `Progress.note`."""
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    def download(self, name: str, done: int, total: int) -> None:
        """See `Progress.download`."""
        if self._fetching is None:
            self._fetching = self._bar.add_task("fetch", total=total, line="")
            self._bar.start()
        line = f"{name} {done / 1e6:.1f} of {total / 1e6:.1f} MB"
        self._bar.update(self._fetching, completed=done, total=total, line=line)
        if done == total:
            self._bar.stop()
            self._bar.remove_task(self._fetching)
            self._fetching = None
            self.note(f"fetched {name}, {total / 1e6:.1f} MB")

    def begin(self, tally: Tally) -> None:
        """See `Progress.begin`."""
        self._bar.update(self._task, total=tally.images, completed=tally.done, visible=True, line="starting")
        self._bar.start()

    def update(self, tally: Tally) -> None:
        """See `Progress.update`."""
        self._bar.update(self._task, completed=tally.done, line=tally.line())

    def close(self) -> None:
        """See `Progress.close`."""
        self._bar.stop()

    def end(self, tally: Tally) -> None:
        """See `Progress.end`."""
        self._bar.stop()
        self.note(tally.line())


def console_progress(quiet: bool = False) -> Progress:
    """The fitting display: warnings only, a live bar on a terminal, else a line every ten seconds."""
    if quiet:
        return QuietProgress()
    return RichProgress() if sys.stderr.isatty() else PlainProgress()
