"""What a command of minutes says meanwhile: a count that moves on a terminal, and few lines in a log."""

import io
import sys
import time

import pytest

from segment.cli import notes
from segment.cli.notes import ShownNotes, shown_notes
from segment.models.sessions.apart_process import Passing


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def seen(stream: io.StringIO) -> list[str]:
    """What a terminal of one row shows after each time that something is drawn from its left edge."""
    return [part.split("\x1b[K")[0] for part in stream.getvalue().split("\r")]


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Let the standard error stream be a terminal of 20 columns."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "20")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def test_a_terminal_shows_what_passes_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, shown = on_a_terminal(monkeypatch), ShownNotes()
    for text in ("image 1 of 2", "image 2 of 2", "image 2 of 2"):
        shown(Passing(text))
        shown.tick()
    assert seen(terminal) == ["", "image 1 of 2", "image 2 of 2"]
    shown("a line")
    shown.tick()
    assert terminal.getvalue().endswith("\r\x1b[Ka line\n")
    shown(Passing("an image \x1b[31m of a long name"))
    shown.tick()
    assert seen(terminal)[-1] == "an image \\u001b[31m"
    shown.clear()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_a_command_that_fails_leaves_its_terminal_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch)

    def is_stopped() -> None:
        with shown_notes() as note:
            note(Passing("image 1 of 2"))
            deadline = time.monotonic() + 10
            while "image 1" not in terminal.getvalue():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        is_stopped()
    assert terminal.getvalue() == "\rimage 1 of 2\x1b[K\r\x1b[K"


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_log_gets_a_line_now_and_then(
    term: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first one soon, so that what is done is seen; none where the command is quick, or says something itself."""
    monkeypatch.setenv("TERM", term)
    if term == "dumb":
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    now = 100.0
    monkeypatch.setattr(notes.time, "monotonic", lambda: now)
    shown, said = ShownNotes(), []
    for second in range(31):
        now = 100.0 + second
        shown(Passing(f"image {second} of 31") if second != 5 else "a line")
        shown.tick()
        if text := capsys.readouterr().err:
            said.append((second, text))
    assert said == [
        (2, "image 2 of 31\n"), (5, "a line\n"), (15, "image 15 of 31\n"), (25, "image 25 of 31\n"),
    ]  # fmt: skip
    shown.clear()
    assert capsys.readouterr().err == ""
