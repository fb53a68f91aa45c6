"""Watching a Ray run from its driver: heartbeats of the workers, answers of the head, and an end to every wait."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from segment import vitals
from segment.engines.ray_cluster import HeadLost, within
from segment.errors import SegmentError, StoreError
from segment.patience import Patience

log = logging.getLogger("segment.engines.ray")

_BEAT_SECONDS = 1.0
_HEARD_SECONDS = 10.0  # since its last beat a process counts as there
_WATCH_SECONDS = 2.0
_FIRST_BEAT_SECONDS = 10.0
_TELL_TIMES = 3  # afterwards the process is dead, or its node is out of reach
_HEAD_SECONDS = 40.0  # without an answer of the head; after 60 s Ray ends this process without a word
_LOADS = 5  # so many times as many loads as workers begun, and none ended: the model kills whoever loads it
_SILENCE_SECONDS = 20 * 60.0  # without any sign of life of any worker; an autoscaler's first node takes some minutes
_CLOSE_SECONDS = 5.0
T = TypeVar("T")
Waits = tuple[float, vitals.Request]  # seconds that a request to a store has taken, as told


@dataclass
class _Life:
    node: str
    pid: int
    beats: int
    loading: bool
    since: float
    heard: float = 0.0
    waits: Waits | None = None
    told: int = 0


@dataclass(frozen=True)
class Signs:
    """What the pulse knows.

    Attributes:
        stuck: (node, pid) of processes that did no step for too long.
        steps: signs of life so far, of all.
        working: processes at work now.
        waits: requests that stores keep waiting, the oldest of each process.
        loads, loaded: how often a worker began to load the model, and was done.
    """

    stuck: tuple[tuple[str, int], ...]
    steps: int
    working: int
    waits: tuple[Waits, ...]
    loads: int
    loaded: int


class _Pulse:
    """An actor that knows of every working process when it last got on. Counts come from the processes themselves."""

    def __init__(self) -> None:
        self._lives: dict[str, _Life] = {}
        self._steps = self._loads = self._loaded = 0

    def beat(self, worker: str, node: str, pid: int, beats: int, loading: bool, waits: Waits | None) -> None:
        """A process works and has done `beats` steps."""
        life = self._lives.get(worker)
        if life is None and loading:
            self._loads += 1
        if life is None or life.beats != beats:
            life = self._lives[worker] = _Life(node, pid, beats, loading, time.monotonic())
            self._steps += not loading
        life.heard, life.waits = time.monotonic(), waits

    def rest(self, worker: str) -> None:
        """A process has nothing to do."""
        life = self._lives.pop(worker, None)
        self._loaded += life is not None and life.loading

    def signs(self, seconds: float, loading_seconds: float) -> Signs:
        """Tell what is known; a process that is stuck again, a few times, if it stays so."""
        now = time.monotonic()
        late = [x for x in self._lives.values() if now - x.since > (loading_seconds if x.loading else seconds)]
        for life in late:
            life.since, life.told = now, life.told + 1
        self._lives = {key: life for key, life in self._lives.items() if life.told < _TELL_TIMES}
        stuck = tuple((life.node, life.pid) for life in late)
        heard = [life for life in self._lives.values() if now - life.heard < _HEARD_SECONDS]  # the others may be dead
        waits = tuple(life.waits for life in heard if life.waits)
        return Signs(stuck, self._steps, len(heard), waits, self._loads, self._loaded)


def start_pulse() -> Any:
    """Start the actor that heartbeats go to."""
    import ray

    return ray.remote(num_cpus=0, max_restarts=-1)(_Pulse).remote()


@dataclass
class _Pace:
    """One call of a worker process, which may have two at once: whether it waits for others, and for how many beats."""

    waits: bool
    ticks: int = 0


class Heart:
    """Tells the pulse from a worker process that it gets on, once a second while it works.

    Args:
        pulse: the actor of `start_pulse`.
        beats: counts the steps that the process has done; None where a thread that runs is sign enough: for one that
            only waits for others, with a time limit of its own.
    """

    def __init__(self, pulse: Any, beats: Callable[[], int] | None) -> None:
        import ray

        self._pulse = pulse
        self._beats = beats
        self._is_known = False
        self._node = ray.get_runtime_context().get_node_id()

    @contextmanager
    def beating(self, *, loading: bool = False) -> Iterator[_Pace]:
        """Beat while the block runs: which loads the model, or works."""
        import ray

        key, pace = uuid.uuid4().hex, _Pace(waits=self._beats is None and not loading)
        first = self._beat_once(key, loading, pace)  # at once: what freezes in its first second must be known too
        if not self._is_known:  # a call is under way only when this process has found the pulse
            with suppress(ray.exceptions.RayError):
                ray.get(first, timeout=_FIRST_BEAT_SECONDS)
            self._is_known = True
        done = threading.Event()
        thread = threading.Thread(target=self._beat, args=(done, key, loading, pace), daemon=True)
        thread.start()
        try:
            yield pace
        finally:
            done.set()
            thread.join()
            self._pulse.rest.remote(key)

    def through(self, values: Iterator[T]) -> Iterator[T]:
        """Beat while the next value is being made; between two it is for Ray to fetch the last one."""
        with self.beating() as pace:
            for value in values:
                pace.waits = True
                yield value
                pace.waits = self._beats is None

    def _beat(self, done: threading.Event, key: str, loading: bool, pace: _Pace) -> None:
        while not done.wait(_BEAT_SECONDS):
            pace.ticks += pace.waits
            self._beat_once(key, loading, pace)

    def _beat_once(self, key: str, loading: bool, pace: _Pace) -> Any:
        beats = 0 if loading or self._beats is None else self._beats()
        oldest = vitals.oldest()
        waits = (oldest.seconds(), oldest) if oldest else None
        return self._pulse.beat.remote(key, self._node, os.getpid(), beats + pace.ticks, loading, waits)


class Watch:
    """Watches over one round from the driver, so that it never waits in vain.

    Processes that are stuck are killed on their nodes, and Ray replaces them: a frozen one can neither notice nor
    obey, and Ray Data waits for it for ever. What no replacement helps against is `trouble`.

    Args:
        patience: how long a step may take.
        pulse: the actor of `start_pulse`.
        workers: models loaded at once.
        loading: seconds that one may take for it.
    """

    def __init__(self, patience: Patience, pulse: Any, workers: int, loading: float) -> None:
        self._patience = patience
        self._pulse = pulse
        self._workers = workers
        self._loading = loading
        self._head_at = self._life_at = time.monotonic()
        self._signs = Signs((), 0, 0, (), 0, 0)
        self._done = threading.Event()
        for task in (self._watch_workers, self._watch_head):
            threading.Thread(target=task, name="watch", daemon=True).start()

    def _watch_workers(self) -> None:
        import ray

        while not self._done.wait(min(_WATCH_SECONDS, self._patience.seconds / 4)):
            try:
                self._look_at_workers()
            except ray.exceptions.GetTimeoutError:
                log.warning("the actor that hears the workers does not answer: it is replaced")
                ray.kill(self._pulse, no_restart=False)
            except Exception as error:  # of Ray, mostly; whatever it is, the watch goes on
                log.warning("cannot watch the workers: %s", type(error).__name__)

    def _look_at_workers(self) -> None:
        import ray

        seconds = self._patience.seconds
        signs = ray.get(self._pulse.signs.remote(seconds, self._loading), timeout=_HEAD_SECONDS)
        if signs.steps != self._signs.steps:
            self._life_at = time.monotonic()
        self._signs = signs
        vitals.report(signs.working, signs.waits)
        for node, pid in signs.stuck:
            log.warning("worker process %d did nothing for %.0f s: it is replaced", pid, seconds)
            _kill_on(node, pid)

    def _watch_head(self) -> None:
        import ray

        while not self._done.wait(5.0):
            with suppress(Exception):  # no answer is no answer
                ray.nodes()
                self._head_at = time.monotonic()

    def trouble(self) -> SegmentError | None:
        """What ends the round, if anything does."""
        now, signs = time.monotonic(), self._signs
        if now - self._head_at > _HEAD_SECONDS:
            return HeadLost(now - self._head_at)
        if not signs.loaded and signs.loads > _LOADS * self._workers:
            return StoreError(
                f"{signs.loads} workers began to load the model and none was done: they die of it, for want of memory "
                "perhaps. The logs of the Ray cluster say more; the same command resumes the run."
            )
        if now - self._life_at > _SILENCE_SECONDS:
            minutes = _SILENCE_SECONDS / 60
            return StoreError(
                f"no worker of the Ray cluster has done anything for {minutes:.0f} minutes: `ray status` on its head "
                "says what it waits for. The same command resumes the run."
            )
        return None

    def close(self) -> None:
        """Stop watching, and end the pulse."""
        import ray

        self._done.set()
        vitals.report(None, ())
        with suppress(HeadLost, ray.exceptions.RayError):
            within(_CLOSE_SECONDS, lambda: ray.kill(self._pulse))


def _kill_on(node: str, pid: int) -> None:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    kill = ray.remote(num_cpus=0, max_retries=0)(_kill_worker)
    kill.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(pid)


def _kill_worker(pid: int) -> None:
    """Kill a process of Ray's, if that is what the number still stands for."""
    try:
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::"):
            os.kill(pid, signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError):
        pass
