"""A pool of plain Ray actors, each a model on a CPU: fed with parts as it tells of others, and replaced when it dies.

Two remote calls a second and worker are all that Ray has to do. (Ray Data's driver loop and helper actors took 3 % of
a machine of two cores, and its blocks made a worker wait between two of them.)
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from segment.engines.dispatch import Dispatch
from segment.engines.ray_pulse import Pulse
from segment.engines.ray_worker import Told
from segment.shards import Part
from segment.stages import PartResult

log = logging.getLogger("segment.engines.ray")

_TELL_SECONDS = 0.5  # between two messages of a worker
_MOST_MESSAGES = 200  # a second, of all workers: the driver takes a millisecond for each
_LOOK_SECONDS = 1.0
_DEATHS_IN_A_ROW = 3  # times as many as workers, without a result between them: the next round takes more care


def tell_seconds(workers: int) -> float:
    """How often a worker tells of itself."""
    return max(_TELL_SECONDS, workers / _MOST_MESSAGES)


@dataclass(eq=False)
class _Member:
    """A worker of the pool, as its driver knows it.

    Attributes:
        actor: the worker.
        stream: what its call of `work` yields; None while there is none.
        held: parts that it was fed and has not told of.
        told: results in what it told last.
        is_ready: it has loaded the model.
        is_fed: it was told that no more parts come in this call.
    """

    actor: Any
    stream: Any = None
    held: dict[str, Part] = field(default_factory=dict)
    told: int = 0
    is_ready: bool = False
    is_fed: bool = False
    key: str = field(default_factory=lambda: uuid.uuid4().hex)


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
        self._deaths = 0  # in a row

    def results(self) -> Iterator[PartResult]:
        """Yield the results of all parts but those that workers died of, as they are told.

        Raises:
            SegmentError: what a worker told, and no other will fare better.
            RayError: workers cannot be started.
        """
        import ray

        try:
            while self._is_at_work():
                self._staff()
                for member in self._speaking():
                    yield from self._listen(member)
        except BaseException:
            for member in self._members:
                ray.kill(member.actor)
            raise

    def _is_at_work(self) -> bool:
        if self._deaths > _DEATHS_IN_A_ROW * self._size:
            log.warning("%d workers died in a row: what is left waits for the next round", self._deaths)
            return False
        return self._dispatch.left > 0 or any(member.held for member in self._members)

    def _staff(self) -> None:
        """Let there be enough workers, and each be at work, while there are parts for them."""
        if not self._dispatch.left:
            return
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
        if ray.wait(streams, timeout=_LOOK_SECONDS, fetch_local=False)[0]:
            ready, _ = ray.wait(streams, num_returns=len(streams), timeout=0, fetch_local=False)
            return [listening[stream] for stream in ready]
        return []

    def _listen(self, member: _Member) -> Iterator[PartResult]:
        import ray

        try:
            told: Told = ray.get(next(member.stream))
        except StopIteration:
            self._pulse.rest(member.key)
            self._take_back(member)
            member.stream = None
            return
        except (ray.exceptions.RuntimeEnvSetupError, ray.exceptions.ActorUnschedulableError):
            raise  # no other worker will fare better
        except ray.exceptions.RayError as error:
            self._bury(member, error)
            return
        self._pulse.beat(member.key, told.beat)
        member.is_ready = not told.beat.loading
        for result in told.results:
            member.held.pop(result.part, None)
            self._deaths = 0
            yield result
        if told.error is not None:
            raise told.error
        if told.results:
            member.told = len(told.results)
        if member.is_ready and not member.is_fed:
            self._feed(member)

    def _feed(self, member: _Member) -> None:
        parts = self._dispatch.take(member.key, self._dispatch.room(len(member.held), member.told))
        member.held.update((part.id, part) for part in parts)
        member.is_fed = not self._dispatch.left
        if parts or member.is_fed:
            member.actor.feed.options(concurrency_group="feed").remote(parts, member.is_fed)

    def _bury(self, member: _Member, error: Exception) -> None:
        """A worker has died, or Python code of its has failed: end it, and take back what it held."""
        import ray

        self._members.remove(member)
        self._pulse.lose(member.key)
        self._deaths += member.is_ready
        log.warning("a worker died (%s): %s", type(error).__name__, _state(member))
        self._take_back(member)
        ray.kill(member.actor)

    def _take_back(self, member: _Member) -> None:
        self._dispatch.give_back(member.key, member.held.values())
        member.held.clear()


def _state(member: _Member) -> str:
    if not member.is_ready:
        return "it had not loaded the model yet"
    return f"parts that it held are done again: {', '.join(sorted(member.held))}" if member.held else "it held no part"
