"""The Ray engine: the same stages on a cluster.

`run` is one best-effort round: `segment.runs.rounds` compares the committed parts with the plan and starts another.
Each round is one Ray Data pipeline (`ray_pipeline.py`). On CPUs it has one operator, whose actors do a part from bytes
to commit, because worker processes of further operators would compete for the same cores. On GPUs it has three
operators, so that no GPU waits for a JPEG.
"""

import importlib
import logging
import socket
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from segment.engines import Engine, Isolation, Node
from segment.engines.interruptible import pulled
from segment.engines.ray_cluster import HeadLost, address_of, connect, last_line, leave, only_on, within
from segment.engines.ray_heartbeats import MonitorActor
from segment.engines.ray_metrics import RunMetrics
from segment.engines.ray_pipeline import CPU, GPU, start_pipeline
from segment.engines.ray_spread import spread_over_nodes
from segment.engines.ray_watchdog import Watchdog
from segment.errors import SegmentError, StoreError, UsageError
from segment.models.sessions import Runtime, capabilities
from segment.models.weights import Weights
from segment.output.plan import Plan
from segment.output.results import PartResult
from segment.pipeline.stages import Task
from segment.pipeline.stall import StallTimeout
from segment.pipeline.worker_memory import worker_bytes
from segment.progress import Tally

A = TypeVar("A")
P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("segment.engines.ray")

_NODE_SECONDS = 300.0  # for every node to report its capabilities, for which a worker process starts there
_ACTOR_MEMORY = 235 << 20  # bytes of a Ray worker with this package, before it loads a model (measured, ray 2.60)
_FIRST_NODE_SECONDS = 15 * 60  # a cloud instance starts in two minutes, and is set up in five more


class RayEngine(Engine):
    """Runs parts on a Ray cluster.

    Args:
        address: of a running cluster (`auto`, `host:port`); None joins the one that RAY_ADDRESS names (as
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
        self._is_own = self._connected and not address_of(address)
        self._metrics: RunMetrics | None = None
        self._nodes: list[Node] | None = None

    def nodes(self) -> list[Node]:
        """Ask every node with a CPU or GPU for its capabilities, once; wait for the first node of an autoscaler."""
        if self._nodes is None:
            self._nodes = self._asked_nodes()
        return self._nodes

    def _asked_nodes(self) -> list[Node]:
        import ray

        self._await_node("GPU" if self._device in ("cuda", "tensorrt") else "CPU")
        if self._is_own:  # it is this machine, and a worker process, just to ask, takes seconds
            return [Node(socket.gethostname(), capabilities())]
        ask = ray.remote(num_cpus=0, max_retries=3)(capabilities)
        known = within(ray.nodes)
        nodes = [node for node in known if node["Alive"] and node["Resources"].keys() & {"CPU", "GPU"}]
        asked = [ask.options(scheduling_strategy=only_on(node["NodeID"])).remote() for node in nodes]
        try:
            able = ray.get(asked, timeout=_NODE_SECONDS)
        except ray.exceptions.RayError as error:
            raise StoreError(
                f"not every one of {len(nodes)} nodes of the Ray cluster said within {_NODE_SECONDS:.0f} s what it can "
                f"do ({type(error).__name__}): `ray status` on its head shows them. Run the same command again."
            ) from None
        return [Node(_name(node), can, node["NodeID"]) for node, can in zip(nodes, able, strict=True)]

    def workers(self, task_device: str) -> int:
        """Return the size of the pool at its start."""
        import ray

        resource = "GPU" if self._splits(task_device) else "CPU"
        self._await_node(resource)
        if self._workers:
            return self._workers[0]
        return max(1, int(within(ray.cluster_resources).get(resource, 0)))

    def _await_node(self, resource: str) -> None:
        """Wait for a node with a CPU (GPU): a cluster scaled to zero starts one on demand."""
        import ray

        if within(ray.cluster_resources).get(resource):
            return
        if resource == "GPU" and not self._workers:
            raise UsageError(
                "no node of the Ray cluster has a GPU: use --device cpu, add one, or give --workers to wait until the "
                "cluster's autoscaler has added one"
            )
        log.warning("no node of the Ray cluster has a %s yet: waiting for one", resource)
        first = ray.remote(capabilities).options(**{"CPU": CPU, "GPU": GPU}[resource]).remote()
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

    def processes(self, task: Task, weights: Weights, plan: Plan) -> int:
        """Each worker is one."""
        return self.workers(task.runtime.device)

    def process_memory(self, task: Task, weights: Weights, plan: Plan) -> int | None:
        """See `Engine.process_memory`: the weights are in Ray's object store, too, which is mapped."""
        own = worker_bytes(task, weights, plan)
        return None if own is None else _ACTOR_MEMORY + weights.size + max(own)

    def threads(self, workers: int) -> int:
        """One: an actor has one CPU."""
        return 1

    def call(self, task_device: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._is_own and task_device == "cpu":  # it is this machine, and a worker process takes seconds to start
            return super().call(task_device, function, *args, **kwargs)
        self.workers(task_device)
        return _result(function, args, kwargs, GPU if self._splits(task_device) else CPU)

    def call_on(self, node: Node, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._is_own:
            return super().call_on(node, function, *args, **kwargs)
        return _result(function, args, kwargs, {**CPU, "scheduling_strategy": only_on(node.key)})

    def spread(self, function: Callable[[A], T], items: Sequence[A], /, *, stopped: Callable[[], bool]) -> list[T]:
        """See `Engine.spread`: in tasks that take no CPU from the actors, which would have to end first."""
        if self._is_own:  # it is this machine, and worker processes take seconds to start
            return super().spread(function, items, stopped=stopped)
        import ray

        try:
            return spread_over_nodes(function, items, stopped)
        except HeadLost:
            self._connected = False  # nothing is left to disconnect from
            raise
        except ray.exceptions.RayError as error:
            raise _cause(error) from None

    def warm_up(self, runtime: Runtime, plan: Plan) -> None:
        """Import Ray Data, which takes seconds, while a process tries the model; actors start with the pipeline."""
        threading.Thread(target=_import_pipeline, name="import", daemon=True).start()

    def run(self, task: Task, weights: Weights, plan: Plan, *, isolation: Isolation) -> Generator[PartResult]:
        import ray

        self._metrics = RunMetrics(task)
        workers = self.workers(task.runtime.device)
        least, most = self._workers or (workers, workers)
        split = self._splits(task.runtime.device)
        device = task.runtime.device
        stall_timeout = StallTimeout(task.settings.stall_timeout, None if split else task.batch_size, device)
        monitor = MonitorActor()
        watchdog = Watchdog(stall_timeout, monitor, most)
        try:
            # by reference: constructor arguments are printed in Ray Data's logs, and a task holds credentials
            shared = ray.put((task, weights, monitor.actor))
            results = start_pipeline(task, shared, plan, (least, most), isolation=isolation, split=split)
            for result in pulled(results, watchdog.trouble):
                stall_timeout.learn(result)
                yield result
        except HeadLost:
            self._connected = False  # nothing is left to disconnect from
            raise
        except SegmentError:
            raise
        except Exception as error:  # of Ray Data, too, whose errors have no common class
            raise _cause(error) from None
        finally:
            watchdog.close()

    def publish(self, tally: Tally, *, ended: bool = False) -> None:
        """See `Engine.publish`: as Ray metrics."""
        if self._metrics is not None:
            self._metrics.publish(tally, ended=ended)

    def close(self) -> None:
        """Leave the cluster, which ends it if it was started here."""
        if self._connected:
            leave()


def _import_pipeline() -> None:
    with suppress(Exception):  # `run` imports it again, and raises it
        importlib.import_module("segment.engines.ray_parts")


def _result(function: Callable[..., T], args: Any, kwargs: Any, options: dict[str, Any]) -> T:
    """Call a function in a task with these options."""
    import ray

    try:
        asked = ray.remote(**options)(function).remote(*args, **kwargs)
        result: T = ray.get(asked, timeout=_FIRST_NODE_SECONDS)
    except ray.exceptions.RayError as error:
        raise _cause(error) from None
    return result


def _name(node: Mapping[str, Any]) -> str:
    host, address = str(node["NodeManagerHostname"]), str(node["NodeManagerAddress"])
    return host if host == address else f"{host} ({address})"


def _cause(error: BaseException) -> SegmentError:
    """Unwrap what a worker raised; whatever it was, the run can be resumed."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, SegmentError):
            return type(seen)(str(seen.args[0]) if seen.args else str(seen))
        seen = getattr(seen, "cause", None) or seen.__cause__
    return StoreError(f"the Ray run broke: {last_line(error)}. The same command resumes it.")
