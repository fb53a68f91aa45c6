"""Statistics of images: sums of their counts, and the files of `stats/`, one object per shard.

A file has one row per class, and one for void.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from segment.errors import SegmentError
from segment.metrics import Confusion, score
from segment.metrics.counts import checked_counts
from segment.models.card import ModelCard
from segment.output.tables import read_table

STATS_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("class_id", pa.int32(), nullable=False),
        pa.field("class_name", pa.string(), nullable=False),
        pa.field("tp", pa.int64(), nullable=False),
        pa.field("fp", pa.int64(), nullable=False),
        pa.field("fn", pa.int64(), nullable=False),
        pa.field("label_pixels", pa.int64(), nullable=False),
        pa.field("predicted_pixels", pa.int64(), nullable=False),
        pa.field("iou", pa.float64()),
        pa.field("images", pa.int64(), nullable=False),
        pa.field("errors", pa.int64(), nullable=False),
        pa.field("scored", pa.int64(), nullable=False),
        pa.field("image_miou_sum", pa.float64(), nullable=False),
        pa.field("confusion", pa.list_(pa.int64()), nullable=False),
    ]
)


MOST = 16 << 20  # bytes of a file, stored and unpacked: the counts of 255 classes take half a megabyte


@dataclass(frozen=True, slots=True)
class ShardStats:
    """The exact statistics of a set of images: a part, a shard, or a run; `merge` sums them.

    Attributes:
        confusion: summed counts.
        images: rows, including error rows.
        errors: rows with an error.
        scored: rows with an mIoU.
        image_miou_sum: sum of the rows' mIoU, correctly rounded (`math.fsum`).
    """

    confusion: Confusion
    images: int
    errors: int
    scored: int
    image_miou_sum: float

    @property
    def image_miou(self) -> float | None:
        """Mean of the per-image mIoU, 0-1; None if no image is scored."""
        return self.image_miou_sum / self.scored if self.scored else None


class StatsSum:
    """Sums statistics one by one, without keeping their confusion matrices."""

    def __init__(self, classes: int) -> None:
        self._counts = Confusion.zeros(classes).counts
        self._numbers = np.zeros(3, dtype=np.int64)
        self._sums: list[float] = []  # `math.fsum` rounds once, at the end, so that the order has no effect

    def add(self, stats: ShardStats) -> None:
        """Add the statistics of other images. Raises SegmentError: they are of another number of classes."""
        if stats.confusion.classes != len(self._counts[0]):
            raise SegmentError(f"statistics of {stats.confusion.classes} classes, not the card's: run with --verify")
        self._counts += stats.confusion.counts
        self._numbers += (stats.images, stats.errors, stats.scored)
        self._sums.append(stats.image_miou_sum)

    def total(self) -> ShardStats:
        """Return the sum."""
        images, errors, scored = self._numbers.tolist()
        return ShardStats(Confusion(self._counts.copy()), images, errors, scored, math.fsum(self._sums))


def merge(stats: Iterable[ShardStats], classes: int) -> ShardStats:
    """Sum statistics of `classes` classes."""
    total = StatsSum(classes)
    for item in stats:
        total.add(item)
    return total.total()


def fold(table: pa.Table, classes: int) -> ShardStats:
    """Return the statistics of the rows of a masks file (columns `status`, `confusion`, `miou`).

    Raises:
        pa.ArrowException, IndexError, ValueError: the counts are damaged.
    """
    counts = np.zeros((classes + 1) * classes, dtype=np.int64)
    confusion = table["confusion"].combine_chunks()
    cells = confusion.field("cell").flatten().to_numpy().view(np.uint32)  # of which one below 0 is out of bounds, too
    pixels = confusion.field("count").flatten().to_numpy()
    if pixels.min(initial=0) < 0:
        raise ValueError("counts below 0")
    np.add.at(counts, cells, pixels)
    mious = table["miou"].drop_null().to_numpy()
    return ShardStats(
        Confusion(counts.reshape(classes + 1, classes)),
        images=len(table),
        errors=pc.sum(pc.equal(table["status"], "error"), min_count=0).as_py(),
        scored=len(mious),
        image_miou_sum=math.fsum(mious),
    )


def stats_table(shard: str, stats: ShardStats, card: ModelCard) -> pa.Table:
    """Return the table of a shard's statistics: one row per class and one for void.

    Args:
        shard, stats: id and statistics of the shard.
        card: of the model; its convention decides tp, fp, fn and IoU.
    """
    scored = score(stats.confusion, card.classes.ignored_classes, card.metric.convention)
    matrix = stats.confusion.counts
    names = [*card.classes.names, "void"]
    padded = {name: [*getattr(scored, name).tolist(), 0] for name in ("tp", "fp", "fn")}
    size = len(names)
    return pa.table(
        [
            pa.array([shard] * size, pa.string()),
            pa.array(range(size), pa.int32()),
            pa.array(names, pa.string()),
            pa.array(padded["tp"], pa.int64()),
            pa.array(padded["fp"], pa.int64()),
            pa.array(padded["fn"], pa.int64()),
            pa.array(matrix.sum(axis=1), pa.int64()),
            pa.array([*stats.confusion.predicted_pixels.tolist(), 0], pa.int64()),
            pa.array([None if np.isnan(v) else v for v in scored.iou.tolist()] + [None], pa.float64()),
            pa.array([stats.images] * size, pa.int64()),
            pa.array([stats.errors] * size, pa.int64()),
            pa.array([stats.scored] * size, pa.int64()),
            pa.array([stats.image_miou_sum] * size, pa.float64()),
            pa.array(matrix.tolist(), pa.list_(pa.int64())),
        ],
        schema=STATS_SCHEMA,
    )


def read_stats(data: bytes) -> ShardStats:
    """Parse a file of `stats/`, the inverse of `stats_table`.

    Raises:
        pa.ArrowException, LookupError, TypeError, ValueError: the bytes are none.
    """
    table = read_table(data, ["images", "errors", "scored", "image_miou_sum", "confusion"], most=MOST)
    first = table.slice(0, 1).to_pylist()[0]
    counts = checked_counts(np.array(table["confusion"].to_pylist(), dtype=np.int64))
    images, errors, scored = (int(first[name]) for name in ("images", "errors", "scored"))
    mious = float(first["image_miou_sum"])
    if counts.min() < 0 or not (0 <= errors <= images and 0 <= scored <= images and 0 <= mious <= scored):
        raise ValueError("impossible numbers of images")
    return ShardStats(Confusion(counts), images, errors, scored, mious)
