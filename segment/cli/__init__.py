"""The command line: a file a command or family of commands, thin over the modules that do the work.

Imports of anything heavy are inside the commands, so that `--help` answers at once.
Exit codes: 0 done, 1 the run failed (rerun to resume), 2 wrong usage or input, 3 more errors than allowed,
129, 130 and 143 stopped by SIGHUP, Ctrl-C or SIGTERM (rerun to resume), 141 nobody reads what is printed (`| head`);
`streams` says when output that cannot be printed changes them.
"""

from segment.cli.main import main

__all__ = ["main"]
