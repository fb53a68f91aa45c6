"""Memory: who takes more than a worker may have fails its part, in words; nobody else is harmed."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from segment.errors import UsageError
from segment.job import make_job
from segment.output.audit import audit_run
from segment.output.ledger import Ledger
from segment.pipeline import memory_guard, resources
from segment.pipeline.memory_guard import OVER_BUDGET, Guard, guard_process, own_memory
from segment.pipeline.resources import available_cpus, node_memory
from segment.runs.driver import run
from segment.store.client import Store
from tests.here import working_in_processes
from tests.jobs import ray_engine, run_on, tree
from tests.reliability.arena import note
from tests.reliability.trouble import add_killer, assert_sound, run_process, street, trouble_in_children
from tests.runs import Notes, Place, expect, png, read_rows

HUNGRY = "out_of_memory: the image takes more memory than a worker may have (--worker-memory)"
GIB = 1 << 30
BUDGET = "500MB"  # a worker with this model has 200 MB; decoding an image of 81 megapixels takes 486 MB more


# --- the guard --------------------------------------------------------------------------------------------------------


def test_what_the_machine_and_the_process_have() -> None:
    total, available = node_memory()
    assert 0 < available <= total <= psutil.virtual_memory().total
    before = own_memory()
    ballast = np.ones(100_000_000, np.uint8)
    assert 90e6 < own_memory() - before < 200e6
    del ballast


def test_where_the_system_does_not_say_what_is_shared_all_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mac:
        def memory_info(self) -> Any:
            return SimpleNamespace(rss=30, vms=900, pfaults=1, pageins=1)  # as psutil has it on macOS

    monkeypatch.setattr(psutil, "Process", Mac)
    assert own_memory() == 30


def cgroup(folder: Path, files: dict[str, str]) -> Path:
    """A control group's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def v2(cpus: float | None, memory: int | None, used: int = 0) -> dict[str, str]:
    """What version 2 of the interface says."""
    return {
        "cpu.max": "max 100000\n" if cpus is None else f"{cpus * 100_000:.0f} 100000\n",
        "memory.max": "max\n" if memory is None else f"{memory}\n",
        "memory.current": f"{used}\n",
        "memory.stat": "anon 5\ninactive_file 100000\nactive_file 7\n",
    }


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 64 CPUs and 256 GiB, and the folder of its control groups; the process is in its root, version 2."""
    monkeypatch.setattr(resources, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(resources, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(resources, "_MOUNTS", tmp_path / "mounts")
    (tmp_path / "membership").write_text("0::/\n")
    memory = SimpleNamespace(total=256 * GIB, available=200 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    return tmp_path / "cgroup"


def test_a_container_has_what_it_is_given(machine: Path) -> None:
    assert (available_cpus(), node_memory()) == (64, (256 * GIB, 200 * GIB))  # no control groups at all
    cgroup(machine, v2(None, None))
    assert (available_cpus(), node_memory()) == (64, (256 * GIB, 200 * GIB))
    cgroup(machine, v2(8, 1_000_000, 700_000))
    assert (available_cpus(), node_memory()) == (8, (1_000_000, 400_000))
    cgroup(machine, v2(2.5, 1_000_000, 2_000_000))
    assert (available_cpus(), node_memory()) == (2, (1_000_000, 0))
    cgroup(machine, v2(0.5, None))
    assert available_cpus() == 1


def test_limits_of_a_batch_system_count_at_every_level(machine: Path) -> None:
    """Slurm and systemd limit a group above the process's own, and no namespace hides the path."""
    (machine.parent / "membership").write_text("0::/slurm/job_7/step_0\n")
    cgroup(machine, {})  # the root has no limits
    cgroup(machine / "slurm", v2(None, None))
    cgroup(machine / "slurm/job_7", v2(4, 16 * GIB, GIB))
    cgroup(machine / "slurm/job_7/step_0", v2(6, 32 * GIB, GIB))
    assert (available_cpus(), node_memory()[0]) == (4, 16 * GIB)


@pytest.mark.parametrize("path", ["/docker/abc", "/"])
def test_version_1(path: str, machine: Path) -> None:
    """Docker's path is the host's, or, in a namespace of its own, the root; the limits are at the root either way."""
    text = f"12:pids:{path}\n5:cpu,cpuacct:{path}\n4:memory:{path}\n1:name=systemd:{path}\n"
    (machine.parent / "membership").write_text(text)
    cgroup(machine / "cpu", {"cpu.cfs_quota_us": "800000\n", "cpu.cfs_period_us": "100000\n"})
    stat = "cache 9\ninactive_file 3\ntotal_inactive_file 1000\n"
    used = {"memory.usage_in_bytes": "5000\n", "memory.stat": stat}
    cgroup(machine / "memory", {"memory.limit_in_bytes": "20000\n", **used})
    assert (available_cpus(), node_memory()) == (8, (20_000, 16_000))
    cgroup(machine / "cpu", {"cpu.cfs_quota_us": "-1\n"})
    cgroup(machine / "memory", {"memory.limit_in_bytes": "9223372036854771712\n"})
    assert (available_cpus(), node_memory()) == (64, (256 * GIB, 200 * GIB))


def v1(limit: int, used: int = 0, *, above: int | None = None) -> dict[str, str]:
    """What version 1 says of memory, where the least limit of the groups above is `above`."""
    stat = f"inactive_file 3\nhierarchical_memory_limit {above or limit}\ntotal_inactive_file 100000\n"
    return {"memory.limit_in_bytes": f"{limit}\n", "memory.usage_in_bytes": f"{used}\n", "memory.stat": stat}


NO_LIMIT = 9223372036854771712  # as version 1 says it


@pytest.mark.parametrize(
    ("path", "root", "branch"),
    [
        ("/kubepods/pod7/main", "/kubepods/pod7/main", ""),  # a container sees its own branch as the root
        ("/kubepods/pod7/main/job", "/kubepods/pod7/main", "job"),  # and has groups below it
        ("/kubepods/pod7/main", "/", "kubepods/pod7/main"),  # on the host
        ("/elsewhere", "/kubepods/pod7/main", ""),  # of another namespace
    ],
)
def test_version_1_limits_memory_as_version_2_does(path: str, root: str, branch: str, machine: Path) -> None:
    """Wherever its tree is mounted, and however much of it is seen."""
    (machine.parent / "membership").write_text(f"4:memory:{path}\n3:cpu,cpuacct:{path}\n0::/\n")
    (machine.parent / "mounts").write_text(
        f"31 23 0:28 / {machine} rw - tmpfs tmpfs rw\n"
        f"33 31 0:30 {root} {machine}/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n"
        f"35 31 0:32 {root} {machine}/ram rw,nosuid shared:9 - cgroup cgroup rw,memory\n"
        f"41 31 0:38 / {machine}/unified rw - cgroup2 cgroup2 rw\n"
    )
    cgroup(machine / "unified", v2(None, None))
    cgroup(machine / "ram", v1(NO_LIMIT))
    cgroup(machine / "ram" / branch, v1(1_000_000, 700_000))
    cgroup(machine / "cpu,cpuacct" / branch, {"cpu.cfs_quota_us": "200000\n", "cpu.cfs_period_us": "100000\n"})
    assert (available_cpus(), node_memory()) == (2, (1_000_000, 400_000))
    cgroup(machine / "ram" / branch, v1(NO_LIMIT))
    assert node_memory() == (256 * GIB, 200 * GIB)
    cgroup(machine / "ram" / branch, v1(NO_LIMIT, 700_000, above=900_000))  # a pod limits all of its containers
    assert node_memory() == (900_000, 300_000)


def test_affinity_limits_the_cpus(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cgroup(machine, v2(8, None))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 5})
    assert available_cpus() == 2
    monkeypatch.delattr("os.sched_getaffinity")  # macOS
    (machine.parent / "membership").unlink()
    assert available_cpus() == 64


def test_a_workers_share_is_that_of_a_cpu_of_its_container(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a host of 64 CPUs a pod of 8 CPUs and 32 GiB gives a worker 4 GiB, not half of one."""
    cgroup(machine, v2(8, 32 * GIB, 31 * GIB))  # it is short of memory
    ended = threading.Event()
    monkeypatch.setattr("os._exit", lambda code: ended.set() if code == OVER_BUDGET else None)
    for own, is_over in ((3 * GIB, False), (5 * GIB, True)):
        monkeypatch.setattr(memory_guard, "own_memory", lambda own=own: own)
        guard = guard_process(None)
        assert ended.wait(1.2) == is_over
        guard.close()


def test_the_guard_calls_once_above_the_budget() -> None:
    called = threading.Event()
    guard = Guard(own_memory() + 200_000_000, 1.0, called.set)  # far from what other tests of this process give back
    assert not called.wait(0.3)
    ballast = np.ones(400_000_000, np.uint8)
    assert called.wait(5)
    del ballast
    guard.close()


def test_without_a_budget_only_where_the_node_is_short_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    available = [50]
    monkeypatch.setattr(memory_guard, "node_memory", lambda: (100, available[0]))
    monkeypatch.setattr(memory_guard, "own_memory", lambda: 30)
    for share, is_over in ((0.2, True), (0.5, False)):
        called = threading.Event()
        available[0] = 50
        guard = Guard(None, share, called.set)
        assert not called.wait(0.7)
        available[0] = 5
        assert called.wait(1.5) == is_over
        guard.close()


@pytest.mark.parametrize(
    ("text", "number"),
    [("700MB", 700_000_000), ("2.5 GiB", 2_684_354_560), ("1000000", 1_000_000), (4096, 4096), ("8kB", 8_000)],
)
def test_memory_in_words(text: Any, number: int) -> None:
    assert make_job({"input": "a", "output": "b", "model": "c", "worker_memory": text}).worker_bytes == number


@pytest.mark.parametrize("text", ["4 gigabytes", "-1", "GB", "1e9"])
def test_memory_in_other_words(text: str) -> None:
    with pytest.raises(UsageError, match="worker_memory"):
        make_job({"input": "a", "output": "b", "model": "c", "worker_memory": text})


# --- runs with hungry images ------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Six sound images, and between them two of 81 megapixels each, in one part with two sound ones."""
    place = street(tmp_path)
    huge = png(np.zeros((9000, 9000, 3), np.uint8))
    for name in ("2-huge.png", "2-huger.png"):
        place.write(name, huge)
    return place


def check(place: Place) -> None:
    """The two are error rows, all others right to the last pixel."""
    rows = {row["id"]: row for row in read_rows(place.output)}
    assert {name: row["error"] for name, row in rows.items() if row["error"]} == {
        "2-huge.png": HUNGRY,
        "2-huger.png": HUNGRY,
    }
    for seed in range(6):
        expect(rows[f"{seed}.png"], seed)
    assert_sound(place.output)
    found = audit_run(Ledger(Store(), f"file://{place.output}"))
    assert (found.totals["images"], found.totals["errors"]) == (8, 2)


@pytest.mark.slow
def test_hungry_images_are_error_rows(place: Place) -> None:
    ended = run_process(place, part_size=4, worker_memory=BUDGET)
    assert ended.returncode == 0, ended.stderr
    assert "a worker process took more memory than --worker-memory, or its node, allows: its parts are" in ended.stderr
    assert "round 2" in ended.stderr
    check(place)
    note("image that takes more memory than a worker may", 2, 2, 0)


@pytest.mark.slow
@pytest.mark.ray
def test_hungry_images_are_error_rows_on_ray(place: Place, ray_cluster: Path) -> None:
    assert ray_cluster
    notes = Notes()
    run_on(ray_engine(workers=(1, 1)), place.job(part_size=4, worker_memory=BUDGET), notes)
    assert [line for line in notes.lines if line.startswith("round ")] != []
    check(place)
    note("image that takes more memory than a worker may, Ray", 2, 2, 0)


def test_the_same_images_are_no_errors_where_there_is_memory(place: Place) -> None:
    assert run(place.job(part_size=4, worker_memory="8GB")).total.errors == 0


def test_a_part_that_finds_no_memory_is_done_in_the_next_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own MemoryError ends the worker, and not the run."""
    place = street(tmp_path)
    add_killer(place, "2-killer.png")
    place.run(output=str(tmp_path / "calm"))
    trouble_in_children(monkeypatch, f"hungry={tmp_path / 'once'}")
    notes = Notes()
    with working_in_processes():
        report = run(place.job(), notes)
    assert [line for line in notes.lines if line.startswith("round 2: ")]
    assert (report.complete, report.total.errors) == (True, 0)
    assert tree(place.output) == tree(tmp_path / "calm")
