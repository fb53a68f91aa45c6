"""What runs in a worker process (`segment.engines.child`): load the model, ask for work, tell what becomes of it."""

from __future__ import annotations

import importlib
import importlib.abc
import logging
import logging.handlers
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from segment.engines.child import GRACE_SECONDS, NEXT, Heartbeat, Setup
from segment.errors import SegmentError, StoreError
from segment.pipeline.memory_guard import OVER_BUDGET, guard_process
from segment.pipeline.worker import Worker, failed_or_raise, load_worker
from segment.store import inflight
from segment.store.retries import retry_log_filter
from segment.store.urls import redact_text

_BEAT_SECONDS = 1.0


class _WithoutPandas(importlib.abc.MetaPathFinder):
    """pyarrow imports pandas, where that is installed, with the first list it converts: half a second for nothing."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("a worker process does without pandas", name=name)


def serve(connection: Connection) -> None:
    """Work until there is none, or the parent is gone.

    The process ends without the interpreter's own end, which threads of the libraries behind it have been seen to
    abort.
    """
    sys.meta_path.insert(0, _WithoutPandas())
    line, code = _Line(connection), 0
    try:
        line.take_logs()
        importlib.import_module(f"segment.models.sessions.{connection.recv()}")
        workers, run = _load(connection.recv())
        threading.Thread(target=line.beat, args=(workers,), daemon=True).start()
        pool = ThreadPoolExecutor(len(workers))
        for done in as_completed([pool.submit(run, worker, line) for worker in workers]):
            done.result()
    except SegmentError as error:
        line.try_send(error)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent has what it wants, or is gone
    except MemoryError:
        code = OVER_BUDGET
    except Exception as error:  # no death, and no image's fault: the parent is told what it was
        line.try_send(StoreError(redact_text(f"a worker process failed: {type(error).__name__}: {error}")))
    os._exit(code)


def _load(setup: Setup) -> tuple[list[Worker], Any]:
    """Load the model. The weights are gone with the setup: the runtime has its own copy."""
    task, streams = setup.task, setup.streams
    budget = task.settings.worker_bytes
    guard_process(budget and budget * streams, setup.share)
    first = load_worker(task, setup.weights, threads=setup.threads, streams=streams)
    workers = [first, *(Worker(task, first.session) for _ in range(streams - 1))]
    return workers, _by_image if setup.by_image else _by_part


def _by_part(worker: Worker, line: _Line) -> None:
    worker.process(line.work(), line.send)


def _by_image(worker: Worker, line: _Line) -> None:
    for part, positions in line.work():
        for answer in _answers(worker, part, positions):
            line.send(answer)


def _answers(worker: Worker, part: Any, positions: Any) -> Iterator[object]:
    try:
        yield from worker.one_by_one(part, positions)
    except Exception as error:
        yield failed_or_raise(part, error)


class _Line:
    """The process's end of the connection, which its threads share."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._asking = threading.Lock()

    def send(self, message: object) -> None:
        with self._sending:
            self._connection.send(message)

    def try_send(self, message: object) -> None:
        """Send it if somebody listens."""
        with suppress(OSError):
            self.send(message)

    def work(self) -> Iterator[Any]:
        """Ask for work, one piece after the other, until there is none."""
        while True:
            with self._asking:
                self.send(NEXT)
                given = self._connection.recv()
            if given is None:
                return
            yield given

    def take_logs(self) -> None:
        """Let the parent write what is logged here."""
        logger = logging.getLogger("segment")
        logger.propagate = False
        logger.addHandler(_Logs(self))
        retry_log_filter.disable()

    def beat(self, workers: list[Worker]) -> None:
        """Send heartbeats; stop when the parent is gone, and with it the process."""
        with suppress(OSError):
            while True:
                steps = sum(worker.beats for worker in workers) + workers[0].task.store.calls
                self.send(Heartbeat(steps, inflight.oldest_request()))
                time.sleep(_BEAT_SECONDS)
        for worker in workers:
            worker.stop()
        time.sleep(GRACE_SECONDS)
        os._exit(1)


class _Logs(logging.handlers.QueueHandler):
    """Sends log records, as text, to the parent."""

    def __init__(self, line: _Line) -> None:
        super().__init__(None)  # type: ignore[arg-type]  # `enqueue` is all that uses a queue
        self._line = line

    def enqueue(self, record: logging.LogRecord) -> None:
        """Send it; where nobody listens, nobody reads it."""
        self._line.try_send(record)
