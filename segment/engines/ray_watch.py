"""Watching a Ray run from its driver: workers that get on, a head that answers, and an end to every wait."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

from segment.engines.ray_cluster import HeadLost
from segment.engines.ray_heartbeats import RemotePulse, Signs
from segment.errors import SegmentError, StoreError
from segment.pipeline.stall import Patience
from segment.store import inflight
from segment.store.names import count

log = logging.getLogger("segment.engines.ray")

_WATCH_SECONDS = 2.0
_HEAD_SECONDS = 40.0  # without an answer of the head; after 60 s Ray ends this process without a word
_LOADS = 5  # so many times as many loads as workers begun, and none ended: the model kills whoever loads it
_SILENCE_SECONDS = 20 * 60.0  # without any sign of life of any worker; an autoscaler's first node takes some minutes


class Watch:
    """Watches over one round from the driver, so that it never waits in vain.

    Processes that are stuck are killed on their nodes, and replaced by the pool or by Ray Data: a frozen one can
    neither notice nor obey, and would be waited for for ever. What no replacement helps against is `trouble`.

    Args:
        patience: how long a step may take.
        pulse: knows how the workers get on.
        workers: models loaded at once.
        loading: seconds that one may take for it.
    """

    def __init__(self, patience: Patience, pulse: RemotePulse, workers: int, loading: float) -> None:
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
        while not self._done.wait(min(_WATCH_SECONDS, self._patience.seconds / 4)):
            try:
                self._look_at_workers()
            except TimeoutError as error:
                log.warning("%s", error)
            except Exception as error:  # of Ray, mostly; whatever it is, the watch goes on
                log.warning("cannot watch the workers: %s", type(error).__name__)

    def _look_at_workers(self) -> None:
        seconds = self._patience.seconds
        signs = self._pulse.signs(seconds, self._loading)
        if signs.steps != self._signs.steps:
            self._life_at = time.monotonic()
        if replaced := signs.replaced - self._signs.replaced:
            log.warning("%s died: another one runs what was held again", count(replaced, "worker"))
        self._signs = signs
        inflight.record_workers(signs.working, signs.waits)
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
            return HeadLost.after(now - self._head_at)
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
        self._done.set()
        inflight.record_workers(None, ())
        self._pulse.close()


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
