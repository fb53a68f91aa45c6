"""The files of `stats/`: one object per shard; one row per class, and one for void."""

import numpy as np
import pyarrow as pa

from segment.metrics import Confusion, score
from segment.metrics.counts import checked_counts
from segment.models.card import ModelCard
from segment.output.tables import ShardStats, read_table

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
    table = read_table(data, ["images", "errors", "scored", "image_miou_sum", "confusion"])
    first = table.slice(0, 1).to_pylist()[0]
    counts = checked_counts(np.array(table["confusion"].to_pylist(), dtype=np.int64))
    images, errors, scored = (int(first[name]) for name in ("images", "errors", "scored"))
    return ShardStats(Confusion(counts), images, errors, scored, float(first["image_miou_sum"]))
