"""What a worker holds of images that are segmented in tiles, predicted from the plan and the headers of some images."""

import math
from typing import NamedTuple

import numpy as np

from segment.images.blending import MOST_SUMS, sums_size
from segment.images.raster import ROWS_AT_ONCE
from segment.images.tiff_raster import LARGE, MOST_BYTES, page_of
from segment.images.tiff_segments import RUN_BYTES, TiffSegments
from segment.images.tiff_tags import TiffError
from segment.inputs.large_files import LARGE_BYTES, TIFF_SUFFIXES, largest_tiffs, open_span
from segment.inputs.parts import Span
from segment.output.mask_files import MOST_PNG_PIXELS
from segment.output.part_members import PartSizes
from segment.output.plan import Plan
from segment.pipeline.large_images import BY_WINDOW
from segment.pipeline.stages import Task
from segment.store.background import in_time
from segment.store.names import suffix_of

PARTS = 3  # parts in memory at once: being read, segmented, written
DECODED = 8  # decoded bytes per encoded byte: between 2 for PNG and 12 for JPEG
COPIES = 3  # copies of an image: decoded, in the channel order of the model, mask and label
_OF_MASK = 2  # times a mask within its row: itself, and what writing takes, some ten times its PNG
_FILE_TILE = 512  # pixels of a side of the tiles of a large file, as a rule
_READ = 8  # images whose headers are read: the TIFFs with the most bytes
_SECONDS = 3.0  # that a run waits for them at its start


class _Image(NamedTuple):
    """An image of which a worker holds something.

    Attributes:
        by_window: whether it is read by window, else as a whole.
        rows: of a strip or tile of its file.
        encoded: bytes of its file that are held, unless they are read with its part.
    """

    height: float
    width: float
    by_window: bool
    rows: float = _FILE_TILE
    encoded: float = 0.0

    @property
    def pixels(self) -> float:
        return self.height * self.width


_NOTHING = _Image(0, 0, by_window=False)  # of an image that is an error row


def tiled_bytes(task: Task, plan: Plan, sizes: PartSizes) -> float:
    """Return the bytes of what is held of images in tiles, beside the parts as they are read.

    It is the most that is held of one image, and the largest mask within its row, which may be of another one: blocks
    that are freed are kept, and what is smaller does not fill them.

    Args:
        sizes: what is read of the parts of the plan.
    """
    images = _images(task, plan, sizes)
    within = max((image.pixels for image in images if image.by_window and _is_within_row(image)), default=0.0)
    held = (_held(task, image, plan.names_labels) + _blending_bytes(task, image.width) for image in images)
    return max(held, default=0.0) + _OF_MASK * (1 + _maps(task)) * within


def _is_within_row(image: _Image) -> bool:
    return image.pixels <= MOST_PNG_PIXELS


def _maps(task: Task) -> int:
    """Return the number of maps beside a mask."""
    return task.settings.confidence_maps + len(task.extras.probabilities)


def _images(task: Task, plan: Plan, sizes: PartSizes) -> list[_Image]:
    """Return the images that decide: the TIFFs with the most bytes, by their headers, and the largest other image.

    Of smaller TIFFs only those matter whose masks are within their rows: one of them, as large as can be.
    """
    order = np.argsort(-sizes.tiffs, kind="stable")[: np.count_nonzero(sizes.tiffs)]
    spans = largest_tiffs(plan.taking(order[:_READ]).parts(), _READ)
    spans = [span for span in spans if span.size <= task.settings.max_image_bytes or span.size >= LARGE_BYTES]
    stored = in_time(lambda span: _stored(task, span), spans, _SECONDS)
    tiffs = [image or _estimated_tiff(task, span) for image, span in zip(stored, spans, strict=True)]
    found = [image for image in tiffs if image.pixels]
    if found and len(spans) < plan.images and not any(map(_is_within_row, found)):
        least = min(image.pixels for image in found) * sizes.tiffs[order[-1]] / sizes.tiffs[order[0]]
        side = math.sqrt(MOST_PNG_PIXELS)
        found += [_Image(side, side, by_window=True)] if least <= MOST_PNG_PIXELS else []
    return [*found, _estimated(task, sizes.others.max(initial=0), by_window=False)]


def _stored(task: Task, span: Span) -> _Image:
    """Return what an image is by its header. Raises SegmentError: it cannot be read, as the worker will say."""
    page = page_of(open_span(span, task.store.once))
    is_large, most = span.size >= LARGE_BYTES, task.settings.max_pixels
    if page is None:
        image = _estimated(task, span.size, by_window=False)._replace(encoded=PARTS * span.size * is_large)
        return image if span.size <= task.settings.max_image_bytes else _NOTHING
    pixels = page.height * page.width
    if pixels < LARGE:
        image = _Image(page.height, page.width, by_window=False, encoded=span.size * is_large)
        return image if pixels <= most and span.size <= MOST_BYTES else _NOTHING
    if pixels > BY_WINDOW * most:
        return _NOTHING
    try:
        segments = TiffSegments(page)
        segments.check_size(by_window=True)
    except TiffError:
        return _NOTHING
    return _Image(page.height, page.width, by_window=True, rows=segments.segment_height)


def _estimated_tiff(task: Task, span: Span) -> _Image:
    """Return an image that may be a TIFF and whose header is not known, by its bytes and its name."""
    is_large = DECODED * span.size / task.card.input.planes >= LARGE and suffix_of(span.url) in TIFF_SUFFIXES
    return _estimated(task, span.size, by_window=is_large or span.size >= LARGE_BYTES)


def _estimated(task: Task, encoded: float, *, by_window: bool) -> _Image:
    """Return a square image of so many encoded bytes, no larger than the job allows."""
    most = task.settings.max_pixels * (BY_WINDOW if by_window else 1)
    side = math.sqrt(min(DECODED * encoded / task.card.input.planes, most))
    return _Image(side, side, by_window)


def _held(task: Task, image: _Image, has_label: bool) -> float:
    """Return the bytes of an image: as a whole, or a row of tiles, as read, as cut out of the file, and new.

    As many rows are held of the mask and of the label. Of the file's own tiles those are held that the row touches, and
    those of the next row are decoded meanwhile. Of an image as a whole the maps beside its mask are whole, too.
    """
    spec = task.card.input
    assert spec.tiles is not None
    if not image.by_window:
        return (COPIES * spec.planes + _maps(task)) * image.pixels + image.encoded
    rows = spec.height if spec.tiles.shrink == 1 else ROWS_AT_ONCE  # of the image's own size, held at once
    shrunk = 0 if spec.tiles.shrink == 1 else spec.planes * 3 * spec.height * image.width / spec.tiles.shrink
    cut = 2 * min(RUN_BYTES, spec.planes * image.width * max(image.rows, rows))  # before and after the channel order
    of_masks = (1 + has_label) * (2 * rows + 2 * _FILE_TILE)
    return image.width * (spec.planes * (2 * rows + 2 * image.rows) + of_masks) + cut + shrunk


def _blending_bytes(task: Task, width: float) -> float:
    """Return the bytes of what a row of tiles is blended in: sums of probabilities, or classes and their scores."""
    spec = task.card.input
    assert spec.tiles is not None
    columns, levels = round(width / spec.tiles.shrink), len(task.extras.probabilities)
    if spec.tiles.blend == "mean":
        levels += bool(task.extras.confidence)
        return min(MOST_SUMS, sums_size(len(task.card.classes) + levels, spec.height, columns))
    return (6 + 2 * levels) * spec.height * columns if spec.tiles.blend == "confidence" else 0.0
