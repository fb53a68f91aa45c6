"""The forecast of a run before it starts: work, workers and memory."""

from dataclasses import dataclass

from segment.engines import Engine
from segment.models.weights import Weights
from segment.output.plan import Plan
from segment.pipeline.stages import Task
from segment.store.names import count, size


@dataclass(frozen=True)
class Forecast:
    """The work of a run and its resources.

    Attributes:
        images, shards, parts: numbers of each.
        largest_part: images of the largest part.
        input_bytes: encoded bytes of the input whose size is known.
        workers: models loaded at once.
        threads: CPU threads of each worker.
        batch: images per call of the model.
        memory: expected peak bytes of a process with a model; None if unknown (on GPUs).
        processes: such processes; the workers of the local engine on a GPU are threads of one.
    """

    images: int
    shards: int
    parts: int
    largest_part: int
    input_bytes: int
    workers: int
    threads: int
    batch: int
    memory: int | None
    processes: int

    def words(self) -> str:
        """Return the forecast as one line."""
        facts = [count(self.workers, "worker"), count(self.threads, "thread"), f"batch {self.batch}"]
        facts.append(f"parts of {self.largest_part}" if self.largest_part > 1 else "parts of one image")
        if self.input_bytes:
            facts.append(f"{size(self.input_bytes)} to read")
        if self.memory:
            facts.append(f"peak ~{size(self.memory)}" + (" each" if self.processes > 1 else ""))
        return ", ".join(facts)


def forecast(task: Task, weights: Weights, plan: Plan, engine: Engine) -> Forecast:
    """Predict a run from shapes and sizes, without loading the model.

    The memory of a process is told by the engine: what it has before (a constant), and what its worker adds
    (`segment.pipeline.worker_memory`).
    """
    left = plan.unindexed
    parts = len(plan) + (-(-left.images // left.part_size) if left else 0)
    processes = engine.processes(task, weights, plan)
    workers = processes if task.runtime.device == "cpu" else engine.workers(task.runtime.device)
    return Forecast(
        plan.expected_images,
        len(plan.parts_by_shard()) + plan.tars_left,
        parts,
        plan.largest_part,
        plan.input_bytes + (sum(entry.size for entry in left.tars) if left else 0),
        workers,
        engine.threads(max(1, min(workers, parts))),
        task.batch_size,
        engine.process_memory(task, weights, plan),
        processes,
    )
