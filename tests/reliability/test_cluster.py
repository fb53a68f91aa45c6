"""What befalls a cluster: nodes, heads, workers and drivers that die, freeze, wake up, or come twice."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from segment.engines.ray_preflight import refuse_machine
from tests.calls import ROOT, ended
from tests.jobs import tree
from tests.reliability.arena import PATIENCE, note
from tests.reliability.trouble import assert_sound, command, environment, street
from tests.runs import Place

IMAGES = 24
Started = tuple[subprocess.Popen[bytes], Path]  # a run's process, and the file that both of its streams go to


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


def start(place: Place, trouble: str = "", **changes: Any) -> Started:
    """Start `segment run` over a place."""
    log = place.folder / f"log-{time.monotonic_ns()}"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command(place, **changes), cwd=ROOT, env={**os.environ, **environment(trouble)}, stdout=stream,
            stderr=stream, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    return process, log


def await_masks(place: Place, number: int, started: Started) -> None:
    """Wait until so many parts are committed, and the run still goes on."""
    until = time.monotonic() + PATIENCE
    while len(list(place.output.glob("masks/*/*.parquet"))) < number:
        assert started[0].poll() is None, started[1].read_text()
        assert time.monotonic() < until, started[1].read_text()
        time.sleep(0.05)


@contextmanager
def under_way(place: Place, parts: int) -> Iterator[tuple[Any, Started]]:
    """A slow run on two nodes that has committed so many parts; give the cluster and the run."""
    with two_nodes(place.folder / "cluster", "slow=0.4") as cluster:
        started = start(place, engine="ray", address=cluster.address, workers=None)
        await_masks(place, parts, started)
        yield cluster, started


def said(started: Started, patience: float = PATIENCE) -> tuple[int, str]:
    """Wait for a run; return its exit code and what it said, which is no traceback."""
    code, text = ended(*started, patience)
    assert "Traceback" not in text, text
    return code, text


def check(place: Place) -> None:
    """The oracle: sound, and byte-equal to the undisturbed run."""
    assert_sound(place.output)
    assert tree(place.output) == tree(place.folder / "calm")


def survived(place: Place, *runs: Started) -> None:
    """These runs end well, and so does what they wrote."""
    for started in runs:
        code, text = said(started)
        assert code == 0, text
    check(place)


# --- a cluster of its own ---------------------------------------------------------------------------------------------


@pytest.mark.ray
def test_a_private_cluster_ends_with_its_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 of the driver: raylet, agents and workers are gone within 10 s, the folder with the next run."""
    folder = Path(tempfile.mkdtemp(prefix="r-", dir="/tmp"))  # short: Ray's sockets lie in it
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    place = street(tmp_path, images=4)
    (folder / "session_of_another").mkdir()
    try:
        process, log = start(place, "slow=1", engine="ray", workers="1")
        await_masks(place, 1, (process, log))
        cluster = psutil.Process(process.pid).children(recursive=True)
        names = [name_of(child) for child in cluster]
        assert any("runtime_env" in name.lower() for name in names), names
        assert list(folder.glob("segment-*/session_*/logs/raylet.out"))
        began = time.monotonic()
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(cluster, 10)
        assert [name_of(child) for child in alive] == []
        note("driver of a private cluster killed (-9)", 1, 1, time.monotonic() - began)
        assert list(folder.glob("segment-*"))  # the logs can be read
        refuse_machine(2)  # what every run with such a cluster begins with
        assert [path.name for path in folder.iterdir()] == ["session_of_another"]
        place.run()  # the local engine completes it
        assert_sound(place.output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# --- nodes ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_a_node_is_lost(place: Place) -> None:
    """kill -9 of the raylet of one of two nodes: the other one finishes what it had."""
    with under_way(place, 3) as (cluster, started):
        began = time.monotonic()
        (lost,) = cluster.worker_nodes
        for info in lost.all_processes["raylet"]:
            os.kill(info.process.pid, signal.SIGKILL)
        survived(place, started)
        note("raylet killed (-9), one of two nodes", 1, 1, time.monotonic() - began)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_a_frozen_node_wakes_up_when_its_work_is_done(place: Place) -> None:
    """SIGSTOP of a node, raylet and workers: the other one finishes. SIGCONT: its workers can only write the same."""
    with under_way(place, 3) as (cluster, started):
        began = time.monotonic()
        (frozen,) = cluster.worker_nodes
        processes = family(frozen)
        for process in processes:
            process.suspend()
        survived(place, started)
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
    with under_way(place, 2) as (cluster, started):
        (head,) = cluster.head_node.all_processes["gcs_server"]
        began = time.monotonic()
        os.kill(head.process.pid, getattr(signal, kind))
        try:
            code, text = said(started, patience=120)
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
    survived(place, start(place))  # the same command again, on this machine alone
    note(f"GCS, {kind}", 1, 1, time.monotonic() - began)


# --- drivers ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_driver_that_freezes_and_wakes_up_when_another_one_is_done_writes_the_same_bytes(place: Place) -> None:
    """A zombie: it holds parts that are committed meanwhile, and commits them once more."""
    trouble = place.folder / "trouble"
    trouble.write_text("slow=0.3")
    zombie = start(place, f"@{trouble}")
    await_masks(place, 2, zombie)
    driver = psutil.Process(zombie[0].pid)
    processes = [driver, *driver.children(recursive=True)]  # its workers hold the parts
    for process in processes:
        process.suspend()
    began = time.monotonic()
    trouble.unlink()
    survived(place, start(place))
    before = {path: path.stat().st_ino for path in place.output.glob("masks/*/*.parquet")}
    for process in reversed(processes):
        process.resume()
    survived(place, zombie)
    again = [path for path, inode in before.items() if path.stat().st_ino != inode]
    assert again  # it did write
    note("driver frozen (SIGSTOP), woken up after another one finished", 1, 1, time.monotonic() - began)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_ray_driver_and_a_local_one_at_once(place: Place) -> None:
    """Two drivers of two engines on one output."""
    began = time.monotonic()
    survived(place, start(place, engine="ray", workers="1"), start(place))
    note("two drivers at once, Ray and local", 1, 1, time.monotonic() - began)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_killed_actor(place: Place) -> None:
    """kill -9 of a worker process from outside: its part is done again by another."""
    with under_way(place, 2) as (cluster, started):
        began = time.monotonic()
        actors = [p for node in cluster.list_all_nodes() for p in family(node) if "segment[" in name_of(p)]
        assert actors
        actors[0].kill()
        code, text = said(started)
        assert code == 0, text
        assert "1 worker died" in text
        assert "round 2" not in text
        check(place)
        note("actor killed (-9)", 1, 1, time.monotonic() - began)


def name_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
