"""Data of the charts of the HTML report; the template draws them as SVG and tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segment.metrics import Confusion
from segment.models.card import ModelCard

_BINS = 20  # of a histogram, about
_FINEST = 0.001  # width of a bin, at least
_LEVELS = 24  # shades of a heat map that is drawn as SVG
_LARGEST_TABLE = 40  # classes; a larger confusion matrix is drawn as SVG
_MISTAKES = 10

RGB = tuple[int, int, int]
PAPER: tuple[RGB, RGB] = ((255, 255, 255), (24, 27, 31))  # background of cells: light, dark; as in report.css
HEAT: tuple[RGB, RGB] = ((9, 76, 105), (104, 196, 232))  # a cell with share 1


@dataclass(frozen=True)
class Bar:
    """One bin of a histogram: its range `start` to `stop` (0-1), its `count`, and its `height` (0-100)."""

    start: float
    stop: float
    count: int
    height: float


def histogram(values: NDArray[np.float64]) -> list[Bar]:
    """Return the histogram of values of 0-1 in 12 to 24 bins over their range; the highest bar has height 100.

    Their number is a multiple of 4, so that the labels of the axis (`ticks`) stand at ends of bins.
    """
    values = values[~np.isnan(values)]
    lowest, highest = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    steps = round(1 / round_up(max(_FINEST, (highest - lowest) / _BINS)))  # bins of the whole axis, 0-1
    low, high = int(lowest * steps), int(np.ceil(highest * steps))
    number = max(12, 4 * -(-(high - low) // 4))
    low = max(0, min(low - (number - high + low) // 2, steps - number))
    edges = np.arange(low, low + number + 1) / steps
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), bins=edges)
    most = max(1, int(counts.max()))
    return [
        Bar(float(edges[i]), float(edges[i + 1]), int(count), 100 * int(count) / most) for i, count in enumerate(counts)
    ]


def ticks(bars: Sequence[Bar]) -> list[str]:
    """Return the labels of a histogram's axis, at equal distances, in per cent without the sign."""
    values = [100 * value for value in np.linspace(bars[0].start, bars[-1].stop, 5)]
    digits = next((n for n in range(4) if all(abs(round(v, n) - v) < 1e-6 for v in values)), 3)
    return [f"{value:.{digits}f}" for value in values]


def quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    """Return minimum, 5 % quantile, median, 95 % quantile and maximum."""
    points = {"lowest": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "highest": 1.0}
    return {name: float(np.quantile(values, q)) for name, q in points.items()}


@dataclass(frozen=True)
class Cell:
    """One cell of a heat map: share of its row (0-1), pixels, and the colour of its text in both themes."""

    share: float
    pixels: int
    white_on_light: bool
    black_on_dark: bool


@dataclass(frozen=True)
class HeatRow:
    """One row of a heat map, a label class; without cells if no pixel has this label."""

    index: int
    pixels: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class HeatMap:
    """A row-normalised confusion matrix.

    Attributes:
        classes: class indices of rows and columns; only classes that occur.
        rows: rows of the table; empty if the matrix is too large for a table.
        paths: (opacity, SVG path of unit squares) of a large matrix.
    """

    classes: tuple[int, ...]
    rows: tuple[HeatRow, ...]
    paths: tuple[tuple[float, str], ...]


def heat_map(confusion: Confusion) -> HeatMap:
    """Return a confusion matrix with rows normalised to shares of the label's pixels, for the classes that occur."""
    matrix = confusion.counts[:-1]
    occurring = np.flatnonzero(matrix.sum(axis=0) + matrix.sum(axis=1))
    matrix = matrix[np.ix_(occurring, occurring)]
    pixels = matrix.sum(axis=1)
    shares = matrix / np.maximum(pixels, 1)[:, None]
    classes = tuple(int(i) for i in occurring)
    if len(classes) > _LARGEST_TABLE:
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
    """Return the relative luminance (WCAG 2) of a cell; its colour is mixed in sRGB, as in CSS."""
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
    """Pixels of one class that are predicted as another; `share` of the label's pixels, 0-1."""

    label: int
    prediction: int
    pixels: int
    share: float


def mistakes(confusion: Confusion, card: ModelCard) -> list[Mistake]:
    """Return the largest cells off the diagonal, in descending order; ignored labels are no mistakes."""
    matrix = confusion.counts[:-1].copy()
    totals = matrix.sum(axis=1)
    ignored = list(card.classes.ignored_classes)
    matrix[ignored, :] = 0
    if card.metric.convention in ("omz", "image-mean"):
        matrix[:, ignored] = 0
    return largest_pairs(matrix, totals)


def largest_pairs(matrix: NDArray[np.int64], totals: NDArray[np.int64] | None = None) -> list[Mistake]:
    """Return the largest cells off the diagonal of a matrix `int64[C, C]`, in descending order.

    Args:
        matrix: pixels by row and column.
        totals: pixels of each row, `int64[C]`, of which the shares are; None for the sums of the rows.
    """
    totals = matrix.sum(axis=1) if totals is None else totals
    flat = (matrix - np.diag(np.diag(matrix))).ravel()
    order = np.argsort(-flat, kind="stable")[:_MISTAKES]
    pairs = [(int(n) // len(totals), int(n) % len(totals)) for n in order if flat[n]]
    return [Mistake(i, j, int(matrix[i, j]), float(matrix[i, j] / totals[i])) for i, j in pairs]


@dataclass(frozen=True)
class Slice:
    """One piece of a stacked bar, with its `start` and `width` (0-100)."""

    name: str
    value: float
    start: float
    width: float


def stacked(values: Mapping[str, float]) -> list[Slice]:
    """Return the pieces of a stacked bar of length 100; none if all values are 0."""
    total = sum(values.values())
    slices, start = [], 0.0
    for name, value in values.items() if total > 0 else ():
        slices.append(Slice(name, value, start, 100 * value / total))
        start += 100 * value / total
    return slices


def smoothed(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Return values, `float64[n]`, each spread over `width` neighbours on either side (a Hann window).

    Their sum, the number of images, stays.
    """
    distance = np.abs(np.subtract.outer(np.arange(len(values)), np.arange(len(values))))
    kernel = np.where(distance <= width, 1 + np.cos(np.pi * distance / (width + 1)), 0.0)
    return np.asarray(values @ (kernel / kernel.sum(axis=1, keepdims=True)))


def line_path(values: Sequence[float], highest: float) -> str:
    """Return the SVG path of the area below a line through equal distances, 100 by 100, y downwards."""
    places = np.linspace(0, 100, max(2, len(values)))
    heights = [100 - 100 * value / highest for value in (values if len(values) > 1 else [*values, *values])]
    return "M0 100" + "".join(f"L{x:.2f} {y:.2f}" for x, y in zip(places, heights, strict=True)) + "L100 100Z"


def round_up(value: float) -> float:
    """Return the smallest of 1, 2, 2.5, 5 times a power of ten that is at least `value`: the end of an axis."""
    power = 10.0 ** np.floor(np.log10(value)) if value > 0 else 1.0
    return float(next(step * power for step in (1, 2, 2.5, 5, 10) if value <= step * power * (1 + 1e-9)))
