"""Boundary IoU as it is shown: in words, and as rows of a table."""

import math
from collections.abc import Sequence

from segment.metrics.boundary import BoundaryScore
from segment.report.percents import percent, span
from segment.store.names import shown

HEAD = ["class", "boundary IoU %", "95 % interval"]


def boundary_in_words(boundary: BoundaryScore) -> str:
    """Return mean and distance in a line: `mean boundary IoU 41.20 % (39.9 to 42.6), d = 2 % of the diagonal`."""
    if boundary.mean is None:
        return "no boundary IoU: no label to compare with"
    bounds = f" ({span(boundary.interval)})" if boundary.interval else ""
    return f"mean boundary IoU {percent(boundary.mean)} %{bounds}, d = {100 * boundary.fraction:g} % of the diagonal"


def boundary_rows(boundary: BoundaryScore, names: Sequence[str]) -> list[list[str]]:
    """Return a row for each class that has a boundary: its name, boundary IoU in per cent, and the interval of it."""
    bounds = boundary.class_intervals or [None] * len(names)
    values = zip(names, boundary.score.iou.tolist(), bounds, strict=True)
    kept = (row for index, row in enumerate(values) if boundary.chosen is None or index in boundary.chosen)
    return [[shown(name), percent(iou), span(interval)] for name, iou, interval in kept if not math.isnan(iou)]
