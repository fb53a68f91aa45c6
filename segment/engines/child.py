"""A worker process seen from outside: a fresh interpreter that is given work over a socket, heard, and ended.

It shares nothing with anybody, no lock either. It imports this package and never the caller's `__main__`: a script
needs no main guard, and notebooks and daemonic processes (workers of `multiprocessing.Pool`) may start one, too. What
it is to know, credentials among it, goes over the socket: nothing is on its command line.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.spawn import get_executable
from typing import Any, Literal

from segment.errors import StoreError
from segment.models.weights import Weights
from segment.pipeline.memory_guard import OVER_BUDGET
from segment.pipeline.stages import Task
from segment.store import inflight
from segment.store.background import Background

CHILD_MEMORY = 150 << 20  # bytes of a worker process before it loads a model (measured)
GRACE_SECONDS = 5.0  # for a process to end by itself
NEXT: Literal["next"] = "next"  # a worker process asks for work
_CODE = (
    "import sys; from multiprocessing.connection import Connection; line = Connection(int(sys.argv[1])); "
    "sys.path[:] = line.recv(); from segment.engines.child_main import serve; serve(line)"
)


@dataclass(frozen=True)
class Setup:
    """What a worker process is to be.

    Attributes:
        task, weights: what it needs to know.
        threads: CPU threads of one call of the model.
        streams: workers in it, each a thread, that share one loaded model.
        share: of the node's memory that it may take while that is short, 0-1.
        by_image: whether it is given single images of parts, in place of parts.
    """

    task: Task
    weights: Weights
    threads: int = 1
    streams: int = 1
    share: float = 1.0
    by_image: bool = False


@dataclass(frozen=True)
class Heartbeat:
    """Sent once a second: steps done so far, and the request to a store that has waited longest, with its seconds."""

    steps: int
    waits: inflight.RequestAge | None


@dataclass(frozen=True)
class Death:
    """How a worker process ended.

    Attributes:
        words: what to tell of it.
        is_over_budget: it ended itself because it took too much memory.
    """

    words: str
    is_over_budget: bool = False


class Child:
    """A worker process, which imports what it needs until it is told what to be.

    Only `death` and `close` wait for it, some seconds at most.

    Args:
        runtime: `onnxruntime` or `openvino`: what it will run the model with.

    Raises:
        OSError: the process could not be started.
    """

    def __init__(self, runtime: str) -> None:
        self._socket, theirs = socket.socketpair()
        for end in (self._socket, theirs):
            end.setblocking(True)  # whatever the program's default is
        try:
            self._process = _start(theirs.fileno())
        except BaseException:
            self._socket.close()
            raise
        finally:
            theirs.close()
        self._deadline = math.inf
        self._connection = Connection(os.dup(self._socket.fileno()))
        self._sender = Background("send")  # waits while a frozen process does not read
        self._reader: threading.Thread | None = None
        self.send(sys.path)
        self.send(runtime)

    def begin(self, setup: bytes, tell: Callable[[Any], object]) -> None:
        """Let the process load the model and ask for work.

        Args:
            setup: a pickled `Setup`.
            tell: is called, from a thread, with each message of the process; the last one is None: it has ended.
        """
        self._sender.submit(self._connection.send_bytes, setup)
        self._reader = threading.Thread(target=self._read, args=(tell,), name="read", daemon=True)
        self._reader.start()

    def send(self, message: object) -> None:
        """Send a message; it is lost if the process ends before it reads it."""
        self._sender.submit(self._connection.send, message)

    def _read(self, tell: Callable[[Any], object]) -> None:
        try:
            while True:
                tell(self._connection.recv())
        except (EOFError, OSError):
            pass
        finally:
            tell(None)

    def kill(self) -> None:
        """End the process at once, a frozen one too. One that waits in the kernel ends when it gets out of there."""
        self._process.kill()

    def death(self, seconds: float = GRACE_SECONDS) -> Death:
        """How the process ended, once it has sent its last message."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        code = self._process.returncode
        if code == OVER_BUDGET:
            return Death("a worker process took more memory than --worker-memory, or its node, allows", True)
        return Death(f"a worker process ended with exit code {code}")

    def leave(self, *, at_once: bool = False) -> None:
        """Let the process end by itself, or at once: it notices that nobody listens, and abandons what it is at."""
        if at_once:
            self.kill()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._deadline = min(self._deadline, time.monotonic() + GRACE_SECONDS)

    def close(self, *, at_once: bool = False) -> None:
        """End the process, by force if it takes too long."""
        self.leave(at_once=at_once)
        self.death(max(0.0, self._deadline - time.monotonic()))
        if self._process.returncode is None:
            self.kill()
            self.death()
        self._sender.close()
        if self._reader:
            self._reader.join()
        self._connection.close()
        self._socket.close()


def _start(file: int) -> subprocess.Popen[bytes]:
    """Start a process that Ctrl-C and a closed terminal do not reach: all get the signal, and the parent ends it."""
    if not (python := get_executable()):
        raise StoreError(
            "worker processes cannot be started: this program does not say where the Python interpreter is. Name it "
            "with multiprocessing.set_executable"
        )
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        return subprocess.Popen(
            [os.fsdecode(python), "-P", "-c", _CODE, str(file)], stdin=subprocess.DEVNULL, pass_fds=[file]
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
