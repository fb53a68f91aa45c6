"""Child processes for parts that killed their worker: what dies there takes nothing else along.

`Child` runs whole parts; `quarantine` runs one part image by image until the killer is an error row.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from segment.errors import InputChanged, SegmentError, StoreError, sample_error_text
from segment.memory import OVER_BUDGET, guard_process
from segment.patience import UNKNOWN, loading_seconds
from segment.shards import Part
from segment.stages import Clock, PartResult, Task
from segment.tables import ImageRow
from segment.urls import redact_text, without_query
from segment.weights import Weights
from segment.workers import Worker, failed, load_worker, read_planned

_BEAT = "beat"  # what a child says while it gets on
_TRIES = 2  # times an image may kill its process before it is the culprit: the first may have been bad luck
_GRACE = 5.0  # seconds for a child to end by itself
_BEAT_SECONDS = 1.0


class ChildDied(Exception):
    """A child process ended, or was killed, while it worked."""


class ChildOverBudget(ChildDied):
    """A child process ended because it took too much memory."""


class Child:
    """A process of its own with the model loaded.

    Args:
        task, weights: what it needs to know.

    Raises (every method):
        SegmentError: what the child raised.
        ChildDied: the process ended without a word, or did nothing for too long and was killed.
    """

    def __init__(self, task: Task, weights: Weights) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy a process full of threads
        self._patience = task.stall_timeout or UNKNOWN
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, task, weights), daemon=True)
        with _main_hidden():
            self._process.start()
        theirs.close()
        try:
            # ready: a death before this has nothing to do with any image
            self._receive(max(self._patience, loading_seconds(task.runtime.device)))
        except BaseException:
            self.close()
            raise

    def run(self, part: Part) -> PartResult:
        """Run a part to its commit."""
        self._send(("run", part, ()))
        result: PartResult = self._receive(self._patience)
        return result

    def identify(self, part: Part) -> list[tuple[str, str, int]]:
        """Read a part and return id, URL and index of its images."""
        self._send(("identify", part, ()))
        found: list[tuple[str, str, int]] = self._receive(self._patience)
        return found

    def rows(self, part: Part, positions: Sequence[int]) -> Iterator[ImageRow]:
        """Yield the rows of these positions of a part one by one, as they are made; nothing is committed."""
        self._send(("rows", part, tuple(positions)))
        for _ in positions:
            yield self._receive(self._patience)

    def _send(self, message: object) -> None:
        try:
            self._connection.send(message)
        except OSError:
            raise self._death() from None

    def _receive(self, seconds: float) -> Any:
        try:
            message: Any = _BEAT
            while message == _BEAT:
                if not self._connection.poll(seconds):
                    self._process.kill()
                    raise ChildDied(f"a worker process did nothing for {seconds:.0f} s and was killed")
                message = self._connection.recv()
        except (EOFError, OSError):
            raise self._death() from None
        if isinstance(message, SegmentError):
            raise message
        return message

    def _death(self) -> ChildDied:
        self._process.join(_GRACE)
        code = self._process.exitcode
        if code == OVER_BUDGET:
            return ChildOverBudget("a worker process took more memory than --worker-memory, or its node, allows")
        return ChildDied(f"a worker process ended with exit code {code}")

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(_GRACE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def quarantine(part: Part, task: Task, weights: Weights) -> PartResult:
    """Run a part image by image in child processes; an image that kills two of them becomes an error row.

    A part that kills two of them by being read alone becomes error rows altogether. A child that cannot load the
    model is a failure of the part: no image is blamed for it.
    """
    worker = Worker(task, None)
    try:
        images, unreadable = _identify(part, task, weights)
        rows = {position: _culprit(*image, unreadable) for position, image in enumerate(images)} if unreadable else {}
        deaths: dict[int, int] = {}
        while len(rows) < len(images):
            missing = [position for position in range(len(images)) if position not in rows]
            died = _until_death(part, missing, rows, task, weights)
            if died is not None:
                culprit, death = died
                deaths[culprit] = deaths.get(culprit, 0) + 1
                if deaths[culprit] == _TRIES:
                    rows[culprit] = _culprit(*images[culprit], death)
    except (StoreError, InputChanged) as error:
        return failed(part, error)
    except ChildDied as death:  # before it was ready
        return failed(part, StoreError(f"{death} while it loaded the model"))
    return worker.commit(part, [rows[position] for position in range(len(images))], Clock(), 0)


def _identify(part: Part, task: Task, weights: Weights) -> tuple[list[tuple[str, str, int]], ChildDied | None]:
    """Return id, URL and index of the images of a part, and what reading the part dies of, if it does."""
    last: ChildDied | None = None
    for _ in range(_TRIES):
        with closing(Child(task, weights)) as child:
            try:
                return child.identify(part), None
            except ChildDied as death:
                last = death
    ids = [member.id for member in part.members] or [f"row-{index:08d}" for index in range(part.start, part.stop)]
    urls = [without_query(member.image.url) for member in part.members if member.image.url]  # of loose files only
    urls = urls or [f"{without_query(part.url)}#{name}" for name in ids]
    return [(name, url, part.start + i) for i, (name, url) in enumerate(zip(ids, urls, strict=True))], last


def _culprit(name: str, url: str, index: int, death: ChildDied) -> ImageRow:
    code = "out_of_memory" if isinstance(death, ChildOverBudget) else "killed_worker"
    return ImageRow(name, url, index, None, sample_error_text(code), None, None, None, None)


def _until_death(
    part: Part, positions: Sequence[int], rows: dict[int, ImageRow], task: Task, weights: Weights
) -> tuple[int, ChildDied] | None:
    """Fill `rows` until the child dies; return the position that it died at and how, None if it did all."""
    done = 0
    with closing(Child(task, weights)) as child:
        try:
            for position, row in zip(positions, child.rows(part, positions), strict=True):
                rows[position] = row
                done += 1
        except ChildDied as death:
            return positions[done], death
    return None


def _serve(connection: Connection, task: Task, weights: Weights) -> None:
    """What a child does: load the model, say so, then answer until the parent is gone."""
    line = _Line(connection)
    guard_process(task.worker_memory)
    try:
        worker = load_worker(task, weights)
        line.send("ready")
        threading.Thread(target=line.beat, args=(lambda: worker.beats + task.store.calls,), daemon=True).start()
        while True:
            verb, part, positions = connection.recv()
            if verb == "run":
                line.send(next(worker.process([part])))
            elif verb == "identify":
                line.send([(sample.id, sample.url, sample.index) for sample in read_planned(part, task)])
            else:
                for row in worker.rows(part, positions):
                    line.send(row)
    except SegmentError as error:
        line.send(error)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent has what it wants, or is gone
    except MemoryError:
        os._exit(OVER_BUDGET)
    except Exception as error:  # no death, and no image's fault: the parent is told what it was
        line.send(StoreError(redact_text(f"a worker process failed: {type(error).__name__}: {error}")))


class _Line:
    """The child's end of the connection, which two threads speak on: answers, and signs of life."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, message: object) -> None:
        with self._lock:
            self._connection.send(message)

    def beat(self, steps: Callable[[], int]) -> None:
        """Say once a second that the worker gets on, if it does."""
        said = steps()
        with suppress(OSError):  # the parent is gone
            while True:
                time.sleep(_BEAT_SECONDS)
                if (now := steps()) != said:
                    self.send(_BEAT)
                    said = now


_hiding = threading.Lock()


@contextmanager
def _main_hidden() -> Iterator[None]:
    """Keep a spawned child from running the user's script again, which it would where that has no main guard."""
    main = sys.modules["__main__"]
    with _hiding:
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        main.__spec__, main.__file__ = None, None
        try:
            yield
        finally:
            main.__spec__, main.__file__ = spec, file
