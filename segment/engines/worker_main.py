"""The main function of a worker process (`WorkerProcess`): load the model, ask for parts, send their results."""

from __future__ import annotations

import importlib
import logging
import logging.handlers
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from segment.engines.worker_process import GRACE_SECONDS, NEXT, Heartbeat, Setup
from segment.errors import SegmentError, StoreError
from segment.pipeline.memory_guard import OVER_BUDGET, guard_process, release_freed_blocks
from segment.pipeline.part_results import failed_or_raise
from segment.pipeline.worker import Worker, load_worker
from segment.process.hidden_modules import hide_pandas
from segment.store import inflight
from segment.store.retries import retry_log_filter
from segment.store.urls import redact_text

_HEARTBEAT_SECONDS = 1.0


def main(connection: Connection) -> None:
    """Work until there is no more work, or the parent is gone.

    The process ends by `os._exit`: threads of libraries have been seen to abort the interpreter's regular shutdown.
    """
    hide_pandas()
    parent, code = ParentConnection(connection), 0
    try:
        parent.forward_logs()
        importlib.import_module(f"segment.models.sessions.{connection.recv()}")
        workers, run = _load(connection.recv())
        release_freed_blocks()  # here, because the weights are held until `_load` has returned
        threading.Thread(target=parent.send_heartbeats, args=(workers,), daemon=True).start()
        pool = ThreadPoolExecutor(len(workers))
        for done in as_completed([pool.submit(run, worker, parent) for worker in workers]):
            done.result()
    except SegmentError as error:
        parent.try_send(error)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent has all it wants, or is gone
    except MemoryError:
        code = OVER_BUDGET
    except Exception as error:  # a bug: no image is to be blamed for it, as one is if the process dies
        parent.try_send(StoreError(redact_text(f"a worker process failed: {type(error).__name__}: {error}")))
    os._exit(code)


def _load(setup: Setup) -> tuple[list[Worker], Any]:
    """Load the model. The weights are freed with the setup; the runtime has its own copy."""
    task, streams = setup.task, setup.streams
    budget = task.settings.worker_bytes
    guard_process(budget and budget * streams, setup.share)
    first = load_worker(task, setup.weights, threads=setup.threads, streams=streams)
    workers = [first, *(Worker(task, first.session, first.precision) for _ in range(streams - 1))]
    return workers, _by_image if setup.by_image else _by_part


def _by_part(worker: Worker, parent: ParentConnection) -> None:
    worker.process(parent.work(), parent.send)


def _by_image(worker: Worker, parent: ParentConnection) -> None:
    for part, positions in parent.work():
        for answer in _answers(worker, part, positions):
            parent.send(answer)


def _answers(worker: Worker, part: Any, positions: Any) -> Iterator[object]:
    try:
        yield from worker.one_by_one(part, positions)
    except Exception as error:
        yield failed_or_raise(part, error)


class ParentConnection:
    """The connection to the parent, shared by the threads of the process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._asking = threading.Lock()

    def send(self, message: object) -> None:
        with self._sending:
            self._connection.send(message)

    def try_send(self, message: object) -> None:
        """Send a message if the parent is there."""
        with suppress(OSError):
            self.send(message)

    def work(self) -> Iterator[Any]:
        """Ask for work and yield it, until there is none."""
        while True:
            with self._asking:
                self.send(NEXT)
                given = self._connection.recv()
            if given is None:
                return
            yield given

    def forward_logs(self) -> None:
        """Send log records to the parent, which writes them."""
        logger = logging.getLogger("segment")
        logger.propagate = False
        logger.addHandler(_Logs(self))
        retry_log_filter.disable()

    def send_heartbeats(self, workers: list[Worker]) -> None:
        """Send heartbeats until the parent is gone; then end the process."""
        with suppress(OSError):
            while True:
                steps = sum(worker.steps_done for worker in workers) + workers[0].task.store.steps
                begun = inflight.merged(worker.begun for worker in workers)
                decoding = workers[0].decoding.at if len(workers) == 1 else None
                self.send(Heartbeat(steps, inflight.oldest_request(), begun, decoding))
                time.sleep(_HEARTBEAT_SECONDS)
        for worker in workers:
            worker.stop()
        time.sleep(GRACE_SECONDS)
        os._exit(1)


class _Logs(logging.handlers.QueueHandler):
    """Sends log records, as text, to the parent."""

    def __init__(self, parent: ParentConnection) -> None:
        super().__init__(None)  # type: ignore[arg-type]  # only `enqueue` uses the queue
        self._parent = parent

    def enqueue(self, record: logging.LogRecord) -> None:
        """Send a record if the parent is there."""
        self._parent.try_send(record)
