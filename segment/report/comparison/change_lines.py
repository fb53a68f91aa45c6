"""The rows of the tables of a comparison: of scores, classes and slices, for text, Markdown and the page alike."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segment.metrics.boundary import BoundaryScore
from segment.report.percents import number_texts, percent, points, points_span
from segment.report.score_formats import figure_name
from segment.scores.paired import Change, PairedBoundaries
from segment.store.names import shown

if TYPE_CHECKING:
    from segment.report.comparison.comparing import Against

BOUNDARY = "mean boundary IoU"


@dataclass(frozen=True)
class ChangeLine:
    """A row: a score in both runs, and its change.

    Attributes:
        name: what is scored.
        a, b: the score in A and in B; NaN where it is undefined.
        change: from A to B; None where no image is labelled in both.
        share: 0-1, of the pixels that agree or, for a class, the IoU of both masks; None if masks were not compared.
        is_share: whether the score is a share, shown in per cent and its change in points.
        images: number, of a slice.
        index: of a class.
    """

    name: str
    a: float = math.nan
    b: float = math.nan
    change: Change | None = None
    share: float | None = None
    is_share: bool = True
    images: int = 0
    index: int = -1

    @property
    def texts(self) -> list[str]:
        """Both scores, the change and its interval; empty where no image is labelled in both."""
        if self.change is None:
            return ["", "", "", ""]
        if self.is_share:
            return [percent(self.a), percent(self.b), points(self.change), points_span(self.change.interval)]
        return number_texts(self.a, self.b, self.change)

    @property
    def agreement(self) -> str:
        """The share as text; empty if masks were not compared."""
        return "" if self.share is None else percent(self.share)


def figure_lines(found: Against) -> Iterator[ChangeLine]:
    """Yield the scores that are one number; none if no image is labelled in both."""
    scores = found.overall.scores
    if scores is None:
        return
    for name, change in scores.changes.items():
        a, b = scores.a.figures[name], scores.b.figures[name]
        yield ChangeLine(figure_name(name, found.protocols[0]), a, b, change, is_share=name != "kappa")
    if scores.boundary:
        yield _of_boundary(BOUNDARY, scores.boundary)


def class_lines(found: Against) -> Iterator[ChangeLine]:
    """Yield the IoU of each class."""
    scores, agreement = found.overall.scores, found.overall.agreement
    for index in range(len(found.grouping.names)):
        name, share = class_in_words(found, index), float(agreement.score.iou[index]) if agreement else None
        if scores is None:
            yield ChangeLine(name, share=share, index=index)
        else:
            a, b = (float(one.score.iou[index]) for one in (scores.a, scores.b))
            yield ChangeLine(name, a, b, scores.class_changes["iou"][index], share, index=index)


def boundary_lines(found: Against) -> Iterator[ChangeLine]:
    """Yield the boundary IoU of each class; none where it is not compared."""
    if boundary := found.overall.scores and found.overall.scores.boundary:
        values = zip(boundary.a.score.iou.tolist(), boundary.b.score.iou.tolist(), boundary.class_changes, strict=True)
        for index, (a, b, change) in enumerate(values):
            yield ChangeLine(class_in_words(found, index), a, b, change, index=index)


def slice_lines(found: Against) -> Iterator[ChangeLine]:
    """Yield the mIoU of each slice."""
    for value, one in found.slices.items():
        name, share = shown(value), one.agreement.figures["pixel_accuracy"] if one.agreement else None
        if one.scores is None:
            yield ChangeLine(name, share=share, images=one.images)
        else:
            a, b = one.scores.a.figures["miou"], one.scores.b.figures["miou"]
            yield ChangeLine(name, a, b, one.scores.changes["miou"], share, images=one.images)


def slice_boundary_lines(found: Against) -> Iterator[ChangeLine]:
    """Yield the mean boundary IoU of each slice; none where it is not compared."""
    for value, one in found.slices.items():
        if one.scores and one.scores.boundary:
            yield _of_boundary(shown(value), one.scores.boundary, one.images)


def _of_boundary(name: str, boundary: PairedBoundaries, images: int = 0) -> ChangeLine:
    return ChangeLine(name, _mean(boundary.a), _mean(boundary.b), boundary.change, images=images)


def _mean(boundary: BoundaryScore) -> float:
    """Return the mean boundary IoU, 0-1; NaN if no class has a boundary."""
    return math.nan if boundary.mean is None else boundary.mean


def class_in_words(found: Against, index: int) -> str:
    """Return the name of a class, and whether it is ignored, or which run alone has it."""
    in_a, in_b = (index in protocol.grouping.of_class for protocol in found.protocols)
    mark = " (ignored)" if index in found.grouping.ignored else ""
    if in_a != in_b:
        mark = f" (only {found.a.letter if in_a else found.b.letter})"
    return f"{shown(found.grouping.names[index])}{mark}"
