"""What Ray's workers run: the operators of the pipeline, each watched by its heart."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import closing
from typing import Any, TypeVar

import pyarrow as pa

from segment.engines.bundles import gather
from segment.engines.ray_watch import Heart
from segment.errors import SegmentError
from segment.isolation import quarantine
from segment.memory import guard_process
from segment.plan import parts_of
from segment.stages import Task
from segment.weights import Weights
from segment.workers import Cargo, SplitWorker, Worker, load_worker

T = TypeVar("T")


class RunParts:
    """The one operator of the CPU pool: everything for a block of parts."""

    def __init__(self, shared: Any) -> None:
        self.worker, self.heart = _load(shared)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        return _rows("result", gather(self.heart.through(self.worker.process(parts_of(batch)))))


def read_and_decode(batch: pa.Table, shared: Any) -> Iterator[pa.Table]:
    """First of the three operators: parts in, decoded images out, a row each."""
    task, _, pulse = _fetch(shared)
    worker = SplitWorker(task)
    return _rows("frames", _watched(worker.worker, pulse, (worker.read(part) for part in parts_of(batch))))


class Segment:
    """Second of the three operators: the model."""

    def __init__(self, shared: Any) -> None:
        worker, self.heart = _load(shared)
        self.worker = SplitWorker(worker.task, worker)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        return _rows("frames", self.heart.through(self.worker.segment(cargo) for cargo in _cargoes(batch)))


def encode_and_write(batch: pa.Table, shared: Any) -> Iterator[pa.Table]:
    """Third of the three operators: masks scored, encoded and committed."""
    task, _, pulse = _fetch(shared)
    worker = SplitWorker(task)
    written = (worker.write(cargo) for cargo in _cargoes(batch))
    return _rows("result", gather(_watched(worker.worker, pulse, written)))


def quarantine_parts(batch: pa.Table, shared: Any) -> Iterator[pa.Table]:
    """The last round's operator: parts that killed their workers, image by image."""
    task, weights, pulse = _fetch(shared)
    waiting = Heart(pulse, None)  # for children, which have a patience of their own
    results = (quarantine(part, task, weights) for part in parts_of(batch))
    return _rows("result", gather(waiting.through(results)))


def _watched(worker: Worker, pulse: Any, values: Iterator[T]) -> Iterator[T]:
    """Make values in a task, whose process serves others afterwards."""
    with closing(guard_process(worker.task.worker_memory)):
        yield from _heart_of(worker, pulse).through(values)


def _fetch(shared: Any) -> tuple[Task, Weights, Any]:
    import ray

    task, weights, pulse = ray.get(shared)
    return task, weights, pulse


def _load(shared: Any) -> tuple[Worker, Heart]:
    """Load the model, watched."""
    task, weights, pulse = _fetch(shared)
    guard_process(task.worker_memory)  # an actor is one for its whole life
    with Heart(pulse, None).beating(loading=True):
        worker = load_worker(task, weights)
    return worker, _heart_of(worker, pulse)


def _heart_of(worker: Worker, pulse: Any) -> Heart:
    """A heart whose beats are the worker's steps and its requests to stores, failed ones too."""
    return Heart(pulse, lambda: worker.beats + worker.task.store.calls)


def _rows(name: str, values: Iterator[object]) -> Iterator[pa.Table]:
    """Yield a row for each value. An error that ends the run is the last row, handed on to the driver, which raises it.

    Raised in a worker it would be a lost block: run again in every round, and in the end called a dead worker.
    """
    try:
        for value in values:
            yield _row(name, value)
    except SegmentError as error:
        yield _row(name, error)


def _row(name: str, value: object) -> pa.Table:
    return pa.table({name: pa.array([pickle.dumps(value, protocol=5)], pa.large_binary())})


def _cargoes(batch: pa.Table) -> Iterator[Cargo]:
    for data in batch["frames"]:
        cargo = pickle.loads(data.as_buffer())
        if isinstance(cargo, SegmentError):
            raise cargo
        yield cargo
