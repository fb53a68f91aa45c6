"""Pictures of a run: overlays, and images, labels and predictions side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from segment.errors import SampleError, SegmentError, StoreError
from segment.images import drawing, resize
from segment.images.bands import displayed
from segment.images.tiff_labels import open_label
from segment.inputs.large_files import open_label_file
from segment.inputs.parts import Sample
from segment.models.classes import VOID, Classes
from segment.output.ledger import Ledger
from segment.output.mask_files import read_mask_preview
from segment.output.plan import Plan
from segment.pipeline.large_images import open_sample
from segment.pipeline.stages import Task
from segment.pipeline.worker import read_planned
from segment.report.percents import percent
from segment.report.rows import Row, read_scores, row_of

_SAMPLED_PARTS = 200  # enough to find good and bad images without reading a run of a million images
_CAPTION, _CAPTION_LENGTH = 26, 40  # height in pixels, characters
_TILE = 320  # width in pixels
_TALLEST = 2 * _TILE  # height in pixels
_COLUMNS = ["id", "uri", "width", "height", "mask", "pixel_accuracy", "miou", "mean_confidence"]

GONE = "The source is gone, has changed, is too large to draw, or cannot be read: only the mask is shown."


@dataclass(frozen=True, eq=False)
class ImageView:
    """A committed image with its mask, source and label.

    Attributes:
        mask: `uint8[H, W]`, at the size of the image; of one in a file of its own some rows and columns, alone.
        photo: `uint8[H, W, 3]`, RGB; None if the source is gone, has changed, or cannot be read.
        label: `uint8[H, W]` of class indices and `VOID`; None without a label.
        accuracy, miou: 0-1; None if unscored.
        reachable: whether the store of the source answers; if not, it will not for the next image.
        confidence: 0-1; None in a run without it.
    """

    id: str
    uri: str
    mask: NDArray[np.uint8]
    photo: NDArray[np.uint8] | None
    label: NDArray[np.uint8] | None
    accuracy: float | None
    miou: float | None
    reachable: bool = True
    confidence: float | None = None


def read_view(ledger: Ledger, row: Row, task: Task, with_source: bool = True) -> ImageView:
    """Read the mask of an image, and with `with_source` its source and label if they are unchanged.

    Raises SegmentError: the masks file is damaged or lost, or the row has no mask.
    """
    found = row_of(ledger, row, _COLUMNS)
    if found["mask"] is None:
        raise SegmentError(f"'{found['id']}' is an error row: it has no mask to draw")
    mask = read_mask_preview(ledger.store, ledger.output, found["mask"])
    size, is_preview = (found["height"], found["width"]), found["mask"]["bytes"] is None
    if mask.shape != size and not is_preview:
        mask = resize.restore_mask(mask, task.card.input, size)
    photo, label, reachable = None, None, True
    if with_source and not is_preview:
        try:
            photo, label = _source(row, task, size)
        except StoreError as error:
            reachable = error.object_specific
        except (SegmentError, SampleError, FileNotFoundError):
            pass
    return ImageView(
        found["id"],
        found["uri"],
        mask,
        photo,
        label,
        found["pixel_accuracy"],
        found["miou"],
        reachable,
        found.get("mean_confidence"),
    )


class SourceReader:
    """Reads images, and no more sources once their store does not answer."""

    def __init__(self, ledger: Ledger, task: Task) -> None:
        self._ledger, self._task, self._reachable = ledger, task, True

    def read(self, row: Row) -> ImageView:
        """Return an image; see `read_view`."""
        view = read_view(self._ledger, row, self._task, with_source=self._reachable)
        self._reachable = self._reachable and view.reachable
        return view


def _source(row: Row, task: Task, size: tuple[int, int]) -> tuple[NDArray[np.uint8] | None, NDArray[np.uint8] | None]:
    """Read photo and label; None if the source no longer has the size (height, width) of the mask."""
    sample = read_planned(row.part, task)[0]
    raster = open_sample(sample, task)
    if (raster.height, raster.width) != size:
        return None, None
    photo = displayed(raster.read(0, 0, *size))
    return photo, _label(sample, size, raster.orientation, task)


def _label(sample: Sample, size: tuple[int, int], turned_by: int, task: Task) -> NDArray[np.uint8] | None:
    """Decode a label; void throughout if it cannot be used, None without one."""
    try:
        file = open_label_file(sample, task.store)
        return open_label(file, size, turned_by, task.label_decoder()).read(0, 0, *size) if file else None
    except SampleError:
        return np.full(size, VOID, dtype=np.uint8)


def overlay(view: ImageView, classes: Classes, opacity: float = 0.55) -> NDArray[np.uint8]:
    """Draw the mask over its image, or alone if there is no source; the background stays clear.

    Returns:
        `uint8[H, W, 3]`, RGB.
    """
    if view.photo is None:
        return drawing.paint(view.mask, classes.palette_array)
    clear = (*classes.background_classes, VOID)
    return drawing.overlay(view.photo, view.mask, classes.palette_array, opacity, clear)


def spread(ledger: Ledger, plan: Plan, number: int) -> list[Row]:
    """Select `number` committed images, evenly by rank from the best to the worst; unscored ones in input order."""
    return read_scores(ledger, plan, ledger.committed(plan), _SAMPLED_PARTS).spread(number)


def contact_sheet(ledger: Ledger, rows: Sequence[Row], task: Task) -> NDArray[np.uint8]:
    """Draw image, label and prediction of each row on one line, and a legend of what is seen below.

    Returns:
        `uint8[H, W, 3]`, RGB.

    Raises:
        SegmentError: there are no rows.
    """
    if not rows:
        raise SegmentError("there is no segmented image to draw")
    classes = task.card.classes
    lines: list[list[NDArray[np.uint8]]] = []
    seen: set[int] = set()
    for row in rows:
        view = read_view(ledger, row, task)
        lines.append(_line(view, classes))
        drawn = [pixels for pixels in (view.mask, view.label) if pixels is not None]
        clear = () if view.photo is None else classes.background_classes
        seen |= {index for pixels in drawn for index in np.unique(pixels).tolist()} - set(clear)
    columns = max(len(line) for line in lines)
    blank = np.full((1, _TILE, 3), 255, np.uint8)
    tiles = [tile for line in lines for tile in line + [blank] * (columns - len(line))]
    sheet = drawing.grid(tiles, columns, _TILE)
    listed = [index for index in sorted(seen) if index < len(classes)]
    names, colours = [classes.names[index] for index in listed], [classes.palette[index] for index in listed]
    return np.concatenate([sheet, drawing.legend(names, colours, sheet.shape[1])])


def _line(view: ImageView, classes: Classes) -> list[NDArray[np.uint8]]:
    score = "" if view.miou is None else f"  mIoU {percent(view.miou)} %"
    prediction = _captioned(overlay(view, classes), f"prediction{score}")
    if view.photo is None:
        gone = np.full((*view.mask.shape, 3), 235, np.uint8)
        return [_captioned(gone, f"{view.id} (source not read)"), prediction]
    tiles = [_captioned(view.photo, view.id)]
    if view.label is not None:
        tiles.append(_captioned(overlay(replace(view, mask=view.label), classes), "label"))
    return [*tiles, prediction]


def _captioned(tile: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    scale = min(_TILE / tile.shape[1], _TALLEST / tile.shape[0])
    height, width = (max(1, round(side * scale)) for side in tile.shape[:2])
    left = (_TILE - width) // 2
    picture = np.full((height + _CAPTION, _TILE, 3), 255, np.uint8)
    picture[:height, left : left + width] = cv2.resize(tile, (width, height), interpolation=cv2.INTER_AREA)
    text = text if len(text) <= _CAPTION_LENGTH else "..." + text[3 - _CAPTION_LENGTH :]
    drawing.write(picture[height:], text, (2, 18))
    return picture
