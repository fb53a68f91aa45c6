"""Images that stand for a run: the most typical ones, and the worst of each class, chosen by the stored counts."""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from segment.metrics import Confusion
from segment.metrics.conventions import ratio, roles
from segment.models.card import ModelCard
from segment.output.ledger import Ledger
from segment.output.part_rows import part_tables
from segment.output.plan import Plan
from segment.report.rows import Row, row_at
from segment.scores.image_counts import ImageCounts, count_columns, counts_of_rows

SMALLEST_SHARE = 0.001  # of the counted pixels of an image: a class with fewer labelled ones is not ranked there
_TYPICAL = 32  # images kept: more than are shown, as near-duplicates are passed over
_WORST = 4  # images kept of a class

_Ranked = tuple[float, float, int, int]  # what it is ranked by, lowest first, and then; part, row


@dataclass(frozen=True)
class Notable:
    """Images that stand for a run.

    Attributes:
        typical: the most typical ones first; see `read_notable`.
        worst: by class index, IoU of the class (0-1) and image, lowest first; no class that is in no image.
    """

    typical: tuple[Row, ...] = ()
    worst: dict[int, tuple[tuple[float, Row], ...]] = field(default_factory=dict)


def read_notable(ledger: Ledger, plan: Plan, card: ModelCard, total: Confusion, numbers: Sequence[int]) -> Notable:
    """Find the images whose counts are most like those of the whole run, and those with the lowest IoU of each class.

    An image is typical where its confusion matrix, as shares of its pixels, is near that of the run: it shows what most
    images show, and goes wrong where they do. Without labels these are the shares of the predicted classes. The
    distance is the total variation. Memory holds the counts of one part at a time.

    Args:
        numbers: of the parts to look at.

    Raises:
        SegmentError: a masks file is damaged or lost.
    """
    typical: list[_Ranked] = []
    worst: dict[int, list[_Ranked]] = {}
    role = roles(len(card.classes), card.classes.ignored_classes, card.metric.convention)
    for part, table in part_tables(ledger, plan, numbers, count_columns()):
        rows = np.flatnonzero(np.asarray(pc.is_valid(table["confusion"])))
        counts = counts_of_rows(len(card.classes), table.take(pa.array(rows)))
        distances = _distances(counts, total)
        typical = heapq.nsmallest(_TYPICAL, [*typical, *_ranked(distances, distances, part, rows, _TYPICAL)])
        for index, shares, ious in _classes(counts, role) if total.is_scored else ():
            new = _ranked(ious, -shares, part, rows, _WORST)
            worst[index] = heapq.nsmallest(_WORST, [*worst.get(index, []), *new])
    return Notable(
        tuple(row_at(plan, part, row) for *_, part, row in typical),
        {
            index: tuple((iou, row_at(plan, part, row)) for iou, _, part, row in ranked)
            for index, ranked in sorted(worst.items())
        },
    )


def _ranked(
    values: NDArray[np.float64], others: NDArray[np.float64], part: int, rows: NDArray[np.intp], number: int
) -> list[_Ranked]:
    """Return the lowest values, and of equal ones those with the lowest others; NaN is none."""
    order = [image for image in np.lexsort((others, values)).tolist() if not np.isnan(values[image])]
    return [(float(values[image]), float(others[image]), part, int(rows[image])) for image in order[:number]]


def _distances(counts: ImageCounts, total: Confusion) -> NDArray[np.float64]:
    """Return the total variation distance, 0-1, of the counts of each image from those of the run, `float64[n]`."""
    flat = total.counts.ravel().astype(np.float64)
    common = flat / max(1.0, float(flat.sum()))
    owner = np.repeat(np.arange(len(counts)), np.diff(counts.offsets))
    pixels = np.bincount(owner, weights=counts.counts, minlength=len(counts))
    shares = counts.counts / np.maximum(pixels, 1)[owner]
    overlap = np.minimum(shares, common[counts.cells])
    return np.asarray(1 - np.bincount(owner, weights=overlap, minlength=len(counts)))


def _classes(
    counts: ImageCounts, role: NDArray[np.int16]
) -> Iterator[tuple[int, NDArray[np.float64], NDArray[np.float64]]]:
    """Yield the classes that are labelled in an image: share and IoU in each image, `float64[n]`, NaN in the others."""
    by_role = counts.by_role(role)
    right, extra, missed = by_role[:, 0], by_role[:, 1], by_role[:, 2]
    labelled = right + missed
    shares = ratio(labelled, labelled.sum(axis=1, keepdims=True))
    ious = np.where(shares >= SMALLEST_SHARE, ratio(right, labelled + extra), np.nan)
    for index in np.flatnonzero((shares >= SMALLEST_SHARE).any(axis=0)).tolist():
        yield index, shares[:, index], ious[:, index]
