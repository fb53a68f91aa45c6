"""A pool of plain Ray actors, each a model on a CPU: fed with parts as it tells of others, and replaced when it dies.

Two remote calls a second and worker are all that Ray has to do. (Ray Data's driver loop and helper actors took a share
of a small machine's cores, and its blocks made a worker wait between two of them.)
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from segment.engines.dispatch import Dispatch
from segment.engines.ray_cluster import last_line
from segment.engines.ray_heartbeats import Pulse
from segment.engines.ray_worker import Told
from segment.inputs.discover import Part
from segment.output.results import PartResult

log = logging.getLogger("segment.engines.ray")

_TELL_SECONDS = 0.5  # between two messages of a worker,
_MOST_MESSAGES = 200  # of all workers in a second, each of which takes a millisecond of the driver,
_SELDOM_SECONDS = 3.0  # and yet soon enough for those who count who is at work
_LOOK_SECONDS = 1.0
_DEATHS_IN_A_ROW = 3  # times as many as workers, without a result between them: the next round takes more care
_RESPITE_SECONDS = 10.0  # the longest, before another worker is started where the last ones died of loading


def tell_seconds(workers: int, stall_timeout: float | None) -> float:
    """How often a worker tells of itself."""
    seconds = min(max(_TELL_SECONDS, workers / _MOST_MESSAGES), _SELDOM_SECONDS)
    return min(seconds, stall_timeout / 4) if stall_timeout else seconds


@dataclass(eq=False)
class _Member:
    """A worker of the pool, as its driver knows it.

    Attributes:
        actor: the worker.
        key: its name in the pulse and the dispatch.
        stream: what its call of `work` yields; None while there is none.
        held: parts that it was fed and has not told of.
        feeding: the last call that fed it, until it is known to have arrived.
        results: how many it told of last.
        is_ready: it has loaded the model.
        is_fed: it was told that no more parts come in this call.
    """

    actor: Any
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    stream: Any = None
    held: dict[str, Part] = field(default_factory=dict)
    feeding: Any = None
    results: int = 0
    is_ready: bool = False
    is_fed: bool = False


class Pool:
    """Runs the parts of one round.

    Args:
        start: starts a worker, an actor of `segment.engines.ray_worker.PoolWorker`.
        size: workers at once; those that the cluster has no room for yet are waited for while others work.
        dispatch: the parts.
        pulse: is told of every sign of life.
    """

    def __init__(self, start: Callable[[], Any], size: int, dispatch: Dispatch, pulse: Pulse) -> None:
        self._start = start
        self._size = size
        self._dispatch = dispatch
        self._pulse = pulse
        self._members: list[_Member] = []
        self._most_ready = 0  # workers at once, so far
        self._deaths = 0  # in a row
        self._loading_deaths = 0  # in a row
        self._respite_until = 0.0

    def results(self) -> Iterator[PartResult]:
        """Yield the results of all parts but those that workers died of, as they are told.

        Raises:
            SegmentError: what a worker told, and no other will fare better.
            RayError: workers cannot be started.
        """
        try:
            while self._is_at_work():
                self._staff()
                speaking = self._speaking()
                self._pulse.listened()
                for member in speaking:
                    yield from self._listen(member)
                for member in [member for member in self._members if member.key in self._pulse.given_up]:
                    self._bury(member, "it cannot be killed")
        finally:
            self._dismiss()

    def _is_at_work(self) -> bool:
        if self._most_ready and self._deaths > _DEATHS_IN_A_ROW * self._most_ready:
            log.warning("%d workers died in a row: what is left waits for the next round", self._deaths)
            return False
        return self._dispatch.left > 0 or any(member.held for member in self._members)

    def _staff(self) -> None:
        """Let there be enough workers, and each be at work, while there are parts for them."""
        if not self._dispatch.left:
            return
        if time.monotonic() > self._respite_until:
            self._members += [_Member(self._start()) for _ in range(self._size - len(self._members))]
        for member in self._members:
            if member.stream is None:
                member.stream = member.actor.work.options(num_returns="streaming").remote()
                member.is_fed = False

    def _speaking(self) -> list[_Member]:
        """Wait until a worker tells something, and return all that do."""
        import ray

        listening = {member.stream: member for member in self._members if member.stream is not None}
        streams = list(listening)
        if not streams:
            time.sleep(_LOOK_SECONDS)
            return []
        if not ray.wait(streams, timeout=_LOOK_SECONDS, fetch_local=False)[0]:
            return []
        ready, _ = ray.wait(streams, num_returns=len(streams), timeout=0, fetch_local=False)
        return [listening[stream] for stream in ready]

    def _listen(self, member: _Member) -> Iterator[PartResult]:
        import ray

        try:
            told: Told = ray.get(next(member.stream))
            _check_fed(member)
        except StopIteration:
            self._pulse.rest(member.key)
            member.stream = None
            if member.held:
                self._bury(member, "its call ended before its parts")
            return
        except (ray.exceptions.RuntimeEnvSetupError, ray.exceptions.ActorUnschedulableError):
            raise  # no other worker will fare better
        except ray.exceptions.RayError as error:
            self._bury(member, f"{type(error).__name__}: {last_line(error)}")
            return
        self._pulse.beat(member.key, told.beat)
        self._welcome(member, told)
        for result in told.results:
            member.held.pop(result.part, None)
            self._deaths = 0
            yield result
        if told.error is not None:
            raise told.error
        if member.is_ready and not member.is_fed:
            self._feed(member, len(told.results))

    def _welcome(self, member: _Member, told: Told) -> None:
        if member.is_ready or told.beat.loading:
            return
        member.is_ready, self._loading_deaths = True, 0
        self._most_ready = max(self._most_ready, self._ready())

    def _ready(self) -> int:
        return sum(member.is_ready for member in self._members)

    def _feed(self, member: _Member, results: int) -> None:
        member.results = results or member.results
        room = self._dispatch.room(len(member.held), member.results, self._ready())
        parts = self._dispatch.take(member.key, room)
        member.held.update((part.id, part) for part in parts)
        member.is_fed = not self._dispatch.left
        if parts or member.is_fed:
            _send(member, parts)

    def _bury(self, member: _Member, reason: str) -> None:
        """A worker has died, or cannot be used: end it, and take back what it held."""
        self._members.remove(member)
        self._pulse.lose(member.key)
        self._deaths += 1
        if not member.is_ready:
            self._loading_deaths += 1
            self._respite_until = time.monotonic() + min(_RESPITE_SECONDS, 2.0**self._loading_deaths / 2)
        log.warning("a worker died %s (%s)", _state(member), reason)
        self._dispatch.give_back(member.key, member.held.values())
        _kill(member)

    def _dismiss(self) -> None:
        """Let the workers end, and the next round have their CPUs: Ray waits for a call that is under way."""
        for member in self._members:
            if member.held or not member.is_ready:
                _kill(member)
            elif not member.is_fed:
                member.is_fed = True
                _send(member, [])
        self._members.clear()


def _send(member: _Member, parts: list[Part]) -> None:
    member.feeding = member.actor.feed.options(concurrency_group="feed").remote(parts, member.is_fed)


def _check_fed(member: _Member) -> None:
    """Raise the RayError of a call that fed the worker in vain."""
    import ray

    if member.feeding is not None and ray.wait([member.feeding], timeout=0)[0]:
        ray.get(member.feeding)
        member.feeding = None


def _kill(member: _Member) -> None:
    import ray

    if ray.is_initialized():  # or `kill` would start a cluster
        with suppress(ray.exceptions.RayError):
            ray.kill(member.actor)


def _state(member: _Member) -> str:
    if not member.is_ready:
        return "while it loaded the model"
    if not member.held:
        return "with no part in its hands"
    first, *others = sorted(member.held)
    return f"with part {first}{f' and {len(others)} more' if others else ''} in its hands"
