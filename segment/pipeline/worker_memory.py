"""The memory of a worker, predicted from the model, the shapes of tensors and the sizes of encoded images."""

import math
from typing import NamedTuple

from segment.images.blending import MOST_SUMS, sums_size
from segment.images.raster import ROWS_AT_ONCE
from segment.images.tiff_raster import LARGE
from segment.images.tiff_segments import RUN_BYTES
from segment.inputs.large_files import LARGE_BYTES
from segment.models.sessions import footprint
from segment.models.weights import Weights
from segment.output.mask_files import MOST_PNG_PIXELS
from segment.output.plan import Plan
from segment.pipeline.stages import Task
from segment.pipeline.tiling import session_extras

_DECODED = 8  # decoded bytes per encoded byte: between 2 for PNG and 12 for JPEG
_COPIES = 3  # copies of an image: decoded, in the channel order of the model, mask and label
_FILE_TILE = 512  # pixels of a side of the tiles of a large file, as a rule
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

    It works with the model, the tensors of a call, three encoded parts, and the pixels of a batch; with tiles those of
    an image, or of what is held of one that is read by window, and what the tiles are blended in.
    """
    model = footprint(task.card, weights, task.runtime, task.batch_size, session_extras(task.card, task.extras))
    if model is None:
        return None
    each = plan.input_bytes / max(1, plan.images)
    encoded = 0 if task.card.input.tiles and each >= LARGE_BYTES else _PARTS * each * plan.largest_part
    if task.card.input.tiles is None:
        pixels = _COPIES * _DECODED * each * task.batch_size
    elif _is_by_window(task, plan, each):
        pixels = _window_bytes(task, each, plan.names_labels)
    else:
        pixels = _COPIES * min(_DECODED * each, task.card.input.planes * task.settings.max_pixels)
    work = model.shared + model.per_stream + encoded + pixels + _blending_bytes(task, each)
    return WorkerBytes(model.load, round(work))


def _is_by_window(task: Task, plan: Plan, each: float) -> bool:
    """Return whether images are read by window, as large TIFFs are; of others so many bytes cannot be decoded."""
    return each >= LARGE_BYTES or (_width(task, each) ** 2 >= LARGE and plan.names_tiffs)


def _window_bytes(task: Task, each: float, has_label: bool) -> float:
    """Return the bytes of an image that is read by window: a row of tiles, as read, as cut out of the file, and new.

    Of the file's own tiles those are held that the row touches, and those of the next row are decoded meanwhile. A mask
    that fits its row is held as a whole.
    """
    spec, width = task.card.input, _width(task, each)
    assert spec.tiles is not None
    rows = spec.height if spec.tiles.shrink == 1 else ROWS_AT_ONCE  # of the image's own size, held at once
    shrunk = 0 if spec.tiles.shrink == 1 else spec.planes * 3 * spec.height * width / spec.tiles.shrink
    maps = task.settings.confidence_maps + len(task.extras.probabilities)
    mask = (1 + maps) * width**2 if width**2 <= MOST_PNG_PIXELS else 0
    return (spec.planes + has_label) * width * (2 * rows + 2 * _FILE_TILE) + RUN_BYTES + shrunk + mask


def _blending_bytes(task: Task, each: float) -> float:
    """Return the bytes of the sums of probabilities that tiles are blended by, if they are."""
    spec = task.card.input
    if spec.tiles is None or spec.tiles.blend != "mean":
        return 0
    columns = round(_width(task, each) / spec.tiles.shrink)
    levels = bool(task.extras.confidence) + len(task.extras.probabilities)
    return min(MOST_SUMS, sums_size(len(task.card.classes) + levels, spec.height, columns))


def _width(task: Task, each: float) -> float:
    """Return the columns of an image of so many encoded bytes, taken as square."""
    return math.sqrt(_DECODED * each / task.card.input.planes)
