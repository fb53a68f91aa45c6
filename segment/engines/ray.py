"""The Ray engine: the same stages as a Ray Data pipeline. The only module that imports ray.

A Ray Data execution is one best-effort round; `segment.rounds` compares what is committed with the plan and starts
another. On CPUs one actor a core does everything for a part: further operators would start worker processes that
fight for the same cores. On GPUs there are three operators, so that no GPU waits for a JPEG.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
import warnings
from collections.abc import Callable, Generator, Iterator
from typing import Any, ParamSpec, TypeVar

import pyarrow as pa

from segment import errors
from segment.engines import Isolation
from segment.engines.bundles import bundle
from segment.engines.ray_cluster import Heart, Watch, connect, start_pulse
from segment.engines.ray_metrics import RunMetrics
from segment.errors import SegmentError, StoreError, UsageError
from segment.isolation import quarantine
from segment.plan import Plan, parts_of
from segment.progress import Tally
from segment.sessions import capabilities
from segment.stages import PartResult, Task
from segment.urls import redact_url
from segment.weights import Weights
from segment.workers import Cargo, SplitWorker, load_worker

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("segment.engines.ray")

_FIRST_NODE_SECONDS = 15 * 60  # a cloud instance is there in two minutes, and installed in five more


class RayEngine:
    """Runs parts on a Ray cluster.

    Args:
        address: of a running cluster (`auto`, `host:port`, `ray://...`); None joins the one that RAY_ADDRESS names (as
            inside `ray job submit`), else starts one on this machine that ends with the engine.
        workers: (minimum, maximum) size of the pool of models; None for one on each CPU (or GPU) of the cluster.
        split: three operators and a GPU for each model, instead of one operator; None decides by the device.
        cpus: CPUs of a cluster started here; None takes all.
        device: as the job has it; a GPU is waited for only where one is asked for.
    """

    name = "ray"

    def __init__(
        self,
        address: str | None = None,
        workers: tuple[int, int] | None = None,
        *,
        split: bool | None = None,
        cpus: int | None = None,
        device: str = "auto",
    ) -> None:
        self._workers = workers
        self._device = device
        self._split = split
        self._connected = connect(address, cpus)
        self._metrics: RunMetrics | None = None

    def nodes(self) -> list[frozenset[str]]:
        """Ask every node that has a CPU or GPU to give; where there is none yet, wait for the autoscaler's first."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._await_node("GPU" if self._device in ("cuda", "tensorrt") else "CPU")
        ask = ray.remote(num_cpus=0, max_retries=3)(capabilities)
        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].keys() & {"CPU", "GPU"}]
        affinities = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
        return list(ray.get([ask.options(scheduling_strategy=affinity).remote() for affinity in affinities]))

    def workers(self, task_device: str) -> int:
        """Size of the pool at start."""
        import ray

        resource = "GPU" if self._splits(task_device) else "CPU"
        self._await_node(resource)
        return self._workers[0] if self._workers else max(1, int(ray.cluster_resources().get(resource, 0)))

    def _await_node(self, resource: str) -> None:
        """Wait for a node that has a CPU (GPU): a cluster that scales to zero starts one when it is asked for."""
        import ray

        if ray.cluster_resources().get(resource):
            return
        if resource == "GPU" and not self._workers:
            raise UsageError(
                "no node of the Ray cluster has a GPU: use --device cpu, add one, or give --workers to wait until the "
                "cluster's autoscaler has added one"
            )
        log.warning("no node of the Ray cluster has a %s yet: waiting for one", resource)
        first = ray.remote(capabilities).options(**{"CPU": {"num_cpus": 1}, "GPU": _GPU}[resource]).remote()
        try:
            ray.get(first, timeout=_FIRST_NODE_SECONDS)
        except ray.exceptions.GetTimeoutError:
            ray.cancel(first, force=True)
            minutes = _FIRST_NODE_SECONDS // 60
            raise UsageError(
                f"no node of the Ray cluster has a {resource}, and none came within {minutes} minutes: `ray status` on "
                "its head says why"
            ) from None

    def _splits(self, device: str) -> bool:
        return self._split if self._split is not None else device != "cpu"

    def call(self, task_device: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Engine.call`."""
        import ray

        self.workers(task_device)
        resources: dict[str, Any] = _GPU if self._splits(task_device) else {"num_cpus": 1}
        try:
            result: T = ray.get(ray.remote(**resources)(function).remote(*args, **kwargs))
        except ray.exceptions.RayError as error:
            raise _cause(error) from None
        return result

    def run(self, task: Task, weights: Weights, plan: Plan, *, isolation: Isolation) -> Generator[PartResult]:
        """See `Engine.run`."""
        import ray
        from ray.data import DataContext

        # Ray 2.60 deprecates max_task_retries for 2.64 without naming a successor; pyproject.toml stays below that
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # rounds deal with its errors; its log files keep them
        DataContext.get_current().target_max_block_size = 1  # or a row is seen only when its whole block ends
        self._metrics = RunMetrics(task)
        workers = self.workers(task.runtime.device)
        bundles = [plan.table.slice(start, size) for start, size in bundle(plan, workers, isolate=isolation != "none")]
        dataset = ray.data.from_arrow(bundles)
        _configure(dataset.context)
        # by reference: constructor arguments are printed in logs, and a task holds credentials
        pulse = start_pulse()
        shared = ray.put((task, weights, pulse))
        pool = self._pool(workers, len(bundles), self._splits(task.runtime.device))
        if isolation == "image":
            dataset = dataset.map_batches(quarantined, fn_args=[shared], **self._one_model(task), **_one_part())
        elif self._splits(task.runtime.device):
            dataset = _three_operators(dataset, _named(_Segment, task), shared, pool)
        else:
            dataset = dataset.map_batches(
                _named(_RunParts, task),
                fn_constructor_args=[shared],
                num_cpus=1,
                compute=pool,
                **_whole_blocks(),
                **_ACTOR_LIMITS,
            )
        watch = Watch(task.stall_timeout, pulse)
        try:
            for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for data in batch["result"]:
                    result = pickle.loads(data.as_py())
                    if isinstance(result, SegmentError):
                        raise result
                    yield result
        except ray.exceptions.RayError as error:
            raise _cause(error) from None
        finally:
            watch.close()

    def _one_model(self, task: Task) -> dict[str, int]:
        return _GPU if self._splits(task.runtime.device) else {"num_cpus": 1}

    def _pool(self, workers: int, bundles: int, split: bool) -> Any:
        from ray.data import ActorPoolStrategy

        # Two parts at once in a GPU actor: the session has two batches in flight.
        both = {"max_concurrent_calls_per_actor": 2, "enable_true_multi_threading": True} if split else {}
        if self._workers and self._workers[0] != self._workers[1]:
            return ActorPoolStrategy(min_size=self._workers[0], max_size=self._workers[1], **both)
        return ActorPoolStrategy(size=max(1, min(workers, bundles)), **both)

    def publish(self, tally: Tally, *, ended: bool = False) -> None:
        """See `Engine.publish`: as Ray metrics."""
        if self._metrics is not None:
            self._metrics.publish(tally, ended=ended)

    def close(self) -> None:
        """Leave the cluster, which ends it if it was started here."""
        import ray

        if self._connected:
            ray.shutdown()


# A GPU actor takes no CPU and a task a whole one: the one rule that never ran out of CPUs on machines of 1, 2 and 4.
_GPU = {"num_gpus": 1, "num_cpus": 0}
# A dying actor is replaced without limit, as Ray Data's default is (a limit makes it hang); a bundle that saw two die
# is given up until the next round.
_ACTOR_LIMITS = {"max_restarts": -1, "max_task_retries": 2}


def _whole_blocks() -> dict[str, Any]:
    return {"batch_size": None, "batch_format": "pyarrow", "zero_copy_batch": True}


def _one_part() -> dict[str, Any]:
    return {"batch_size": 1, "batch_format": "pyarrow"}


def _named(operator: type, task: Task) -> type:
    """The operator under the name that the dashboard is to show."""
    return type(f"segment[{task.card.name}]", (operator,), {})


def _three_operators(dataset: Any, model: type, shared: Any, pool: Any) -> Any:
    blocks = dataset.map_batches(read, fn_args=[shared], num_cpus=1, **_whole_blocks())
    segmented = blocks.map_batches(
        model, fn_constructor_args=[shared], compute=pool, **_one_part(), **_GPU, **_ACTOR_LIMITS
    )
    return segmented.map_batches(write, fn_args=[shared], num_cpus=1, **_one_part())


def _configure(context: Any) -> None:
    context.target_max_block_size = 1
    context.max_errored_blocks = -1  # a block that fails is left for the next round; it takes no other along
    # we have our own; this is Ray's switch, which --ray-progress sets
    context.enable_progress_bars = os.environ.get("RAY_DATA_DISABLE_PROGRESS_BARS") == "0"
    context.print_on_execution_start = False
    context.log_internal_stack_trace = False


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
    worker = SplitWorker(_fetch(shared)[0])
    return _rows("frames", (worker.read(part) for part in parts_of(batch)))


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
    task = _fetch(shared)[0]
    worker = SplitWorker(task)
    return _rows("result", RunMetrics(task).counting(worker.write(cargo) for cargo in _cargoes(batch)))


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


_RAISED = re.compile(r"(?ms)^.*^segment\.errors\.(\w+): (.*)\Z")


def _cause(error: BaseException) -> SegmentError:
    """Unwrap what a worker raised; whatever it was, the run can be resumed."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, SegmentError):
            return type(seen)(str(seen.args[0]) if seen.args else str(seen))
        seen = getattr(seen, "cause", None) or seen.__cause__
    if raised := _RAISED.search(str(error)):  # in an actor's constructor: Ray keeps only the text
        kind = getattr(errors, raised[1], None)
        if isinstance(kind, type) and issubclass(kind, SegmentError):
            return kind(raised[2].strip())
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return StoreError(f"the Ray run broke: {redact_url(lines[-1])}. The same command resumes it.")
