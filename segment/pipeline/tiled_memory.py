"""What a worker holds of images that are segmented in tiles, predicted from the plan and the headers of some images."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segment.images.blending import MOST_SUMS, sums_size
from segment.images.raster import ROWS_AT_ONCE
from segment.images.tiff_raster import LARGE, page_of
from segment.images.tiff_segments import RUN_BYTES
from segment.inputs.large_files import LARGE_BYTES, largest_images, open_span
from segment.inputs.lookup import in_threads
from segment.inputs.parts import Span
from segment.output.mask_files import MOST_PNG_PIXELS
from segment.output.plan import Plan
from segment.pipeline.stages import Task
from segment.store.client import Store

DECODED = 8  # decoded bytes per encoded byte: between 2 for PNG and 12 for JPEG
COPIES = 3  # copies of an image: decoded, in the channel order of the model, mask and label
_OF_MASK = 2  # times a mask within its row: itself, and what writing takes, some ten times its PNG
_FILE_TILE = 512  # pixels of a side of the tiles of a large file, as a rule
_READ = 8  # images whose headers are read: those with the most bytes


class _Size(NamedTuple):
    """An image: its pixels, and whether it is read by window."""

    height: float
    width: float
    by_window: bool

    @property
    def pixels(self) -> float:
        return self.height * self.width


def read_at_once(sizes: NDArray[np.float64], images: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the bytes that are read of each part before it is segmented: nothing of large images.

    Args:
        sizes, images: bytes and number of images of each part; a large image is a part by itself.
    """
    return np.where(sizes / images >= LARGE_BYTES, 0.0, sizes)


def tiled_bytes(task: Task, plan: Plan) -> float:
    """Return the bytes of what is held of images in tiles.

    It is the most that is held of one image, and the largest mask within its row, which may be of another one: blocks
    that are freed are kept, and what is smaller does not fill them.
    """
    sizes = _sizes(task, plan)
    if not sizes:
        return 0.0
    copies = _OF_MASK * (1 + task.settings.confidence_maps + len(task.extras.probabilities))
    within = max(size.pixels if size.by_window and size.pixels <= MOST_PNG_PIXELS else 0.0 for size in sizes)
    held = max(_held(task, size, plan.names_labels) + _blending_bytes(task, size.width) for size in sizes)
    return held + copies * within


def _sizes(task: Task, plan: Plan) -> list[_Size]:
    """Return the sizes of the images with the most bytes; those that are no TIFFs, or cannot be read, are estimated.

    Of smaller ones only those matter whose masks are within their rows: one of them, as large as can be.
    """
    each = plan.part_bytes / np.maximum(1, plan.part_images)
    order = np.argsort(-each, kind="stable")
    images = largest_images(plan.taking(order[:_READ]).parts(), _READ)
    stored = in_threads(lambda image: _stored_size(image, task.store), images)
    found = [size or _estimated(task, plan, image.size) for size, image in zip(stored, images, strict=True)]
    if not found:  # Parquet files name no images
        return [_estimated(task, plan, size) for size in each[order[:1]]]
    if len(images) < plan.images and not any(size.pixels <= MOST_PNG_PIXELS for size in found):
        smallest = found[0].pixels * each[order[-1]] / max(1, images[0].size)
        side = math.sqrt(MOST_PNG_PIXELS)
        found += [_Size(side, side, by_window=True)] if smallest <= MOST_PNG_PIXELS else []
    return found


def _stored_size(image: Span, store: Store) -> _Size | None:
    """Return the size of an image if it is a TIFF; None if it is not, or cannot be read."""
    try:
        page = page_of(open_span(image, store))
    except Exception:  # whatever it is, the worker will say it
        return None
    return _Size(page.height, page.width, page.height * page.width >= LARGE) if page else None


def _estimated(task: Task, plan: Plan, encoded: float) -> _Size:
    """Return the size of a square image of so many encoded bytes."""
    pixels = DECODED * max(0.0, encoded) / task.card.input.planes
    by_window = encoded >= LARGE_BYTES or (pixels >= LARGE and plan.names_tiffs)
    side = math.sqrt(pixels if by_window else min(pixels, task.settings.max_pixels))
    return _Size(side, side, by_window)


def _held(task: Task, size: _Size, has_label: bool) -> float:
    """Return the bytes of an image: as a whole, or a row of tiles, as read, as cut out of the file, and new.

    As many rows are held of the mask and of the label. Of the file's own tiles those are held that the row touches, and
    those of the next row are decoded meanwhile.
    """
    spec = task.card.input
    assert spec.tiles is not None
    if not size.by_window:
        return COPIES * spec.planes * size.pixels
    rows = spec.height if spec.tiles.shrink == 1 else ROWS_AT_ONCE  # of the image's own size, held at once
    shrunk = 0 if spec.tiles.shrink == 1 else spec.planes * 3 * spec.height * size.width / spec.tiles.shrink
    cut = 2 * min(RUN_BYTES, spec.planes * size.width * _FILE_TILE)  # before and after the order of channels
    return (spec.planes + 1 + has_label) * size.width * (2 * rows + 2 * _FILE_TILE) + cut + shrunk


def _blending_bytes(task: Task, width: float) -> float:
    """Return the bytes of what a row of tiles is blended in: sums of probabilities, or classes and their scores."""
    spec = task.card.input
    assert spec.tiles is not None
    columns, levels = round(width / spec.tiles.shrink), len(task.extras.probabilities)
    if spec.tiles.blend == "mean":
        levels += bool(task.extras.confidence)
        return min(MOST_SUMS, sums_size(len(task.card.classes) + levels, spec.height, columns))
    return (6 + 2 * levels) * spec.height * columns if spec.tiles.blend == "confidence" else 0.0
