"""The pictures of an image on HTML pages: the image, label, prediction and differences, embedded as data URIs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from segment.images.drawing import paint
from segment.images.perceptual_hash import PerceptualHash
from segment.models.card import ModelCard
from segment.models.classes import VOID, Classes
from segment.report.data_uris import jpeg_uri, mask_uris, png_uri, smaller, within_budget
from segment.report.pictures import ImageView
from segment.store.names import shown

_CORRECT, _WRONG, _IGNORED = 0, 1, 2
_DIFFERENCE_PALETTE = np.array([[0, 0, 0], [232, 62, 20], [96, 104, 112]], np.uint8)  # the first is transparent
DIFFERENCES = {_WRONG: "prediction differs from label", _IGNORED: "label ignored"}


@dataclass(frozen=True)
class Exhibit:
    """One image.

    Attributes:
        id, uri: printable, without secrets.
        width, height: size of the image in pixels.
        shown_width, shown_height: size of the embedded pictures in pixels.
        miou, accuracy: 0-1; None if unscored.
        confidence: 0-1; None in a run without it.
        photo: data URI; None without a source.
        prediction, prediction_lines: data URIs of the colours of the mask, and of the lines along its borders.
        label, label_lines, disagreement: data URIs; None without a label.
        classes: indices of the classes that are seen in prediction and label.
        differences: keys of `DIFFERENCES` that are seen.
        remark: why it is shown; may be empty.
    """

    id: str
    uri: str
    width: int
    height: int
    shown_width: int
    shown_height: int
    miou: float | None
    accuracy: float | None
    confidence: float | None
    photo: str | None
    prediction: str
    prediction_lines: str
    label: str | None
    label_lines: str | None
    disagreement: str | None
    classes: tuple[int, ...]
    differences: tuple[int, ...]
    remark: str = ""


class _Pictures(NamedTuple):
    """Data URIs, in the order of the fields of `Exhibit`."""

    photo: str | None
    prediction: str
    prediction_lines: str
    label: str | None
    label_lines: str | None
    disagreement: str | None


def exhibit(view: ImageView, card: ModelCard, remark: str = "") -> Exhibit:
    """Draw the pictures of one image, as large as the budget allows."""
    height, width = view.mask.shape
    classes, different = card.classes, _differences(view, card.classes)
    palette, clear = classes.palette_array, (VOID, *classes.background_classes)

    def draw(size: tuple[int, int]) -> _Pictures:
        prediction, lines = mask_uris(view.mask, size, palette, clear)
        label, label_lines = (None, None) if view.label is None else mask_uris(view.label, size, palette, clear)
        return _Pictures(
            None if view.photo is None else jpeg_uri(smaller(view.photo, size, cv2.INTER_AREA)),
            prediction,
            lines,
            label,
            label_lines,
            None if different is None else png_uri(smaller(different, size), _DIFFERENCE_PALETTE, (_CORRECT,)),
        )

    size, pictures = within_budget((height, width), draw)
    return Exhibit(
        shown(view.id),
        shown(view.uri),
        width,
        height,
        size[1],
        size[0],
        view.miou,
        view.accuracy,
        view.confidence,
        *pictures,
        classes=seen(size, clear, view.mask, view.label),
        differences=seen(size, (_CORRECT,), different),
        remark=remark,
    )


def seen(size: tuple[int, int], clear: tuple[int, ...], *drawn: NDArray[np.uint8] | None) -> tuple[int, ...]:
    """Return the values, ascending, that are seen in pictures `uint8[H, W]` as they are drawn at a size."""
    found: set[int] = set()
    for pixels in drawn:
        found |= set(() if pixels is None else np.unique(smaller(pixels, size)).tolist())
    return tuple(sorted(found - {*clear, VOID}))


def look_of(view: ImageView, classes: Classes) -> PerceptualHash:
    """Return what an image looks like; without a source, what its mask looks like."""
    return PerceptualHash.of(paint(view.mask, classes.palette_array) if view.photo is None else view.photo)


def _differences(view: ImageView, classes: Classes) -> NDArray[np.uint8] | None:
    if view.label is None:
        return None
    differences = np.full(view.mask.shape, _CORRECT, np.uint8)
    differences[view.mask != view.label] = _WRONG
    differences[np.isin(view.label, [*classes.ignored_classes, VOID])] = _IGNORED
    return differences
