"""CPUs and memory that this process may use, by its affinity and its control groups.

Containers, Kubernetes pods and jobs of batch systems are control groups, of version 1 or 2 of the interface.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_MOUNTS = Path("/proc/self/mountinfo")


def available_cpus() -> int:
    """Return the CPUs of this process: of its affinity, limited by quotas of its control groups; at least 1."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in _control_groups("cpu") if (quota := _cpu_quota(folder))]
    return max(1, int(min([cpus, *quotas])))


def node_memory() -> tuple[int, int]:
    """Return total and available bytes: the least of the machine and of the control groups of this process."""
    machine = psutil.virtual_memory()
    total, available = int(machine.total), int(machine.available)
    for folder in _control_groups("memory"):
        with suppress(OSError, ValueError):  # no limit ("max"), or not mounted
            limit, used, cache = _memory(folder)
            total, available = min(total, limit), min(available, limit - used + cache)
    return total, max(0, available)


@contextmanager
def folders_undone(folder: Path) -> Iterator[None]:
    """On exit remove a folder and its parents if they did not exist before and are empty."""
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    try:
        yield
    finally:
        with suppress(OSError):  # ends at the first that is not empty or does not exist
            for path in missing:
                path.rmdir()


def _control_groups(controller: str) -> Iterator[Path]:
    """Yield the folders of the control groups of this process, from the root down; some may not exist."""
    try:
        lines = _MEMBERSHIP.read_text(encoding="utf-8").splitlines()
    except OSError:  # another system
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        folder, path = _mounted(controller if controllers else "", path)
        yield folder
        for name in path.strip("/").split("/"):
            folder /= name
            if name and name != "..":
                yield folder


def _mounted(controller: str, path: str) -> tuple[Path, str]:
    """Return the folder at which a tree of control groups is mounted, and the path of a group below it.

    A container may see only its own branch of the tree, mounted as if it were the root, while the path is that of the
    host. Then it holds the mount's root as a prefix; a path without it belongs to another namespace, and the root
    alone is known.

    Args:
        controller: of version 1; `""` for version 2, which has one tree for all.
        path: of the group, as the process is told it.
    """
    with suppress(OSError):
        for line in reversed(_MOUNTS.read_text(encoding="utf-8").splitlines()):  # a later mount hides an earlier one
            here, _, there = line.partition(" - ")
            root, folder = here.split(" ")[3:5]
            kind, _, options = there.split(" ", 2)
            if kind == ("cgroup" if controller else "cgroup2") and controller in ("", *options.split(",")):
                inside = root == "/" or f"{path}/".startswith(f"{root}/")
                return Path(folder), path.removeprefix(root) if inside else ""
    return (_CGROUPS / controller if controller else _CGROUPS), path


def _cpu_quota(folder: Path) -> float | None:
    """Return the CPUs that a control group allows; None if it has no limit."""
    with suppress(OSError, ValueError):  # no limit (`max`), or the other version
        quota, period = map(int, (folder / "cpu.max").read_text(encoding="ascii").split())
        return quota / period
    with suppress(OSError, ValueError):
        quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        return quota / period if quota > 0 else None
    return None


def _memory(folder: Path) -> tuple[int, int, int]:
    """Return limit, use, and the part of the use that the kernel can reclaim (its file cache), in bytes.

    Version 1 also tells the least limit of all groups above, of which those outside of a container cannot be seen.
    """
    lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    stat = {name: int(value) for name, _, value in (line.partition(" ") for line in lines)}
    if (folder / "memory.max").exists():
        return _number(folder / "memory.max"), _number(folder / "memory.current"), stat.get("inactive_file", 0)
    limit = _number(folder / "memory.limit_in_bytes")
    limit = min(limit, stat.get("hierarchical_memory_limit", limit))
    return limit, _number(folder / "memory.usage_in_bytes"), stat.get("total_inactive_file", 0)


def _number(file: Path) -> int:
    return int(file.read_text(encoding="ascii"))
