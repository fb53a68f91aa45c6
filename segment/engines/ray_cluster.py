"""The Ray cluster: join or start one, and call its head with a time limit."""

from __future__ import annotations

import functools
import importlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil

from segment.engines.ray_preflight import refuse_machine, refuse_silence, temporary_folder
from segment.engines.ray_private import PrivateCluster, set_environment
from segment.errors import SegmentError, StoreError, UsageError
from segment.pipeline.resources import available_cpus
from segment.process.temporaries import PREFIX
from segment.store.background import Background
from segment.store.urls import redact_text

log = logging.getLogger("segment.engines.ray")

_ANSWER_SECONDS = 60.0  # for a call to the head; Ray's own calls may wait for ever
_JOIN_SECONDS = 45.0  # for a head to let us join
_LOOK_SECONDS = 1.0  # between two looks at what is awaited
_START_SECONDS = 120.0  # for a cluster of our own to start: 3 s where nothing else is at work
_BESIDE = ("pandas", "openvino")  # Ray Data, half of whose import it is, and the look at this machine import them
_MOST_WORDS = 100_000  # bytes of Ray's own words that are looked at
T = TypeVar("T")

_private: PrivateCluster | None = None  # a process has one cluster at a time, as Ray does


def connect(address: str | None, cpus: int | None = None) -> bool:
    """Join a cluster, or start one on this machine; an initialised ray is used as it is.

    Args:
        address: of the cluster; None joins the one that RAY_ADDRESS names, else starts one.
        cpus: of a cluster started here; None takes all.

    Returns:
        Whether this call connected; then it is the caller who disconnects, which ends a cluster started here.

    Raises:
        UsageError: no cluster answers, or none can be started.
        SegmentError: one could be started, but not in time.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # else the start of actors prints meaningless warnings
    address = address_of(address)
    if address and address.startswith("ray://"):
        raise UsageError(
            f"{address} is Ray Client's, which cannot do this: submit the job with `ray job submit --address "
            "http://HEAD:8265 ...` (jobs/README.md), or run it on a node of the cluster with --address auto"
        )
    cpus = cpus or available_cpus()
    if not address:
        set_environment()
    import ray

    if ray.is_initialized():
        return False
    if address:
        refuse_silence(address)
    else:
        refuse_machine(cpus)
    try:
        has_stderr = sys.stderr is not None  # else descriptor 2 may be a file of another library
        _open_streams()
        with _silent_stderr(address) if has_stderr else nullcontext():
            _bounded_init(_JOIN_SECONDS, address=address) if address else _start(cpus)
    except TimeoutError:
        raise _too_slow(address) from None
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise UsageError(_connect_advice(address, error)) from None
    except Exception as error:
        if "timed out during startup" not in str(error):  # Ray raises it as a bare Exception
            raise
        raise _too_slow(address) from None
    with suppress(TypeError, ValueError):  # a handler that is not Python's; not the main thread
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))  # Ray's prints a stack before it calls ours
    return True


def _start(cpus: int) -> None:
    global _private
    cluster = PrivateCluster()
    how = {"address": "local", "num_cpus": cpus, "_temp_dir": str(cluster.folder)}
    try:
        with cluster.without_dashboard() as without:
            _bounded_init(_START_SECONDS, _BESIDE, **how, **without)
    except BaseException:
        cluster.close()
        raise
    cluster.started()
    _private = cluster


def _bounded_init(seconds: float, modules: Sequence[str] = (), **how: Any) -> None:
    """Call `ray.init` in a thread, with a time limit, and import modules beside it.

    The thread stays alive, because the kernel ends the processes of a local cluster together with the thread that
    started them. In a thread other than the main one Ray leaves the SIGTERM handler of the caller alone.

    Raises TimeoutError: it took longer, or is in vain: Ray waits on for a raylet that has died.
    """
    import ray

    how |= {"log_to_driver": False, "configure_logging": True, "logging_level": logging.ERROR}
    logging.getLogger("ray").setLevel(logging.ERROR)  # else it reports that it leaves the SIGTERM handler alone
    deadline, before = time.monotonic() + seconds, _raylets().keys()
    connecting = _connector().submit(ray.init, **how)
    try:
        for name in modules:
            with suppress(Exception):  # who needs it, says so
                importlib.import_module(name)
        while not connecting.done() and time.monotonic() < deadline:
            if any(has_ended for process, has_ended in _raylets().items() if process not in before):
                break
            wait([connecting], _LOOK_SECONDS)
        connecting.result(0)
    finally:
        if not connecting.done():
            _connector.cache_clear()  # that thread may never come back


def _raylets() -> dict[int, bool]:
    """Return the raylets of this process, by id, and whether each has ended.

    One ends itself if its agents take 15 s to start. Where the system tells nothing there are none, and only the time
    limit ends the wait.
    """
    found = {}
    with suppress(psutil.Error):
        for child in psutil.Process().children():
            with suppress(psutil.Error):
                if child.name() == "raylet":
                    found[child.pid] = child.status() == psutil.STATUS_ZOMBIE
    return found


@functools.cache
def _connector() -> Background:
    """Return the thread that connects, the same for all clusters that this process joins or starts."""
    return Background("ray")


def _too_slow(address: str | None) -> SegmentError:
    if address:
        return UsageError(
            f"no Ray cluster answers at {address}: something accepts connections there, but did not let us join within "
            f"{_JOIN_SECONDS:.0f} s. Check --address and RAY_ADDRESS (HOST:PORT of a head's control service, GCS, 6379 "
            "by default, not the dashboard's 8265), and on the head `ray status`"
        )
    return SegmentError(
        "Ray did not start in time: this machine has too much to do. Run the same command again when it is quiet, "
        "or use --engine local"
    )


def address_of(address: str | None) -> str | None:
    """Return the address of the cluster to join: the given one, else RAY_ADDRESS; None to start one here."""
    found = address or os.environ.get("RAY_ADDRESS") or None
    return None if found == "local" else found


def _open_streams() -> None:
    """Give a program without standard streams (a daemon) some that lead nowhere: Ray writes to them."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - stays open


@contextmanager
def _silent_stderr(address: str | None) -> Iterator[None]:
    """Discard what C++ code prints: Ray announces its log level. Why it cannot join a cluster, it says there, too."""
    terminal = os.dup(2)
    held = os.memfd_create("stderr") if address else os.open(os.devnull, os.O_RDWR)  # which Ray's processes inherit
    os.dup2(held, 2)
    try:
        yield
    except BaseException:
        os.write(terminal, b"".join(os.pread(held, _MOST_WORDS, 0).splitlines(keepends=True)[-1:]))  # all are alike
        raise
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(held)


def _connect_advice(address: str | None, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if address:
        advice = "Start one with `ray start --head`, check RAY_ADDRESS and RAY_AUTH_MODE, or use --engine local."
        return f"no Ray cluster answers at {address}: {reason}. {advice}"
    logs = temporary_folder() / f"{PREFIX}*" / "session_latest" / "logs"
    return (
        f"no Ray cluster could be started here: {reason}. Ray's own words are in {logs}; --engine local needs no Ray."
    )


class HeadLost(StoreError):
    """The head of the cluster is gone, or does not answer."""

    @classmethod
    def after(cls, seconds: float) -> HeadLost:
        """Return the error for a head that has not answered for so long."""
        return cls(
            f"the head of the Ray cluster (its control service, GCS) has not answered for {seconds:.0f} s: its node is "
            "lost, or overloaded. Start the cluster again, then the same command resumes the run; what is committed "
            "stays."
        )


def last_line(error: BaseException) -> str:
    """Return the last line of an error of Ray, which is a traceback mostly, without secrets."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return redact_text(lines[-1]) if lines else type(error).__name__


def within(call: Callable[[], T], seconds: float = _ANSWER_SECONDS) -> T:
    """Return the result of a call to the cluster.

    Raises HeadLost: it did not return in time; its thread is left behind.
    """
    with Background("ask") as asker:
        asking = asker.submit(call)
        try:
            return asking.result(seconds)
        except TimeoutError:
            if asking.done():
                raise
            raise HeadLost.after(seconds) from None


def only_on(node_id: str) -> Any:
    """Return the scheduling strategy of what runs on one node."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def leave() -> None:
    """Disconnect, which ends a cluster that was started here; do not wait for a head that is gone."""
    global _private
    import ray

    with suppress(HeadLost):
        within(ray.shutdown)
    cluster, _private = _private, None
    if cluster:
        cluster.close()
