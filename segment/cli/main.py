"""From the shell and back: signals, failures, exit codes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

import typer

from segment.cli.app import Stopped, app
from segment.cli.streams import say

# each adds its commands; their order is that of `--help`
from segment.cli import run, plan, look, pictures, models, schema, demo  # noqa: F401 # isort: skip


_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _stop(number: int, frame: object) -> None:
    """First signal: unwind, so that parts at hand are finished or abandoned. A second one ends at once."""
    _handle(lambda again, _: os._exit(128 + again))
    raise Stopped(number)


def _handle(handler: Callable[[int, object], object]) -> None:
    """Let this handle every signal that stops a run, but a SIGHUP that is ignored: so `nohup` asks for it."""
    for number in _STOPPING:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def main() -> None:
    """Entry point of the `segment` command: every failure is one clear message and an exit code."""
    from segment.errors import SegmentError

    _handle(_stop)
    try:
        app()
    except SegmentError as error:
        text = f"error: {error}"
        say(typer.style(text, fg=typer.colors.RED) if sys.stderr.isatty() else text, err=True)
        sys.exit(error.exit_code)
    except Stopped as stopped:
        say(str(stopped), err=True)
        sys.exit(stopped.exit_code)
