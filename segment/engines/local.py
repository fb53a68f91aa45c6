"""The local engine: one pool of worker processes on this machine."""

import logging
import socket
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field

from segment.engines import Engine, Isolation, Node
from segment.engines.pool import Pool
from segment.engines.suspect import StuckImages
from segment.engines.worker_process import PROCESS_MEMORY, Setup, WorkerProcess
from segment.errors import SegmentError
from segment.models.sessions import Runtime, capabilities
from segment.models.weights import Weights
from segment.output.plan import Plan
from segment.output.results import PartResult
from segment.pipeline.resources import available_cpus, node_memory
from segment.pipeline.stages import Task
from segment.pipeline.worker_memory import WorkerBytes, worker_bytes
from segment.progress import Tally
from segment.store.names import count

log = logging.getLogger("segment.engines.local")

_LOADING_SHARE = 0.9  # of the free memory, for processes that load their models at the same time
_IMAGES = 8  # of a process at least: its start takes as long as a light model takes for some images


@dataclass
class LocalEngine(Engine):
    """Runs parts in a pool of worker processes, each with a model of its own on one CPU.

    On a GPU it is one process; its workers are threads that share one session.

    Attributes:
        size: number of workers; None takes one for each CPU that this process may use.
    """

    size: int | None = None
    name: str = "local"
    _spares: list[WorkerProcess] = field(default_factory=list, repr=False)
    _found: list[WorkerBytes | None] = field(default_factory=list, repr=False)  # of the one model that an engine runs
    _stuck: StuckImages = field(default_factory=dict, repr=False)  # in all rounds

    def warm_up(self, runtime: Runtime, plan: Plan) -> None:
        """Start the processes: they import their modules while the run is prepared."""
        wanted = self._wanted("cpu", plan) if runtime.device == "cpu" else 1
        with suppress(OSError, SegmentError):  # `run` tries again, and raises it
            for _ in range(max(1, min(wanted, node_memory()[1] // 2 // PROCESS_MEMORY))):
                self._spares.append(WorkerProcess(runtime.name))

    def nodes(self) -> list[Node]:
        """Return this machine."""
        return [Node(socket.gethostname(), capabilities())]

    def workers(self, task_device: str) -> int:
        """Return one for each CPU; a GPU's workers need a CPU each, too."""
        return self.size or available_cpus()

    def processes(self, task: Task, weights: Weights, plan: Plan) -> int:
        """See `Engine.processes`: on CPUs one for each worker, as far as they fit into half of the free memory.

        While they load their models, which is a moment of the run, they may take more of it.
        """
        if task.runtime.device != "cpu":
            return 1
        free = node_memory()[1]
        each = self._worker_bytes(task, weights, plan) or WorkerBytes(weights.size, weights.size)
        loading = round(free * _LOADING_SHARE) // (PROCESS_MEMORY + each.load)
        return max(1, min(self._wanted("cpu", plan), loading, free // 2 // (PROCESS_MEMORY + each.work)))

    def process_memory(self, task: Task, weights: Weights, plan: Plan) -> int | None:
        """See `Engine.process_memory`."""
        found = self._worker_bytes(task, weights, plan)
        return None if found is None else PROCESS_MEMORY + max(found)

    def _worker_bytes(self, task: Task, weights: Weights, plan: Plan) -> WorkerBytes | None:
        """Ask once, as the graph is read for it."""
        if not self._found:
            self._found.append(worker_bytes(task, weights, plan))
        return self._found[0]

    def _wanted(self, device: str, plan: Plan) -> int:
        """Return the number of workers for a plan, if memory were no limit: few images are not worth many processes."""
        most = plan.images // _IMAGES if self.size is None and device == "cpu" else len(plan)
        return max(1, min(self.workers(device), len(plan), most))

    def threads(self, workers: int) -> int:
        """Return the CPUs divided by the workers: if there are fewer parts than CPUs, a worker has several."""
        return max(1, available_cpus() // workers) if self.size is None else 1

    def run(self, task: Task, weights: Weights, plan: Plan, *, isolation: Isolation) -> Generator[PartResult]:
        device = task.runtime.device
        size, wanted = self.processes(task, weights, plan), self._wanted(device, plan)
        if device == "cpu" and size < wanted:
            log.warning("memory is short: %s in place of %d", count(size, "worker"), wanted)
        streams = wanted if device != "cpu" and isolation == "none" else 1
        share, by_image = 1 / max(2, size), isolation == "image"
        setup = Setup(task, weights, self.threads(size * streams), streams, share, by_image)
        spares, self._spares = self._spares, []
        yield from Pool(setup, size, isolation, spares, stuck=self._stuck).run(plan.parts())

    def publish(self, tally: Tally, *, ended: bool = False) -> None:
        """Do nothing: the progress display shows all."""

    def close(self) -> None:
        """End processes that were started and not used."""
        while self._spares:
            self._spares.pop().close(at_once=True)
