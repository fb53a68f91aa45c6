"""Memory guard: a worker process that uses too much memory ends itself before the kernel kills others on its node."""

import ctypes
import os
import resource
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

import psutil

from segment.pipeline.resources import available_cpus, node_memory

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt
_LARGEST_BLOCK = 1 << 30  # bytes; larger ones are mapped, and unmapped when they are freed
_MOST_FREE = (1 << 31) - 1  # bytes at the end of the heap; the largest number that mallopt takes

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


def keep_freed_blocks() -> bool:
    """Let glibc keep the memory of large blocks that are freed, for the next image; return whether it does.

    By default glibc maps and unmaps every block above 32 MB, and the kernel clears its pages each time: a fifth of the
    CPU time of a 12-megapixel image. The peak of the process stays the same. Other allocators are left alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl has none
        return False
    # Before glibc 2.35 the threshold was limited; then nothing is set, since a set threshold does not adapt any more.
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK)) and bool(mallopt(_TRIM_THRESHOLD, _MOST_FREE))


def release_freed_blocks() -> None:
    """Give the memory of all freed blocks back to the system, where glibc keeps it; see `keep_freed_blocks`.

    Loading a model frees several copies of its weights, whose places do not fit the tensors of a call.
    """
    with suppress(OSError, AttributeError):  # another allocator
        ctypes.CDLL(None).malloc_trim(0)
