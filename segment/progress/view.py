"""What a display says of a run, as words: the same on a terminal and in a notebook."""

from __future__ import annotations

import time
from dataclasses import dataclass

from segment.progress.tally import Tally, clock_time
from segment.store import inflight
from segment.store.names import count


@dataclass(frozen=True)
class View:
    """A moment of a run.

    Attributes:
        title: what runs where.
        elapsed: since this attempt began.
        share, percent: done, 0-1 and for people.
        facts: labels and values, the most important first.
        busy: stages and their share of the workers' time in percent.
        trouble: what keeps the run waiting; `""` if nothing does.
    """

    title: str
    elapsed: str
    share: float
    percent: int
    facts: list[tuple[str, str]]
    busy: list[tuple[str, int]]
    trouble: str


def view_of(tally: Tally) -> View:
    """Look at a run."""
    facts = [("images", f"{tally.done:,} of {tally.images:,}"), ("images/s", _rate(tally))]
    facts.append(("ETA", "-" if tally.eta is None else clock_time(tally.eta)))
    facts.append(("mIoU", "-" if tally.miou is None else f"{100 * tally.miou:.2f} %"))
    facts += [("errors", _errors(tally)), ("workers", str(inflight.workers() or tally.workers))]
    elapsed = clock_time(time.monotonic() - tally.started)
    busy: list[tuple[str, int]] = [(stage, round(100 * share)) for stage, share in tally.busy().items()]
    return View(tally.title, elapsed, tally.done / max(1, tally.images), tally.percent, facts, busy, trouble())


def trouble() -> str:
    """What keeps the run waiting, in words."""
    waiting = inflight.slow_request()
    return waiting.message() if waiting else ""


def _rate(tally: Tally) -> str:
    if tally.first_at is None or tally.rate <= 0:
        return "-"
    return f"{tally.rate_now:.1f}, mean {tally.rate:.1f}"


def _errors(tally: Tally) -> str:
    errors = f"{tally.errors.total():,}"
    return f"{errors}, {count(tally.failures, 'part')} to retry" if tally.failures else errors
