"""Progress on a terminal: a live display, redrawn in place below the messages."""

import time

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from segment.progress.display import Progress, View, store_wait, view_of
from segment.progress.safe_console import SafeConsole
from segment.progress.tally import Tally, clock_time

_WIDEST = 100  # columns; wider lines are hard to read
_LABEL = 8  # columns: `images/s`
_PAIRS = ((84, 3), (56, 2), (0, 1))  # (least columns of the display, pairs of label and value side by side)


class TerminalProgress(Progress):
    """Shows a live display, drawn by a thread of its own, so that it is updated without new results, too."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or SafeConsole(stderr=True)
        self._tally: Tally | None = None
        self._phase, self._since = "", time.monotonic()
        self._is_stopping = False
        self._fetching: tuple[str, int, int] | None = None
        self._live = Live(
            console=self._console, transient=True, refresh_per_second=4, get_renderable=self._draw,
            vertical_overflow="crop",
        )  # fmt: skip

    def note(self, message: str) -> None:
        style = "yellow" if message.startswith("warning:") else None
        self._console.print(message, style=style, markup=False, highlight=False, overflow="fold")

    def phase(self, words: str) -> None:
        self._phase, self._since = words, time.monotonic()
        self._fetching = None  # a download of unknown size has no last call
        self._live.start()

    def download(self, name: str, done: int, total: int) -> None:
        self._fetching = (name, done, total)
        self._live.start()
        if done == total:
            self._live.refresh()
            self._fetching = None
            self.note(f"fetched {name}, {total / 1e6:.1f} MB")

    def begin(self, tally: Tally) -> None:
        self._tally, self._fetching = tally, None
        self._live.start()

    def stopping(self) -> None:
        self.phase("stopping: a second Ctrl-C ends at once")
        self._is_stopping = True

    def end(self, tally: Tally) -> None:
        self._tally, self._phase = None, ""
        self.note(tally.line())

    def close(self) -> None:
        self._live.stop()

    def _draw(self) -> RenderableType:
        width = min(self._console.width, _WIDEST)
        if self._fetching:
            return _download(*self._fetching, width)
        if self._tally is not None:
            phase = self._phase if not self._tally.has_begun or self._is_stopping else ""
            return _run(view_of(self._tally), self._clock(phase), width)
        return Group(*_lines(self._clock(self._phase), store_wait()))

    def _clock(self, phase: str) -> str:
        return f"{phase}  {clock_time(time.monotonic() - self._since)}" if phase else ""


def _lines(phase: str, wait: str) -> list[RenderableType]:
    lines: list[RenderableType] = [Text(phase, "dim", no_wrap=True, overflow="ellipsis")] if phase else []
    if wait:  # folded, not cut: the end of a URL identifies the object
        lines.append(Text(f"! {wait}", "bold yellow", overflow="fold"))
    return lines


def _download(name: str, done: int, total: int, width: int) -> RenderableType:
    of = f" of {total / 1e6:.1f}" if total >= 0 else ""
    words = f"fetching {name} {done / 1e6:.1f}{of} MB"
    bar = ProgressBar(total=total, completed=done, width=width) if total > 0 else None
    return Group(Text(words, overflow="fold"), *([bar] if bar else []), *_lines("", store_wait()))


def _run(view: View, phase: str, width: int) -> RenderableType:
    head = Table.grid(expand=True, padding=(0, 0, 0, 1))
    head.width = width
    head.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    head.add_column(justify="right", no_wrap=True)
    head.add_row(Text(view.title, "bold"), Text(view.elapsed, "dim"))
    bar = ProgressBar(total=1.0, completed=view.share, complete_style="cyan", finished_style="green")
    head.add_row(bar, f"{view.percent} %")
    lines: list[RenderableType] = ["", head, _facts(view.facts, width)]
    if view.busy:
        lines.append(_busy(view.busy))
    return Group(*lines, *_lines(phase, view.wait))


def _facts(facts: list[tuple[str, str]], width: int) -> Table:
    """Return a grid of labels and values, with as many pairs side by side as fit."""
    columns = next(number for least, number in _PAIRS if width >= least)
    grid = Table.grid(padding=(0, 2, 0, 0), expand=columns > 1)
    grid.width = width if columns > 1 else None
    for _ in range(columns):
        grid.add_column(no_wrap=True, style="dim", width=_LABEL)
        grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1 if columns > 1 else None)
    for start in range(0, len(facts), columns):
        cells = [Text(text) for pair in facts[start : start + columns] for text in pair]
        grid.add_row(*cells)
    return grid


def _busy(busy: list[tuple[str, int]]) -> Table:
    words = [Text.assemble((f"{stage} ", "dim"), f"{percent} %") for stage, percent in busy]
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, style="dim", width=_LABEL)
    grid.add_column()
    grid.add_row("busy", Columns(words, padding=(0, 2)))
    return grid
