"""Workers: run the stages part by part, each with one session, and commit what comes out."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from segment.errors import InputChanged, StoreError
from segment.labels import LabelDecoder
from segment.ledger import Ledger
from segment.metrics import Confusion
from segment.sessions import Session
from segment.shards import Part, Sample, read_part
from segment.stages import Clock, Frames, PartResult, Task, decode, encode, segment
from segment.tables import ImageRow, write_masks

ReadT = TypeVar("ReadT")


class Worker:
    """Runs whole parts with one session: the next part is being fetched and the last one written meanwhile.

    Args:
        task: what to do.
        session: the loaded model; may be shared with other workers if it has a stream for each. None for a worker that
            only reads and commits.
    """

    def __init__(self, task: Task, session: Session | None) -> None:
        self.task = task
        self.session = session
        self.ledger = Ledger(task.store, task.output)
        self.labels = LabelDecoder(task.card.classes, task.label_encoding, dict(task.label_remap))
        self._stopped = threading.Event()
        self.beats = 0  # steps done, for those who watch whether it gets on

    def process(self, parts: Iterable[Part]) -> Iterator[PartResult]:
        """Run parts one after the other, yielding each one's result once it is committed.

        At most three parts are in memory: one being read, one being segmented, one being written. Store and input
        trouble is a result with `failure`; any other exception ends the iteration. After `stop` it ends within an
        image's time; the part at hand is abandoned, which harms nothing.
        """
        with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
            written: Future[PartResult] | None = None
            for part, clock, reading in _one_ahead(parts, reader, self.read):
                self.beats += 1
                ended = self._compute(part, clock, reading)
                if ended is None:
                    break
                if written is not None:
                    yield written.result()
                    written = None
                if isinstance(ended, PartResult):
                    yield ended
                else:
                    rows, read_bytes = ended
                    written = writer.submit(self.commit, part, rows, clock, read_bytes)
            if written is not None:
                yield written.result()

    def rows(self, part: Part, positions: Sequence[int]) -> Iterator[ImageRow]:
        """Yield the rows of some images of a part, one by one; nothing is committed.

        Raises:
            StoreError, InputChanged: the part cannot be read now.
        """
        samples = read_part(part, self.task.input, self.task.store)
        for position in positions:
            yield from self._rows([samples[position]], Clock())

    def stop(self) -> None:
        """Let `process` end soon; may be called from another thread."""
        self._stopped.set()

    def read(self, part: Part, clock: Clock) -> list[Sample] | None:
        """Fetch a part's samples; None if the part is committed already.

        Raises:
            StoreError, InputChanged: the part cannot be read now.
        """
        with clock("read"):
            if self.task.store.exists(self.ledger.masks_url(part.shard, part.id)):
                return None
            return read_part(part, self.task.input, self.task.store)

    def _compute(
        self, part: Part, clock: Clock, reading: Future[list[Sample] | None]
    ) -> PartResult | tuple[list[ImageRow], int] | None:
        try:
            samples = reading.result()
        except (StoreError, InputChanged) as error:
            return PartResult(part.id, part.shard, failure=str(error))
        if samples is None:
            return _skipped(part)
        rows: list[ImageRow] = []
        for start in range(0, len(samples), self.task.batch_size):
            if self._stopped.is_set():
                return None
            self.beats += 1
            rows += self._rows(samples[start : start + self.task.batch_size], clock)
        return rows, sum(len(sample.image) for sample in samples)

    def _rows(self, samples: Sequence[Sample], clock: Clock) -> list[ImageRow]:
        assert self.session is not None
        with clock("decode"):
            frames = decode(samples, self.task)
        with clock("infer"):
            frames = segment(frames, self.session, self.task.batch_size)
        with clock("encode"):
            return encode(frames, self.task, self.labels)

    def commit(self, part: Part, rows: Sequence[ImageRow], clock: Clock, read_bytes: int) -> PartResult:
        """Write a part's masks file, the one act that makes it done."""
        self.beats += 1
        try:
            with clock("write"):
                data = write_masks(rows, shard=part.shard, part=part.id, fingerprint=self.task.fingerprint)
                self.task.store.write(self.ledger.masks_url(part.shard, part.id), data)
        except StoreError as error:
            return PartResult(part.id, part.shard, failure=str(error))
        return _result_of(part, rows, clock, read_bytes, len(data))


@dataclass
class Cargo:
    """A part between two operators.

    Attributes:
        part: which.
        frames: its images; None if there is nothing to do but to report `result`.
        clock: seconds so far.
        read_bytes: encoded input.
        result: what to report if the part was skipped or failed to be read.
    """

    part: Part
    frames: Frames | None
    clock: Clock
    read_bytes: int = 0
    result: PartResult | None = None


class SplitWorker:
    """The same stages one by one, for engines that run each in a worker of its own."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.worker = Worker(task, None)

    def read(self, part: Part) -> Cargo:
        """Read and decode."""
        clock = Clock()
        try:
            read = self.worker.read(part, clock)
        except (StoreError, InputChanged) as error:
            return Cargo(part, None, clock, result=PartResult(part.id, part.shard, failure=str(error)))
        if read is None:
            return Cargo(part, None, clock, result=_skipped(part))
        with clock("decode"):
            frames = decode(read, self.task)
        return Cargo(part, frames, clock, read_bytes=sum(len(sample.image) for sample in read))

    def segment(self, cargo: Cargo, session: Session) -> Cargo:
        """Run the model."""
        self.worker.beats += 1
        if cargo.frames is not None:
            with cargo.clock("infer"):
                cargo.frames = segment(cargo.frames, session, self.task.batch_size)
        return cargo

    def write(self, cargo: Cargo) -> PartResult:
        """Score, encode and commit."""
        if cargo.frames is None:
            assert cargo.result is not None
            return cargo.result
        with cargo.clock("encode"):
            rows = encode(cargo.frames, self.task, self.worker.labels)
        return self.worker.commit(cargo.part, rows, cargo.clock, cargo.read_bytes)


def _one_ahead(
    parts: Iterable[Part], pool: ThreadPoolExecutor, read: Callable[[Part, Clock], ReadT]
) -> Iterator[tuple[Part, Clock, Future[ReadT]]]:
    """Yield each part with its started read, having started the next one's too."""
    ahead: tuple[Part, Clock, Future[ReadT]] | None = None
    for part in parts:
        clock = Clock()
        started = (part, clock, pool.submit(read, part, clock))
        if ahead is not None:
            yield ahead
        ahead = started
    if ahead is not None:
        yield ahead


def _skipped(part: Part) -> PartResult:
    return PartResult(part.id, part.shard, images=len(part), skipped=True)


def _result_of(part: Part, rows: Sequence[ImageRow], clock: Clock, read_bytes: int, written_bytes: int) -> PartResult:
    confusions = [row.confusion.counts for row in rows if row.confusion is not None]
    return PartResult(
        part.id,
        part.shard,
        images=len(rows),
        errors=dict(Counter(row.error.partition(":")[0] for row in rows if row.error)),
        confusion=Confusion(np.sum(confusions, axis=0)) if confusions else None,
        seconds=dict(clock.seconds),
        read_bytes=read_bytes,
        written_bytes=written_bytes,
        host=socket.gethostname(),
    )
