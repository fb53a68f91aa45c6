"""The stages one by one, for engines that run each in a process of its own, and the data between two of them."""

from dataclasses import dataclass, field

from segment.inputs.large_files import encoded_size
from segment.inputs.parts import Part, Sample
from segment.output.results import PartResult
from segment.output.tables import ImageRow
from segment.pipeline.memory_guard import peak_memory
from segment.pipeline.part_results import failed_or_raise, skipped
from segment.pipeline.stages import Clock, Frames, Task, decode, encode, segment
from segment.pipeline.worker import Worker


@dataclass
class StagedPart:
    """A part between two stages.

    Attributes:
        frames: its images; None if only `result` is left to report, or the images are segmented in tiles.
        samples: images that are segmented in tiles, not decoded: decoded, the tiles of a part are too many to pass on.
        rows: their rows, once segmented.
        read_bytes: bytes of encoded input.
        result: the result of a part that was skipped or has failed.
    """

    part: Part
    frames: Frames | None
    clock: Clock
    read_bytes: int = 0
    result: PartResult | None = None
    samples: list[Sample] = field(default_factory=list)
    rows: list[ImageRow] | None = None


class StageWorker:
    """Runs single stages; `write` commits the part."""

    def __init__(self, task: Task, worker: Worker | None = None) -> None:
        self.task = task
        self.worker = worker or Worker(task, None)

    def read(self, part: Part) -> StagedPart:
        """Read and decode."""
        clock = Clock()
        try:
            read = self.worker.read(part, clock)
            if read is None:
                return StagedPart(part, None, clock, result=skipped(part))
            if self.task.card.input.tiles:
                return StagedPart(part, None, clock, encoded_size(read), samples=read)
            with clock("decode"):
                frames = decode(read, self.task)
        except Exception as error:
            return StagedPart(part, None, clock, result=failed_or_raise(part, error))
        return StagedPart(part, frames, clock, encoded_size(read))

    def segment(self, staged: StagedPart) -> StagedPart:
        """Run the model; images in tiles are decoded, scored and encoded here, too."""
        session = self.worker.session
        assert session is not None
        self.worker.steps_done += 1
        if staged.result is not None:
            return staged
        try:
            if staged.frames is None:
                staged.rows, staged.samples = self.worker.rows(staged.part, staged.samples, staged.clock), []
                self.worker.ended(staged.part.id)
            else:
                with staged.clock("infer"):
                    staged.frames = segment(staged.frames, session, self.task.batch_size)
        except Exception as error:
            staged.frames, staged.samples, staged.result = None, [], failed_or_raise(staged.part, error)
        staged.clock.memory, staged.clock.precision = peak_memory(), self.worker.precision
        return staged

    def write(self, staged: StagedPart) -> PartResult:
        """Score, encode and commit."""
        if staged.result is not None:
            return staged.result
        rows = staged.rows
        if staged.frames is not None:
            try:
                with staged.clock("encode"):
                    rows = encode(staged.frames, self.task, self.worker.labels)
            except Exception as error:
                return failed_or_raise(staged.part, error)
        assert rows is not None, "segment() comes first"
        return self.worker.commit(staged.part, rows, staged.clock, staged.read_bytes)
