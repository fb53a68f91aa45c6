"""The numbers behind the charts of the HTML report; the template draws them as SVG and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segment.metrics import Confusion
from segment.models.card import ModelCard

_BINS = 20
_LEVELS = 24  # shades of a heat map too large for a table
_LARGE = 40  # classes from which a confusion matrix is a picture
_CONFUSIONS = 10

RGB = tuple[int, int, int]
PAPER: tuple[RGB, RGB] = ((255, 255, 255), (24, 27, 31))  # below a heat map's cells: light, dark; as in report.css
HEAT: tuple[RGB, RGB] = ((9, 76, 105), (104, 196, 232))  # of a full cell


@dataclass(frozen=True)
class Bar:
    """One bin of a histogram: from `start` to `stop` (0-1), `count` in it, `height` 0-100."""

    start: float
    stop: float
    count: int
    height: float


def histogram(values: NDArray[np.float64]) -> list[Bar]:
    """Count values of 0-1 in 20 bins; the highest bar is 100 high."""
    counts, edges = np.histogram(values, bins=_BINS, range=(0.0, 1.0))
    most = max(1, int(counts.max()))
    return [
        Bar(float(edges[i]), float(edges[i + 1]), int(count), 100 * int(count) / most) for i, count in enumerate(counts)
    ]


def quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    """Minimum, 5 %, median, 95 %, maximum of ascending values."""
    points = {"lowest": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "highest": 1.0}
    return {name: float(np.quantile(values, q)) for name, q in points.items()}


@dataclass(frozen=True)
class Cell:
    """One cell of a heat map: share of its row 0-1, pixels, and whether its text is white (light) or black (dark)."""

    share: float
    pixels: int
    white_on_light: bool
    black_on_dark: bool


@dataclass(frozen=True)
class HeatRow:
    """One row of a heat map: a label class; no cells if no pixel has this label."""

    index: int
    pixels: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class HeatMap:
    """A row-normalised confusion matrix.

    Attributes:
        classes: indices of rows and columns: those that occur.
        rows: as a table; empty for a matrix too large for one.
        paths: of a large one: SVG path by opacity, unit squares.
    """

    classes: tuple[int, ...]
    rows: tuple[HeatRow, ...]
    paths: tuple[tuple[float, str], ...]


def heat_map(confusion: Confusion) -> HeatMap:
    """Normalise the rows of a confusion matrix to shares of the label's pixels, for classes that occur."""
    matrix = confusion.counts[:-1]
    occurring = np.flatnonzero(matrix.sum(axis=0) + matrix.sum(axis=1))
    matrix = matrix[np.ix_(occurring, occurring)]
    pixels = matrix.sum(axis=1)
    shares = matrix / np.maximum(pixels, 1)[:, None]
    classes = tuple(int(i) for i in occurring)
    if len(classes) > _LARGE:
        return HeatMap(classes, (), tuple(_paths(shares)))
    rows = [
        HeatRow(index, int(total), tuple(map(_cell, row.tolist(), counts.tolist())) if total else ())
        for index, total, row, counts in zip(classes, pixels, shares, matrix, strict=True)
    ]
    return HeatMap(classes, tuple(rows), ())


def _cell(share: float, pixels: int) -> Cell:
    return Cell(share, pixels, _luminance(0, share) < _READABLE, _luminance(1, share) > _READABLE)


_READABLE = 0.1791  # relative luminance at which black and white text have the same contrast, 4.58 (WCAG 2)


def _luminance(theme: int, share: float) -> float:
    """Relative luminance (WCAG 2) of a cell's colour, mixed in sRGB as CSS does it."""
    mixed = [p + (h - p) * share for p, h in zip(PAPER[theme], HEAT[theme], strict=True)]
    linear = [c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in mixed]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _paths(shares: NDArray[np.float64]) -> list[tuple[float, str]]:
    levels = np.ceil(shares * _LEVELS).astype(int)
    return [
        (level / _LEVELS, "".join(f"M{x} {y}h1v1h-1z" for y, x in np.argwhere(levels == level).tolist()))
        for level in np.unique(levels[levels > 0]).tolist()
    ]


@dataclass(frozen=True)
class Mistake:
    """Pixels of one class taken for another; `share` of the label's pixels, 0-1."""

    label: int
    prediction: int
    pixels: int
    share: float


def mistakes(confusion: Confusion, card: ModelCard) -> list[Mistake]:
    """The largest cells off the diagonal, largest first; ignored labels are no mistakes."""
    matrix = confusion.counts[:-1].copy()
    totals = matrix.sum(axis=1)
    np.fill_diagonal(matrix, 0)
    ignored = list(card.classes.ignored_classes)
    matrix[ignored, :] = 0
    if card.metric.convention != "cityscapes":
        matrix[:, ignored] = 0
    flat = matrix.ravel()
    order = np.argsort(-flat, kind="stable")[:_CONFUSIONS]
    pairs = [(int(n) // len(totals), int(n) % len(totals)) for n in order if flat[n]]
    return [Mistake(i, j, int(matrix[i, j]), float(matrix[i, j] / totals[i])) for i, j in pairs]


@dataclass(frozen=True)
class Slice:
    """One piece of a stacked bar: from `start`, `width` wide, both 0-100."""

    name: str
    value: float
    start: float
    width: float


def stacked(values: Mapping[str, float]) -> list[Slice]:
    """Lay values end to end over 100; empty if they are all nothing."""
    total = sum(values.values())
    slices, start = [], 0.0
    for name, value in values.items() if total > 0 else ():
        slices.append(Slice(name, value, start, 100 * value / total))
        start += 100 * value / total
    return slices


def step_path(values: Sequence[float], highest: float) -> str:
    """SVG path of the area below a step curve, 100 by 100, y downwards."""
    width = 100 / max(1, len(values))
    steps = "".join(
        f"L{i * width:.2f} {100 - 100 * v / highest:.2f}H{(i + 1) * width:.2f}" for i, v in enumerate(values)
    )
    return f"M0 100{steps}V100Z"


def round_up(value: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten: where an axis ends."""
    power = 10.0 ** np.floor(np.log10(value)) if value > 0 else 1.0
    return float(next(step * power for step in (1, 2, 2.5, 5, 10) if value <= step * power * (1 + 1e-9)))
