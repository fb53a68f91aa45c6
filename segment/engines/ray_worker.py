"""The actor of the pool: parts are fed to it, and it streams what becomes of them, with signs of life."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from segment.engines import Isolation
from segment.engines.quarantine import quarantine
from segment.engines.ray_heartbeats import Beat
from segment.engines.ray_metrics import RunMetrics
from segment.errors import SegmentError
from segment.inputs.discover import Part
from segment.models.weights import Weights
from segment.output.results import PartResult
from segment.pipeline.memory_guard import guard_process
from segment.pipeline.stages import Task
from segment.pipeline.worker import Worker, load_worker
from segment.store import inflight


@dataclass(frozen=True)
class Told:
    """What a worker tells now and then.

    Attributes:
        results: of parts that ended since it told last.
        beat: how it gets on.
        error: what ends the run, if anything does.
    """

    results: list[PartResult]
    beat: Beat
    error: SegmentError | None = None


class PoolWorker:
    """Runs parts on one CPU (or, image by image, beside one GPU).

    Args:
        shared: the task and the model's weights.
        isolation: `image` for quarantine; all else is a matter of how many parts it is fed at once.
        seconds: between two signs of life, and between results where there are many.
    """

    def __init__(self, shared: tuple[Task, Weights], isolation: Isolation, seconds: float) -> None:
        self._task = shared[0]
        self._weights: Weights | None = shared[1]
        self._isolation = isolation
        self._seconds = seconds
        self._metrics = RunMetrics(self._task)
        self._fed: queue.SimpleQueue[Part | None] = queue.SimpleQueue()
        self._news: queue.SimpleQueue[PartResult | BaseException | str] = queue.SimpleQueue()
        self._worker: Worker | None = None
        self._is_loading = isolation != "image"
        self._drawn = self._ended = self._idle = 0

    def feed(self, parts: Iterable[Part], is_last: bool) -> None:
        """Take more parts for the call of `work` that is under way; no more come after the last."""
        for part in parts:
            self._fed.put(part)
        if is_last:
            self._fed.put(None)

    def work(self) -> Iterator[Told]:
        """Load the model if that is not done, run what is fed, and tell of it until the last part has ended.

        Many results are told together: to tell costs worker and driver a millisecond. Who is about to have nothing to
        do tells at once.
        """
        threading.Thread(target=self._run, name="work", daemon=True).start()
        yield self._told([])  # what freezes while it loads must be known
        results: list[PartResult] = []
        at = time.monotonic()
        while True:
            is_news = False
            match self._next_news(at + self._seconds - time.monotonic()):
                case PartResult() as result:
                    results.append(result)
                    is_news = self._fed.empty()
                case SegmentError() as error:
                    yield self._told(results, error)
                    return
                case BaseException() as error:
                    raise error
                case "ended":
                    yield self._told(results)
                    return
                case news:
                    is_news = news is not None
            if is_news or time.monotonic() - at >= self._seconds:
                yield self._told(results)
                results, at = [], time.monotonic()

    def _next_news(self, seconds: float) -> PartResult | BaseException | str | None:
        try:
            return self._news.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return None

    def _run(self) -> None:
        try:
            if self._isolation == "image":
                assert self._weights is not None
                for part in self._parts():
                    self._end(quarantine(part, self._task, self._weights))
            else:
                self._load().process(self._parts(), self._end)
            self._news.put("ended")
        except BaseException as error:  # for whoever is told
            self._news.put(error)

    def _load(self) -> Worker:
        if self._worker is None:
            guard_process(self._task.settings.worker_bytes)  # an actor is one for its whole life
            weights, self._weights = self._weights, None  # the runtime has its own copy
            assert weights is not None
            self._worker = load_worker(self._task, weights)
            self._is_loading = False
            self._news.put("loaded")
        return self._worker

    def _parts(self) -> Iterator[Part]:
        while (part := self._fed.get()) is not None:
            self._drawn += 1
            yield part

    def _end(self, result: PartResult) -> None:
        self._metrics.count(result)
        self._ended += 1
        self._news.put(result)

    def _told(self, results: list[PartResult], error: SegmentError | None = None) -> Told:
        import ray

        waits = inflight.oldest_request()
        node = ray.get_runtime_context().get_node_id()
        return Told(results, Beat(node, os.getpid(), self._steps(), self._is_loading, waits), error)

    def _steps(self) -> int:
        """Steps of the worker. To wait is one, too: for parts, or for children, which have a patience of their own."""
        if not self._is_loading:
            self._idle += self._drawn == self._ended or self._isolation == "image"
        return self._idle + (self._worker.steps if self._worker else 0)


def worker_of(task: Task) -> Any:
    """The actor's class under the name that the dashboard is to show."""
    return type(f"segment[{task.card.name}]", (PoolWorker,), {})
