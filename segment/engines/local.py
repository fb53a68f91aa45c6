"""The local engine: the stages in threads of this process, or in child processes where there is much to do."""

from __future__ import annotations

import logging
import multiprocessing
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

from segment.engines import Isolation
from segment.engines.child import CHILD_MEMORY, Child, ChildDied
from segment.engines.quarantine import quarantine
from segment.inputs.discover import Part
from segment.models.sessions import capabilities, footprint, open_session
from segment.models.weights import Weights
from segment.output.plan import Plan
from segment.output.results import PartResult
from segment.pipeline.memory_guard import Guard
from segment.pipeline.resources import available_cpus, node_memory
from segment.pipeline.stages import Task
from segment.pipeline.stall import Patience
from segment.pipeline.worker import Worker
from segment.progress import Tally
from segment.store.client import Store

log = logging.getLogger("segment.engines.local")

P = ParamSpec("P")
T = TypeVar("T")

_OWN_SHARE = 0.5  # of the machine's memory that this process may take while that is short
_GRACE = 20.0  # seconds for threads to finish what they hold when the run is stopped
_TRIES = 3  # children in a row that die before a first result: then it is no bad luck
_LASTING = 200  # images a worker, from which on processes of their own, a second each to start, are faster


@dataclass
class LocalEngine:
    """Runs parts in `size` workers: threads that share one loaded model, or processes that each load it.

    Threads share Python's lock, too, which costs each image some milliseconds. Processes take a second to start.

    Attributes:
        size: workers; None takes every CPU this process may use.
        apart: whether workers are processes; None decides by the number of images.
    """

    size: int | None = None
    apart: bool | None = None
    name: str = "local"

    def nodes(self) -> list[frozenset[str]]:
        """This machine's capabilities."""
        return [capabilities()]

    def workers(self, task_device: str) -> int:
        """Threads; each is one stream of the session."""
        return self.size or available_cpus()

    def processes(self, task: Task, weights: Weights, plan: Plan) -> int:
        """Each worker one, if workers are processes. A GPU is shared by threads, and a daemon may start no process."""
        size = min(self.workers(task.runtime.device), len(plan))
        lasting = task.runtime.device == "cpu" and size > 1 and plan.images >= _LASTING * size
        # of fewer workers than CPUs each has several, which a process's session, of one thread, would not use
        may = lasting and self.threads(size) == 1 and not multiprocessing.current_process().daemon
        apart = may and _fit(task, weights, size) if self.apart is None else self.apart
        return size if apart else 1

    def threads(self, workers: int) -> int:
        """Fewer workers than CPUs, because there are fewer parts, share the CPUs among them."""
        return max(1, available_cpus() // workers) if self.size is None else 1

    def call(self, task_device: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Engine.call`."""
        return function(*args, **kwargs)

    def run(self, task: Task, weights: Weights, plan: Plan, *, isolation: Isolation) -> Generator[PartResult]:
        """See `Engine.run`. In isolation, the threads mind child processes; else they do the work."""
        size = max(1, min(self.workers(task.runtime.device), len(plan)))
        if isolation == "none" and self.processes(task, weights, plan) == 1:
            yield from self._run_here(task, weights, plan, size)
            return
        patience = Patience(task.settings.stall_timeout, task.batch_size)
        minder = {"none": _Minder, "part": _PartMinder, "image": _Quarantine}[isolation]
        hands = [minder(task, weights, patience) for _ in range(size)]
        yield from _run_threads(hands, plan, patience, lambda: None)  # each hand watches over its child

    def _run_here(self, task: Task, weights: Weights, plan: Plan, size: int) -> Generator[PartResult]:
        """In threads of this process."""
        session = open_session(
            task.card, weights, task.runtime, threads=self.threads(size), streams=size, batch=task.batch_size
        )
        workers = [Worker(task, session) for _ in range(size)]
        patience = Patience(task.settings.stall_timeout, task.batch_size)
        trouble = _Trouble(workers, task.store, patience)
        memory = task.settings.worker_bytes
        budget = memory * size if memory else None
        with closing(Guard(budget, _OWN_SHARE, trouble.memory_is_short.set)):
            yield from _run_threads(workers, plan, patience, trouble)

    def publish(self, tally: Tally, *, ended: bool = False) -> None:
        """There is nowhere to look but at the progress."""

    def close(self) -> None:
        """Nothing is held between runs."""


def _fit(task: Task, weights: Weights, processes: int) -> bool:
    """Whether so many processes, each with a model of its own, take no more than half of the memory there is."""
    model = footprint(task.card, weights, task.runtime, task.batch_size)
    each = CHILD_MEMORY + weights.size + (model.shared + model.per_stream if model else 0)
    return processes * each < node_memory()[1] / 2


_Tell = Callable[[PartResult], object]


class _Hand(Protocol):
    """What a thread of the pool runs."""

    def process(self, parts: Iterable[Part], tell: _Tell) -> None: ...

    def stop(self) -> None: ...


class _Minder:
    """Runs parts in a child process, and goes on in a new one if that dies; what it held is left undone."""

    def __init__(self, task: Task, weights: Weights, patience: Patience) -> None:
        self._task = task
        self._weights = weights
        self._patience = patience
        self._child: Child | None = None
        self._stopped = threading.Event()

    def process(self, parts: Iterable[Part], tell: _Tell) -> None:
        """Tell a result for every part that was committed; end early if children keep dying without any."""
        tries = _TRIES
        while tries and not self._stopped.is_set():
            try:
                self._child = self._new_child()
                for result in self._child.process(parts):
                    tries = _TRIES
                    tell(result)
                return
            except ChildDied as death:
                tries -= 1
                if not self._stopped.is_set():
                    held = "what it held is left for the next round" if self._child else "it held nothing yet"
                    log.warning("%s: %s", death, held)
            finally:
                self._end_child()

    def _new_child(self) -> Child:
        return Child(self._task, self._weights, lambda: self._patience.seconds, self._stopped)

    def _end_child(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None

    def stop(self) -> None:
        """End soon, whatever the child is at."""
        self._stopped.set()


class _PartMinder(_Minder):
    """Gives a child one part after the other, so that its death takes no other along."""

    def process(self, parts: Iterable[Part], tell: _Tell) -> None:
        """Tell a result for every part that did not kill its process."""
        try:
            for part in parts:
                try:
                    self._child = self._child or self._new_child()
                    for result in self._child.process([part]):
                        tell(result)
                except ChildDied as death:
                    if not self._stopped.is_set():
                        log.warning("part %s: %s", part.id, death)
                    self._end_child()
                if self._stopped.is_set():
                    return
        finally:
            self._end_child()


class _Quarantine(_Minder):
    """Runs parts image by image."""

    def process(self, parts: Iterable[Part], tell: _Tell) -> None:
        """Tell a result for every part."""
        for part in parts:
            tell(quarantine(part, self._task, self._weights))
            if self._stopped.is_set():
                return


class _Trouble:
    """Why threads are given up: memory is short, or none of them got on by a step for too long."""

    def __init__(self, workers: Sequence[Worker], store: Store, patience: Patience) -> None:
        self.memory_is_short = threading.Event()
        self._workers = workers
        self._store = store
        self._patience = patience
        self._steps, self._since = -1, time.monotonic()

    def __call__(self) -> str | None:
        if self.memory_is_short.is_set():
            return "this process takes too much memory: the rest is left for the next round, in child processes"
        steps = sum(worker.beats for worker in self._workers) + self._store.calls
        if steps != self._steps:
            self._steps, self._since = steps, time.monotonic()
        elif time.monotonic() - self._since > self._patience.seconds:
            seconds = self._patience.seconds
            return f"no worker got on for {seconds:.0f} s: what they hold is left for the next round"
        return None


def _run_threads(
    hands: Sequence[_Hand], plan: Plan, patience: Patience, trouble: Callable[[], str | None]
) -> Iterator[PartResult]:
    parts = _SharedParts(plan)
    results: queue.SimpleQueue[PartResult | BaseException | None] = queue.SimpleQueue()
    threads = [threading.Thread(target=_work, args=(hand, parts, results), daemon=True) for hand in hands]
    for thread in threads:
        thread.start()
    try:
        for result in _drain(results, len(hands), trouble):
            patience.learn(result)
            yield result
    finally:
        parts.stop()
        for hand in hands:
            hand.stop()
        deadline = time.monotonic() + _GRACE
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def _work(hand: _Hand, parts: Iterable[Part], results: queue.SimpleQueue[PartResult | BaseException | None]) -> None:
    try:
        hand.process(parts, results.put)
        results.put(None)
    except MemoryError:
        log.warning("not enough memory for a part: it is left for the next round, in a child process")
        results.put(None)
    except BaseException as error:  # handed over to the caller's thread, which raises it
        results.put(error)


def _drain(
    results: queue.SimpleQueue[PartResult | BaseException | None], working: int, trouble: Callable[[], str | None]
) -> Iterator[PartResult]:
    """Yield results until every thread is done, or there is trouble."""
    while working:
        if reason := trouble():
            log.warning("%s", reason)
            return
        try:
            item = results.get(timeout=1.0)
        except queue.Empty:
            continue
        if item is None:
            working -= 1
        elif isinstance(item, BaseException):
            raise item
        else:
            yield item


class _SharedParts:
    """The parts of a plan, handed to whichever thread asks next, until stopped."""

    def __init__(self, plan: Plan) -> None:
        self._parts = plan.parts()
        self._lock = threading.Lock()
        self._stopped = False

    def __iter__(self) -> Iterator[Part]:
        return self

    def __next__(self) -> Part:
        with self._lock:
            if self._stopped:
                raise StopIteration
            return next(self._parts)

    def stop(self) -> None:
        """Hand out no more parts; those handed out are finished."""
        with self._lock:
            self._stopped = True
