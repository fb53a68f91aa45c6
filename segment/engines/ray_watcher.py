"""The watcher of a private Ray cluster: a process that ends what the cluster leaves behind when its driver dies.

The kernel ends the raylet and the control service with the driver, but not what the raylet has started. Its agents
notice its death, and then try for more than a minute to report it to the control service, which is gone.

It runs as a script, and imports the standard library and psutil only. Its standard input is a pipe from the driver: the
first byte says that the cluster has started, its end that the driver is gone.
"""

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil

_LOOK_SECONDS = 1.0  # between two looks whether the driver lives, should a fork of it hold the pipe open
_SEARCHES = (0.25, 10.0)  # seconds between two searches for processes while the cluster starts, and later
_SERVICES = ("raylet", "gcs_server")


def main(driver: int) -> None:
    """Wait until the driver, the parent of this process, is gone; then kill its cluster."""
    pause, later = _SEARCHES
    found: set[psutil.Process] = set()
    next_search = 0.0
    while os.getppid() == driver:
        if time.monotonic() >= next_search:
            found = {process for process in found if process.is_running()}.union(_processes(driver))
            next_search = time.monotonic() + pause
        if select.select([0], [], [], min(pause, _LOOK_SECONDS))[0]:
            if not os.read(0, 1):
                break
            pause, next_search = later, 0.0
    for process in found:
        with suppress(psutil.Error):  # psutil kills no process that has taken the number of one that is gone
            process.kill()


def _processes(driver: int) -> Iterator[psutil.Process]:
    """Yield the services of the driver's clusters, and all that their raylets have started."""
    with suppress(psutil.Error):
        held: set[int] = set()
        for each in psutil.Process(driver).children(recursive=True):  # one look at all processes; parents come first
            with suppress(psutil.Error):
                parent = each.ppid()
                if parent in held or (parent == driver and each.name() in _SERVICES):
                    held.add(each.pid)
                    yield each


if __name__ == "__main__":
    main(int(sys.argv[1]))
