"""Workers: run the stages part by part, with one session, and commit the masks."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from typing import Any

import numpy as np

from segment.errors import InputChanged, ModelError, SegmentError, StoreError, StoreRefused
from segment.inputs.large_files import encoded_size
from segment.inputs.parts import Part, Sample
from segment.inputs.reads import read_part
from segment.metrics import Confusion
from segment.models.sessions import MIXED, Session, open_session, own_runtime, requirement_of, runtime_version
from segment.models.weights import Weights
from segment.output.ledger import Ledger
from segment.output.manifest import part_objects
from segment.output.results import PartResult
from segment.output.tables import ImageRow, write_masks
from segment.pipeline.decoding import Decoding
from segment.pipeline.large_images import TiledImages
from segment.pipeline.memory_guard import peak_memory, release_freed_blocks
from segment.pipeline.stages import Clock, Task, decode, encode, segment
from segment.pipeline.tiling import session_extras
from segment.store.background import Background
from segment.store.names import shown
from segment.store.urls import redact_text

log = logging.getLogger("segment.pipeline.worker")

_Report = Callable[[PartResult], object]
_Read = tuple[Part, Clock, list[Sample] | PartResult]


class _Stopped(Exception):
    """The worker was told to stop."""


class Worker:
    """Runs whole parts with one session; meanwhile the next part is read and the last one written.

    Args:
        session: the loaded model; may be shared with other workers if it has a stream for each. None for a worker that
            only reads and commits.
    """

    def __init__(self, task: Task, session: Session | None, precision: str = "") -> None:
        self.task = task
        self.session = session
        self.precision = precision
        self.ledger = Ledger(task.store, task.output)
        self.labels = task.label_decoder()
        self._tiled = TiledImages(task, session, self.labels) if task.card.input.tiles and session else None
        self._stopped = threading.Event()
        self.steps_done = self._images_done = 0  # for heartbeats
        self.decoding = Decoding()

    @property
    def begun(self) -> float:
        """Images of the part in work that are segmented in tiles, of the current one its share of tiles."""
        return self._images_done + self._tiled.share if self._tiled else 0.0

    @property
    def steps(self) -> int:
        """Number of steps done and of requests to stores, failed ones included."""
        return self.steps_done + self.task.store.steps

    def process(self, parts: Iterable[Part], report: Callable[[PartResult], object]) -> None:
        """Run parts one after the other.

        At most three parts are in memory: one is read, one is segmented, one is written. Errors of stores and inputs
        are results with a `failure`; any other exception is raised. After `stop` it ends within the time of a batch,
        and abandons its part, which is not committed then.

        Args:
            report: called with each result, from any thread, as soon as the part is committed.
        """
        release_freed_blocks()  # here, because whoever loads the model holds its weights until it has returned
        with Background("read") as reader, Background("write") as writer:
            waiting = iter(parts)
            reading = reader.submit(self._fetch_next, waiting)
            writing: Future[None] | None = None
            while (current := _next_read(reading, writing)) is not None:
                reading = reader.submit(self._fetch_next, waiting)
                part, clock, read = current
                self.steps_done += 1
                ended = read if isinstance(read, PartResult) else self._compute(part, clock, read)
                if ended is None:
                    break
                if writing is not None:
                    writing.result()
                    writing = None
                if isinstance(ended, PartResult):
                    report(ended)
                else:
                    writing = writer.submit(self._commit, part, *ended, clock, report)
            if writing is not None:
                writing.result()

    def one_by_one(
        self, part: Part, positions: Sequence[int] | None
    ) -> Iterator[list[tuple[str, str, int]] | ImageRow]:
        """Yield id, URL and index of a part's images, then rows of some of them (None: of all); nothing is committed.

        Raises StoreError, InputChanged: the part cannot be read now.
        """
        samples = read_planned(part, self.task)
        yield [(sample.id, sample.url, sample.index) for sample in samples]
        for position in range(len(samples)) if positions is None else positions:
            yield from self.rows(part, [samples[position]], Clock())

    def stop(self) -> None:
        """Let `process` end soon; may be called from another thread."""
        self._stopped.set()

    def read(self, part: Part, clock: Clock) -> list[Sample] | None:
        """Fetch a part's samples; None if the part is committed already.

        Raises StoreError, InputChanged: the part cannot be read now.
        """
        with clock("read"):
            if self.task.store.exists(self.ledger.masks_url(part.shard, part.id)):
                return None
            return read_planned(part, self.task)

    def _fetch_next(self, waiting: Iterator[Part]) -> _Read | None:
        """Take the next part, which may take time, too, and read it; None if there is no more.

        A part that was skipped or cannot be read has its result in place of samples.
        """
        part = next(waiting, None)
        if part is None:
            return None
        clock = Clock()
        try:
            samples = self.read(part, clock)
        except Exception as error:
            return part, clock, failed_or_raise(part, error)
        return part, clock, skipped(part) if samples is None else samples

    def _compute(
        self, part: Part, clock: Clock, samples: Sequence[Sample]
    ) -> PartResult | tuple[list[ImageRow], int] | None:
        try:
            return self.rows(part, samples, clock), encoded_size(samples)
        except _Stopped:
            return None
        except Exception as error:
            return failed_or_raise(part, error)

    def rows(self, part: Part, samples: Sequence[Sample], clock: Clock) -> list[ImageRow]:
        """Return the rows of some images of a part; the session takes a batch of images, or of tiles, at a time."""
        assert self.session is not None
        rows: list[ImageRow] = []
        for start in range(0, len(samples), 1 if self._tiled else self.task.batch_size):
            self._step()
            if self._tiled:
                self._images_done, self._tiled.share = start, 0.0
                rows.append(self._tiled.row(part, samples[start], clock, self._step))
            else:
                rows += self._batch(part, samples[start : start + self.task.batch_size], clock, self.session)
        clock.memory, clock.precision = peak_memory(), self.precision
        return rows

    def _step(self) -> None:
        if self._stopped.is_set():
            raise _Stopped
        self.steps_done += 1

    def _batch(self, part: Part, samples: Sequence[Sample], clock: Clock, session: Session) -> list[ImageRow]:
        with clock("decode"), self.decoding.of(part, samples):
            frames = decode(samples, self.task)
        with clock("infer"):
            frames = segment(frames, session, self.task.batch_size)
        with clock("encode"), self.decoding.of(part, samples):
            return encode(frames, self.task, self.labels)

    def _commit(self, part: Part, rows: Sequence[ImageRow], read_bytes: int, clock: Clock, report: _Report) -> None:
        report(self.commit(part, rows, clock, read_bytes))

    def commit(self, part: Part, rows: Sequence[ImageRow], clock: Clock, read_bytes: int) -> PartResult:
        """Write a part's masks file, the one act that makes it done."""
        self.steps_done += 1
        try:
            with clock("write"):
                footer = {"shard": part.shard, "part": part.id, "fingerprint": self.task.fingerprint}
                if self.task.runtime.precision == MIXED:
                    footer["precision"] = clock.precision or own_runtime(self.task.runtime).precision
                data = write_masks(rows, **footer, extra=self.task.extra_columns)
                ours = self._put(self.ledger.masks_url(part.shard, part.id), data)
                objects = part_objects(part, rows, data) if ours else ()
        except Exception as error:
            return failed_or_raise(part, error)
        result = _result_of(part, rows, clock, read_bytes, len(data)) if ours else skipped(part)
        return replace(result, retries=self.task.store.take_retries(), objects=objects)

    def _put(self, url: str, data: bytes) -> bool:
        """Write a masks file; return whether the stored one is ours.

        Where every machine gives the same bytes the last writer wins. Elsewhere (GPUs, mixed precision) the first one
        does, or statistics that were written in between would be of other masks than the stored ones.
        """
        store = self.task.store
        if self.task.runtime.repeats:
            store.write(url, data)
            return True
        return store.write_if_absent(url, data) or store.read(url) == data


def failed_or_raise(part: Part, error: Exception) -> PartResult:
    """Return the result of a part that raised an error: of a store, of its input, or a bug, of ours or of a library.

    Raises SegmentError, MemoryError: an error that does not concern this part alone.
    """
    if isinstance(error, (SegmentError, MemoryError)) and not isinstance(error, (StoreError, InputChanged)):
        raise error
    if not isinstance(error, SegmentError):
        log.warning("part %s: %s", part.id, _reason(error))
    return failed(part, error)


def _next_read(reading: Future[_Read | None], writing: Future[None] | None) -> _Read | None:
    """Wait for the next part.

    An error of the commit in progress is raised at once: the next part may come late, or never.
    """
    if writing is not None:
        either: list[Future[Any]] = [reading, writing]
        wait(either, return_when=FIRST_COMPLETED)
        if writing.done():
            writing.result()
    return reading.result()


def read_planned(part: Part, task: Task) -> list[Sample]:
    """Read a part.

    Raises StoreError: the store refused, or failed too often; InputChanged: what was planned is not there any more, or
    is another object.
    """
    try:
        return read_part(part, task.settings.input_options, task.store, windowed=task.card.input.tiles is not None)
    except FileNotFoundError as error:
        raise InputChanged(f"{shown(part.url)} has vanished since the run was planned: {error.strerror}") from None


def failed(part: Part, error: Exception) -> PartResult:
    """Return the result of a part that could not be committed.

    Raises StoreRefused: the store would refuse every other part, too: the run ends.
    """
    if isinstance(error, StoreRefused):
        raise error
    return PartResult(part.id, part.shard, failure=_reason(error), input_changed=isinstance(error, InputChanged))


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, SegmentError) else redact_text(f"{type(error).__name__}: {error}")


def load_worker(task: Task, weights: Weights, *, threads: int = 1, streams: int = 1) -> Worker:
    """Load the model and return a worker.

    Args:
        threads: CPU threads of one call of the model.
        streams: number of workers that share the session.

    Raises:
        ModelError: card, weights and graph do not fit, or this machine is not what the run was resolved for.
    """
    installed = runtime_version(task.runtime.name)
    if installed != task.runtime.version:
        raise ModelError(
            f"this machine has {task.runtime.name} {installed}, the run was begun with {task.runtime.version}; their "
            f"masks would mix. Install {requirement_of(task.runtime)} on every node"
        )
    runtime, extras = own_runtime(task.runtime), session_extras(task.card, task.extras)
    session = open_session(
        task.card, weights, runtime, threads=threads, streams=streams, batch=task.batch_size, extras=extras
    )
    return Worker(task, session, runtime.precision)


def skipped(part: Part) -> PartResult:
    return PartResult(part.id, part.shard, images=len(part), skipped=True)


def _result_of(part: Part, rows: Sequence[ImageRow], clock: Clock, read_bytes: int, written_bytes: int) -> PartResult:
    confusions = [row.confusion.counts for row in rows if row.confusion is not None]
    errors = [(row.error.partition(":")[0], row.error) for row in rows if row.error]
    return PartResult(
        part.id,
        part.shard,
        images=len(rows),
        errors=dict(Counter(code for code, _ in errors)),
        error_texts=dict(reversed(errors)),
        remarks=dict(Counter(remark for row in rows for remark in row.remarks)),
        labelled=sum(row.labelled for row in rows),
        confusion=Confusion(np.sum(confusions, axis=0)) if confusions else None,
        seconds=dict(clock.seconds), read_bytes=read_bytes, written_bytes=written_bytes,
        host=socket.gethostname(), began=clock.began, ended=time.time(), memory=clock.memory, precision=clock.precision,
        tiles=clock.tiles, tiles_left=clock.tiles_left, seconds_left=clock.seconds_left,
    )  # fmt: skip
