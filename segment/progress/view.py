"""The content of a display as text, the same on a terminal and in a notebook."""

from __future__ import annotations

import time
from dataclasses import dataclass

from segment.progress.tally import Tally, clock_time
from segment.store import inflight
from segment.store.names import count, rate


@dataclass(frozen=True)
class View:
    """The state of a run at one moment.

    Attributes:
        title: model, engine and runtime.
        elapsed: time since this attempt began, formatted.
        share, percent: share of done images, 0-1, and rounded in percent.
        facts: labels and values, the most important first.
        busy: share of the workers' time by stage, in percent.
        wait: description of a slow request to a store; `""` if there is none.
    """

    title: str
    elapsed: str
    share: float
    percent: int
    facts: list[tuple[str, str]]
    busy: list[tuple[str, int]]
    wait: str


def view_of(tally: Tally) -> View:
    """Return the current view of a tally."""
    facts = [("images", f"{tally.done:,} of {tally.images_shown}"), ("images/s", _rate(tally))]
    facts.append(("ETA", "-" if tally.eta is None else clock_time(tally.eta)))
    facts.append(("mIoU", "-" if tally.miou is None else f"{100 * tally.miou:.2f} %"))
    facts += [("errors", _errors(tally)), ("workers", str(inflight.workers() or tally.workers))]
    elapsed = clock_time(time.monotonic() - tally.started)
    busy: list[tuple[str, int]] = [(stage, round(100 * share)) for stage, share in tally.busy().items()]
    return View(tally.title, elapsed, tally.reached / max(1, tally.images), tally.percent, facts, busy, store_wait())


def store_wait() -> str:
    """Describe the slowest request to a store; `""` if none is slow."""
    request = inflight.slow_request()
    return request.message() if request else ""


def _rate(tally: Tally) -> str:
    if not tally.has_begun or tally.rate <= 0:
        return "-"
    return f"{rate(tally.rate_now)}, mean {rate(tally.rate)}"


def _errors(tally: Tally) -> str:
    errors = f"{tally.errors.total():,}"
    return f"{errors}, {count(tally.failures, 'part')} to retry" if tally.failures else errors
