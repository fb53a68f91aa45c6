"""The pictures of a comparison: images with the masks of both runs and what differs, embedded as data URIs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from segment.metrics.regroup import Grouping
from segment.models.classes import VOID, background_of
from segment.pipeline.stages import Task
from segment.report.comparison.comparing import Against
from segment.report.data_uris import jpeg_uri, mask_uris, png_uri, smaller, within_budget
from segment.report.diversity import Diversity
from segment.report.exhibits import look_of, seen
from segment.report.pictures import ImageView, read_view
from segment.store.names import shown

_PER_GROUP = 4  # images, of one comparison; fewer where there are several
_CANDIDATES = 8  # images that are looked at for one that is shown, at most: the others are near-duplicates of it
_SAME, _CHANGED, _GAINED, _LOST = range(4)
_PALETTE = np.array(
    [(0, 0, 0), (240, 180, 41), (38, 120, 235), (232, 62, 20)], np.uint8
)  # told apart by the colour-blind


@dataclass(frozen=True)
class ChangedImage:
    """One image of the gallery.

    Attributes:
        id, uri: printable, without secrets.
        width, height: size of the image in pixels.
        shown_width, shown_height: size of the embedded pictures in pixels.
        agreement: share of its pixels that agree, 0-1; NaN if masks were not compared.
        miou_a, miou_b: 0-1; NaN if unscored.
        photo, label: data URIs; None without a source or a label.
        a, b, difference: data URIs of both masks and what differs between them.
        label_lines, a_lines, b_lines: data URIs of the lines along their borders.
        classes: indices of the classes that are seen in these.
        differences: of the kinds of differences that are seen, those after "the same".
    """

    id: str
    uri: str
    width: int
    height: int
    shown_width: int
    shown_height: int
    agreement: float
    miou_a: float
    miou_b: float
    photo: str | None
    label: str | None
    label_lines: str | None
    a: str
    a_lines: str
    b: str
    b_lines: str
    difference: str
    classes: tuple[int, ...]
    differences: tuple[int, ...]


class _Pictures(NamedTuple):
    """Data URIs, in the order of the fields of `ChangedImage`."""

    photo: str | None
    label: str | None
    label_lines: str | None
    a: str
    a_lines: str
    b: str
    b_lines: str
    difference: str


@dataclass(frozen=True)
class ChangedGroup:
    """Images under one heading."""

    title: str
    note: str
    images: tuple[ChangedImage, ...]


def palette_of(found: Against) -> NDArray[np.uint8]:
    """Return the colours of the classes that are compared, `uint8[C, 3]`, RGB: of united ones that of the first."""
    common = found.common.classes.palette_array
    return common[[found.grouping.of_class.index(index) for index in range(len(found.grouping.names))]]


def colours_of_differences(found: Against, groups: Sequence[ChangedGroup]) -> list[tuple[int, str, list[int]]]:
    """Return kind, meaning and colour, RGB, of the differences that are seen in the pictures."""
    a, b = found.a.letter, found.b.letter
    images = [image for group in groups for image in group.images]
    changed = f"right in neither {a} nor {b}, or without a label" if any(image.label for image in images) else "changed"
    words = {_CHANGED: changed, _GAINED: f"right in {b} only", _LOST: f"right in {a} only"}
    kinds = sorted({kind for image in images for kind in image.differences})
    return [(kind, words[kind], _PALETTE[kind].tolist()) for kind in kinds]


def comparison_gallery(found: Against, tasks: tuple[Task, Task], comparisons: int) -> list[ChangedGroup]:
    """Draw the images that changed most, lost most and gained most; without labels the former only.

    Memory holds one image at a time.

    Args:
        found: the comparison.
        tasks: of its two runs.
        comparisons: number on the page, which share the room.
    """
    reader = _Reader(found, tasks)
    diverse = Diversity(reader.read, lambda views: look_of(views[0], tasks[0].card.classes))
    most = max(1, _PER_GROUP * (1 if found.overall.scores else 2) // comparisons)
    groups = []
    for title, note, chosen in _chosen(found, _CANDIDATES * most):
        slots = [[number] for number in chosen]
        images = diverse.choose(slots, most, lambda number, views: _image(found, number, *views))
        groups.append(ChangedGroup(title, note, tuple(images)))
    return groups


class _Reader:
    """Reads images with the masks of both runs, and no more sources once their store does not answer."""

    def __init__(self, found: Against, tasks: tuple[Task, Task]) -> None:
        self._found, self._tasks, self._reachable = found, tasks, True

    def read(self, number: int) -> tuple[ImageView, ImageView]:
        a, b, pairs = self._found.a, self._found.b, self._found.pairs
        view = read_view(a.ledger, a.row(int(pairs.rows_a[number])), self._tasks[0], with_source=self._reachable)
        self._reachable = self._reachable and view.reachable
        return view, read_view(b.ledger, b.row(int(pairs.rows_b[number])), self._tasks[1], with_source=False)


def _chosen(found: Against, number: int) -> Iterator[tuple[str, str, list[int]]]:
    groups = [("Changed most", "lowest agreement first", found.changed_most(number))]
    if found.overall.scores is not None:
        groups.append(("Lost most", "by mIoU of the image", found.lost_most(number)))
        groups.append(("Gained most", "by mIoU of the image", found.gained_most(number)))
    return (group for group in groups if group[2])


def _image(found: Against, number: int, view: ImageView, other: ImageView) -> ChangedImage:
    to_a, to_b = (_table(protocol.grouping) for protocol in found.protocols)
    a, b = to_a[view.mask], to_b[smaller(other.mask, view.mask.shape)]
    mious = found.pairs.mious[:, number].tolist()
    label = None if view.label is None else to_a[view.label]
    different, palette = _differences(a, b, label, found.grouping.ignored), palette_of(found)
    clear = (VOID, *background_of(found.grouping.names))

    def draw(size: tuple[int, int]) -> _Pictures:
        label_uri, label_lines = (None, None) if label is None else mask_uris(label, size, palette, clear)
        return _Pictures(
            None if view.photo is None else jpeg_uri(smaller(view.photo, size, cv2.INTER_AREA)),
            label_uri,
            label_lines,
            *mask_uris(a, size, palette, clear),
            *mask_uris(b, size, palette, clear),
            png_uri(smaller(different, size), _PALETTE, (_SAME,)),
        )

    height, width = a.shape
    size, pictures = within_budget((height, width), draw)
    return ChangedImage(
        shown(view.id),
        shown(view.uri),
        width,
        height,
        size[1],
        size[0],
        float(found.pairs.agreement[number]),
        mious[0],
        mious[1],
        *pictures,
        classes=seen(size, clear, a, b, label),
        differences=seen(size, (_SAME,), different),
    )


def _table(grouping: Grouping) -> NDArray[np.uint8]:
    """Return the class by value of a mask or label of a run, `uint8[256]`; void stays void."""
    table = np.full(256, VOID, np.uint8)
    table[: len(grouping.of_class)] = grouping.of_class
    return table


def _differences(
    a: NDArray[np.uint8], b: NDArray[np.uint8], label: NDArray[np.uint8] | None, ignored: tuple[int, ...]
) -> NDArray[np.uint8]:
    kinds = np.full(a.shape, _SAME, np.uint8)
    kinds[a != b] = _CHANGED
    if label is not None:
        counted = (a != b) & ~np.isin(label, [*ignored, VOID])
        kinds[counted & (b == label)] = _GAINED
        kinds[counted & (a == label)] = _LOST
    return kinds
