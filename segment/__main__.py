"""`python -m segment`, and the `segment` command."""

import os
from typing import NoReturn

from segment.cli.main import STOPPING, main
from segment.cli.streams import say, streams
from segment.process.hidden_modules import hide_pandas
from segment.process.last_resort import end_after_signal

_STOP_SECONDS = 25.0  # for a command to end by itself after a signal; orchestrators kill after 30


def run() -> NoReturn:
    """Run the command line and end the process at once.

    This skips the interpreter's shutdown, where threads of libraries have aborted the process and lost the exit code.
    """
    hide_pandas()
    streams.guard()
    end_after_signal(STOPPING, _STOP_SECONDS)
    code: object = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    if isinstance(code, str):
        say(code, err=True)
    os._exit(streams.settle(code if isinstance(code, int) else int(code is not None)))


if __name__ == "__main__":
    run()
