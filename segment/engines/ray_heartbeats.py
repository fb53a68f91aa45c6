"""Signs of life of Ray's worker processes: who sends them, and who keeps them."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from segment.engines.ray_cluster import HeadLost, within
from segment.store import inflight

_BEAT_SECONDS = 1.0
_HEARD_SECONDS = 10.0  # since its last beat a process counts as there
_FIRST_BEAT_SECONDS = 10.0
_MOST_KILLS = 3  # afterwards the process is dead, or its node is out of reach
_ANSWER_SECONDS = 40.0  # for the actor that hears the workers
_CLOSE_SECONDS = 5.0
T = TypeVar("T")


@dataclass(frozen=True)
class Beat:
    """A sign of life of a worker process.

    Attributes:
        node, pid: which process.
        steps: that it has done so far.
        loading: whether it is loading the model.
        waits: the request to a store that it has waited for longest.
    """

    node: str
    pid: int
    steps: int
    loading: bool
    waits: inflight.RequestAge | None = None


@dataclass
class _Life:
    beat: Beat
    since: float
    heard: float
    kills: int = 0


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
    waits: tuple[inflight.RequestAge, ...]
    loads: int
    loaded: int


class Pulse:
    """Knows of every working process when it last got on. Counts come from the processes themselves.

    Attributes:
        given_up: keys of processes that cannot even be killed.
    """

    def __init__(self) -> None:
        self.given_up: set[str] = set()
        self._lives: dict[str, _Life] = {}
        self._steps = self._loads = self._loaded = 0
        self._listened_at: float | None = None
        self._lock = threading.Lock()

    def beat(self, worker: str, beat: Beat) -> None:
        """A process works."""
        now = time.monotonic()
        with self._lock:
            life = self._lives.get(worker)
            if beat.loading:
                self._loads += life is None
            elif life is not None and life.beat.loading:
                self._loaded += 1
            if life is None or (life.beat.steps, life.beat.loading) != (beat.steps, beat.loading):
                life = self._lives[worker] = _Life(beat, now, now)
                self._steps += not beat.loading
            life.beat, life.heard = beat, now

    def rest(self, worker: str) -> None:
        """A process has nothing to do."""
        with self._lock:
            life = self._lives.pop(worker, None)
            self._loaded += life is not None and life.beat.loading

    def lose(self, worker: str) -> None:
        """A process is dead, perhaps before it was heard of, of loading the model then."""
        with self._lock:
            self._loads += self._lives.pop(worker, None) is None

    def listened(self) -> None:
        """All was heard that has been told until now. Who calls this is not deaf to all for a while unnoticed."""
        self._listened_at = time.monotonic()

    def signs(self, seconds: float, loading_seconds: float) -> Signs:
        """Tell what is known; a process that is stuck again, a few times, if it stays so."""
        with self._lock:
            now = self._listened_at or time.monotonic()
            lives = self._lives.values()
            late = [x for x in lives if now - x.since > (loading_seconds if x.beat.loading else seconds)]
            for life in late:
                life.since, life.kills = now, life.kills + 1
            self.given_up |= {key for key, life in self._lives.items() if life.kills == _MOST_KILLS}
            self._lives = {key: life for key, life in self._lives.items() if life.kills < _MOST_KILLS}
            heard = [x.beat for x in self._lives.values() if now - x.heard < _HEARD_SECONDS]  # the others may be dead
            stuck = tuple((life.beat.node, life.beat.pid) for life in late)
            waits = tuple(beat.waits for beat in heard if beat.waits)
            return Signs(stuck, self._steps, len(heard), waits, self._loads, self._loaded)

    def close(self) -> None:
        """Nothing is held."""


class RemotePulse:
    """A pulse in an actor of its own, for worker processes that nobody but Ray hears.

    Attributes:
        actor: to which hearts beat.
    """

    def __init__(self) -> None:
        import ray

        self.actor = ray.remote(num_cpus=0, max_restarts=-1)(Pulse).remote()

    def signs(self, seconds: float, loading_seconds: float) -> Signs:
        """See `Pulse.signs`; an actor that does not answer is replaced, and hears the next beats."""
        import ray

        try:
            asked = self.actor.signs.remote(seconds, loading_seconds)
            signs: Signs = ray.get(asked, timeout=_ANSWER_SECONDS)
            return signs
        except ray.exceptions.GetTimeoutError:
            ray.kill(self.actor, no_restart=False)
            raise TimeoutError("the actor that hears the workers does not answer: it is replaced") from None

    def close(self) -> None:
        """End the actor."""
        import ray

        with suppress(HeadLost, ray.exceptions.RayError):
            within(_CLOSE_SECONDS, lambda: ray.kill(self.actor))


@dataclass
class _Pace:
    """One call of a worker process, which may have two at once: whether it waits for others, and for how many beats."""

    waits: bool = False
    ticks: int = 0


class Heart:
    """Tells the pulse from a worker process that it gets on, once a second while it works.

    Args:
        pulse: the actor of a `RemotePulse`.
        steps: counts what the process has done.
    """

    def __init__(self, pulse: Any, steps: Callable[[], int]) -> None:
        import ray

        self._pulse = pulse
        self._steps = steps
        self._is_known = False
        self._node = ray.get_runtime_context().get_node_id()

    @contextmanager
    def beating(self, *, loading: bool = False) -> Iterator[_Pace]:
        """Beat while the block runs: which loads the model, or works."""
        import ray

        key, pace = uuid.uuid4().hex, _Pace()
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
                pace.waits = False

    def _beat(self, done: threading.Event, key: str, loading: bool, pace: _Pace) -> None:
        while not done.wait(_BEAT_SECONDS):
            pace.ticks += pace.waits
            self._beat_once(key, loading, pace)

    def _beat_once(self, key: str, loading: bool, pace: _Pace) -> Any:
        waits = inflight.oldest_request()
        return self._pulse.beat.remote(key, Beat(self._node, os.getpid(), self._steps() + pace.ticks, loading, waits))
