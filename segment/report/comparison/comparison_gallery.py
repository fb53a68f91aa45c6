"""The pictures of a comparison: images with the masks of both runs and what differs, embedded as data URIs."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from segment.metrics.regroup import Grouping
from segment.models.classes import VOID, background_of
from segment.pipeline.stages import Task
from segment.report.comparison.comparing import Against
from segment.report.diversity import Diversity
from segment.report.exhibits import (
    SAME,
    Colours,
    Exhibit,
    Group,
    Phrase,
    differences_in,
    draw_exhibit,
    look_of,
    smaller,
)
from segment.report.pictures import ImageView, SourceReader, read_view
from segment.report.wording import pct

_PER_GROUP = 4  # images, of one comparison; fewer where there are several
_CANDIDATES = 8  # images that are looked at for one that is shown, at most: the others are near-duplicates of it
_CHANGED, _GAINED, _LOST = 1, 2, 3
_LABEL = "Label"
_PALETTE = np.array(
    [(0, 0, 0), (240, 180, 41), (38, 120, 235), (232, 62, 20)], np.uint8
)  # told apart by the colour-blind


def palette_of(found: Against) -> NDArray[np.uint8]:
    """Return the colours of the classes that are compared, `uint8[C, 3]`, RGB: of united ones that of the first."""
    common = found.common.classes.palette_array
    return common[[found.grouping.of_class.index(index) for index in range(len(found.grouping.names))]]


def difference_legend(found: Against, exhibits: Sequence[Exhibit]) -> list[tuple[int, str, list[int]]]:
    """Return kind, meaning and colour, RGB, of the differences that are seen in the pictures."""
    a, b = found.a.letter, found.b.letter
    is_labelled = any(pane.title == _LABEL for one in exhibits for pane in one.panes)
    changed = f"right in neither {a} nor {b}, or without a label" if is_labelled else "changed"
    words = {_CHANGED: changed, _GAINED: f"right in {b} only", _LOST: f"right in {a} only"}
    return differences_in(exhibits, words, _PALETTE)


def comparison_gallery(found: Against, tasks: tuple[Task, Task], comparisons: int) -> list[Group]:
    """Draw the images that changed most, lost most and gained most; without labels the former only.

    Memory holds one image at a time.

    Args:
        found: the comparison.
        tasks: of its two runs.
        comparisons: number on the page, which share the room.
    """
    a, b, pairs, reader = found.a, found.b, found.pairs, SourceReader(found.a.ledger, tasks[0])

    def read(number: int) -> tuple[ImageView, ImageView]:
        view = reader.read(a.row(int(pairs.rows_a[number])))
        return view, read_view(b.ledger, b.row(int(pairs.rows_b[number])), tasks[1], with_source=False)

    diverse = Diversity(read, lambda views: look_of(views[0], tasks[0].card.classes))
    most = max(1, _PER_GROUP * (1 if found.overall.scores else 2) // comparisons)
    groups = []
    for title, note, chosen in _chosen(found, _CANDIDATES * most):
        slots = [[number] for number in chosen]
        images = diverse.choose(slots, most, lambda number, views: _image(found, number, *views))
        groups.append(Group(title, note, tuple(images)))
    return groups


def _chosen(found: Against, number: int) -> Iterator[tuple[str, str, list[int]]]:
    groups = [("Changed most", "lowest agreement first", found.changed_most(number))]
    if found.overall.scores is not None:
        groups.append(("Lost most", "by mIoU of the image", found.lost_most(number)))
        groups.append(("Gained most", "by mIoU of the image", found.gained_most(number)))
    return (group for group in groups if group[2])


def _image(found: Against, number: int, view: ImageView, other: ImageView) -> Exhibit:
    to_a, to_b = (_table(protocol.grouping) for protocol in found.protocols)
    a, b = to_a[view.mask], to_b[smaller(other.mask, view.mask.shape)]
    label = None if view.label is None else to_a[view.label]
    return draw_exhibit(
        view,
        [*([] if label is None else [(_LABEL, label)]), (found.a.letter, a), (found.b.letter, b)],
        _differences(a, b, label, found.grouping.ignored),
        Colours(palette_of(found), (VOID, *background_of(found.grouping.names)), _PALETTE),
        _phrases(float(found.pairs.agreement[number]), *found.pairs.mious[:, number].tolist()),
    )


def _phrases(agreement: float, miou_a: float, miou_b: float) -> Iterator[Phrase]:
    if not math.isnan(agreement):
        yield "score", f"{pct(agreement)} % agree"
    if not math.isnan(miou_a + miou_b):
        yield "", f"mIoU {pct(miou_a)} → {pct(miou_b)} %"


def _table(grouping: Grouping) -> NDArray[np.uint8]:
    """Return the class by value of a mask or label of a run, `uint8[256]`; void stays void."""
    table = np.full(256, VOID, np.uint8)
    table[: len(grouping.of_class)] = grouping.of_class
    return table


def _differences(
    a: NDArray[np.uint8], b: NDArray[np.uint8], label: NDArray[np.uint8] | None, ignored: tuple[int, ...]
) -> NDArray[np.uint8]:
    kinds = np.full(a.shape, SAME, np.uint8)
    kinds[a != b] = _CHANGED
    if label is not None:
        counted = (a != b) & ~np.isin(label, [*ignored, VOID])
        kinds[counted & (b == label)] = _GAINED
        kinds[counted & (a == label)] = _LOST
    return kinds
