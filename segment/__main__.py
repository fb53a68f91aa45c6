"""`python -m segment`, and the `segment` command."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn

from segment.cli import main


def run() -> NoReturn:
    """Run the command line and end the process at once.

    Not by way of the interpreter's own end: threads of the libraries behind us have aborted it there, and with it a
    good exit code.
    """
    code: object = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    except BrokenPipeError:  # whoever read us has had enough
        code = 128 + signal.SIGPIPE
    if isinstance(code, str):
        print(code, file=sys.stderr)
    with suppress(OSError):
        sys.stdout.flush()
    with suppress(OSError):
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    run()
