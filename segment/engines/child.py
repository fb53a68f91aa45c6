"""Worker processes of the local engine: what dies there takes nothing else along, and no lock is shared."""

from __future__ import annotations

import logging
import logging.handlers
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from segment.errors import SegmentError, StoreError
from segment.inputs.discover import Part
from segment.models.weights import Weights
from segment.output.results import PartResult
from segment.output.tables import ImageRow
from segment.pipeline.memory_guard import OVER_BUDGET, guard_process
from segment.pipeline.stages import Task
from segment.pipeline.stall import loading_seconds
from segment.pipeline.worker import Worker, load_worker, read_planned
from segment.store import inflight
from segment.store.retries import retry_log_filter
from segment.store.urls import redact_text

CHILD_MEMORY = 175 << 20  # bytes of a child before it loads a model (measured)
_NEXT = "next"  # what a child says that wants a part
_GRACE = 5.0  # seconds for a child to end by itself
_BEAT_SECONDS = 1.0
_LOOK_SECONDS = 0.2  # how often whoever waits for a child looks whether it is to stop


class ChildDied(Exception):
    """A child process ended, or was killed, while it worked."""


class ChildOverBudget(ChildDied):
    """A child process ended because it took too much memory."""


@dataclass(frozen=True)
class _Beat:
    """A sign of life: steps done so far, and the request to a store that has waited longest, with its seconds."""

    steps: int
    waits: inflight.RequestAge | None


class Child:
    """A process of its own with the model loaded.

    Args:
        task, weights: what it needs to know.
        patience: tells how many seconds it may take for a step.
        stopped: set, by any thread, to let whoever waits for the child, or for it to load, give up soon.

    Raises (every method):
        SegmentError: what the child raised.
        ChildDied: the process ended without a word, did nothing for too long and was killed, or is to stop.
    """

    def __init__(
        self, task: Task, weights: Weights, patience: Callable[[], float], stopped: threading.Event | None = None
    ) -> None:
        if multiprocessing.current_process().daemon:
            raise StoreError(
                "this process is a daemon, such as a worker of multiprocessing.Pool, and may start none of its own, as "
                "parts that killed their worker need it: run the same job from another one"
            )
        context = multiprocessing.get_context("spawn")  # a fork would copy a process full of threads
        self._patience = patience
        self._steps = -1
        self._stopped = stopped or threading.Event()
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._giver = threading.Thread(target=self._give, args=((task, weights),), daemon=True)
        try:
            with _main_hidden(), _interrupts_blocked():
                self._process.start()
        except OSError as error:
            self._connection.close()
            raise ChildDied(f"a worker process could not be started ({error.strerror})") from None
        finally:
            theirs.close()
        try:
            self._giver.start()
            # ready: a death before this has nothing to do with any image
            self._receive(max(patience(), loading_seconds(task.runtime.device)))
        except BaseException:
            self.close()
            raise

    def process(self, parts: Iterable[Part]) -> Iterator[PartResult]:
        """Run parts as `Worker.process` does, taking each when the child asks for it. To be consumed whole."""
        waiting = iter(parts)
        self._send(("process", None, ()))
        while (message := self._receive()) is not None:
            if message == _NEXT:
                self._send(next(waiting, None))
            else:
                yield message

    def identify(self, part: Part) -> list[tuple[str, str, int]]:
        """Read a part and return id, URL and index of its images."""
        self._send(("identify", part, ()))
        found: list[tuple[str, str, int]] = self._receive()
        return found

    def rows(self, part: Part, positions: Sequence[int]) -> Iterator[ImageRow]:
        """Yield the rows of these positions of a part one by one, as they are made; nothing is committed."""
        self._send(("rows", part, tuple(positions)))
        for _ in positions:
            yield self._receive()

    def _give(self, message: object) -> None:
        """Send what is large, from a thread: a child that freezes before it has read it is `_receive`'s to notice."""
        with suppress(OSError):
            self._connection.send(message)

    def _send(self, message: object) -> None:
        try:
            self._connection.send(message)
        except OSError:
            raise self._death() from None

    def _receive(self, seconds: float | None = None) -> Any:
        """Return what the child answers; every sign of life gives it that much time again."""
        until = time.monotonic() + (seconds or self._patience())
        while True:
            if self._stopped.is_set():
                raise ChildDied("a worker process was told to stop")
            if time.monotonic() > until:
                self._process.kill()
                raise ChildDied(f"a worker process did nothing for {seconds or self._patience():.0f} s and was killed")
            try:
                if not self._connection.poll(_LOOK_SECONDS):
                    continue
                message: Any = self._connection.recv()
            except (EOFError, OSError):
                raise self._death() from None
            if isinstance(message, SegmentError):
                raise message
            if isinstance(message, logging.LogRecord):
                _log_here(message)
            elif isinstance(message, _Beat):
                inflight.record_worker(self, message.waits)
                if message.steps != self._steps:
                    self._steps, until = message.steps, time.monotonic() + (seconds or self._patience())
            else:
                return message

    def _death(self) -> ChildDied:
        self._process.join(_GRACE)
        code = self._process.exitcode
        if code == OVER_BUDGET:
            return ChildOverBudget("a worker process took more memory than --worker-memory, or its node, allows")
        return ChildDied(f"a worker process ended with exit code {code}")

    def close(self) -> None:
        """End the process: it abandons what it is at, which harms nothing."""
        inflight.record_worker(self, None)
        if self._giver.is_alive():
            self._process.kill()
            self._giver.join()
        self._connection.close()
        self._process.join(_GRACE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(connection: Connection) -> None:
    """What a child does: load the model, say so, then answer until the parent is gone."""
    line = _Line(connection)
    try:
        task, weights = connection.recv()
        line.take_logs()
        guard_process(task.settings.worker_bytes)
        worker = load_worker(task, weights)
        del weights  # the runtime has its own copy
        line.send("ready")
        threading.Thread(target=line.beat, args=(worker,), daemon=True).start()
        while True:
            verb, part, positions = connection.recv()
            if verb == "process":
                worker.process(line.parts(), line.send)
                line.send(None)
            elif verb == "identify":
                line.send([(sample.id, sample.url, sample.index) for sample in read_planned(part, task)])
            else:
                for row in worker.rows(part, positions):
                    line.send(row)
    except SegmentError as error:
        line.end(error)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent has what it wants, or is gone
    except MemoryError:
        os._exit(OVER_BUDGET)
    except Exception as error:  # no death, and no image's fault: the parent is told what it was
        line.end(StoreError(redact_text(f"a worker process failed: {type(error).__name__}: {error}")))


class _Line:
    """The child's end of the connection, which two threads speak on: answers, and signs of life."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, message: object) -> None:
        with self._lock:
            self._connection.send(message)

    def end(self, error: SegmentError) -> None:
        """Say the last word, if anybody still listens."""
        with suppress(OSError):
            self.send(error)

    def parts(self) -> Iterator[Part]:
        """Ask for parts, one by one, until there is none."""
        while True:
            self.send(_NEXT)
            part = self._connection.recv()
            if part is None:
                return
            yield part

    def take_logs(self) -> None:
        """Let the parent write what is logged here."""
        logger = logging.getLogger("segment")
        logger.propagate = False
        logger.addHandler(_Logs(self))
        retry_log_filter.disable()

    def beat(self, worker: Worker) -> None:
        """Say once a second how far the worker is. Once nobody listens, let it end."""
        try:
            while True:
                self.send(_Beat(worker.steps, inflight.oldest_request()))
                time.sleep(_BEAT_SECONDS)
        except OSError:
            worker.stop()


class _Logs(logging.handlers.QueueHandler):
    """Sends log records, as text, to the parent."""

    def __init__(self, line: _Line) -> None:
        super().__init__(None)  # type: ignore[arg-type]  # `enqueue` is all that uses a queue
        self._line = line

    def enqueue(self, record: logging.LogRecord) -> None:
        """Send it; where nobody listens, nobody reads it."""
        with suppress(OSError):
            self._line.send(record)


def _log_here(record: logging.LogRecord) -> None:
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Start a child that Ctrl-C and a closed terminal do not reach: all get the signal, and the parent ends it."""
    resource_tracker.ensure_running()  # which a spawn begins with, and which would let signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_hiding = threading.Lock()


@contextmanager
def _main_hidden() -> Iterator[None]:
    """Keep a spawned child from running the user's script again, which it would where that has no main guard."""
    names = vars(sys.modules["__main__"])
    with _hiding:
        # a notebook has no file
        before: dict[str, Any] = {name: names[name] for name in ("__spec__", "__file__") if name in names}
        names.update(dict.fromkeys(before))
        try:
            yield
        finally:
            names.update(before)
