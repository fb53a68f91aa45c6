"""The progress of a run: `Tally` counts the results of the engine, and a `Progress` shows them."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from segment.progress.display import Progress
from segment.progress.lines import JsonProgress, LogProgress, PlainProgress, QuietProgress
from segment.progress.tally import Tally, clock_time

__all__ = ["LogFormat", "Progress", "Tally", "clock_time", "console_progress", "ticking", "watched_progress"]

LogFormat = Literal["auto", "plain", "json"]


def console_progress(quiet: bool = False, log_format: LogFormat = "auto") -> Progress:
    """Choose a display: JSON lines, warnings only, a notebook cell, a live terminal, or a line every ten seconds.

    Args:
        quiet: show warnings and errors only.
        log_format: `json` and `plain` write lines; `auto` takes a notebook or a terminal if there is one.
    """
    if log_format == "json":
        return JsonProgress(quiet=quiet)
    if quiet:
        return QuietProgress()
    if log_format == "auto" and _in_notebook():
        from segment.progress.notebook import NotebookProgress

        return NotebookProgress()
    if log_format == "auto" and _on_terminal() and os.environ.get("TERM") not in ("dumb", "unknown"):
        from segment.progress.terminal import TerminalProgress

        return TerminalProgress()
    return PlainProgress()


def watched_progress() -> Progress:
    """Return the display of `console_progress` where a person watches (a notebook, a terminal), else a log of notes."""
    return console_progress() if _in_notebook() or _on_terminal() else LogProgress()


def _on_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # None in a program without standard streams; closed; an object that writes
        return False


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


@contextmanager
def ticking(tick: Callable[[], None], seconds: float = 1.0) -> Iterator[None]:
    """Call `tick` every `seconds` from a thread until the block ends."""
    done = threading.Event()

    def run() -> None:
        while not done.wait(seconds):
            tick()

    thread = threading.Thread(target=run, name="tick", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(5.0)
