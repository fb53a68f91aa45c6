"""Child processes for parts that killed their worker: what dies there takes nothing else along.

`Child` runs whole parts; `quarantine` runs one part image by image until the killer is an error row.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import closing
from multiprocessing.connection import Connection
from typing import Any

from segment.errors import InputChanged, SegmentError, StoreError, sample_error_text
from segment.sessions import open_session
from segment.shards import Part
from segment.stages import Clock, PartResult, Task
from segment.tables import ImageRow
from segment.weights import Weights
from segment.workers import Worker

_TRIES = 2  # times an image may kill its process before it is the culprit: the first may have been bad luck
_GRACE = 5.0  # seconds for a child to end by itself


class Child:
    """A process of its own with the model loaded.

    Args:
        task, weights: what it needs to know.

    Raises (every method):
        SegmentError: what the child raised; the child has ended.
        ChildDied: the process ended without a word.
    """

    def __init__(self, task: Task, weights: Weights) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy a process full of threads
        self._patience = task.stall_timeout
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, task, weights), daemon=True)
        self._process.start()
        theirs.close()

    def run(self, part: Part) -> PartResult:
        """Run a part to its commit."""
        self._connection.send((part, None))
        result: PartResult = self._receive(self._patience * (1 + len(part)))
        return result

    def rows(self, part: Part, positions: Sequence[int]) -> Iterator[ImageRow]:
        """Yield the rows of these positions of a part one by one, as they are made; nothing is committed."""
        self._connection.send((part, list(positions)))
        for _ in positions:
            yield self._receive(2 * self._patience)

    def _receive(self, seconds: float) -> Any:
        try:
            if not self._connection.poll(seconds):
                self._process.kill()
                raise ChildDied(f"a worker process did nothing for {seconds:.0f} s and was killed")
            message = self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(_GRACE)
            raise ChildDied(f"a worker process ended with exit code {self._process.exitcode}") from None
        if isinstance(message, SegmentError):
            raise message
        return message

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(_GRACE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


class ChildDied(Exception):
    """A child process ended while it worked."""


def quarantine(part: Part, task: Task, weights: Weights) -> PartResult:
    """Run a part image by image in child processes; an image that kills two of them becomes an error row."""
    worker = Worker(task, None)
    rows: dict[int, ImageRow] = {}
    deaths: dict[int, int] = {}
    clock = Clock()
    try:
        samples = worker.read(part, clock)
        if samples is None:
            return PartResult(part.id, part.shard, images=len(part), skipped=True)
        while len(rows) < len(samples):
            missing = [position for position in range(len(samples)) if position not in rows]
            culprit = _until_death(part, missing, rows, task, weights)
            if culprit is None:
                continue
            deaths[culprit] = deaths.get(culprit, 0) + 1
            if deaths[culprit] == _TRIES:
                sample = samples[culprit]
                text = sample_error_text("killed_worker")
                rows[culprit] = ImageRow(sample.id, sample.url, sample.index, None, text, None, None, None, None)
    except (StoreError, InputChanged) as error:
        return PartResult(part.id, part.shard, failure=str(error))
    read_bytes = sum(len(sample.image) for sample in samples)
    return worker.commit(part, [rows[position] for position in range(len(samples))], clock, read_bytes)


def _until_death(
    part: Part, positions: Sequence[int], rows: dict[int, ImageRow], task: Task, weights: Weights
) -> int | None:
    """Fill `rows` until the child dies; return the position that it died at, None if it did all."""
    done = 0
    with closing(Child(task, weights)) as child:
        try:
            for position, row in zip(positions, child.rows(part, positions), strict=True):
                rows[position] = row
                done += 1
        except ChildDied:
            return positions[done]
    return None


def _serve(connection: Connection, task: Task, weights: Weights) -> None:
    try:
        worker = Worker(task, open_session(task.card, weights, task.runtime, threads=1, streams=1))
        while True:
            part, positions = connection.recv()
            if positions is None:
                connection.send(next(worker.process([part])))
            else:
                for row in worker.rows(part, positions):
                    connection.send(row)
    except SegmentError as error:
        connection.send(error)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent has what it wants, or is gone
