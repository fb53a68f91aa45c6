"""Notes of a command that takes minutes: lines that stay, and what is done at the moment with a count that moves."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from segment.cli.streams import columns, say
from segment.models.sessions.apart_process import Passing
from segment.progress import ticking
from segment.store.foreign_text import on_terminal

_FRAME = 0.1  # seconds between looks at what passes
_FIRST, _INTERVAL = 2.0, 10.0  # seconds until a log gets what passes, if nothing else is said, and then between lines


@contextmanager
def shown_notes() -> Iterator["ShownNotes"]:
    """Show notes on the standard error stream until the block ends."""
    notes = ShownNotes()
    try:
        with ticking(notes.tick, _FRAME):
            yield notes
    finally:
        notes.clear()


class ShownNotes:
    """Shows notes. What passes is redrawn in place on a terminal; in a log it is a line now and then."""

    def __init__(self) -> None:
        self._is_live = sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
        self._passing = self._drawn = ""
        self._due = time.monotonic() + _FIRST  # of a log
        self._lock = threading.Lock()

    def __call__(self, line: str) -> None:
        """Show a note."""
        if isinstance(line, Passing):
            self._passing = line
            return
        with self._lock:
            self._clear()
            self._say(line)
            self._passing = ""

    def tick(self) -> None:
        """Show what passes, if it is another than before; called again and again."""
        with self._lock:
            passing = self._passing
            if passing == self._drawn or not (self._is_live or time.monotonic() >= self._due):
                return
            if self._is_live:
                self._draw(passing)
            elif passing:
                self._say(passing)
            self._drawn = passing

    def clear(self) -> None:
        """Leave nothing of what passes on a terminal."""
        with self._lock:
            self._clear()

    def _say(self, line: str) -> None:
        say(line, err=True)
        self._due = time.monotonic() + _INTERVAL

    def _clear(self) -> None:
        if self._is_live and self._drawn:
            self._draw("")
        self._drawn = ""

    def _draw(self, text: str) -> None:
        print(f"\r{on_terminal(text)[: columns(sys.stderr) - 1]}\x1b[K", end="", file=sys.stderr, flush=True)
