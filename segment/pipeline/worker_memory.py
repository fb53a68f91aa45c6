"""The memory of a worker, predicted from the model, the shapes of tensors and the sizes of images."""

from typing import NamedTuple

import numpy as np

from segment.models.sessions import footprint
from segment.models.weights import Weights
from segment.output.part_members import PartSizes
from segment.output.plan import Plan
from segment.pipeline.stages import Task
from segment.pipeline.tiled_memory import COPIES, DECODED, PARTS, tiled_bytes
from segment.pipeline.tiling import session_extras


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
    largest images; with tiles those of an image, see `tiled_bytes`. Images beyond the limits of the job are error rows,
    and nothing is held of them.
    """
    model = footprint(task.card, weights, task.runtime, task.batch_size, session_extras(task.card, task.extras))
    if model is None:
        return None
    tiled = task.card.input.tiles is not None
    sizes = plan.part_sizes.read(task.settings.max_image_bytes, windowed=tiled)
    pixels = tiled_bytes(task, plan, sizes) if tiled else _batch_bytes(task, sizes)
    encoded = float(np.sort(sizes.encoded)[-PARTS:].sum())
    return WorkerBytes(model.load, round(model.shared + model.per_stream + encoded + pixels))


def _batch_bytes(task: Task, sizes: PartSizes) -> float:
    """Return the bytes of the pixels of a batch: as many of the largest images of a part as its bytes make up."""
    each = np.minimum(DECODED * sizes.largest, task.card.input.planes * task.settings.max_pixels)
    batch = np.minimum(task.batch_size, sizes.images) * each
    return COPIES * float(np.minimum(batch, DECODED * sizes.encoded).max(initial=0))
