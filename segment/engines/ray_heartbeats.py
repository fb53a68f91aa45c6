"""Signs of life of Ray's worker processes: who sends them, and who keeps them."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from segment.engines.ray_cluster import HeadLost, within
from segment.store import inflight

_BEAT_SECONDS = 1.0
_HEARD_SECONDS = 10.0  # since its last beat a process counts as there
_REPLY_SECONDS = 10.0  # for the actor that hears the workers, to a worker that asks
_MOST_BEGINS = 2  # of a piece of work that may have killed a process before
_MOST_KILLS = 3  # afterwards the process is dead, or its node is out of reach
_ANSWER_SECONDS = 40.0  # for the same actor, to the driver
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
        replaces: it is the successor of a process that died.
    """

    node: str
    pid: int
    steps: int
    loading: bool
    waits: inflight.RequestAge | None = None
    replaces: bool = False


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
        replaced: processes with a model that died and have a successor.
    """

    stuck: tuple[tuple[str, int], ...]
    steps: int
    working: int
    waits: tuple[inflight.RequestAge, ...]
    loads: int
    loaded: int
    replaced: int = 0


class Pulse:
    """Knows of every working process when it last got on, and how often each part was begun."""

    def __init__(self) -> None:
        self._lives: dict[str, _Life] = {}
        self._begun: Counter[str] = Counter()
        self._steps = self._loads = self._loaded = self._replaced = 0

    def beat(self, worker: str, beat: Beat) -> None:
        """A process works."""
        now = time.monotonic()
        life = self._lives.get(worker)
        if beat.loading and life is None:
            self._loads += 1
            self._replaced += beat.replaces
        if life is None or life.beat.steps != beat.steps:
            life = self._lives[worker] = _Life(beat, now, now)
            self._steps += not beat.loading
        life.beat, life.heard = beat, now

    def rest(self, worker: str) -> None:
        """A process has nothing to do."""
        life = self._lives.pop(worker, None)
        self._loaded += life is not None and life.beat.loading

    def begin(self, work: str) -> int:
        """Count how often this piece of work was begun, now included."""
        self._begun[work] += 1
        return self._begun[work]

    def signs(self, seconds: float, loading_seconds: float) -> Signs:
        """Tell what is known; a process that is stuck again, a few times, if it stays so."""
        now = time.monotonic()
        lives = self._lives.values()
        late = [x for x in lives if now - x.since > (loading_seconds if x.beat.loading else seconds)]
        for life in late:
            life.since, life.kills = now, life.kills + 1
        self._lives = {key: life for key, life in self._lives.items() if life.kills < _MOST_KILLS}
        heard = [x.beat for x in self._lives.values() if now - x.heard < _HEARD_SECONDS]  # the others may be dead
        stuck = tuple({(life.beat.node, life.beat.pid) for life in late})
        waits = tuple(beat.waits for beat in heard if beat.waits)
        working = len({(beat.node, beat.pid) for beat in heard})
        return Signs(stuck, self._steps, working, waits, self._loads, self._loaded, self._replaced)


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


class Heart:
    """Tells the pulse from a worker process that it gets on, once a second while it works.

    Args:
        pulse: the actor of a `RemotePulse`.
        steps: counts what the process has done.

    Attributes:
        replaces: whether this process is the successor of one that died.
    """

    def __init__(self, pulse: Any, steps: Callable[[], int] = lambda: 0) -> None:
        import ray

        context = ray.get_runtime_context()
        self.steps = steps
        self.replaces = context.get_actor_id() is not None and context.was_current_actor_reconstructed
        self._pulse = pulse
        self._key = uuid.uuid4().hex
        self._node = context.get_node_id()
        self._is_known = self._is_loading = False
        self._calls = self._waits = self._ticks = 0  # calls at once, those that wait for others, beats while all did
        self._lock = threading.Lock()
        self._done = threading.Event()

    @contextmanager
    def beating(self, *, loading: bool = False) -> Iterator[None]:
        """Beat while the block runs: which loads the model, or works. There may be several at once."""
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

    def through(self, values: Iterator[T]) -> Iterator[T]:
        """Beat while the next value is being made; between two it is for Ray to fetch the last one."""
        with self.beating():
            for value in values:
                with self._waiting():
                    yield value

    def may_begin(self, work: str) -> bool:
        """Count that a piece of work is begun; whether it was not begun too often.

        Ray Data runs what killed its process again without end. What may not begin is left for the next round.
        """
        begun = self._answer(self._pulse.begin.remote(work))
        return begun is None or begun <= _MOST_BEGINS

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        with self._lock:
            self._waits += 1
        try:
            yield
        finally:
            with self._lock:
                self._waits -= 1

    def _start(self) -> None:
        first = self._beat_once()  # at once: what freezes in its first second must be known too
        if not self._is_known:  # work goes on only when this process has found the pulse
            self._answer(first)
            self._is_known = True
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(self._done,), daemon=True)
        self._thread.start()

    def _stop(self) -> None:
        self._done.set()
        self._thread.join()
        self._pulse.rest.remote(self._key)

    def _beat(self, done: threading.Event) -> None:
        while not done.wait(_BEAT_SECONDS):
            self._ticks += self._waits == self._calls
            self._beat_once()

    def _beat_once(self) -> Any:
        steps, waits = self.steps() + self._ticks, inflight.oldest_request()
        beat = Beat(self._node, os.getpid(), steps, self._is_loading, waits, self.replaces)
        return self._pulse.beat.remote(self._key, beat)

    def _answer(self, asked: Any) -> Any:
        """What the pulse answers; None if it does not, and is being replaced perhaps."""
        import ray

        try:
            return ray.get(asked, timeout=_REPLY_SECONDS)
        except ray.exceptions.RayError:
            return None
