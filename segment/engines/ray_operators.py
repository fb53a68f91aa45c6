"""The operators of the Ray pipeline: what runs in Ray's worker processes. A row is a part, pickled."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from segment.engines import Isolation
from segment.engines.ray_cluster import Heart
from segment.engines.ray_metrics import RunMetrics
from segment.errors import SegmentError
from segment.isolation import quarantine
from segment.plan import parts_of
from segment.stages import Task
from segment.weights import Weights
from segment.workers import Cargo, SplitWorker, load_worker

# A GPU actor takes no CPU and a task a whole one: the one rule that never ran out of CPUs on machines of 1, 2 and 4.
GPU = {"num_gpus": 1, "num_cpus": 0}
# A dying actor is replaced without limit, as Ray Data's default is (a limit makes it hang); a bundle that saw two die
# is given up until the next round.
_ACTOR_LIMITS = {"max_restarts": -1, "max_task_retries": 2}


def _whole_blocks() -> dict[str, Any]:
    return {"batch_size": None, "batch_format": "pyarrow", "zero_copy_batch": True}


def _one_part() -> dict[str, Any]:
    return {"batch_size": 1, "batch_format": "pyarrow"}


def pipeline(dataset: Any, task: Task, shared: Any, pool: Any, *, isolation: Isolation, split: bool) -> Any:
    """Let a dataset of parts become one of results: by one operator, or by three that keep a GPU busy."""
    if isolation == "image":
        one = GPU if split else {"num_cpus": 1}
        return dataset.map_batches(quarantined, fn_args=[shared], **one, **_one_part())
    model = {"fn_constructor_args": [shared], "compute": pool, **_ACTOR_LIMITS}
    if not split:
        return dataset.map_batches(_named(_RunParts, task), num_cpus=1, **model, **_whole_blocks())
    blocks = dataset.map_batches(read, fn_args=[shared], num_cpus=1, **_whole_blocks())
    segmented = blocks.map_batches(_named(_Segment, task), **GPU, **model, **_one_part())
    return segmented.map_batches(write, fn_args=[shared], num_cpus=1, **_one_part())


def _named(operator: type, task: Task) -> type:
    """The operator under the name that the dashboard is to show."""
    return type(f"segment[{task.card.name}]", (operator,), {})


class _RunParts:
    """The one operator of the CPU pool: everything for a block of parts."""

    def __init__(self, shared: Any) -> None:
        task, weights, pulse = _fetch(shared)
        self.worker = load_worker(task, weights)
        self.heart = Heart(pulse, self.worker)
        self.metrics = RunMetrics(task)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        with self.heart.beating():
            results = self.worker.process(parts_of(batch))
            yield from _rows("result", self.metrics.counting(results))


def read(batch: pa.Table, shared: Any) -> Iterator[pa.Table]:
    """First of the three operators: parts in, decoded images out, a row each."""
    task, _, pulse = _fetch(shared)
    worker = SplitWorker(task)
    with Heart(pulse).beating():
        yield from _rows("frames", (worker.read(part) for part in parts_of(batch)))


class _Segment:
    """Second of the three operators: the model."""

    def __init__(self, shared: Any) -> None:
        task, weights, pulse = _fetch(shared)
        self.worker = SplitWorker(task, load_worker(task, weights))
        self.heart = Heart(pulse, self.worker.worker)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        with self.heart.beating():
            yield from _rows("frames", (self.worker.segment(cargo) for cargo in _cargoes(batch)))


def write(batch: pa.Table, shared: Any) -> Iterator[pa.Table]:
    """Third of the three operators: masks scored, encoded and committed."""
    task, _, pulse = _fetch(shared)
    worker = SplitWorker(task)
    with Heart(pulse).beating():
        yield from _rows("result", RunMetrics(task).counting(worker.write(cargo) for cargo in _cargoes(batch)))


def quarantined(batch: pa.Table, shared: Any) -> Iterator[pa.Table]:
    """The last round's operator: parts that killed their workers, image by image."""
    task, weights, _ = _fetch(shared)
    return _rows("result", RunMetrics(task).counting(quarantine(part, task, weights) for part in parts_of(batch)))


def _fetch(shared: Any) -> tuple[Task, Weights, Any]:
    import ray

    task, weights, pulse = ray.get(shared)
    return task, weights, pulse


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
