"""What this process may use of its machine: CPUs and memory by its affinity and its control groups, and folders.

A container, a Kubernetes pod and a job of a batch system are control groups, of version 1 or 2 of the interface.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def available_cpus() -> int:
    """CPUs that this process may use: its affinity, limited by the quotas of its control groups; at least 1."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in _control_groups("cpu") if (quota := _cpu_quota(folder))]
    return max(1, int(min([cpus, *quotas])))


def node_memory() -> tuple[int, int]:
    """Total and available bytes: of this machine, or of the control group with the least of each."""
    machine = psutil.virtual_memory()
    total, available = int(machine.total), int(machine.available)
    for folder in _control_groups("memory"):
        with suppress(OSError, ValueError):  # no limit ("max"), or not mounted
            limit, used, cache = _memory(folder)
            total, available = min(total, limit), min(available, limit - used + cache)
    return total, max(0, available)


@contextmanager
def folders_undone(folder: Path) -> Iterator[None]:
    """Afterwards remove a folder and those above it, as far as they were not there before and are empty."""
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    try:
        yield
    finally:
        with suppress(OSError):  # the first that is not empty, or was not made, ends it
            for path in missing:
                path.rmdir()


def _control_groups(controller: str) -> Iterator[Path]:
    """Folders of this process's control groups, from the root down; some may not exist.

    Within a container the root is its own group, while the path may still be the host's: then only the root exists.
    """
    try:
        lines = _MEMBERSHIP.read_text(encoding="utf-8").splitlines()
    except OSError:  # another system
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        folder = _CGROUPS / controller if controllers else _CGROUPS  # version 2 has one tree for all
        yield folder
        for name in path.strip("/").split("/"):
            folder /= name
            if name and name != "..":
                yield folder


def _cpu_quota(folder: Path) -> float | None:
    """CPUs that a control group allows; None without a limit."""
    with suppress(OSError, ValueError):  # `max`, or the other version's
        quota, period = map(int, (folder / "cpu.max").read_text(encoding="ascii").split())
        return quota / period
    with suppress(OSError, ValueError):
        quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        return quota / period if quota > 0 else None
    return None


def _memory(folder: Path) -> tuple[int, int, int]:
    """Limit, use, and what of that use is a cache that the kernel gives back, in bytes."""
    if (folder / "memory.max").exists():
        names, cache = ("memory.max", "memory.current"), "inactive_file "
    else:
        names, cache = ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_inactive_file "
    lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    given_back = sum(int(line.removeprefix(cache)) for line in lines if line.startswith(cache))
    return _number(folder / names[0]), _number(folder / names[1]), given_back


def _number(file: Path) -> int:
    return int(file.read_text(encoding="ascii"))
