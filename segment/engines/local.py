"""The local engine: the stages in threads of this process, one a core. No ray, no start-up."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

from segment.engines import available_cpus
from segment.ledger import Plan
from segment.sessions import capabilities, open_session
from segment.shards import Part
from segment.stages import PartResult, Task, Worker
from segment.weights import Weights


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

    def run(self, task: Task, weights: Weights, plan: Plan, *, isolate: bool) -> Generator[PartResult]:
        """See `Engine.run`."""
        size = max(1, min(self.workers(task.runtime.device), len(plan)))
        cpus = max(1, available_cpus() // size) if self.size is None else 1
        session = open_session(task.card, weights, task.runtime, threads=cpus, streams=size)
        parts = _SharedParts(plan)
        results: queue.SimpleQueue[PartResult | BaseException | None] = queue.SimpleQueue()
        workers = [Worker(task, session) for _ in range(size)]
        threads = [
            threading.Thread(target=_work, args=(worker, parts, results), name=f"segment-{i}", daemon=True)
            for i, worker in enumerate(workers)
        ]
        for thread in threads:
            thread.start()
        try:
            yield from _drain(results, size)
        finally:
            parts.stop()
            for worker in workers:
                worker.stop()
            for thread in threads:
                thread.join()

    def close(self) -> None:
        """Nothing is held between runs."""


def _work(worker: Worker, parts: Iterable[Part], results: queue.SimpleQueue[PartResult | BaseException | None]) -> None:
    try:
        for result in worker.process(parts):
            results.put(result)
        results.put(None)
    except BaseException as error:  # handed over to the caller's thread, which raises it
        results.put(error)


def _drain(results: queue.SimpleQueue[PartResult | BaseException | None], workers: int) -> Iterator[PartResult]:
    while workers:
        item = results.get()
        if item is None:
            workers -= 1
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
