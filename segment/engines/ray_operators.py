"""What Ray's workers run: the operators of both pools, a row a part.

On CPUs one operator does a part from its bytes to its commit. On GPUs there are three: read and decode, run the model,
score and write.
"""

from __future__ import annotations

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

from segment.engines.quarantine import quarantine
from segment.engines.ray_blocks import unpacked
from segment.engines.ray_heartbeats import Heart
from segment.engines.ray_metrics import RunMetrics
from segment.engines.ray_stages import Cargo, SplitWorker
from segment.errors import SegmentError, StoreError
from segment.inputs.discover import Part
from segment.models.weights import Weights
from segment.output.plan import parts_of
from segment.output.results import PartResult
from segment.pipeline.memory_guard import OVER_BUDGET, guard_process
from segment.pipeline.stages import Task
from segment.pipeline.worker import load_worker
from segment.store.urls import redact_text

T = TypeVar("T")

CALLS = 2  # of an actor at once: one computes while the next one reads; a GPU's session has two batches in flight


class _ModelActor:
    """An actor with a model, watched from the beginning.

    Args:
        shared: reference to the task, the model's weights and the actor that hears the workers.
    """

    def __init__(self, shared: Any) -> None:
        self.task, weights, pulse = _fetch(shared)
        self.heart = Heart(pulse)
        self.error: SegmentError | None = None  # what every call raises, and ends the run
        self._calls = itertools.count()
        guard_process(self.task.settings.worker_bytes)  # an actor is one for its whole life
        try:
            with self.heart.beating(loading=True):
                self.worker = load_worker(self.task, weights)
            self.heart.steps = lambda: self.worker.steps
        except SegmentError as error:  # raised here it would not reach the driver, but be tried again and again
            self.error = error

    def is_suspect(self) -> bool:
        """Whether the call that begins may have killed the process before this one: Ray runs those first again."""
        return self.heart.replaces and next(self._calls) < CALLS


class RunParts(_ModelActor):
    """The one operator of the CPU pool.

    All calls feed one thread, so that the first part of a call is read while the last one of the call before computes.
    A suspect, which may have killed a process, is run alone, so that the next death has one culprit.
    """

    def __init__(self, shared: Any) -> None:
        super().__init__(shared)
        self._fed: queue.SimpleQueue[tuple[Part, bool]] = queue.SimpleQueue()
        self._callers: dict[str, queue.SimpleQueue[PartResult | None]] = {}  # by part
        self._suspect: str | None = None
        self._turn = threading.Semaphore()  # is held while a suspect is at work
        self._metrics = RunMetrics(self.task)
        threading.Thread(target=self._run, name="parts", daemon=True).start()

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Run the parts of a block; yield their results."""
        return _result_rows(self.heart.through(self._results(list(parts_of(unpacked(batch))))))

    def _results(self, parts: list[Part]) -> Iterator[PartResult]:
        caller: queue.SimpleQueue[PartResult | None] = queue.SimpleQueue()
        is_suspect = self.is_suspect()
        for part in parts:
            self._callers[part.id] = caller
            self._fed.put((part, is_suspect))
        for _ in parts:
            if self.error is None and (result := caller.get()) is not None:
                yield result
            if self.error is not None:
                raise self.error

    def _run(self) -> None:
        try:
            if self.error is None:
                self.worker.process(self._parts(), self._tell)
        except MemoryError:
            os._exit(OVER_BUDGET)
        except BaseException as error:
            bug = StoreError(redact_text(f"a worker process failed: {type(error).__name__}: {error}"))
            self.error = error if isinstance(error, SegmentError) else bug
            for caller in list(self._callers.values()):
                caller.put(None)

    def _parts(self) -> Iterator[Part]:
        while True:
            part, is_suspect = self._fed.get()
            with self._turn:
                may_begin = not is_suspect or self.heart.may_begin(part.id)
            if not may_begin:
                self._callers.pop(part.id).put(None)
                continue
            if is_suspect:
                self._turn.acquire()
                self._suspect = part.id
            yield part

    def _tell(self, result: PartResult) -> None:
        self._metrics.count(result)
        self._callers.pop(result.part).put(result)
        if result.part == self._suspect:
            self._suspect = None
            self._turn.release()


def read(rows: pa.Table, shared: Any) -> Iterator[pa.Table]:
    """First of the three operators of the GPU pool: rows of a plan in, decoded images out."""
    task, _, pulse = _fetch(shared)
    worker = SplitWorker(task)
    work = ((part.id, functools.partial(worker.read, part)) for part in parts_of(rows))
    return _cargo_rows(_watched("read", work, task, Heart(pulse, lambda: worker.worker.steps)))


class RunModel(_ModelActor):
    """Second of the three operators."""

    def __init__(self, shared: Any) -> None:
        super().__init__(shared)
        self._turn = threading.Lock()

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Run the model on the images of these parts."""
        return _cargo_rows(self.heart.through(self._segmented(batch)))

    def _segmented(self, batch: pa.Table) -> Iterator[Cargo]:
        if self.error is not None:
            raise self.error
        worker = SplitWorker(self.task, self.worker)
        is_suspect = self.is_suspect()
        for cargo in _cargoes(batch):
            if not is_suspect:
                yield worker.segment(cargo)
                continue
            with self._turn:
                done = worker.segment(cargo) if self.heart.may_begin(cargo.part.id) else None
            if done is not None:
                yield done


def write(batch: pa.Table, shared: Any) -> Iterator[pa.Table]:
    """Third of the three operators: score, encode and commit."""
    task, _, pulse = _fetch(shared)
    worker = SplitWorker(task)
    work = ((cargo.part.id, functools.partial(worker.write, cargo)) for cargo in _cargoes(batch))
    results = _watched("write", work, task, Heart(pulse, lambda: worker.worker.steps))
    return _result_rows(RunMetrics(task).counting(results))


def run_quarantined(rows: pa.Table, shared: Any) -> Iterator[pa.Table]:
    """The one operator of the last round: parts in these rows of a plan, which killed their workers, image by image."""
    task, weights, pulse = _fetch(shared)
    work = ((part.id, functools.partial(quarantine, part, task, weights)) for part in parts_of(rows))
    # it waits for children, which have a patience of their own: each beat is a step
    results = _watched("quarantine", work, task, Heart(pulse, itertools.count().__next__))
    return _result_rows(RunMetrics(task).counting(results))


def _watched(stage: str, work: Iterator[tuple[str, Callable[[], T]]], task: Task, heart: Heart) -> Iterator[T]:
    """Do pieces of work, each named by its part, in a task, whose process serves others afterwards."""
    with closing(guard_process(task.settings.worker_bytes)):
        yield from heart.through(call() for part, call in work if heart.may_begin(f"{stage} {part}"))


def _fetch(shared: Any) -> tuple[Task, Weights, Any]:
    import ray

    task, weights, pulse = ray.get(shared)
    return task, weights, pulse


def _result_rows(results: Iterator[PartResult]) -> Iterator[pa.Table]:
    return _rows("result", ((result.part, result.images, result) for result in results))


def _cargo_rows(cargoes: Iterator[Cargo]) -> Iterator[pa.Table]:
    return _rows("frames", ((cargo.part.id, len(cargo.part), cargo) for cargo in cargoes))


def _rows(name: str, values: Iterator[tuple[str, int, object]]) -> Iterator[pa.Table]:
    """Yield a row for each part. An error that ends the run is the last row, handed on to the driver, which raises it.

    Raised in a worker it would be a lost block: run again in every round, and in the end called a dead worker.
    """
    try:
        for part, images, value in values:
            yield _row(name, part, images, value)
    except SegmentError as error:
        yield _row(name, None, 0, error)


def _row(name: str, part: str | None, images: int, value: object) -> pa.Table:
    data = pa.array([pickle.dumps(value, protocol=5)], pa.large_binary())
    return pa.table({"part": pa.array([part], pa.string()), "images": pa.array([images], pa.int64()), name: data})


def _cargoes(batch: pa.Table) -> Iterator[Cargo]:
    for data in batch["frames"]:
        cargo = pickle.loads(data.as_buffer())
        if isinstance(cargo, SegmentError):
            raise cargo
        yield cargo
