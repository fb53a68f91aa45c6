"""The local engine's worker processes: one that dies is replaced, none outlives its run, and they are heard."""

import dataclasses
import errno
import logging
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest

from segment.engines.local import LocalEngine
from segment.engines.pool import Pool
from segment.engines.ray_operators import quarantine
from segment.engines.worker_process import PROCESS_MEMORY, Setup, WorkerProcess
from segment.errors import ModelError, StoreError, StoreRefused
from segment.inputs.parts import Part
from segment.models.sessions import footprint
from segment.models.weights import Weights, load_weights
from segment.output.ledger import Ledger
from segment.output.plan import Plan
from segment.output.results import PartResult
from segment.pipeline.memory_guard import own_memory, peak_memory
from segment.pipeline.stages import Task
from segment.pipeline.worker import load_worker
from segment.pipeline.worker_memory import WorkerBytes, worker_bytes
from segment.runs.driver import task_and_plan
from segment.runs.forecast import forecast
from segment.store import inflight
from segment.store.client import Store
from tests.calls import ROOT, process
from tests.here import working_in_processes
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
from tests.runs import Notes, Place

ONE, POOL = ENGINES["local-1"], ENGINES["local-2"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Twelve sound images in six parts, and what an undisturbed run writes, in `calm`."""
    place = street(tmp_path, 12)
    place.run(output=str(tmp_path / "calm"))
    return place


def check(place: Place, calm: str = "calm") -> None:
    assert_sound(place.output)
    assert tree(place.output) == tree(place.folder / calm)


def wait_until(true: Callable[[], object], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """Its worker processes."""
    return [child for child in process.children() if "segment.engines.worker_main" in " ".join(child.cmdline())]


@contextmanager
def running(place: Place, **changes: object) -> Iterator[subprocess.Popen[str]]:
    """A run in a process group of its own, whose two workers are processes, in the middle of it."""
    env = os.environ | environment("slow=0.3")
    line, pipe = command(place, workers="2", **changes), subprocess.PIPE
    process = subprocess.Popen(line, cwd=ROOT, env=env, start_new_session=True, stdout=pipe, stderr=pipe, text=True)
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
        report = run_on(ONE, place.job())  # of two, the one that is killed might be loading its model still
    killer.join()
    assert report.complete
    assert "a worker process ended with exit code -9: its parts are left for the next round" in caplog.text
    check(place)


STUCK = {"freeze": (), "read-hang": (), "hang": pytest.mark.slow, "write-hang": pytest.mark.slow}


@pytest.mark.parametrize("trouble", [pytest.param(kind, marks=marks) for kind, marks in STUCK.items()])
def test_a_worker_that_is_stuck_is_replaced(
    trouble: str, place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add_killer(place, "4-killer.png")
    place.run(output=str(place.folder / "calm-13"))  # with that image, which is harmless here
    trouble_in_children(monkeypatch, f"{trouble}={place.folder / 'once'}")
    notes = Notes()
    with caplog.at_level(logging.WARNING, "segment"):
        run_on(POOL, place.job(stall_timeout=4), notes)
    assert (place.folder / "once").exists()
    assert "a worker process did nothing for 4 s and was killed: its parts are left" in caplog.text
    (second,) = [line for line in notes.lines if line.startswith("round 2: ")]
    assert re.fullmatch(r"round 2: [1-3] parts? left, one by one", second)  # at most: written, computed, read
    check(place, "calm-13")


@pytest.mark.slow
def test_a_worker_that_hangs_while_it_loads_is_replaced(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trouble_in_children(monkeypatch, f"load-hang={place.folder / 'once'}")
    monkeypatch.setattr("segment.pipeline.stall.UNKNOWN", 20.0)
    with caplog.at_level(logging.WARNING, "segment"):
        run_on(POOL, place.job())
    assert "a worker process did nothing for 20 s and was killed while it loaded the model" in caplog.text
    check(place)


def test_workers_that_cannot_load_the_model_end_the_run_with_its_reason(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.weights_path.write_bytes(b"no model")
    with pytest.raises(ModelError, match="model"):
        run_on(ONE, place.job())


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


def test_a_driver_that_stands_still_for_a_while_blames_no_worker(place: Place) -> None:
    """Ctrl-Z and fg: nobody listened to the workers, who went on."""
    with running(place, stall_timeout=4) as process:
        process.send_signal(signal.SIGSTOP)
        time.sleep(6)
        process.send_signal(signal.SIGCONT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "was killed" not in err
    check(place)


def test_workers_do_not_outlive_a_parent_that_dies_while_they_are_at_an_image(place: Place) -> None:
    add_killer(place, "0-killer.png")
    env = os.environ | environment(f"hang={place.folder / 'once'}")
    process = subprocess.Popen(command(place), cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until((place.folder / "once").exists)
        children = workers_of(psutil.Process(process.pid))
        assert len(children) == 1
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not any(child.is_running() for child in children), 20)


@pytest.fixture
def asked(place: Place) -> tuple[Task, Weights, Plan]:
    """What an engine is asked to run; nothing of it is committed."""
    place.run()
    task, plan = task_and_plan(Ledger(Store(), f"file://{place.output}"))
    for path in masks(place.output):
        (place.output / path).unlink()
    return task, load_weights(task.card, str(place.weights_path)), plan


def test_what_workers_log_is_heard(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add_killer(place, "4-killer.png")
    trouble_in_children(monkeypatch, "bug")
    monkeypatch.setattr("segment.runs.rounds._ROUNDS", ("none",))
    with caplog.at_level(logging.WARNING, "segment"), pytest.raises(StoreError, match="TypeError: a bug"):
        run_on(ONE, place.job())
    (record,) = [record for record in caplog.records if record.name == "segment.pipeline.part_results"]
    assert record.getMessage().endswith(": TypeError: a bug")


def test_what_workers_wait_for_is_heard() -> None:
    inflight.record_worker("worker", (inflight.SLOW_AFTER + 1, inflight.Request("read", "s3://b/k", 0.0)))
    told = inflight.slow_request()
    assert told is not None
    assert told.url == "s3://b/k"
    inflight.record_worker("worker", None)
    assert inflight.slow_request() is None


def test_a_bug_in_a_worker_process_is_no_death(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    trouble_in_children(monkeypatch, "load-bug")
    with pytest.raises(StoreError, match="a worker process failed: TypeError: a bug"):
        run_on(ONE, place.job())


@pytest.mark.slow
def test_a_process_that_freezes_before_it_has_read_the_weights_is_given_up(
    asked: tuple[Task, Weights, Plan],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    task, weights, plan = asked
    trouble_in_children(monkeypatch, f"start-freeze={tmp_path / 'frozen'}")
    monkeypatch.setattr("segment.pipeline.stall.UNKNOWN", 20.0)
    large = dataclasses.replace(weights, data=weights.data + bytes(8 << 20))  # more than a socket holds
    with caplog.at_level(logging.WARNING, "segment"):
        results = list(Pool(Setup(task, large), 1, "none").run(plan.parts()))
    assert (tmp_path / "frozen").exists()
    assert caplog.messages == ["a worker process did nothing for 20 s and was killed while it loaded the model"]
    assert [result.failure for result in results] == [None] * 6


def test_workers_share_the_cpus_and_the_memory(
    asked: tuple[Task, Weights, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, weights, plan = asked
    found = worker_bytes(task, weights, plan)
    assert found is not None
    each = PROCESS_MEMORY + found.work
    memory = [1 << 50]
    monkeypatch.setattr("segment.engines.local.node_memory", lambda: (1 << 50, memory[0]))
    monkeypatch.setattr("segment.engines.local.available_cpus", lambda: 12)
    assert (len(plan), plan.images) == (6, 12)
    assert LocalEngine().processes(task, weights, plan) == 1  # another one is not worth its start
    assert LocalEngine().threads(1) == 12
    many = Plan(pa.concat_tables([plan.rows()] * 4))
    assert LocalEngine().processes(task, weights, many) == 6
    assert LocalEngine().threads(6) == 2
    assert LocalEngine(4).processes(*asked) == 4
    assert LocalEngine(4).threads(4) == 1  # as somebody says
    memory[0] = 2 * 3 * each
    assert LocalEngine(6).processes(*asked) == 3
    memory[0] = 0
    assert LocalEngine(6).processes(*asked) == 1


def test_loading_limits_the_processes_only_as_far_as_all_load_at_once(
    asked: tuple[Task, Weights, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[WorkerBytes | None] = [WorkerBytes(2000, 1000), WorkerBytes(4500, 1000), None]
    told = iter(found)
    monkeypatch.setattr("segment.engines.local.PROCESS_MEMORY", 0)
    monkeypatch.setattr("segment.engines.local.node_memory", lambda: (1 << 50, 10_000))
    monkeypatch.setattr("segment.engines.local.worker_bytes", lambda *_: next(told))
    engines = [LocalEngine(6) for _ in found]
    assert [engine.processes(*asked) for engine in engines[:2]] == [4, 2]
    assert [engine.process_memory(*asked) for engine in engines] == [2000, 4500, None]
    assert engines[2].process_memory(*asked) is None  # it is not looked for again
    with pytest.raises(StopIteration):
        next(told)


def test_a_forecast_reads_the_graph_once(asked: tuple[Task, Weights, Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read in the driver while worker processes wait for the model."""
    read: list[object] = []
    monkeypatch.setattr(
        "segment.pipeline.worker_memory.footprint", lambda *given: read.append(given) or footprint(*given)
    )
    task, weights, plan = asked
    found = forecast(task, weights, plan, LocalEngine())
    assert len(read) == 1
    assert found.memory == PROCESS_MEMORY + max(worker_bytes(task, weights, plan) or (0,))


def test_where_memory_is_short_fewer_work_and_that_is_told(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("segment.engines.local.node_memory", lambda: (1 << 50, 3 * PROCESS_MEMORY))
    notes = Notes()
    with caplog.at_level(logging.WARNING, "segment"):
        run_on(POOL, place.job(), notes)
    assert "memory is short: 1 worker in place of 2" in caplog.text
    assert any(line.startswith("1 worker, 1 thread, ") for line in notes.lines)
    check(place)


def test_processes_are_warmed_up_as_far_as_memory_goes(
    asked: tuple[Task, Weights, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, _, plan = asked
    started: list[str] = []
    monkeypatch.setattr("segment.engines.local.WorkerProcess", started.append)
    monkeypatch.setattr("segment.engines.local.node_memory", lambda: (1 << 50, 2 * 3 * PROCESS_MEMORY))
    with working_in_processes():
        LocalEngine(6).warm_up(task.runtime, plan)
    assert len(started) == 3


def test_where_too_few_processes_can_be_started_the_others_do_the_work(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, started = WorkerProcess, []

    def start(runtime: str) -> WorkerProcess:
        if started:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        started.append(real(runtime))
        return started[0]

    for module in ("pool", "local"):
        monkeypatch.setattr(f"segment.engines.{module}.WorkerProcess", start)
    with caplog.at_level(logging.WARNING, "segment"):
        assert run_on(POOL, place.job()).complete
    words = "a worker process could not be started (Resource temporarily unavailable): the run goes on with 1 process"
    assert words in caplog.messages
    check(place)


def test_quarantine_watches_the_memory_of_its_node(
    asked: tuple[Task, Weights, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, weights, plan = asked
    setups: list[Setup] = []

    def load(process: WorkerProcess, setup: bytes, on_message: object) -> None:
        setups.append(pickle.loads(setup))
        raise InterruptedError

    monkeypatch.setattr("segment.engines.worker_process.WorkerProcess.load", load)
    with pytest.raises(InterruptedError):
        quarantine(next(iter(plan.parts())), task, weights)
    assert setups[0].share is None  # as on Ray: of one CPU


def test_an_error_of_a_commit_is_raised_though_no_other_part_comes(
    asked: tuple[Task, Weights, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's queue of parts is open for ever, and a process in isolation gets no part before it has done one."""
    task, weights, plan = asked
    over, first = threading.Event(), next(iter(plan.parts()))
    waited: list[bool] = []

    def parts() -> Iterator[Part]:
        yield first
        waited.append(over.wait(60))

    def refuse(*_: object) -> None:
        raise StoreRefused("the disk is full")

    worker = load_worker(task, weights)
    monkeypatch.setattr(worker, "_put", refuse)
    with pytest.raises(StoreRefused, match="the disk is full"):
        worker.process(parts(), lambda result: None)
    assert not waited
    over.set()


def test_the_peak_of_a_part_is_that_of_its_commit_too(
    asked: tuple[Task, Weights, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To write a large mask takes ten times its bytes, and a run of one part has no later one to tell of it."""
    task, weights, plan = asked
    worker, results = load_worker(task, weights), list[PartResult]()
    put, before = worker._put, peak_memory()

    def hungry(url: str, data: bytes) -> bool:
        ballast = np.ones(before - own_memory() + (100 << 20), np.uint8)
        return put(url, data) and len(ballast) > 0

    monkeypatch.setattr(worker, "_put", hungry)
    worker.process([next(iter(plan.parts()))], results.append)
    assert results[0].memory > before + (20 << 20)


def test_workers_that_die_while_they_load_end_the_run_with_the_reason(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Three times each of those that are to work; in the next round likewise."""
    trouble_in_children(monkeypatch, "load")
    monkeypatch.setattr("segment.runs.rounds._ROUNDS", ("none",))
    died = "a worker process ended with exit code -9 while it loaded the model"
    with caplog.at_level(logging.WARNING, "segment"), pytest.raises(StoreError, match=died):
        run_on(ONE, place.job())
    assert caplog.messages.count(died) == 3


def test_a_run_that_is_stopped_while_its_workers_load_waits_for_none(
    asked: tuple[Task, Weights, Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, weights, plan = asked
    trouble_in_children(monkeypatch, f"load-hang={tmp_path / 'once'}")
    results = Pool(Setup(task, weights), 1, "none").run(plan.parts())

    def interrupt() -> None:
        wait_until((tmp_path / "once").exists)
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with closing(results), pytest.raises(KeyboardInterrupt):
        next(results)
    assert not workers_of(psutil.Process())


# --- from where it may be called --------------------------------------------------------------------------------------

PROGRAM = """
import segment
report = segment.run(segment.Job(**{job!r}))
print(report.total.images, report.total.errors)
"""


def called(place: Place) -> str:
    """A program without a main guard that does the job of a place."""
    return PROGRAM.format(job=place.job().model_dump())


def test_from_a_script_without_a_main_guard(place: Place) -> None:
    script = place.folder / "script.py"
    script.write_text("print('here')\n" + called(place))
    ended = process(sys.executable, str(script), timeout=200)
    assert (ended.returncode, ended.stdout) == (0, "here\n12 0\n"), ended.stderr
    check(place)


def test_from_what_is_typed_or_piped(place: Place) -> None:
    """Python's `__main__` has no file then."""
    ended = subprocess.run(
        [sys.executable, "-"], input=called(place), cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "12 0\n"), ended.stderr
    check(place)


def test_from_a_daemonic_process(place: Place) -> None:
    """`multiprocessing` lets such a process start none of its own."""
    script = place.folder / "script.py"
    script.write_text(
        "import multiprocessing\n"
        f"PROGRAM = {called(place)!r}\n"
        "def work():\n"
        "    assert multiprocessing.current_process().daemon\n"
        "    exec(PROGRAM)\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        pool.apply(work)\n"
    )
    ended = process(sys.executable, str(script), timeout=200)
    assert (ended.returncode, ended.stdout) == (0, "12 0\n"), ended.stderr
    check(place)


def test_from_a_notebook(place: Place) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(called(place))])
    NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(ROOT)}}).execute()
    told = "".join(output.get("text", "") for output in notebook.cells[0].outputs if output.get("name") == "stdout")
    assert told.endswith("12 0\n")
    check(place)


def test_where_no_process_can_be_started_the_reason_is_told(place: Place) -> None:
    program = "import multiprocessing\nmultiprocessing.set_executable('/nowhere/python')\n" + called(place)
    ended = process(sys.executable, "-c", program)
    assert ended.returncode == 1
    assert "a worker process could not be started (No such file or directory)" in ended.stderr.splitlines()[-1]
    without = "import sys\nsys.executable = ''\n" + called(place)
    ended = process(sys.executable, "-c", without)
    assert "Name it with multiprocessing.set_executable" in ended.stderr.splitlines()[-1]
