"""The memory of a worker, predicted from the model, the shapes of tensors and the sizes of images."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segment.models.sessions import footprint
from segment.models.weights import Weights
from segment.output.plan import Plan
from segment.pipeline.stages import Task
from segment.pipeline.tiled_memory import COPIES, DECODED, read_at_once, tiled_bytes
from segment.pipeline.tiling import session_extras

_PARTS = 3  # parts in memory at once: being read, segmented, written


class WorkerBytes(NamedTuple):
    """What a worker adds to the memory of its process, in bytes.

    Attributes:
        load: the peak while the model is loaded, for a moment.
        work: afterwards, when the weights that it was given are freed.
    """

    load: int
    work: int


def worker_bytes(task: Task, weights: Weights, plan: Plan) -> WorkerBytes | None:
    """Return what a worker adds to the memory of its process; None if it is not known, as on GPUs.

    It works with the model, the tensors of a call, the three largest parts, encoded, and the pixels of a batch of the
    largest images; with tiles those of an image, see `tiled_bytes`.
    """
    model = footprint(task.card, weights, task.runtime, task.batch_size, session_extras(task.card, task.extras))
    if model is None:
        return None
    sizes, images = plan.part_bytes, np.maximum(1, plan.part_images)
    if task.card.input.tiles:
        encoded, pixels = _largest(read_at_once(sizes, images)), tiled_bytes(task, plan)
    else:
        each = float((sizes / images).max(initial=0))
        encoded, pixels = _largest(sizes), COPIES * DECODED * each * task.batch_size
    return WorkerBytes(model.load, round(model.shared + model.per_stream + encoded + pixels))


def _largest(sizes: NDArray[np.float64]) -> float:
    """Return the bytes of the largest parts that are in memory at once."""
    return float(np.sort(sizes)[-_PARTS:].sum())
