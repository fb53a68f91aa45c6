"""The operators of the Ray Data pipelines; a row is a part.

On CPUs one operator does a part from its bytes to its commit. On GPUs there are three: read and decode, run the model,
score and write.
"""

import functools
import itertools
import os
import pickle
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, TypeVar

import pyarrow as pa

from segment.engines.pool import Pool
from segment.engines.ray_blocks import unpacked
from segment.engines.ray_heartbeats import HeartbeatSender
from segment.engines.ray_metrics import RunMetrics
from segment.engines.ray_stages import StagedPart, StageWorker
from segment.engines.suspect import RowGroup
from segment.engines.worker_process import ProcessExit, Setup
from segment.errors import SegmentError, StoreError
from segment.inputs.parts import Part
from segment.models.weights import Weights
from segment.output.plan_rows import parts_of
from segment.output.results import PartResult
from segment.pipeline.memory_guard import OVER_BUDGET, guard_process, release_freed_blocks
from segment.pipeline.stages import Task
from segment.pipeline.worker import load_worker
from segment.store.urls import redact_text

# By fingerprint of a run: row groups that killed whoever read them, as far as this process knows.
_unreadable: dict[str, dict[RowGroup, ProcessExit]] = {}

T = TypeVar("T")

CALLS = 2  # of an actor in flight: one reads while the other computes; a GPU session has two batches in flight
_NOTHING = (None, 0, None)  # the row of a part that may not start again: Ray skips rows of a retried call by number


class _ModelActor:
    """An actor with a model; it sends heartbeats from its constructor on.

    Args:
        shared: reference to the task, the model's weights and the actor of the `MonitorActor`.
    """

    def __init__(self, shared: Any) -> None:
        self.error: SegmentError | None = None  # raised by every call; it ends the run
        self._calls = itertools.count()
        self._load(shared)
        release_freed_blocks()  # here, because the weights are held until `_load` has returned

    def _load(self, shared: Any) -> None:
        self.task, weights, monitor = _fetch(shared)
        self.heartbeats = HeartbeatSender(monitor)
        guard_process(self.task.settings.worker_bytes)  # for the whole life of the process
        try:
            with self.heartbeats.sending(loading=True):
                self.worker = load_worker(self.task, weights)
            self.heartbeats.steps = lambda: self.worker.steps
            self.heartbeats.begun = lambda: self.worker.begun
        except SegmentError as error:  # raised here, Ray would end the run without a word of ours
            self.error = error
        except MemoryError:
            os._exit(OVER_BUDGET)

    def is_suspect(self) -> bool:
        """Return whether a new call may have killed the process that this one replaces: Ray retries those first."""
        return self.heartbeats.replaces and next(self._calls) < CALLS


class RunParts(_ModelActor):
    """The operator of the CPU pipeline.

    All calls feed one thread: the first part of a call is read while the last part of the previous call is computed.
    A suspect, a part that may have killed a process, runs alone, so that it is certain which part kills the next one.
    """

    def __init__(self, shared: Any) -> None:
        super().__init__(shared)
        self._queue: queue.SimpleQueue[tuple[Part, bool]] = queue.SimpleQueue()
        self._callers: dict[str, queue.SimpleQueue[PartResult | None]] = {}  # by part
        self._suspect: str | None = None
        self._turn = threading.Semaphore()  # held while a suspect runs
        self._metrics = RunMetrics(self.task)
        threading.Thread(target=self._run, name="parts", daemon=True).start()

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Run the parts of a block and yield their results."""
        return _result_rows(self.heartbeats.sending_during(self._results(list(parts_of(unpacked(batch))))))

    def _results(self, parts: list[Part]) -> Iterator[PartResult | None]:
        caller: queue.SimpleQueue[PartResult | None] = queue.SimpleQueue()
        is_suspect = self.is_suspect()
        for part in parts:
            self._callers[part.id] = caller
            self._queue.put((part, is_suspect))
        for _ in parts:
            result = caller.get() if self.error is None else None
            if self.error is not None:
                raise self.error
            yield result

    def _run(self) -> None:
        try:
            if self.error is None:
                self.worker.process(self._parts(), self._finish)
        except MemoryError:
            os._exit(OVER_BUDGET)
        except BaseException as error:
            bug = StoreError(redact_text(f"a worker process failed: {type(error).__name__}: {error}"))
            self.error = error if isinstance(error, SegmentError) else bug
            for caller in list(self._callers.values()):
                caller.put(None)

    def _parts(self) -> Iterator[Part]:
        while True:
            part, is_suspect = self._queue.get()
            with self._turn:
                may_start = not is_suspect or self.heartbeats.may_start(part.id)
            if not may_start:
                self._callers.pop(part.id).put(None)
                continue
            if is_suspect:
                self._turn.acquire()
                self._suspect = part.id
            yield part

    def _finish(self, result: PartResult) -> None:
        self._metrics.count(result)
        self._callers.pop(result.part).put(result)
        if result.part == self._suspect:
            self._suspect = None
            self._turn.release()


def read(rows: pa.Table, shared: Any) -> Iterator[pa.Table]:
    """First operator of the GPU pipeline: read and decode the parts in these rows of a plan."""
    task, _, monitor = _fetch(shared)
    worker = StageWorker(task)
    work = ((part.id, functools.partial(worker.read, part)) for part in parts_of(rows))
    return _staged_rows(_watched("read", work, task, HeartbeatSender(monitor, lambda: worker.worker.steps)))


class RunModel(_ModelActor):
    """Second operator of the GPU pipeline: run the model."""

    def __init__(self, shared: Any) -> None:
        super().__init__(shared)
        self._turn = threading.Lock()

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Run the model on the images of these parts."""
        return _staged_rows(self.heartbeats.sending_during(self._segmented(batch)))

    def _segmented(self, batch: pa.Table) -> Iterator[StagedPart | None]:
        if self.error is not None:
            raise self.error
        worker = StageWorker(self.task, self.worker)
        is_suspect = self.is_suspect()
        for staged in _staged_parts(batch):
            if not is_suspect:
                yield worker.segment(staged)
                continue
            with self._turn:
                done = worker.segment(staged) if self.heartbeats.may_start(staged.part.id) else None
            yield done


def write(batch: pa.Table, shared: Any) -> Iterator[pa.Table]:
    """Third operator of the GPU pipeline: score, encode and commit."""
    task, _, monitor = _fetch(shared)
    worker = StageWorker(task)
    work = ((staged.part.id, functools.partial(worker.write, staged)) for staged in _staged_parts(batch))
    results = _watched("write", work, task, HeartbeatSender(monitor, lambda: worker.worker.steps))
    return _result_rows(RunMetrics(task).counting(results))


def run_quarantined(rows: pa.Table, shared: Any) -> Iterator[pa.Table]:
    """The operator of a round with isolation `image`: run the parts in these rows of a plan image by image."""
    task, weights, monitor = _fetch(shared)
    work = ((part.id, functools.partial(quarantine, part, task, weights)) for part in parts_of(rows))
    # `quarantine` watches its processes itself: here each heartbeat counts as a step
    results = _watched("quarantine", work, task, HeartbeatSender(monitor, itertools.count().__next__))
    return _result_rows(RunMetrics(task).counting(results))


def _watched(
    stage: str, work: Iterator[tuple[str, Callable[[], T]]], task: Task, heartbeats: HeartbeatSender
) -> Iterator[T | None]:
    """Run pieces of work, each named by its part, in a Ray task; its process serves other tasks afterwards.

    None is the result of one that may not start again.
    """
    with closing(guard_process(task.settings.worker_bytes)):
        results = (call() if heartbeats.may_start(f"{stage} {part}") else None for part, call in work)
        yield from heartbeats.sending_during(results)


def _fetch(shared: Any) -> tuple[Task, Weights, Any]:
    import ray

    task, weights, monitor = ray.get(shared)
    return task, weights, monitor


def _result_rows(results: Iterator[PartResult | None]) -> Iterator[pa.Table]:
    return _rows("result", ((result.part, result.images, result) if result else _NOTHING for result in results))


def _staged_rows(parts: Iterator[StagedPart | None]) -> Iterator[pa.Table]:
    return _rows("frames", ((staged.part.id, len(staged.part), staged) if staged else _NOTHING for staged in parts))


def _rows(name: str, values: Iterator[tuple[str | None, int, object]]) -> Iterator[pa.Table]:
    """Yield a row for each part. An error that ends the run is the last row, and the driver raises it.

    Raised in a worker, it would be a failed block, which every round would run again.
    """
    try:
        for part, images, value in values:
            yield _row(name, part, images, value)
    except SegmentError as error:
        yield _row(name, None, 0, error)


def _row(name: str, part: str | None, images: int, value: object) -> pa.Table:
    data = pa.array([pickle.dumps(value, protocol=5)], pa.large_binary())
    return pa.table({"part": pa.array([part], pa.string()), "images": pa.array([images], pa.int64()), name: data})


def _staged_parts(batch: pa.Table) -> Iterator[StagedPart]:
    for data in batch["frames"]:
        staged = pickle.loads(data.as_buffer())
        if isinstance(staged, SegmentError):
            raise staged
        if staged is not None:
            yield staged


def quarantine(part: Part, task: Task, weights: Weights) -> PartResult:
    """Run a part image by image in worker processes; an image that kills two of them becomes an error row.

    If the processes cannot load the model, the part fails, and no image is blamed.
    """
    known = _unreadable.setdefault(task.fingerprint, {})
    with closing(Pool(Setup(task, weights, by_image=True), 1, "image", unreadable=known).run([part])) as results:
        return next(results)
