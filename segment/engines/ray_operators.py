"""The three operators of the GPU pool, each watched by its heart."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import closing
from typing import Any, TypeVar

import pyarrow as pa

from segment.engines.ray_blocks import gather
from segment.engines.ray_heartbeats import Heart
from segment.engines.ray_metrics import RunMetrics
from segment.engines.ray_stages import Cargo, SplitWorker
from segment.errors import SegmentError
from segment.models.weights import Weights
from segment.output.plan import parts_of
from segment.pipeline.memory_guard import guard_process
from segment.pipeline.stages import Task
from segment.pipeline.worker import Worker, load_worker

T = TypeVar("T")


# A GPU actor takes no CPU and a task a whole one: the one rule that never ran out of CPUs on machines of 1, 2 and 4.
GPU = {"num_gpus": 1, "num_cpus": 0}
# A dying actor is replaced without limit, as Ray Data's default is (a limit makes it hang); a bundle that saw two die
# is given up until the next round.
_ACTOR_LIMITS = {"max_restarts": -1, "max_task_retries": 2}
_TASK_LIMITS = {"max_retries": 2}  # Ray Data's default is no limit: what kills its worker would be run again for ever


def _whole_blocks() -> dict[str, Any]:
    return {"batch_size": None, "batch_format": "pyarrow", "zero_copy_batch": True}


def _one_part() -> dict[str, Any]:
    return {"batch_size": 1, "batch_format": "pyarrow"}


def pipeline(dataset: Any, task: Task, shared: Any, pool: Any) -> Any:
    """Let a dataset of parts become one of results: read and decode, run the model, score and write."""
    tasks = {"num_cpus": 1, "fn_args": [shared], **_TASK_LIMITS}
    segment = type(f"segment[{task.card.name}]", (_Segment,), {})  # the name that the dashboard is to show
    blocks = dataset.map_batches(read, **tasks, **_whole_blocks())
    segmented = blocks.map_batches(
        segment, **GPU, fn_constructor_args=[shared], compute=pool, **_ACTOR_LIMITS, **_one_part()
    )
    return segmented.map_batches(write, **tasks, **_one_part())


def read(batch: pa.Table, shared: Any) -> Iterator[pa.Table]:
    """First of the three operators: parts in, decoded images out, a row each."""
    task, _, pulse = _fetch(shared)
    worker = SplitWorker(task)
    return _rows("frames", _watched(worker.worker, pulse, (worker.read(part) for part in parts_of(batch))))


class _Segment:
    """Second of the three operators: the model."""

    def __init__(self, shared: Any) -> None:
        worker, self.heart = _load(shared)
        self.worker = SplitWorker(worker.task, worker)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        return _rows("frames", self.heart.through(self.worker.segment(cargo) for cargo in _cargoes(batch)))


def write(batch: pa.Table, shared: Any) -> Iterator[pa.Table]:
    """Third of the three operators: masks scored, encoded and committed."""
    task, _, pulse = _fetch(shared)
    worker = SplitWorker(task)
    results = RunMetrics(task).counting(worker.write(cargo) for cargo in _cargoes(batch))
    return _rows("result", gather(_watched(worker.worker, pulse, results)))


def _watched(worker: Worker, pulse: Any, values: Iterator[T]) -> Iterator[T]:
    """Make values in a task, whose process serves others afterwards."""
    with closing(guard_process(worker.task.settings.worker_bytes)):
        yield from _heart_of(worker, pulse).through(values)


def _fetch(shared: Any) -> tuple[Task, Weights, Any]:
    import ray

    task, weights, pulse = ray.get(shared)
    return task, weights, pulse


def _load(shared: Any) -> tuple[Worker, Heart]:
    """Load the model, watched."""
    task, weights, pulse = _fetch(shared)
    guard_process(task.settings.worker_bytes)  # an actor is one for its whole life
    with Heart(pulse, lambda: 0).beating(loading=True):
        worker = load_worker(task, weights)
    return worker, _heart_of(worker, pulse)


def _heart_of(worker: Worker, pulse: Any) -> Heart:
    return Heart(pulse, lambda: worker.steps)


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
