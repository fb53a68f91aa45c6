"""Workers: run the stages part by part, with one session, and commit the masks."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from functools import partial
from typing import Any

from segment.errors import InputChanged, ModelError
from segment.inputs.large_files import encoded_size
from segment.inputs.parts import Part, Sample
from segment.inputs.reads import read_part
from segment.models.sessions import MIXED, Session, open_session, own_runtime, requirement_of, runtime_version
from segment.models.weights import Weights
from segment.output.ledger import Ledger
from segment.output.manifest import part_objects
from segment.output.results import PartResult
from segment.output.tables import ImageRow, write_masks
from segment.pipeline.decoding import Decoding
from segment.pipeline.large_images import TiledImages
from segment.pipeline.memory_guard import peak_memory
from segment.pipeline.part_results import committed, failed_or_raise, skipped
from segment.pipeline.stages import Clock, Task, decode, encode, segment
from segment.pipeline.tiling import session_extras
from segment.store.background import Background
from segment.store.names import shown

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
        self.steps_done = 0  # for heartbeats, as `_begun`
        self._begun: dict[str, float] = {}
        self.decoding = Decoding()

    @property
    def begun(self) -> dict[str, float]:
        """How many images of each part in work are segmented, by its id; of one in tiles its share of tiles."""
        return dict(self._begun)

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
                    self._end(ended, report)
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
            self.ended(part.id)

    def ended(self, part: str) -> None:
        """Forget how many images of a part are segmented: its result is known, or another process commits it."""
        self._begun.pop(part, None)

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
        try:
            for start in range(0, len(samples), 1 if self._tiled else self.task.batch_size):
                self._step(part, start)
                if self._tiled:
                    step = partial(self._tile_step, self._tiled, part, start)
                    rows.append(self._tiled.row(part, samples[start], clock, step))
                else:
                    rows += self._batch(part, samples[start : start + self.task.batch_size], clock, self.session)
        except BaseException:  # heartbeats would go on naming the part
            self.ended(part.id)
            raise
        self._begun[part.id] = len(samples)
        clock.memory, clock.precision = peak_memory(), self.precision
        return rows

    def _step(self, part: Part, images: float) -> None:
        """Note that so many images of a part are segmented."""
        if self._stopped.is_set():
            raise _Stopped
        self.steps_done += 1
        self._begun[part.id] = images

    def _tile_step(self, tiled: TiledImages, part: Part, images: int) -> None:
        self._step(part, images + tiled.share)

    def _batch(self, part: Part, samples: Sequence[Sample], clock: Clock, session: Session) -> list[ImageRow]:
        with clock("decode"), self.decoding.of(part, samples):
            frames = decode(samples, self.task)
        with clock("infer"):
            frames = segment(frames, session, self.task.batch_size)
        with clock("encode"), self.decoding.of(part, samples):
            return encode(frames, self.task, self.labels)

    def _commit(self, part: Part, rows: Sequence[ImageRow], read_bytes: int, clock: Clock, report: _Report) -> None:
        self._end(self.commit(part, rows, clock, read_bytes), report)

    def _end(self, result: PartResult, report: _Report) -> None:
        report(result)
        self.ended(result.part)  # later: its images are never seen to be neither done nor begun

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
        clock.memory = max(clock.memory, peak_memory())  # of the model's process, if that is another one
        result = committed(part, rows, clock, read_bytes, len(data)) if ours else skipped(part)
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
