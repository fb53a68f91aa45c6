"""The pictures of a comparison: images with the masks of both runs and what differs, embedded as data URIs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segment.metrics.regroup import Grouping
from segment.models.classes import VOID
from segment.pipeline.stages import Task
from segment.report.comparison.comparing import Against
from segment.report.data_uris import jpeg_uri, png_uri, smaller, within_budget
from segment.report.pictures import ImageView, read_view
from segment.store.names import shown

_PER_GROUP = 4  # images, of one comparison; fewer where there are several
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
        classes: indices of the classes in these.
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
    a: str
    b: str
    difference: str
    classes: tuple[int, ...]


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


def colours_of_differences(found: Against, with_labels: bool) -> list[tuple[str, list[int]]]:
    """Return what each colour of the pictures of differences means, and the colour, RGB."""
    a, b = found.a.letter, found.b.letter
    words = [f"right in neither {a} nor {b}, or without a label", f"right in {b} only", f"right in {a} only"]
    return list(zip(words if with_labels else ["changed"], _PALETTE[_CHANGED:].tolist(), strict=False))


def comparison_gallery(found: Against, tasks: tuple[Task, Task], comparisons: int) -> list[ChangedGroup]:
    """Draw the images that changed most, lost most and gained most; without labels the former only.

    Memory holds one image at a time.

    Args:
        found: the comparison.
        tasks: of its two runs.
        comparisons: number on the page, which share the room.
    """
    groups = []
    reachable = True
    for title, note, chosen in _chosen(found, comparisons):
        images = []
        for number in chosen:
            row_a, row_b = found.a.row(int(found.pairs.rows_a[number])), found.b.row(int(found.pairs.rows_b[number]))
            view = read_view(found.a.ledger, row_a, tasks[0], with_source=reachable)
            reachable = reachable and view.reachable
            other = read_view(found.b.ledger, row_b, tasks[1], with_source=False)
            images.append(_image(found, number, view, other.mask))
        groups.append(ChangedGroup(title, note, tuple(images)))
    return groups


def _chosen(found: Against, comparisons: int) -> Iterator[tuple[str, str, list[int]]]:
    scored = found.overall.scores is not None
    number = max(1, _PER_GROUP * (1 if scored else 2) // comparisons)
    groups = [("Changed most", "lowest agreement first", found.changed_most(number))]
    if scored:
        groups.append(("Lost most", "by mIoU of the image", found.lost_most(number)))
        groups.append(("Gained most", "by mIoU of the image", found.gained_most(number)))
    return (group for group in groups if group[2])


def _image(found: Against, number: int, view: ImageView, mask_of_b: NDArray[np.uint8]) -> ChangedImage:
    to_a, to_b = (_table(protocol.grouping) for protocol in found.protocols)
    a, b = to_a[view.mask], to_b[smaller(mask_of_b, view.mask.shape)]
    mious = found.pairs.mious[:, number].tolist()
    label = None if view.label is None else to_a[view.label]
    differences, palette = _differences(a, b, label, found.grouping.ignored), palette_of(found)

    def draw(size: tuple[int, int]) -> tuple[str | None, str | None, str, str, str]:
        return (
            None if view.photo is None else jpeg_uri(smaller(view.photo, size, cv2.INTER_AREA)),
            None if label is None else png_uri(smaller(label, size), palette, (VOID,)),
            png_uri(smaller(a, size), palette, (VOID,)),
            png_uri(smaller(b, size), palette, (VOID,)),
            png_uri(smaller(differences, size), _PALETTE, (_SAME,)),
        )

    height, width = a.shape
    size, pictures = within_budget((height, width), draw)
    present = np.union1d(np.union1d(a, b), [] if label is None else label).astype(int)
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
        classes=tuple(index for index in present.tolist() if index < len(palette)),
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
