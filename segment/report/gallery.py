"""The gallery of the HTML report: images with label, prediction and differences, embedded as data URIs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from segment.models.card import ModelCard
from segment.models.classes import VOID
from segment.output.ledger import Ledger
from segment.pipeline.stages import Task
from segment.report.data_uris import jpeg_uri, png_uri, smaller, within_budget
from segment.report.pictures import ImageView, read_view
from segment.report.rows import ImageScores, Row
from segment.store.names import shown

_PER_GROUP = 4  # images
_CORRECT, _WRONG, _IGNORED = 0, 1, 2
_DIFFERENCE_PALETTE = np.array([[0, 0, 0], [232, 62, 20], [96, 104, 112]], np.uint8)  # the first is transparent


@dataclass(frozen=True)
class Exhibit:
    """One image of the gallery.

    Attributes:
        id, uri: printable, without secrets.
        width, height: size of the image in pixels.
        shown_width, shown_height: size of the embedded pictures in pixels.
        miou, accuracy: 0-1; None if unscored.
        confidence: 0-1; None in a run without it.
        photo, prediction, label, disagreement: data URIs; None without a source or a label.
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
    confidence: float | None
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
    """Draw the worst, median and best images; of a small run every scored image.

    Without labels draw the least certain images, where they are known, and a sample.

    Memory holds one image at a time. The gallery has at most `3 * _PER_GROUP` images, each within its budget.
    """
    groups = []
    reachable = True
    for title, note, rows in _choose(scores):
        exhibits = []
        for row in rows:
            view = read_view(ledger, row, task, with_source=reachable)
            reachable = reachable and view.reachable
            exhibits.append(exhibit(view, task.card))
        groups.append(Group(title, note, tuple(exhibits)))
    return groups


def _choose(scores: ImageScores) -> Iterator[tuple[str, str, list[Row]]]:
    ranking = scores.ranking()
    scored = ranking[~np.isnan(scores.miou[ranking])]
    if not len(scored):
        if rows := scores.least_certain(2 * _PER_GROUP):
            yield "Least certain", "lowest confidence first: the images to look at, or to label, first", rows
        if rows := scores.sample(_PER_GROUP if rows else 2 * _PER_GROUP):
            yield "A sample", "evenly spread over the input", rows
    elif len(scored) <= 3 * _PER_GROUP:
        yield "Every scored image", "worst first", scores.rows(scored)
    else:
        middle = (len(scored) - _PER_GROUP) // 2
        yield "Worst", "lowest mIoU first", scores.rows(scored[:_PER_GROUP])
        yield "Median", "the middle of the ranking", scores.rows(scored[middle : middle + _PER_GROUP])
        yield "Best", "highest mIoU first", scores.rows(scored[: -_PER_GROUP - 1 : -1])


def exhibit(view: ImageView, card: ModelCard) -> Exhibit:
    """Draw the pictures of one image, as large as the budget allows."""
    height, width = view.mask.shape
    size, pictures = within_budget((height, width), lambda size: _pictures(view, card, size))
    present = np.unique(view.mask) if view.label is None else np.union1d(view.mask, view.label)
    classes = tuple(int(c) for c in present if c < len(card.classes))
    numbers = (width, height, size[1], size[0], view.miou, view.accuracy, view.confidence)
    return Exhibit(shown(view.id), shown(view.uri), *numbers, *pictures, classes)


def _pictures(
    view: ImageView, card: ModelCard, size: tuple[int, int]
) -> tuple[str | None, str, str | None, str | None]:
    palette, void = card.classes.palette_array, (VOID,)
    photo = None if view.photo is None else jpeg_uri(smaller(view.photo, size, cv2.INTER_AREA))
    prediction = png_uri(smaller(view.mask, size), palette, void)
    if view.label is None:
        return photo, prediction, None, None
    differences = np.full(view.mask.shape, _CORRECT, np.uint8)
    differences[view.mask != view.label] = _WRONG
    differences[np.isin(view.label, [*card.classes.ignored_classes, VOID])] = _IGNORED
    label = png_uri(smaller(view.label, size), palette, void)
    return photo, prediction, label, png_uri(smaller(differences, size), _DIFFERENCE_PALETTE, (_CORRECT,))
