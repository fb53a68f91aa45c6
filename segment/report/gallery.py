"""The gallery of the HTML report: pictures small enough to be inside the page."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segment.images import codec
from segment.models.card import ModelCard
from segment.models.classes import VOID
from segment.output.ledger import Ledger
from segment.pipeline.stages import Task
from segment.report.pictures import Look, look
from segment.report.rows import ImageScores, Row
from segment.store.names import shown

_EACH = 4  # images a group
_SIDES = (640, 480, 320, 160, 80)  # longest side in pixels; the first at which an exhibit fits its budget
_BUDGET = 700_000  # bytes of an exhibit's pictures as data URIs: twelve of them stay under 9 MB
_QUALITY = 82  # of JPEG
_CORRECT, _WRONG, _IGNORED = 0, 1, 2
_JUDGED = np.array([[0, 0, 0], [232, 62, 20], [96, 104, 112]], np.uint8)  # colours of the above; the first is clear


@dataclass(frozen=True)
class Exhibit:
    """One image of the gallery.

    Attributes:
        id, uri: fit to be shown.
        width, height: of the image, pixels.
        shown_width, shown_height: of the pictures.
        miou, accuracy: 0-1; None if unscored.
        photo, prediction, label, disagreement: data URIs; None where there is no source or label.
        classes: indices of the classes in prediction and label.
    """

    id: str
    uri: str
    width: int
    height: int
    shown_width: int
    shown_height: int
    miou: float | None
    accuracy: float | None
    photo: str | None
    prediction: str
    label: str | None
    disagreement: str | None
    classes: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """Exhibits under one heading."""

    title: str
    note: str
    exhibits: tuple[Exhibit, ...]


def gallery(ledger: Ledger, scores: ImageScores, task: Task) -> list[Group]:
    """Draw the worst, median and best images; of an unlabelled run a sample, of a small one all.

    One image at a time is in memory; the pictures are `_EACH * 3` at most and each is within its budget.
    """
    groups = []
    reachable = True
    for title, note, rows in _choose(scores):
        exhibits = []
        for row in rows:
            found = look(ledger, row, task, with_source=reachable)
            reachable = reachable and found.reachable
            exhibits.append(exhibit(found, task.card))
        groups.append(Group(title, note, tuple(exhibits)))
    return groups


def _choose(scores: ImageScores) -> Iterator[tuple[str, str, list[Row]]]:
    ranking = scores.ranking()
    scored = ranking[~np.isnan(scores.miou[ranking])]
    if not len(scored):
        rows = scores.sample(2 * _EACH)
        if rows:
            yield "A sample", "evenly spread over the input", rows
    elif len(scored) <= 3 * _EACH:
        yield "Every scored image", "worst first", scores.rows(scored)
    else:
        middle = (len(scored) - _EACH) // 2
        yield "Worst", "lowest mIoU first", scores.rows(scored[:_EACH])
        yield "Median", "the middle of the ranking", scores.rows(scored[middle : middle + _EACH])
        yield "Best", "highest mIoU first", scores.rows(scored[: -_EACH - 1 : -1])


def exhibit(look: Look, card: ModelCard) -> Exhibit:
    """Draw the pictures of one image, as large as its budget allows."""
    height, width = look.mask.shape
    for side in _SIDES:
        scale = min(1.0, side / max(height, width))
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        pictures = _pictures(look, card, size)
        if sum(len(uri or "") for uri in pictures) <= _BUDGET:
            break
    present = np.unique(look.mask) if look.label is None else np.union1d(look.mask, look.label)
    classes = tuple(int(c) for c in present if c < len(card.classes))
    numbers = (width, height, size[1], size[0], look.miou, look.accuracy)
    return Exhibit(shown(look.id), shown(look.uri), *numbers, *pictures, classes)


def _pictures(look: Look, card: ModelCard, size: tuple[int, int]) -> tuple[str | None, str, str | None, str | None]:
    palette, void = card.classes.palette_array, (VOID,)
    photo = None if look.photo is None else _jpeg(_smaller(look.photo, size, cv2.INTER_AREA))
    prediction = _png(_smaller(look.mask, size), palette, void)
    if look.label is None:
        return photo, prediction, None, None
    judged = np.full(look.mask.shape, _CORRECT, np.uint8)
    judged[look.mask != look.label] = _WRONG
    judged[np.isin(look.label, [*card.classes.ignored_classes, VOID])] = _IGNORED
    label = _png(_smaller(look.label, size), palette, void)
    return photo, prediction, label, _png(_smaller(judged, size), _JUDGED, (_CORRECT,))


def _smaller(
    pixels: NDArray[np.uint8], size: tuple[int, int], interpolation: int = cv2.INTER_NEAREST_EXACT
) -> NDArray[np.uint8]:
    if pixels.shape[:2] == size:
        return pixels
    return np.asarray(cv2.resize(pixels, (size[1], size[0]), interpolation=interpolation), np.uint8)


def _jpeg(rgb: NDArray[np.uint8]) -> str:
    return _uri("jpeg", codec.encode_jpeg(rgb, _QUALITY))


def _png(pixels: NDArray[np.uint8], palette: NDArray[np.uint8], clear: tuple[int, ...]) -> str:
    return _uri("png", codec.encode_palette_png(pixels, palette, clear))


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
