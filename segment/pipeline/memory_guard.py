"""Memory guard: a worker process that uses too much memory ends itself before the kernel kills others on its node."""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

import psutil

from segment.pipeline.resources import available_cpus, node_memory
from segment.process.allocator import keep_freed_blocks

OVER_BUDGET = 86  # exit code of a worker process that ended itself
_SHORT = 0.08  # fraction of a node's memory that is free: Linux and Ray kill processes at about half of that
_POLL_SECONDS = 0.1  # with a budget
_NODE_POLL_SECONDS = 0.5  # without one: a node fills up more slowly than a process


def own_memory() -> int:
    """Return the resident bytes of this process without shared ones, such as mapped files and Ray's object store.

    On macOS, which does not tell them apart, shared bytes are included.
    """
    memory = psutil.Process().memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


def peak_memory() -> int:
    """Return the peak resident bytes of this process.

    `getrusage` is the last resort: on Linux its peak includes that of the parent process.
    """
    with suppress(OSError), open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123 - no file
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Guard:
    """Watches the memory of this process from a thread, and calls `over` once when it is above the limit.

    The limit is the budget. Without one it is a share of the node's memory, while the node is short of memory.

    Args:
        budget: bytes, from `--worker-memory`; None for the share.
        share: fraction of the node's memory, 0-1.
        over: called from the guard's thread.
    """

    def __init__(self, budget: int | None, share: float, over: Callable[[], object]) -> None:
        self._budget = budget
        self._share = share
        self._over = over
        self._done = threading.Event()
        threading.Thread(target=self._watch, name="memory", daemon=True).start()

    def _watch(self) -> None:
        while not self._done.wait(_NODE_POLL_SECONDS if self._budget is None else _POLL_SECONDS):
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
    """Let this worker process end itself with exit code `OVER_BUDGET` when it uses too much memory; see `Guard`.

    Every worker process of every engine begins here, so here its allocator is set, too; see `keep_freed_blocks`.

    Args:
        budget: bytes, from `--worker-memory`.
        share: fraction of the node's memory, 0-1; None divides it by the CPUs, each of which may have a worker.
    """
    keep_freed_blocks()
    return Guard(budget, share or 1 / available_cpus(), lambda: os._exit(OVER_BUDGET))
