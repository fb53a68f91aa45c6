"""The local engine's worker processes: one that dies is replaced, none outlives its run, and they are heard."""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from segment.engines.child import CHILD_MEMORY, Child, ChildDied
from segment.engines.local import LocalEngine
from segment.engines.quarantine import quarantine
from segment.errors import ModelError, StoreError
from segment.models.weights import Weights, load_weights
from segment.output.ledger import Ledger
from segment.output.plan import Plan
from segment.pipeline.stages import Task
from segment.runs.driver import task_and_plan
from segment.store import inflight
from segment.store.client import Store
from tests.calls import ROOT
from tests.jobs import ENGINES, run_on, tree
from tests.reliability.trouble import (
    add_killer,
    assert_sound,
    command,
    environment,
    masks,
    street,
    trouble_in_children,
)
from tests.runs import Place, read_rows

APART = ENGINES["local-apart"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Twelve sound images in six parts, and what an undisturbed run writes, in `calm`."""
    place = street(tmp_path, 12)
    place.run(output=str(tmp_path / "calm"))
    return place


def check(place: Place, calm: str = "calm") -> None:
    assert_sound(place.output)
    assert tree(place.output) == tree(place.folder / calm)


def wait_until(true: Callable[[], object], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """Its worker processes; not the one in which multiprocessing tracks its resources."""
    return [child for child in process.children() if "spawn_main" in " ".join(child.cmdline())]


@contextmanager
def running(place: Place) -> Iterator[subprocess.Popen[str]]:
    """A run in a process group of its own, whose two workers are processes, in the middle of it."""
    env = os.environ | environment("slow=0.3") | {"APART": "1"}
    flags = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command(place, workers="2"), cwd=ROOT, env=env, start_new_session=True, **flags)  # type: ignore[call-overload]
    try:
        wait_until(lambda: process.poll() is not None or masks(place.output))
        assert process.poll() is None, process.communicate()
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_worker_that_is_killed_is_replaced(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trouble_in_children(monkeypatch, "slow=0.2")

    def kill_one() -> None:
        wait_until(lambda: masks(place.output))
        workers_of(psutil.Process())[0].kill()

    killer = threading.Thread(target=kill_one)
    killer.start()
    with caplog.at_level(logging.WARNING, "segment"):
        report = run_on(APART, place.job())
    killer.join()
    assert report.complete
    assert "a worker process ended with exit code -9: what it held is left for the next round" in caplog.text
    check(place)


def test_an_image_that_kills_is_one_error_row(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    add_killer(place, "4-killer.png")
    trouble_in_children(monkeypatch, "die")
    run_on(APART, place.job())
    errors = [row["id"] for row in read_rows(place.output) if row["status"] == "error"]
    assert errors == ["4-killer.png"]
    assert_sound(place.output)


def test_a_worker_that_is_stuck_is_replaced(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add_killer(place, "4-killer.png")
    place.run(output=str(place.folder / "calm-13"))  # with that image, which is harmless here
    trouble_in_children(monkeypatch, f"freeze={place.folder / 'once'}")
    with caplog.at_level(logging.WARNING, "segment"):
        run_on(APART, place.job(stall_timeout=4))
    assert "a worker process did nothing for 4 s and was killed: what it held is left" in caplog.text
    check(place, "calm-13")


def test_workers_that_cannot_load_the_model_end_the_run_with_its_reason(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.weights_path.write_bytes(b"no model")
    with pytest.raises(ModelError, match="model"):
        run_on(APART, place.job())


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGKILL, -9), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_no_worker_outlives_its_run(place: Place, number: signal.Signals, code: int) -> None:
    with running(place) as process:
        children = workers_of(psutil.Process(process.pid))
        assert len(children) == 2
        if number == signal.SIGINT:  # as a terminal does it: to all of them
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        _, err = process.communicate(timeout=30)
        wait_until(lambda: not any(child.is_running() for child in children), 15)
    assert process.returncode == code
    assert "Traceback" not in err
    assert 0 < len(masks(place.output)) < 6
    place.run()
    check(place)


def test_what_workers_log_and_wait_for_is_heard(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add_killer(place, "4-killer.png")
    place.run()
    task, plan = task_and_plan(Ledger(Store(), f"file://{place.output}"))
    for path in masks(place.output):
        (place.output / path).unlink()
    weights = load_weights(task.card, str(place.weights_path))
    trouble_in_children(monkeypatch, "bug")
    child = Child(task, weights, lambda: 60.0)
    with caplog.at_level(logging.WARNING, "segment"):
        results = list(child.process(plan.parts()))
    assert [result.failure for result in results if result.failure] == ["TypeError: a bug"]
    (record,) = [record for record in caplog.records if record.name == "segment.pipeline.worker"]
    assert record.getMessage().endswith(": TypeError: a bug")
    inflight.record_worker(child, (inflight.SLOW_AFTER + 1, inflight.Request("read", "s3://b/k", 0.0)))
    told = inflight.slow_request()
    assert told is not None
    assert told.url == "s3://b/k"
    child.close()
    assert inflight.slow_request() is None


@pytest.fixture
def asked(place: Place) -> tuple[Task, Weights, Plan]:
    """What an engine is asked to run: 480 images."""
    place.run()
    task, plan = task_and_plan(Ledger(Store(), f"file://{place.output}"))
    return task, load_weights(task.card, str(place.weights_path)), Plan(pa.concat_tables([plan.table] * 40))


def test_workers_are_threads_where_no_process_may_be_started(asked: tuple[Task, Weights, Plan]) -> None:
    engine = LocalEngine(2)
    assert engine.processes(*asked) == 2
    with multiprocessing.get_context("spawn").Pool(1) as pool:  # whose processes are daemons
        assert pool.apply(engine.processes, asked) == 1


def test_quarantine_says_so_where_no_process_may_be_started(asked: tuple[Task, Weights, Plan]) -> None:
    task, weights, plan = asked
    part, *_ = plan.parts()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        result = pool.apply(quarantine, (part, task, weights))
    assert result.failure is not None
    assert "this process is a daemon, such as a worker of multiprocessing.Pool" in result.failure


def test_a_process_that_freezes_before_it_has_read_the_weights_is_given_up(
    asked: tuple[Task, Weights, Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, weights, _ = asked
    trouble_in_children(monkeypatch, f"start-freeze={tmp_path / 'frozen'}")
    monkeypatch.setattr("segment.pipeline.stall.UNKNOWN", 3.0)
    with pytest.raises(ChildDied, match="did nothing for 3 s and was killed"):
        Child(task, dataclasses.replace(weights, data=bytes(8 << 20)), lambda: 3.0)
    assert (tmp_path / "frozen").exists()


def test_workers_are_threads_where_each_has_several_cpus(
    asked: tuple[Task, Weights, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(asked[2])
    monkeypatch.setattr("segment.engines.local._LASTING", 1)
    monkeypatch.setattr("segment.engines.local.node_memory", lambda: (1 << 50, 1 << 50))
    monkeypatch.setattr("segment.engines.local.available_cpus", lambda: size)
    assert LocalEngine().processes(*asked) == size
    monkeypatch.setattr("segment.engines.local.available_cpus", lambda: 2 * size)
    assert LocalEngine().processes(*asked) == 1


def test_workers_are_threads_where_memory_is_short(
    asked: tuple[Task, Weights, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segment.engines.local.node_memory", lambda: (1 << 50, 4 * 2 * CHILD_MEMORY))
    assert LocalEngine(2).processes(*asked) == 2
    monkeypatch.setattr("segment.engines.local.node_memory", lambda: (1 << 50, 2 * 2 * CHILD_MEMORY))
    assert LocalEngine(2).processes(*asked) == 1


def test_a_worker_that_dies_while_it_loads_is_tried_again(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """All of them die, three times each; then the next round fails likewise, and the run says why."""
    trouble_in_children(monkeypatch, "load")
    monkeypatch.setattr("segment.runs.rounds._ROUNDS", ("none",))
    with caplog.at_level(logging.WARNING, "segment"), pytest.raises(StoreError, match="their workers died"):
        run_on(APART, place.job())
    told = [record for record in caplog.messages if record.startswith("a worker process ended with exit code -9")]
    assert len(told) == 2 * 3
    assert all(line.endswith("it held nothing yet") for line in told)


def test_a_worker_is_given_up_while_it_loads(place: Place) -> None:
    place.run()
    task, _ = task_and_plan(Ledger(Store(), f"file://{place.output}"))
    weights = load_weights(task.card, str(place.weights_path))
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(ChildDied, match="told to stop"):
        Child(task, weights, lambda: 60.0, stopped)
    assert not workers_of(psutil.Process())
