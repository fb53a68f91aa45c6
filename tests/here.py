"""The local engine's worker in this process: a run in a tenth of a second, and tests may reach into it.

A worker process takes two seconds of CPU to start, so no test starts one but those that are about them: by
`run_on` (`tests/jobs.py`), by the fixture `worker_processes`, or in a process of the command line. Rounds that isolate
parts or images start them always.
"""

import itertools
import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest

from segment.engines import Isolation
from segment.engines.local import LocalEngine
from segment.models.sessions import apart_process
from segment.models.weights import Weights
from segment.output.plan import Plan
from segment.output.results import PartResult
from segment.pipeline.stages import Task
from segment.pipeline.worker import load_worker

_real, _real_warm_up = LocalEngine.run, LocalEngine.warm_up
call_apart = apart_process.call_apart  # as it is for users


def _run(
    engine: LocalEngine, task: Task, weights: Weights, plan: Plan, *, isolation: Isolation
) -> Generator[PartResult]:
    if isolation != "none":
        yield from _real(engine, task, weights, plan, isolation=isolation)
        return
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()
    worker, stopped = load_worker(task, weights), threading.Event()

    def work() -> None:
        try:
            parts = itertools.takewhile(lambda _: not stopped.is_set(), plan.parts())
            told.put(worker.process(parts, told.put))
        except BaseException as error:
            told.put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (result := told.get()) is not None:
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        stopped.set()
        worker.stop()
        thread.join()


@contextmanager
def working_here() -> Iterator[None]:
    """Let the local engine's one worker be in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalEngine, "run", _run)
        patch.setattr(LocalEngine, "warm_up", lambda engine, runtime, plan: None)
        yield


@contextmanager
def working_in_processes() -> Iterator[None]:
    """Let the local engine's workers be processes, as they are for users."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalEngine, "run", _real)
        patch.setattr(LocalEngine, "warm_up", _real_warm_up)
        yield


@pytest.fixture(autouse=True, scope="session")
def local_engine_here() -> Iterator[None]:
    """Applies to every test, and to fixtures of any scope that run a job."""
    with working_here():
        yield


@pytest.fixture(autouse=True, scope="session")
def models_here() -> Iterator[None]:
    """Drafts and checks read their models in this process; tests of what a model does to a process start one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            apart_process,
            "call_apart",
            lambda function, *given, note, **_: function(*given, note=note, within=lambda *_: nullcontext()),
        )
        yield


@pytest.fixture(autouse=True, scope="session")
def no_wait_for_the_disk() -> Iterator[None]:
    """No test cuts the power, and under the suite's load the disk takes 50 ms to flush."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segment.store.local_files.os.fsync", lambda file: None)
        yield


@pytest.fixture
def worker_processes() -> Iterator[None]:
    """The local engine's workers are processes."""
    with working_in_processes():
        yield
