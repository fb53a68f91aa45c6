"""What befalls a cluster: nodes, heads, workers and drivers that die, freeze, wake up, or come twice."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.calls import ROOT
from tests.jobs import tree
from tests.reliability.arena import note
from tests.reliability.trouble import assert_sound, command, environment, street
from tests.runs import Place

PATIENCE = 240.0  # seconds a run may take on a busy machine before it counts as hanging
IMAGES = 24


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Many sound images in parts of two, and what an undisturbed run writes, in `calm`."""
    place = street(tmp_path, images=IMAGES)
    place.run(output=str(tmp_path / "calm"))
    return place


@contextmanager
def two_nodes(folder: Path, trouble: str) -> Iterator[Any]:
    """A cluster of its own: a head and another node with a CPU each, in whose workers this trouble comes true."""
    folder.mkdir(exist_ok=True)
    (folder / "trouble").write_text(trouble)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**environment(f"@{folder / 'trouble'}"), "RAY_BACKEND_LOG_LEVEL": "fatal"}.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        cluster.add_node(num_cpus=1)
    try:
        yield cluster
    finally:
        (folder / "trouble").unlink()
        for node in cluster.list_all_nodes():
            for process in family(node):
                with suppress(psutil.NoSuchProcess):
                    process.resume()
        cluster.shutdown()


def family(node: Any) -> list[psutil.Process]:
    """A node's raylet and all that it has started: workers, agents."""
    found = []
    for info in node.all_processes.get("raylet", []):
        with suppress(psutil.NoSuchProcess):
            raylet = psutil.Process(info.process.pid)
            found += [raylet, *raylet.children(recursive=True)]
    return found


def start(place: Place, trouble: str = "", **changes: Any) -> tuple[subprocess.Popen[bytes], Path]:
    """Start `segment run` over a place; return its process and the file that both of its streams go to."""
    log = place.folder / f"log-{time.monotonic_ns()}"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command(place, **changes), cwd=ROOT, env={**os.environ, **environment(trouble)}, stdout=stream,
            stderr=stream, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    return process, log


def ray_flags(cluster: Any) -> dict[str, Any]:
    return {"engine": "ray", "address": cluster.address, "workers": None}


def ended(started: tuple[subprocess.Popen[bytes], Path], patience: float = PATIENCE) -> tuple[int, str]:
    """Wait for a run; return exit code and what it said."""
    process, log = started
    try:
        code = process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        pytest.fail(f"the run did not end within {patience:.0f} s:\n{log.read_text()[-3000:]}")
    text = log.read_text(errors="replace")
    assert "Traceback" not in text, text
    return code, text


def await_masks(place: Place, number: int, started: tuple[subprocess.Popen[bytes], Path]) -> None:
    """Wait until so many parts are committed, and the run still goes on."""
    until = time.monotonic() + PATIENCE
    while len(list(place.output.glob("masks/*/*.parquet"))) < number:
        assert started[0].poll() is None, started[1].read_text()
        assert time.monotonic() < until, started[1].read_text()
        time.sleep(0.05)


def check(place: Place) -> None:
    """The oracle: sound, and byte-equal to the undisturbed run."""
    assert_sound(place.output)
    assert tree(place.output) == tree(place.folder / "calm")


def rerun(place: Place, kind: str, began: float) -> None:
    """The same command again, on this machine alone."""
    code, text = ended(start(place))
    assert code == 0, text
    check(place)
    note(kind, 1, 1, time.monotonic() - began)


# --- nodes ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_a_node_is_lost(place: Place) -> None:
    """kill -9 of the raylet of one of two nodes: the other one finishes what it had."""
    with two_nodes(place.folder / "cluster", "slow=0.4") as cluster:
        started = start(place, **ray_flags(cluster))
        await_masks(place, 3, started)
        began = time.monotonic()
        (lost,) = cluster.worker_nodes
        for info in lost.all_processes["raylet"]:
            os.kill(info.process.pid, signal.SIGKILL)
        code, text = ended(started)
        assert code == 0, text
        check(place)
        note("raylet killed (-9), one of two nodes", 1, 1, time.monotonic() - began)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_a_frozen_node_wakes_up_when_its_work_is_done(place: Place) -> None:
    """SIGSTOP of a node, raylet and workers: the other one finishes. SIGCONT: its workers can only write the same."""
    with two_nodes(place.folder / "cluster", "slow=0.4") as cluster:
        started = start(place, **ray_flags(cluster))
        await_masks(place, 3, started)
        began = time.monotonic()
        (frozen,) = cluster.worker_nodes
        processes = family(frozen)
        for process in processes:
            process.suspend()
        code, text = ended(started)
        assert code == 0, text
        check(place)
        note("node frozen (SIGSTOP), woken up after the run", 1, 1, time.monotonic() - began)
        for process in processes:
            if process.is_running():
                process.resume()
        time.sleep(5)  # for what a woken worker may still write
        check(place)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["SIGKILL", "SIGSTOP"])
def test_the_head_is_lost(kind: str, place: Place) -> None:
    """Its control service dies or freezes: the run says so and ends, long before anybody would give up waiting."""
    with two_nodes(place.folder / "cluster", "slow=0.4") as cluster:
        started = start(place, **ray_flags(cluster))
        await_masks(place, 2, started)
        (head,) = cluster.head_node.all_processes["gcs_server"]
        began = time.monotonic()
        os.kill(head.process.pid, getattr(signal, kind))
        try:
            code, text = ended(started, patience=120)
        finally:
            if kind == "SIGSTOP":
                os.kill(head.process.pid, signal.SIGCONT)
        if code == 0:  # the workers were done before anything was asked of the head
            check(place)
            return
        assert code == 1, text
        assert "the head of the Ray cluster (its control service, GCS) has not answered for" in text
        assert "the same command resumes the run" in text
        assert not (place.output / "_SUCCESS").exists()
    rerun(place, f"GCS, {kind}", began)


# --- drivers ----------------------------------------------------------------------------------------------------------


def test_a_driver_that_freezes_and_wakes_up_when_another_one_is_done_writes_the_same_bytes(place: Place) -> None:
    """A zombie: it holds parts that are committed meanwhile, and commits them once more."""
    trouble = place.folder / "trouble"
    trouble.write_text("slow=0.3")
    zombie = start(place, f"@{trouble}")
    await_masks(place, 2, zombie)
    zombie[0].send_signal(signal.SIGSTOP)
    began = time.monotonic()
    trouble.unlink()
    code, text = ended(start(place))
    assert code == 0, text
    check(place)
    before = {path: path.stat().st_ino for path in place.output.glob("masks/*/*.parquet")}
    zombie[0].send_signal(signal.SIGCONT)
    code, text = ended(zombie)
    assert code == 0, text
    again = [path for path, inode in before.items() if path.stat().st_ino != inode]
    assert again  # it did write
    check(place)
    note("driver frozen (SIGSTOP), woken up after another one finished", 1, 1, time.monotonic() - began)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_ray_driver_and_a_local_one_at_once(place: Place) -> None:
    """Two drivers of two engines on one output."""
    began = time.monotonic()
    first = start(place, engine="ray", workers="1")
    second = start(place)
    for started in (first, second):
        code, text = ended(started)
        assert code == 0, text
    check(place)
    note("two drivers at once, Ray and local", 1, 1, time.monotonic() - began)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_killed_actor(place: Place) -> None:
    """kill -9 of a worker process from outside: its part is done again by another."""
    with two_nodes(place.folder / "cluster", "slow=0.3") as cluster:
        started = start(place, **ray_flags(cluster))
        await_masks(place, 2, started)
        began = time.monotonic()
        actors = [p for node in cluster.list_all_nodes() for p in family(node) if "segment[" in name_of(p)]
        assert actors
        actors[0].kill()
        code, text = ended(started)
        assert code == 0, text
        check(place)
        note("actor killed (-9)", 1, 1, time.monotonic() - began)


def name_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
