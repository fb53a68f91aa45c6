"""Pictures of a run: images, labels and predictions side by side, from best to worst."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segment import images
from segment.card import ModelCard
from segment.errors import SampleError, SegmentError
from segment.labels import VOID, LabelDecoder
from segment.ledger import Ledger
from segment.plan import Plan
from segment.shards import Part, Sample, read_part
from segment.stages import Task

_LOOK_AT_PARTS = 200  # enough to find good and bad images; a run of a million is not read through for a picture
_CAPTION = 26  # pixels
_TILE = 320


@dataclass(frozen=True)
class Row:
    """A committed image: where it is in the plan, and its mIoU (None if unscored)."""

    part: Part
    index: int
    id: str
    miou: float | None


def spread(ledger: Ledger, plan: Plan, number: int) -> list[Row]:
    """Pick `number` committed images from the best to the worst, evenly by rank; unscored ones in input order."""
    rows: list[Row] = []
    for part in _some_parts(plan):
        found = ledger.read_rows(part.shard, part.id, ["id", "index", "status", "miou"]).to_pylist()
        rows += [Row(part, row["index"], row["id"], row["miou"]) for row in found if row["status"] == "ok"]
    rows.sort(key=lambda row: -1.0 if row.miou is None else row.miou, reverse=True)
    picks = np.unique(np.linspace(0, len(rows) - 1, min(number, len(rows))).round().astype(int))
    return [rows[pick] for pick in picks]


def _some_parts(plan: Plan) -> Sequence[Part]:
    step = max(1, -(-len(plan) // _LOOK_AT_PARTS))
    return [part for i, part in enumerate(plan.parts()) if i % step == 0]


def contact_sheet(ledger: Ledger, rows: Sequence[Row], task: Task) -> NDArray[np.uint8]:
    """Draw image, label and prediction of each row, a line each, with a legend below. `uint8[H, W, 3]`, RGB.

    Raises:
        SegmentError: there is nothing to draw.
    """
    if not rows:
        raise SegmentError("there is no segmented image to draw")
    labels = LabelDecoder(task.card.classes, task.label_encoding, dict(task.label_remap))
    lines = [_line(ledger, row, task, labels) for row in rows]
    columns = max(len(line) for line in lines)
    tiles = [tile for line in lines for tile in line]
    sheet = images.grid(tiles, columns, _TILE)
    return np.concatenate([sheet, _legend(task.card, sheet.shape[1])])


def _line(ledger: Ledger, row: Row, task: Task, labels: LabelDecoder) -> list[NDArray[np.uint8]]:
    sample = read_part(row.part, task.input, task.store)[row.index - row.part.start]
    image = images.decode(sample.image, task.max_pixels)
    mask = _mask(ledger, row, image, task)
    palette = task.card.classes.palette_array
    score = "" if row.miou is None else f"  mIoU {100 * row.miou:.1f} %"
    tiles = [_captioned(image, row.id)]
    label = _label(sample, image, labels)
    if label is not None:
        tiles.append(_captioned(images.paint(label, palette), "label"))
    return [*tiles, _captioned(images.overlay(image, mask, palette), f"prediction{score}")]


def _mask(ledger: Ledger, row: Row, image: NDArray[np.uint8], task: Task) -> NDArray[np.uint8]:
    table = ledger.read_rows(row.part.shard, row.part.id, ["mask"])
    mask = images.decode_mask(table["mask"][row.index - row.part.start].as_py()["bytes"])
    return (
        images.restore_mask(mask, task.card.input.resize, (image.shape[0], image.shape[1]))
        if task.mask_size == "model"
        else mask
    )


def _label(sample: Sample, image: NDArray[np.uint8], labels: LabelDecoder) -> NDArray[np.uint8] | None:
    if sample.label is None:
        return None
    try:
        return labels.decode(sample.label, image.shape[0], image.shape[1])
    except SampleError:
        return np.full(image.shape[:2], VOID, dtype=np.uint8)


def _captioned(tile: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    height = max(1, round(tile.shape[0] * _TILE / tile.shape[1]))
    scaled = cv2.resize(tile, (_TILE, height), interpolation=cv2.INTER_AREA)
    strip = np.full((_CAPTION, _TILE, 3), 255, np.uint8)
    _write(strip, _shortened(text), (2, 18))
    return np.concatenate([scaled, strip])


def _shortened(text: str, limit: int = 40) -> str:
    text = text.encode("ascii", "replace").decode()  # OpenCV's font knows ASCII only
    return text if len(text) <= limit else "..." + text[-limit + 3 :]


def _legend(card: ModelCard, width: int) -> NDArray[np.uint8]:
    column = 150
    per_line = max(1, width // column)
    lines = -(-len(card.classes) // per_line)
    strip = np.full((lines * 24 + 8, width, 3), 255, np.uint8)
    for index, name in enumerate(card.classes.names):
        left, top = (index % per_line) * column + 8, (index // per_line) * 24 + 4
        cv2.rectangle(strip, (left, top), (left + 14, top + 14), card.classes.palette[index], -1)
        _write(strip, _shortened(name, 16), (left + 20, top + 12))
    return strip


def _write(picture: NDArray[np.uint8], text: str, at: tuple[int, int]) -> None:
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (40, 40, 40), 1, cv2.LINE_AA)
