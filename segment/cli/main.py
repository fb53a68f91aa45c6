"""The entry point of the command: signals, failures, exit codes."""

import os
import signal
import sys
import traceback
from collections.abc import Callable

from segment.cli.app import Stopped, app
from segment.cli.streams import say
from segment.cli.usage import BadCommandLine, usage_message

# each import adds its commands, in the order of `--help`
from segment.cli import run, check, look, score, pictures, models, drafts  # noqa: F401 # isort: skip
from segment.cli import quantize, schema, demo  # noqa: F401 # isort: skip


STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _stop(number: int, frame: object) -> None:
    """Unwind on the first signal, so that parts in progress are finished or abandoned; exit at once on the second."""
    _handle(lambda again, _: os._exit(128 + again))
    raise Stopped(number)


def _handle(handler: Callable[[int, object], object]) -> None:
    """Install a handler for every signal that stops a run, except an ignored SIGHUP: `nohup` ignores it on purpose."""
    for number in STOPPING:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def main() -> None:
    """Run the `segment` command; end every failure with one message and an exit code."""
    from segment.errors import SegmentError

    _handle(_stop)
    try:
        code = app(prog_name="segment", standalone_mode=False)
    except BadCommandLine as error:
        words = usage_message(error)
        say(words, err=True, is_failure=words.startswith("error"))
        sys.exit(2)
    except SegmentError as error:
        say(f"error: {error}", err=True, is_failure=True)
        sys.exit(error.exit_code)
    except Exception:  # Python's own hook would print it with whatever text from outside it holds
        say(f"{traceback.format_exc()}error: a fault of segment itself: please report it with these lines", err=True)
        sys.exit(1)
    except Stopped as stopped:
        say(str(stopped), err=True)
        sys.exit(stopped.exit_code)
    sys.exit(code if isinstance(code, int) else 0)  # a number is that of `typer.Exit`
