"""The forecast of a run before it starts: work, workers and memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

from segment.engines import Engine
from segment.engines.worker_process import PROCESS_MEMORY
from segment.images.blending import MOST_SUMS, sums_size
from segment.images.tiff_segments import RUN_BYTES
from segment.inputs.large_files import LARGE_BYTES
from segment.models.sessions import footprint
from segment.models.weights import Weights
from segment.output.plan import Plan
from segment.pipeline.stages import Task
from segment.pipeline.tiling import session_extras
from segment.store.names import count, size

_MIB = 1 << 20
_ACTOR = 235 * _MIB  # a Ray worker with this package, before it loads a model (measured, ray 2.60)
_DECODED = 8  # decoded bytes per encoded byte: between 2 for PNG and 12 for JPEG
_COPIES = 3  # copies of an image: decoded, in the channel order of the model, mask and label
_FILE_TILE = 512  # pixels of a side of the tiles of a large file, as a rule
_PARTS = 3  # parts in memory at once: being read, segmented, written


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
            facts.append(f"peak memory ~{size(self.memory)}" + (" each" if self.processes > 1 else ""))
        return ", ".join(facts)


def forecast(task: Task, weights: Weights, plan: Plan, engine: Engine, workers: int) -> Forecast:
    """Predict a run from shapes and sizes, without loading the model.

    The memory of a process: what it has before (a constant) with the copies of the weights that it is given, the model
    (`segment.models.sessions.footprint`) with one call's tensors, three encoded parts, and the pixels of a batch, or of
    an image that is segmented in tiles.
    """
    left = plan.unindexed
    parts = len(plan) + (-(-left.images // left.part_size) if left else 0)
    at_once = max(1, min(workers, parts))
    each_image = plan.input_bytes / max(1, plan.images)
    by_window = task.card.input.tiles is not None and each_image >= LARGE_BYTES
    if by_window:
        own = _window_bytes(task, each_image, plan.names_labels)
    else:
        own = _COPIES * _pixel_bytes(task, each_image) + _PARTS * each_image * plan.largest_part
    own += _blending_bytes(task, each_image)
    processes = engine.processes(task, weights, plan)
    model = footprint(task.card, weights, task.runtime, task.batch_size, session_extras(task.card, task.extras))
    # in Ray's object store, which is mapped, and unpickled
    base = _ACTOR + 2 * weights.size if engine.name == "ray" else PROCESS_MEMORY + weights.size
    memory = round(base + model.shared + model.per_stream + own) if model else None
    if task.runtime.device == "cpu" and processes < at_once:  # for want of images, or of memory
        workers = at_once = processes
    return Forecast(
        plan.expected_images,
        len(plan.parts_by_shard()) + plan.tars_left,
        parts,
        plan.largest_part,
        plan.input_bytes + (sum(entry.size for entry in left.tars) if left else 0),
        workers,
        engine.threads(at_once),
        task.batch_size,
        memory,
        processes,
    )


def _pixel_bytes(task: Task, each_image: float) -> float:
    """Return the decoded bytes of a batch; with tiles, of an image.

    Args:
        task: the run.
        each_image: encoded bytes of an image.
    """
    decoded = _DECODED * each_image
    if task.card.input.tiles is None:
        return decoded * task.batch_size
    return min(decoded, task.card.input.planes * task.settings.max_pixels)


def _blending_bytes(task: Task, each_image: float) -> float:
    """Return the bytes of the sums of probabilities that tiles are blended by, if they are."""
    spec = task.card.input
    if spec.tiles is None or spec.tiles.blend != "mean":
        return 0
    columns = round(_width(task, each_image) / spec.tiles.shrink)
    return min(MOST_SUMS, sums_size(len(task.card.classes), spec.height, columns))


def _window_bytes(task: Task, each_image: float, has_label: bool) -> float:
    """Return the bytes of an image that is read by window: a row of tiles, as read, as cut out of the file, and new.

    Of the file's own tiles those are held that the row touches, and those of the next row are decoded meanwhile.
    """
    spec = task.card.input
    height = spec.height * (spec.tiles.shrink if spec.tiles else 1)
    return (spec.planes + has_label) * _width(task, each_image) * (2 * height + 2 * _FILE_TILE) + RUN_BYTES


def _width(task: Task, each_image: float) -> float:
    """Return the columns of an image of so many encoded bytes, taken as square."""
    return math.sqrt(_DECODED * each_image / task.card.input.planes)
