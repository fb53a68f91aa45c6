"""The interface of all progress displays, and what they show of a run, as text."""

import time
from dataclasses import dataclass

from segment.progress.tally import Tally, clock_time
from segment.store import inflight
from segment.store.names import count, rate


class Progress:
    """A display that shows nothing; the base class of the others. `tick` is called from a thread of its own."""

    def note(self, message: str) -> None:
        """Show a message: a fact, or `warning: ...`."""

    def phase(self, words: str) -> None:
        """Show the current phase of the run, until the next one begins."""

    def download(self, name: str, done: int, total: int) -> None:
        """Show the download of a weights file: `done` of `total` bytes; `total` is -1 if the size is unknown."""

    def begin(self, tally: Tally) -> None:
        """Begin to show a tally: the first round begins."""

    def update(self, tally: Tally) -> None:
        """Show the tally after a result was counted."""

    def tick(self) -> None:
        """Refresh the display; called once a second, with or without new results."""

    def stopping(self) -> None:
        """Show that the run stops: parts in progress are finished or abandoned."""

    def end(self, tally: Tally) -> None:
        """Show the final tally: the last round ended, successfully or not."""

    def failed(self, message: str, exit_code: int) -> None:
        """Show the error that ends the run."""

    def close(self) -> None:
        """Close the display and release the terminal."""


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
    begun = f" + {int(tally.begun):,}" * (tally.begun >= 1)  # segmented, not committed
    facts = [("images", f"{tally.done:,}{begun} of {tally.images_shown}"), ("images/s", _rate(tally))]
    facts.append(("ETA", "-" if tally.eta is None else clock_time(tally.eta)))
    new = " (new)" * bool(tally.resumed)  # of this attempt's images
    facts.append(("mIoU", "-" if tally.miou is None else f"{100 * tally.miou:.2f} %{new}"))
    facts += [("errors", _errors(tally, new)), ("workers", str(inflight.workers() or tally.workers))]
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


def _errors(tally: Tally, new: str) -> str:
    errors = f"{tally.errors.total():,}{new}"
    return f"{errors}, {count(tally.failures, 'part')} to retry" if tally.failures else errors
