"""The local engine: the stages in threads of this process, one a core. No ray, no start-up."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

from segment.engines import Isolation, available_cpus
from segment.isolation import Child, ChildDied, quarantine
from segment.memory import Guard
from segment.patience import Patience
from segment.plan import Plan
from segment.progress import Tally
from segment.sessions import capabilities, open_session
from segment.shards import Part
from segment.stages import PartResult, Task
from segment.store import Store
from segment.weights import Weights
from segment.workers import Worker

log = logging.getLogger("segment.engines.local")

P = ParamSpec("P")
T = TypeVar("T")

_OWN_SHARE = 0.5  # of the machine's memory that this process may take while that is short
_GRACE = 20.0  # seconds for threads to finish what they hold when the run is stopped


@dataclass
class LocalEngine:
    """Runs parts in `size` threads that share one loaded model.

    Attributes:
        size: threads; None takes every CPU this process may use.
    """

    size: int | None = None
    name: str = "local"

    def nodes(self) -> list[frozenset[str]]:
        """This machine's capabilities."""
        return [capabilities()]

    def workers(self, task_device: str) -> int:
        """Threads; each is one stream of the session."""
        return self.size or available_cpus()

    def threads(self, workers: int) -> int:
        """Fewer workers than CPUs, because there are fewer parts, share the CPUs among them."""
        return max(1, available_cpus() // workers) if self.size is None else 1

    def call(self, task_device: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Engine.call`."""
        return function(*args, **kwargs)

    def run(self, task: Task, weights: Weights, plan: Plan, *, isolation: Isolation) -> Generator[PartResult]:
        """See `Engine.run`. In isolation, the threads mind child processes; else they do the work."""
        size = max(1, min(self.workers(task.runtime.device), len(plan)))
        hands: list[_Hand]
        if isolation == "image":
            hands = [_Quarantine(task, weights) for _ in range(size)]
        elif isolation == "part":
            hands = [_Minder(task, weights) for _ in range(size)]
        else:
            threads = self.threads(size)
            session = open_session(
                task.card, weights, task.runtime, threads=threads, streams=size, batch=task.batch_size
            )
            hands = [Worker(task, session) for _ in range(size)]
        if isolation != "none":  # children are watched each by its own thread
            yield from _run_threads(hands, plan, Patience(math.inf, None), task.store, threading.Event())
            return
        short = threading.Event()
        budget = task.worker_memory * size if task.worker_memory else None
        with closing(Guard(budget, _OWN_SHARE, short.set)):
            yield from _run_threads(hands, plan, Patience(task.stall_timeout, task.batch_size), task.store, short)

    def publish(self, tally: Tally, *, ended: bool = False) -> None:
        """There is nowhere to look but at the progress."""

    def close(self) -> None:
        """Nothing is held between runs."""


class _Hand(Protocol):
    """What a thread of the pool runs."""

    beats: int

    def process(self, parts: Iterable[Part]) -> Iterator[PartResult]: ...

    def stop(self) -> None: ...


class _Minder:
    """Runs parts in a child process, and the next part in a new one if that dies."""

    def __init__(self, task: Task, weights: Weights) -> None:
        self._task = task
        self._weights = weights
        self._stopped = False
        self.beats = 0

    def process(self, parts: Iterable[Part]) -> Iterator[PartResult]:
        """Yield a result for every part that did not kill its process."""
        child: Child | None = None
        try:
            for part in parts:
                try:
                    child = child or Child(self._task, self._weights)
                    yield child.run(part)
                except ChildDied as death:
                    log.warning("part %s: %s", part.id, death)
                    if child is not None:
                        child.close()
                    child = None
                if self._stopped:
                    return
        finally:
            if child is not None:
                child.close()

    def stop(self) -> None:
        """End after the part at hand."""
        self._stopped = True


class _Quarantine(_Minder):
    """Runs parts image by image."""

    def process(self, parts: Iterable[Part]) -> Iterator[PartResult]:
        """Yield a result for every part."""
        for part in parts:
            yield quarantine(part, self._task, self._weights)
            if self._stopped:
                return


def _run_threads(
    hands: Sequence[_Hand], plan: Plan, patience: Patience, store: Store, short: threading.Event
) -> Iterator[PartResult]:
    parts = _SharedParts(plan)
    results: queue.SimpleQueue[PartResult | BaseException | None] = queue.SimpleQueue()
    threads = [threading.Thread(target=_work, args=(hand, parts, results), daemon=True) for hand in hands]
    for thread in threads:
        thread.start()
    try:
        yield from _drain(results, lambda: sum(hand.beats for hand in hands) + store.calls, len(hands), patience, short)
    finally:
        parts.stop()
        for hand in hands:
            hand.stop()
        deadline = time.monotonic() + _GRACE
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def _work(hand: _Hand, parts: Iterable[Part], results: queue.SimpleQueue[PartResult | BaseException | None]) -> None:
    try:
        for result in hand.process(parts):
            results.put(result)
        results.put(None)
    except MemoryError:
        log.warning("not enough memory for a part: it is left for the next round, in a child process")
        results.put(None)
    except BaseException as error:  # handed over to the caller's thread, which raises it
        results.put(error)


def _drain(
    results: queue.SimpleQueue[PartResult | BaseException | None],
    steps: Callable[[], int],
    working: int,
    patience: Patience,
    short: threading.Event,
) -> Iterator[PartResult]:
    """Yield results until every thread is done, none of them got on by a step for too long, or memory is short."""
    done, since = -1, time.monotonic()
    while working:
        if short.is_set():
            log.warning("this process takes too much memory: the rest is left for the next round, in child processes")
            return
        try:
            item = results.get(timeout=1.0)
        except queue.Empty:
            if (now := steps()) != done:
                done, since = now, time.monotonic()
            elif time.monotonic() - since > patience.seconds:
                log.warning("no worker got on for %.0f s: what they hold is left for the next round", patience.seconds)
                return
            continue
        since = time.monotonic()
        if item is None:
            working -= 1
        elif isinstance(item, BaseException):
            raise item
        else:
            patience.learn(item)
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
