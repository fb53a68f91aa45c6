"""The driver's watchdog of a Ray run: replaces stuck workers, notices a lost head, and ends vain waits."""

import logging
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

from segment.engines.ray_cluster import HeadLost, only_on
from segment.engines.ray_heartbeats import MonitorActor, WorkerHealth
from segment.errors import SegmentError, StoreError
from segment.pipeline.stall import StallTimeout
from segment.store import inflight
from segment.store.names import count

log = logging.getLogger("segment.engines.ray")

_WATCH_SECONDS = 2.0
_HEAD_SECONDS = 40.0  # without an answer of the head; after 60 s Ray exits this process without a message
_LOADS = 5  # loads begun for each worker without one that succeeded: loading the model kills the process
_LONGEST_PAUSE = 5.0  # seconds between two calls of `trouble` that count
_SILENCE_SECONDS = 20 * 60.0  # without progress of any worker; an autoscaler takes minutes for its first node


class Watchdog:
    """Supervises one round from the driver.

    It kills stuck processes on their nodes, and Ray Data replaces them. Ray itself would wait for a frozen process for
    ever. What a replacement does not mend is returned by `trouble`.
    """

    def __init__(self, stall_timeout: StallTimeout, monitor: MonitorActor, workers: int) -> None:
        self._stall_timeout = stall_timeout
        self._monitor = monitor
        self._workers = workers
        self._asked_at = time.monotonic()
        self._head_silence = self._worker_silence = 0.0
        self._health = WorkerHealth((), 0, 0, False, (), 0, 0)
        self._done = threading.Event()
        for task in (self._watch_workers, self._watch_head):
            threading.Thread(target=task, name="watchdog", daemon=True).start()

    def _watch_workers(self) -> None:
        while not self._done.wait(min(_WATCH_SECONDS, self._stall_timeout.seconds / 4)):
            try:
                self._check_workers()
            except TimeoutError as error:
                log.warning("%s", error)
            except Exception as error:  # mostly Ray's; whatever it is, the watchdog goes on
                if not self._done.is_set():
                    log.warning("cannot watch the workers: %s", type(error).__name__)

    def _check_workers(self) -> None:
        health = self._monitor.health(self._stall_timeout.seconds, self._stall_timeout.loading_seconds)
        if self._done.is_set():
            return
        if health.steps != self._health.steps or health.busy:  # a busy one that gets stuck is replaced
            self._worker_silence = 0.0
        if (replaced := health.replaced - self._health.replaced) > 0:  # less after a restart of the monitor
            log.warning("%s died: another one runs its parts again", count(replaced, "worker"))
        self._health = health
        inflight.record_workers(health.working, health.waits, health.begun)
        self._stall_timeout.has_loaded |= health.loaded > 0
        for node, pid, seconds, is_loading in health.stuck:
            if is_loading:  # others only read, or write
                self._stall_timeout.give_up_load((node, pid))
            log.warning("worker process %d did nothing for %.0f s: it is replaced", pid, seconds)
            _kill_on(node, pid)

    def _watch_head(self) -> None:
        import ray

        while not self._done.wait(5.0):
            with suppress(Exception):  # whatever it is: no answer
                ray.nodes()
                self._head_silence = 0.0

    def trouble(self) -> SegmentError | None:
        """Return the error that ends the round, if there is one; to be called about once a second.

        Time in which this process stood still itself is not counted.
        """
        now, health = time.monotonic(), self._health
        passed, self._asked_at = min(now - self._asked_at, _LONGEST_PAUSE), now
        self._head_silence += passed
        self._worker_silence += passed
        if self._head_silence > _HEAD_SECONDS:
            return HeadLost.after(self._head_silence)
        if not health.loaded and health.loads > _LOADS * self._workers:
            return StoreError(
                f"{health.loads} workers began to load the model and none was done: they die of it, for want of memory "
                "perhaps. The logs of the Ray cluster say more; the same command resumes the run."
            )
        if error := self._stall_timeout.load_error:
            return error
        if self._worker_silence > _SILENCE_SECONDS:
            minutes = _SILENCE_SECONDS / 60
            return StoreError(
                f"no worker of the Ray cluster has done anything for {minutes:.0f} minutes: `ray status` on its head "
                "says what it waits for. The same command resumes the run."
            )
        return None

    def close(self) -> None:
        """Stop watching, and end the monitor."""
        self._done.set()
        inflight.record_workers(None, ())
        self._monitor.close()


def _kill_on(node: str, pid: int) -> None:
    import ray

    kill = ray.remote(num_cpus=0, max_retries=0)(_kill_worker)
    kill.options(scheduling_strategy=only_on(node)).remote(pid)


def _kill_worker(pid: int) -> None:
    """Kill a process, if the id is still that of a process of Ray."""
    try:
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::"):
            os.kill(pid, signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError):
        pass
