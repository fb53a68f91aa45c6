"""The command line: thin commands, one file per command or family of commands.

Commands import heavy modules inside their functions, so that `--help` stays fast.
Exit codes: 0 done, 1 the run failed (rerun to resume), 2 wrong usage or input, 3 more errors than allowed,
129, 130 and 143 stopped by SIGHUP, Ctrl-C or SIGTERM (rerun to resume), 141 the reader of the output is gone.
`streams` describes how output that cannot be printed changes them.
"""

from segment.cli.main import main

__all__ = ["main"]
