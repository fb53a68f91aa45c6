"""The Ray cluster itself: join or start one, and watch that no worker of it is stuck."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segment import vitals
from segment.engines import available_cpus
from segment.errors import UsageError
from segment.workers import Worker

log = logging.getLogger("segment.engines.ray")

_BEAT_SECONDS = 1.0
_WATCH_SECONDS = 2.0
_FORGOTTEN = 10.0
_TELL_TIMES = 3  # afterwards the process is dead, or its node is out of reach


def connect(address: str | None, cpus: int | None = None) -> bool:
    """Join a cluster, or start one on this machine; an initialised ray is used as it is.

    Args:
        address: of the cluster; None joins the one that RAY_ADDRESS names, else starts one.
        cpus: of a cluster started here; None takes all.

    Returns:
        Whether this call connected; then it is the caller who disconnects, which ends a cluster started here.

    Raises:
        UsageError: no cluster answers, or none can be started.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # or a pool's start prints a warning that means nothing
    address = address or os.environ.get("RAY_ADDRESS") or None
    if not address:
        _private_cluster_environment()
    import ray

    if ray.is_initialized():
        return False
    quiet = {"log_to_driver": False, "configure_logging": True, "logging_level": logging.ERROR}
    try:
        with _sigterm_kept():
            if address:
                ray.init(address=address, **quiet)
            else:
                with _silent_stderr():
                    ray.init("local", num_cpus=cpus or available_cpus(), include_dashboard=False, **quiet)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise UsageError(_connect_advice(address, error)) from None
    return True


def _private_cluster_environment() -> None:
    """Protect a cluster of our own by a token of its own, kept in the environment.

    Without this, ray would write ~/.ray/auth_token, and every later `ray start` and `ray job submit` of this user
    would demand it. Ray reads the mode when it is first imported, so afterwards it is too late to choose.
    """
    if "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Put the caller's SIGTERM handler back, which ray.init replaces by a plain exit (and a dump of its C++ stack)."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if callable(handler) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Drop what C++ code prints: Ray announces the log level above, on the user's terminal."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _connect_advice(address: str | None, error: Exception) -> str:
    where = f"no Ray cluster answers at {address}" if address else "no Ray cluster could be started here"
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    advice = "Start one with `ray start --head`, check RAY_ADDRESS and RAY_AUTH_MODE, or use --engine local."
    return f"{where}: {reason}. {advice}"


@dataclass
class _Life:
    node: str
    pid: int
    beats: int
    since: float
    told: int = 0


class _Pulse:
    """An actor that knows of every working process when it last got on. Counts come from the processes themselves."""

    def __init__(self) -> None:
        self._lives: dict[str, _Life] = {}
        self._waits: dict[str, tuple[float, tuple[float, vitals.Request]]] = {}

    def beat(self, worker: str, node: str, pid: int, beats: int) -> None:
        """A process works and has done `beats` steps."""
        life = self._lives.get(worker)
        if life is None or life.beats != beats:
            self._lives[worker] = _Life(node, pid, beats, time.monotonic())

    def wait(self, worker: str, waits: tuple[float, vitals.Request] | None) -> None:
        """A process waits for a store's answer, or does not any more."""
        if waits:
            self._waits[worker] = (time.monotonic(), waits)
        else:
            self._waits.pop(worker, None)

    def rest(self, worker: str) -> None:
        """A process has nothing to do."""
        self._lives.pop(worker, None)
        self._waits.pop(worker, None)

    def vitals(self) -> tuple[int, dict[str, tuple[float, vitals.Request]]]:
        """Processes at work, and for how long which of them wait for which request."""
        heard = time.monotonic() - _FORGOTTEN  # a process that died takes nothing back
        return len(self._lives), {key: waits for key, (at, waits) in self._waits.items() if at > heard}

    def stuck(self, seconds: float) -> list[tuple[str, int]]:
        """Return (node, pid) of processes that did no step for so long; again, a few times, if they stay so."""
        late = [life for life in self._lives.values() if time.monotonic() - life.since > seconds]
        for life in late:
            life.since, life.told = time.monotonic(), life.told + 1
        self._lives = {key: life for key, life in self._lives.items() if life.told < _TELL_TIMES}
        return [(life.node, life.pid) for life in late]


def start_pulse() -> Any:
    """Start the actor that heartbeats go to."""
    import ray

    return ray.remote(num_cpus=0, max_restarts=-1)(_Pulse).remote()


class Heart:
    """Tells the pulse from a worker process, once a second while it works, that it gets on and what it waits for.

    Args:
        pulse: the actor of `start_pulse`.
        worker: whose steps count; None for one that is not watched for getting stuck.
    """

    def __init__(self, pulse: Any, worker: Worker | None = None) -> None:
        import ray

        self._pulse = pulse
        self._worker = worker
        self._told = False
        self._key = uuid.uuid4().hex
        self._node = ray.get_runtime_context().get_node_id()

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Beat while the block runs."""
        self._beat_once()  # at once: what freezes in its first second must be known too
        done = threading.Event()
        thread = threading.Thread(target=self._beat, args=(done,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self._pulse.rest.remote(self._key)

    def _beat(self, done: threading.Event) -> None:
        while not done.wait(_BEAT_SECONDS):
            self._beat_once()

    def _beat_once(self) -> None:
        oldest = vitals.oldest()
        waits = (oldest.seconds(), oldest) if oldest and oldest.seconds() > vitals.PATIENCE / 2 else None
        if self._worker is not None:
            self._pulse.beat.remote(self._key, self._node, os.getpid(), self._worker.beats)
        if waits or self._told:
            self._pulse.wait.remote(self._key, waits)
        self._told = waits is not None


class Watch:
    """Tells the driver how its workers are, and kills those that are stuck, so that Ray replaces them.

    A frozen process can neither notice nor obey, and Ray Data waits for it for ever: it is killed on its node.

    Args:
        timeout: seconds without a step after which a working process counts as stuck.
        pulse: the actor of `start_pulse`.
    """

    def __init__(self, timeout: float, pulse: Any) -> None:
        self._timeout = timeout
        self._pulse = pulse
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        import ray

        while not self._done.wait(min(_WATCH_SECONDS, self._timeout / 4)):
            try:
                vitals.report(*ray.get(self._pulse.vitals.remote(), timeout=30))
                for node, pid in ray.get(self._pulse.stuck.remote(self._timeout), timeout=30):
                    log.warning("worker process %d did nothing for %.0f s: it is replaced", pid, self._timeout)
                    _kill_on(node, pid)
            except ray.exceptions.RayError as error:
                log.warning("cannot watch the workers: %s", type(error).__name__)

    def close(self) -> None:
        """Stop watching."""
        self._done.set()
        self._thread.join()
        vitals.report(None, {})


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
