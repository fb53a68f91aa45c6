"""The local engine: one pool of worker processes on this machine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from segment.engines import Isolation
from segment.engines.child import CHILD_MEMORY, Child, Setup
from segment.engines.pool import Pool
from segment.models.sessions import Runtime, capabilities, footprint
from segment.models.weights import Weights
from segment.output.plan import Plan
from segment.output.results import PartResult
from segment.pipeline.resources import available_cpus, node_memory
from segment.pipeline.stages import Task
from segment.progress import Tally
from segment.store.names import count

log = logging.getLogger("segment.engines.local")

P = ParamSpec("P")
T = TypeVar("T")

_IMAGES = 8  # at least, of a process: to start one takes as long as a light model needs for some


@dataclass
class LocalEngine:
    """Runs parts in a pool of worker processes, each with a model of its own on one CPU.

    One process has the GPU: its workers are threads that share one session, and decode and encode meanwhile.

    Attributes:
        size: workers; None takes every CPU this process may use.
    """

    size: int | None = None
    name: str = "local"
    _spares: list[Child] = field(default_factory=list, repr=False)
    _each: int = 0  # bytes of a process, once they are known

    def warm_up(self, runtime: Runtime, plan: Plan) -> None:
        """Start the processes for a plan: they import what they need while the run is prepared."""
        with suppress(OSError):  # `run` says so
            for _ in range(self._wanted("cpu", plan) if runtime.device == "cpu" else 1):
                self._spares.append(Child(runtime.name))

    def nodes(self) -> list[frozenset[str]]:
        """This machine's capabilities."""
        return [capabilities()]

    def workers(self, task_device: str) -> int:
        """One for each CPU, of which a GPU's workers need one each, too."""
        return self.size or available_cpus()

    def processes(self, task: Task, weights: Weights, plan: Plan) -> int:
        """See `Engine.processes`: on CPUs one for each worker, no more than fit into half of the free memory."""
        if task.runtime.device != "cpu":
            return 1
        if not self._each:  # an engine runs one model
            model = footprint(task.card, weights, task.runtime, task.batch_size)
            self._each = CHILD_MEMORY + weights.size + (model.shared + model.per_stream if model else 0)
        return max(1, min(self._wanted("cpu", plan), node_memory()[1] // 2 // self._each))

    def _wanted(self, device: str, plan: Plan) -> int:
        """Workers for a plan, were there no limit of memory. For few images another process is not worth its start."""
        most = plan.images // _IMAGES if self.size is None and device == "cpu" else len(plan)
        return max(1, min(self.workers(device), len(plan), most))

    def threads(self, workers: int) -> int:
        """Fewer workers than CPUs, because there are fewer parts, share the CPUs among them."""
        return max(1, available_cpus() // workers) if self.size is None else 1

    def call(self, task_device: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Engine.call`."""
        return function(*args, **kwargs)

    def run(self, task: Task, weights: Weights, plan: Plan, *, isolation: Isolation) -> Generator[PartResult]:
        """See `Engine.run`."""
        device = task.runtime.device
        size, wanted = self.processes(task, weights, plan), self._wanted(device, plan)
        if device == "cpu" and size < wanted:
            log.warning("memory is short: %s in place of %d", count(size, "worker"), wanted)
        streams = wanted if device != "cpu" and isolation == "none" else 1
        share, by_image = 1 / max(2, size), isolation == "image"
        setup = Setup(task, weights, self.threads(size * streams), streams, share, by_image)
        spares, self._spares = self._spares, []
        yield from Pool(setup, size, isolation, spares).run(plan.parts())

    def publish(self, tally: Tally, *, ended: bool = False) -> None:
        """There is nowhere to look but at the progress."""

    def close(self) -> None:
        """End what was started and not used."""
        while self._spares:
            self._spares.pop().close(at_once=True)
