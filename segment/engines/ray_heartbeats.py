"""Heartbeats of Ray's worker processes: `HeartbeatSender` sends them, the actor of a `HeartbeatMonitor` keeps them."""

import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from segment.engines.ray_cluster import HeadLost, within
from segment.store import inflight

_INTERVAL_SECONDS = 1.0  # between two heartbeats of a process
_ALIVE_SECONDS = 10.0  # a process counts as alive for so long after its last heartbeat
_REPLY_SECONDS = 10.0  # for the monitor to answer a worker
_ANSWER_SECONDS = 40.0  # for the monitor to answer the driver
_CLOSE_SECONDS = 5.0  # for Ray to end the monitor
_MAX_STARTS = 2  # of a piece of work that may have killed a process
_MAX_KILLS = 3  # of a stuck process; if it still stands there, it is dead already or its node is out of reach
T = TypeVar("T")


@dataclass(frozen=True)
class Heartbeat:
    """What a worker process says of itself, once a second.

    Attributes:
        node, pid: identify the process.
        loading: the process is loading the model.
        waiting: all its calls wait for Ray to fetch a result.
        waits: the oldest unanswered request of the process to a store.
        replaces: Ray started the process in place of one that died.
        begun: see `Worker.begun`.
    """

    node: str
    pid: int
    steps: int
    loading: bool
    waiting: bool = False
    waits: inflight.RequestAge | None = None
    replaces: bool = False
    begun: Mapping[str, float] = field(default_factory=dict)


@dataclass
class _ProcessState:
    last: Heartbeat
    progressed_at: float
    heard_at: float
    kills: int = 0


@dataclass(frozen=True)
class WorkerHealth:
    """State of all worker processes, from their heartbeats.

    Attributes:
        stuck: (node, pid, limit in seconds, loading) of processes without a step for too long.
        steps: heartbeats with progress so far, of all processes.
        working: number of processes at work now.
        busy: one of them at least does not wait for Ray.
        waits: the oldest unanswered request to a store, of each process that has one.
        loads, loaded: how often a worker began to load the model, and how often that ended.
        replaced: number of processes with a model that died and were replaced.
        begun: of all processes; see `Heartbeat`.
    """

    stuck: tuple[tuple[str, int, float, bool], ...]
    steps: int
    working: int
    busy: bool
    waits: tuple[inflight.RequestAge, ...]
    loads: int
    loaded: int
    replaced: int = 0
    begun: Mapping[str, float] = field(default_factory=dict)


class HeartbeatMonitor:
    """Keeps the last heartbeat of every process at work, and counts how often pieces of work were started."""

    def __init__(self) -> None:
        self._processes: dict[str, _ProcessState] = {}
        self._starts: Counter[str] = Counter()
        self._steps = self._loads = self._loaded = self._replaced = 0

    def record(self, worker: str, heartbeat: Heartbeat) -> None:
        """Record a heartbeat of a worker."""
        now = time.monotonic()
        state = self._processes.get(worker)
        if state is not None and (state.last.node, state.last.pid) != (heartbeat.node, heartbeat.pid):
            state = None  # an actor in a new process
        if heartbeat.loading and state is None:
            self._loads += 1
            self._replaced += heartbeat.replaces
        if state is None or state.last.steps != heartbeat.steps:
            self._steps += not heartbeat.loading
        elif not heartbeat.waiting:
            state.last, state.heard_at = heartbeat, now
            return
        self._processes[worker] = _ProcessState(heartbeat, now, now)

    def idle(self, worker: str) -> None:
        """Record that a worker has no work now: no heartbeat is expected of it."""
        state = self._processes.pop(worker, None)
        self._loaded += state is not None and state.last.loading

    def count_start(self, work: str) -> int:
        """Count a start of a piece of work; return the number of its starts so far."""
        self._starts[work] += 1
        return self._starts[work]

    def health(self, seconds: float, loading_seconds: float) -> WorkerHealth:
        """Return the state of the processes; one that stays stuck is reported `_MAX_KILLS` times.

        Args:
            seconds: a process without a step for longer is stuck.
            loading_seconds: the same for a process that loads the model.
        """
        now = time.monotonic()
        stuck: set[tuple[str, int, float, bool]] = set()
        for state in self._processes.values():
            limit = loading_seconds if state.last.loading else seconds
            if now - state.progressed_at > limit:
                stuck.add((state.last.node, state.last.pid, limit, state.last.loading))
                state.progressed_at, state.kills = now, state.kills + 1
        self._processes = {key: state for key, state in self._processes.items() if state.kills < _MAX_KILLS}
        alive = [x.last for x in self._processes.values() if now - x.heard_at < _ALIVE_SECONDS]
        return WorkerHealth(
            stuck=tuple(stuck),
            steps=self._steps,
            working=len({(heartbeat.node, heartbeat.pid) for heartbeat in alive}),
            busy=any(not heartbeat.waiting for heartbeat in alive),
            waits=tuple(heartbeat.waits for heartbeat in alive if heartbeat.waits),
            loads=self._loads,
            loaded=self._loaded,
            replaced=self._replaced,
            begun=inflight.merged(heartbeat.begun for heartbeat in alive),
        )


class MonitorActor:
    """The driver's handle of a `HeartbeatMonitor` that runs in an actor of its own."""

    def __init__(self) -> None:
        import ray

        self.actor = ray.remote(num_cpus=0, max_restarts=-1)(HeartbeatMonitor).remote()

    def health(self, seconds: float, loading_seconds: float) -> WorkerHealth:
        """See `HeartbeatMonitor.health`.

        Raises TimeoutError: the actor did not answer; it is restarted, and hears the next heartbeats.
        """
        import ray

        try:
            asked = self.actor.health.remote(seconds, loading_seconds)
            health: WorkerHealth = ray.get(asked, timeout=_ANSWER_SECONDS)
            return health
        except ray.exceptions.GetTimeoutError:
            ray.kill(self.actor, no_restart=False)
            raise TimeoutError("the actor that monitors the workers does not answer: it is replaced") from None

    def close(self) -> None:
        """End the actor."""
        import ray

        with suppress(HeadLost, ray.exceptions.RayError):
            within(lambda: ray.kill(self.actor), _CLOSE_SECONDS)


class HeartbeatSender:
    """Sends a heartbeat from a worker process once a second while it works.

    Attributes:
        replaces: Ray started this process in place of one that died.
    """

    def __init__(self, monitor: Any, steps: Callable[[], int] = lambda: 0) -> None:
        import ray

        context = ray.get_runtime_context()
        self.steps = steps
        self.begun: Callable[[], Mapping[str, float]] = dict
        self.replaces = context.get_actor_id() is not None and context.was_current_actor_reconstructed
        self._monitor = monitor
        self._key = context.get_actor_id() or uuid.uuid4().hex  # the processes of an actor follow each other
        self._node = context.get_node_id()
        self._is_known = self._is_loading = False
        self._calls = self._waiting = 0  # calls in progress, and those of them that wait for their caller
        self._lock = threading.Lock()
        self._done = threading.Event()

    @contextmanager
    def sending(self, *, loading: bool = False) -> Iterator[None]:
        """Send heartbeats while the block runs, which loads the model or works. Blocks may overlap."""
        with self._lock:
            self._calls += 1
            if self._calls == 1:
                self._is_loading = loading
                self._start()
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1
                if not self._calls:
                    self._stop()

    def sending_during(self, values: Iterator[T]) -> Iterator[T]:
        """Yield values, and send heartbeats while they are made. Time until Ray fetches a value is no standstill."""
        with self.sending():
            for value in values:
                with self._waiting_for_caller():
                    yield value

    def may_start(self, work: str) -> bool:
        """Count a start of a piece of work; return whether it was not started too often.

        Ray Data retries a call that kills its process without end. What may not start is left for the next round.
        """
        starts = self._answer(self._monitor.count_start.remote(work))
        return starts is None or starts <= _MAX_STARTS

    @contextmanager
    def _waiting_for_caller(self) -> Iterator[None]:
        with self._lock:
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1

    def _start(self) -> None:
        first = self._send()  # at once, so that a process that freezes in its first second is known
        if not self._is_known:  # work goes on only once this process has reached the monitor
            self._answer(first)
            self._is_known = True
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._send_regularly, args=(self._done,), daemon=True)
        self._thread.start()

    def _stop(self) -> None:
        self._done.set()
        self._thread.join()
        self._monitor.idle.remote(self._key)

    def _send_regularly(self, done: threading.Event) -> None:
        while not done.wait(_INTERVAL_SECONDS):
            self._send()

    def _send(self) -> Any:
        waits = inflight.oldest_request()
        waiting = self._waiting == self._calls
        heartbeat = Heartbeat(
            self._node, os.getpid(), self.steps(), self._is_loading, waiting, waits, self.replaces, self.begun()
        )
        return self._monitor.record.remote(self._key, heartbeat)

    def _answer(self, asked: Any) -> Any:
        """Return the monitor's answer; None if it does not answer, because it is being restarted perhaps."""
        import ray

        try:
            return ray.get(asked, timeout=_REPLY_SECONDS)
        except ray.exceptions.RayError:
            return None
