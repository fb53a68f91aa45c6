"""Progress in a notebook: one output below the cell, updated in place."""

import html
import time
from typing import Any

from IPython import display as _display

from segment.progress.display import Progress, View, view_of
from segment.progress.tally import Tally
from segment.store.foreign_text import on_terminal


class NotebookProgress(Progress):
    """Shows a bar and a table in plain HTML, without widgets, in the light or dark colours of the notebook."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._tally: Tally | None = None
        self._drawn = 0.0

    def note(self, message: str) -> None:
        print(on_terminal(message))

    def download(self, name: str, done: int, total: int) -> None:
        if done == total:
            self.note(f"fetched {name}, {total / 1e6:.1f} MB")

    def begin(self, tally: Tally) -> None:
        self._tally = tally
        self._draw(tally)

    def update(self, tally: Tally) -> None:
        if time.monotonic() - self._drawn > 0.5:
            self._draw(tally)

    def tick(self) -> None:
        if self._tally is not None:
            self.update(self._tally)

    def end(self, tally: Tally) -> None:
        self._tally = None
        self._draw(tally)

    def _draw(self, tally: Tally) -> None:
        self._drawn = time.monotonic()
        library: Any = _display  # untyped
        shown = library.HTML(_html(view_of(tally)))
        if self._handle is None:
            self._handle = library.display(shown, display_id=True)
        else:
            self._handle.update(shown)


def _escaped(text: str) -> str:
    return html.escape(on_terminal(text))


def _html(view: View) -> str:
    cells = "".join(
        f"<td style='text-align:left;opacity:.65'>{name}</td><td style='text-align:left'>{_escaped(value)}</td>"
        for name, value in view.facts
    )
    busy = "  ".join(f"{stage} {percent} %" for stage, percent in view.busy)
    wait = f"<div role='alert'><b>{_escaped(view.wait)}</b></div>" if view.wait else ""
    return (
        f"<div><b>{_escaped(view.title)}</b> <span style='opacity:.65'>{view.elapsed}</span><br>"
        f"<progress aria-label='images done' value='{view.share:.4f}' max='1' style='width:24em'></progress> "
        f"{view.percent} %<table><tr>{cells}</tr></table><small>{busy}</small>{wait}</div>"
    )
