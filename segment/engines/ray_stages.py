"""The stages one by one, for engines that run each in a worker of its own, with what goes from one to the next."""

from __future__ import annotations

from dataclasses import dataclass

from segment.inputs.discover import Part
from segment.output.results import PartResult
from segment.pipeline.memory_guard import peak_memory
from segment.pipeline.stages import Clock, Frames, Task, decode, encode, segment
from segment.pipeline.worker import Worker, failed_or_raise, skipped


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
    """Runs each stage for a part when it is told to; `write` makes the part done."""

    def __init__(self, task: Task, worker: Worker | None = None) -> None:
        self.task = task
        self.worker = worker or Worker(task, None)

    def read(self, part: Part) -> Cargo:
        """Read and decode."""
        clock = Clock()
        try:
            read = self.worker.read(part, clock)
            if read is None:
                return Cargo(part, None, clock, result=skipped(part))
            with clock("decode"):
                frames = decode(read, self.task)
        except Exception as error:
            return Cargo(part, None, clock, result=failed_or_raise(part, error))
        return Cargo(part, frames, clock, read_bytes=sum(len(sample.image) for sample in read))

    def segment(self, cargo: Cargo) -> Cargo:
        """Run the model."""
        session = self.worker.session
        assert session is not None
        self.worker.beats += 1
        if cargo.frames is not None:
            try:
                with cargo.clock("infer"):
                    cargo.frames = segment(cargo.frames, session, self.task.batch_size)
            except Exception as error:
                cargo.frames, cargo.result = None, failed_or_raise(cargo.part, error)
            cargo.clock.memory = peak_memory()
        return cargo

    def write(self, cargo: Cargo) -> PartResult:
        """Score, encode and commit."""
        if cargo.frames is None:
            assert cargo.result is not None
            return cargo.result
        try:
            with cargo.clock("encode"):
                rows = encode(cargo.frames, self.task, self.worker.labels)
        except Exception as error:
            return failed_or_raise(cargo.part, error)
        return self.worker.commit(cargo.part, rows, cargo.clock, cargo.read_bytes)
