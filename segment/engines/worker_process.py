"""The parent's side of a worker process: start it, exchange messages with it over a socket, end it.

A worker process is a fresh interpreter. It shares no state and no lock with another process. It imports this package
and never the caller's `__main__`: scripts need no main guard, and notebooks and daemonic processes (the workers of
`multiprocessing.Pool`) can start one. Its task, with the credentials, goes over the socket and not on its command line.
"""

import errno
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.spawn import get_executable
from typing import Any, Literal

from segment.errors import StoreError
from segment.models.weights import Weights
from segment.pipeline.memory_guard import OVER_BUDGET
from segment.pipeline.stages import Task
from segment.store import inflight
from segment.store.background import Background

PROCESS_MEMORY = 150 << 20  # bytes of a worker process before it loads a model (measured)
GRACE_SECONDS = 5.0  # for a process to end by itself before it is killed
NEXT: Literal["next"] = "next"  # message of a worker process: it asks for work
_CODE = (
    "import sys; from multiprocessing.connection import Connection; parent = Connection(int(sys.argv[1])); "
    "sys.path[:] = parent.recv(); from segment.engines.worker_main import main; main(parent)"
)


@dataclass(frozen=True)
class Setup:
    """Configuration of a worker process.

    Attributes:
        threads: CPU threads of one call of the model.
        streams: number of workers in the process, each a thread; they share one loaded model.
        share: the fraction of the node's memory that it may use when memory is short, 0-1; see `guard_process`.
        by_image: the process gets single images of parts instead of whole parts.
    """

    task: Task
    weights: Weights
    threads: int = 1
    streams: int = 1
    share: float | None = None
    by_image: bool = False


@dataclass(frozen=True)
class Heartbeat:
    """Message sent once a second.

    Attributes:
        waits: the oldest unanswered request to a store.
        begun: see `Worker.begun`; of all workers of the process.
        decoding: part and index of the image that is decoded now; None if there is none, or several.
    """

    steps: int
    waits: inflight.RequestAge | None
    begun: Mapping[str, float] = field(default_factory=dict)
    decoding: tuple[str, int] | None = None


@dataclass(frozen=True)
class ProcessExit:
    """How a worker process ended.

    Attributes:
        message: for the user.
        is_over_budget: it ended itself because it used too much memory.
        stuck_at: part and index of an image that it decoded without an end, as far as its heartbeats tell.
    """

    message: str
    is_over_budget: bool = False
    stuck_at: tuple[str, int] | None = None


class WorkerProcess:
    """A worker process; it imports its modules at once, and loads the model when `load` is called.

    Only `exit` and `close` wait for the process, for some seconds at most.

    Args:
        runtime: `onnxruntime`, `openvino` or `litert`, the runtime to import.

    Raises:
        OSError: the process could not be started.
        StoreError: the program does not say where the Python interpreter is.
    """

    def __init__(self, runtime: str) -> None:
        self._sender = _background("send")  # a thread, because a frozen process does not read its socket
        self._socket, theirs = socket.socketpair()
        for end in (self._socket, theirs):
            end.setblocking(True)  # whatever the program's default is
        try:
            self._process = _start(theirs.fileno())
        except BaseException:
            self._socket.close()
            self._sender.close()
            raise
        finally:
            theirs.close()
        self._deadline = math.inf
        self._connection = Connection(os.dup(self._socket.fileno()))
        self._reader: threading.Thread | None = None
        self.send(sys.path)
        self.send(runtime)

    def load(self, setup: bytes, on_message: Callable[[Any], object]) -> None:
        """Let the process load the model and ask for work.

        Args:
            on_message: called from a thread with each message of the process; None, the last one, means it has ended.
        """
        self._sender.submit(self._connection.send_bytes, setup)
        self._reader = threading.Thread(target=self._read, args=(on_message,), name="read", daemon=True)
        self._reader.start()

    def send(self, message: object) -> None:
        """Send a message; it is lost if the process ends first."""
        self._sender.submit(self._connection.send, message)

    def _read(self, on_message: Callable[[Any], object]) -> None:
        try:
            while True:
                on_message(self._connection.recv())
        except (EOFError, OSError):
            pass
        finally:
            on_message(None)

    def kill(self) -> None:
        """Kill the process, a frozen one too. One blocked in the kernel ends when its system call returns."""
        self._process.kill()

    def exit(self, seconds: float = GRACE_SECONDS) -> ProcessExit:
        """Return how the process ended, once it has sent its last message."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        code = self._process.returncode
        if code == OVER_BUDGET:
            return ProcessExit("a worker process took more memory than --worker-memory, or its node, allows", True)
        return ProcessExit(f"a worker process ended with exit code {code}")

    def disconnect(self, *, at_once: bool = False) -> None:
        """Close the connection: the process abandons its work and ends by itself, or is killed at once."""
        if at_once:
            self.kill()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._deadline = min(self._deadline, time.monotonic() + GRACE_SECONDS)

    def close(self, *, at_once: bool = False) -> None:
        """End the process; kill it if it takes longer than `GRACE_SECONDS`."""
        self.disconnect(at_once=at_once)
        self.exit(max(0.0, self._deadline - time.monotonic()))
        if self._process.returncode is None:
            self.kill()
            self.exit()
        self._sender.close()
        if self._reader:
            self._reader.join()
        self._connection.close()
        self._socket.close()


def _background(name: str) -> Background:
    try:
        return Background(name)
    except RuntimeError as error:  # of Python, where the system allows no further thread
        raise OSError(errno.EAGAIN, str(error)) from None


def _start(file: int) -> subprocess.Popen[bytes]:
    """Start a process that ignores Ctrl-C and a closed terminal: the parent gets these signals, too, and ends it."""
    if not (python := get_executable()):
        raise StoreError(
            "worker processes cannot be started: this program does not say where the Python interpreter is. Name it "
            "with multiprocessing.set_executable"
        )
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        return subprocess.Popen(
            [os.fsdecode(python), "-P", "-c", _CODE, str(file)],
            stdin=subprocess.DEVNULL,
            pass_fds=[file],
            # A worker multiplies no matrices, and numpy's BLAS would start a thread for each CPU on import.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
