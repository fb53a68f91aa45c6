"""Memory of worker processes: one that takes too much ends itself, and its part fails; the node lives on."""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

import psutil

from segment.pipeline.resources import available_cpus, node_memory

OVER_BUDGET = 86  # exit code of a worker process that ended itself
_SHORT = 0.08  # of a node's memory left: Linux and Ray begin to kill whom they like at about half of that
_EVERY_SECONDS = 0.1
_CALM_SECONDS = 0.5  # without a budget: a node does not fill up that fast


def own_memory() -> int:
    """Return this process's resident bytes but for what it shares: mapped files, Ray's object store.

    Where the system does not say what is shared (macOS), all of them.
    """
    memory = psutil.Process().memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


def peak_memory() -> int:
    """Most bytes that this process has had resident so far.

    Not by `getrusage` where there is another way: on Linux its peak is that of the process which started this one, too.
    """
    with suppress(OSError), open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123 - no file
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Guard:
    """Watches this process's memory from a thread, and calls `over` once if it takes too much.

    Too much is more than the budget; where there is none, more than its share while the node is short of memory.

    Args:
        budget: bytes, from `--worker-memory`; None for the share.
        share: of the node's memory, 0-1.
        over: called from the guard's thread.
    """

    def __init__(self, budget: int | None, share: float, over: Callable[[], object]) -> None:
        self._budget = budget
        self._share = share
        self._over = over
        self._done = threading.Event()
        threading.Thread(target=self._watch, name="memory", daemon=True).start()

    def _watch(self) -> None:
        while not self._done.wait(_CALM_SECONDS if self._budget is None else _EVERY_SECONDS):
            if self._is_over():
                self._over()
                return

    def _is_over(self) -> bool:
        if self._budget is not None:
            return own_memory() > self._budget
        total, available = node_memory()
        return available < _SHORT * total and own_memory() > total * self._share

    def close(self) -> None:
        """Stop watching."""
        self._done.set()


def guard_process(budget: int | None, share: float | None = None) -> Guard:
    """Let this process, a worker of its own, end itself when it takes too much; see `Guard`.

    The share, unless it is given, is that of one of the CPUs of this node or container: on each may be a worker.
    """
    return Guard(budget, share or 1 / available_cpus(), lambda: os._exit(OVER_BUDGET))
