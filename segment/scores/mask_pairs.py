"""The same images in two runs: the counts of both, and the pixels of their masks counted against each other."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from segment.images import resize
from segment.metrics import Confusion
from segment.metrics.common_classes import CommonClasses
from segment.metrics.conventions import ratio
from segment.models.card import ModelCard
from segment.output.ledger import Ledger
from segment.output.mask_files import read_mask
from segment.output.part_rows import read_part_rows
from segment.output.plan import Plan
from segment.scores.image_counts import ImageCounts, count_columns, counts_of_matrices, counts_of_rows, joined
from segment.scores.matching import Matches, RunRows
from segment.store.background import in_order

_THREADS = 8
_CACHED = 8  # parts of B whose rows are kept for the next part of A, where the parts of the runs do not coincide


@dataclass(frozen=True, eq=False)
class Side:
    """One of two runs that are compared: where its rows are, which they are, and its card."""

    ledger: Ledger
    plan: Plan
    rows: RunRows
    card: ModelCard


@dataclass(frozen=True, eq=False)
class Pairs:
    """The n images of two runs that can be compared, in A's order.

    Attributes:
        rows_a, rows_b: `int64[n]`, indices of their rows in `RunRows`.
        a, b: the counts of each run, by the classes of its card.
        masks: pixels by A's and B's mask, in the place of label and prediction, by the common classes; None if masks
            were not compared.
        resized_a, resized_b: number of masks that were resized to their image.
        other_size: images left out, as their source has another size in the other run.
        elsewhere: number of images whose source has another URI in the other run.
        example: both URIs of the first of these.
    """

    rows_a: NDArray[np.intp]
    rows_b: NDArray[np.intp]
    a: ImageCounts
    b: ImageCounts
    masks: ImageCounts | None
    resized_a: int = 0
    resized_b: int = 0
    other_size: int = 0
    elsewhere: int = 0
    example: tuple[str, str] | None = None

    def __len__(self) -> int:
        return len(self.rows_a)


def read_pairs(
    a: Side, b: Side, matches: Matches, common: CommonClasses, with_masks: bool = True, meta: Collection[str] = ()
) -> Pairs:
    """Read the rows of matched images, part by part of A, in several threads, and count their pixels.

    Memory holds the counts of all images (see `ImageCounts`), the masks of a few parts, and both of one large image.
    Where B's images are in another order than A's, a part of B may be read several times.

    Args:
        a, b: the two runs.
        matches: the images.
        common: the classes.
        with_masks: count the pixels of the masks against each other; if not, no mask is read.
        meta: names of metadata that A keeps, to read with its counts.

    Raises:
        SegmentError: a masks file is damaged or lost.
    """
    reader = _Reader(a, b, common, with_masks, meta)
    of_a: list[ImageCounts] = []
    of_b: list[ImageCounts] = []
    of_masks: list[ImageCounts] = []
    parts_kept, resized, elsewhere = [np.empty(0, np.bool_)], np.zeros(2, np.int64), 0
    example: tuple[str, str] | None = None
    for block in in_order(reader.read, _by_part(a.rows, matches), name="pairs", threads=_THREADS, ahead=2 * _THREADS):
        of_a.append(block.a)
        of_b.append(block.b)
        of_masks.append(block.masks)
        parts_kept.append(block.kept)
        resized += block.resized
        elsewhere += block.elsewhere
        example = example or block.example
    kept = np.concatenate(parts_kept)
    return Pairs(
        matches.rows_a[kept],
        matches.rows_b[kept],
        _drained(len(a.card.classes), of_a, meta),
        _drained(len(b.card.classes), of_b),
        _drained(len(common.classes), of_masks) if with_masks else None,
        int(resized[0]),
        int(resized[1]),
        int(np.count_nonzero(~kept)),
        elsewhere,
        example,
    )


def _drained(classes: int, blocks: list[ImageCounts], meta: Collection[str] = ()) -> ImageCounts:
    """Join blocks and let go of them, before those of the other run are joined, too."""
    counts = joined(classes, blocks, meta)
    blocks.clear()
    return counts


def _by_part(a: RunRows, matches: Matches) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield the rows of A and of B of the images of each of A's parts."""
    cuts = np.flatnonzero(np.diff(a.part[matches.rows_a])) + 1
    yield from zip(np.split(matches.rows_a, cuts), np.split(matches.rows_b, cuts), strict=True) if len(matches) else ()


@dataclass(frozen=True, eq=False)
class _Block:
    """The images of a part of A: which of them can be compared, their counts, and the numbers that `Pairs` sums."""

    kept: NDArray[np.bool_]
    a: ImageCounts
    b: ImageCounts
    masks: ImageCounts
    resized: NDArray[np.int64]
    elsewhere: int
    example: tuple[str, str] | None


class _Reader:
    """Reads parts of two runs; called in several threads."""

    def __init__(self, a: Side, b: Side, common: CommonClasses, with_masks: bool, meta: Collection[str]) -> None:
        self._a, self._b, self._common, self._with_masks = a, b, common, with_masks
        self._large = threading.Lock()  # masks in files of their own, of which one image's are in memory at once
        self._meta, mask = meta, ["mask"] if with_masks else []
        self._part_of_a = self._part_reader(a, ["uri", *count_columns(meta), *mask])
        self._part_of_b = functools.lru_cache(maxsize=_CACHED)(self._part_reader(b, ["uri", *count_columns(), *mask]))

    @staticmethod
    def _part_reader(side: Side, columns: list[str]) -> Callable[[int], pa.Table]:
        shards, parts = side.plan.table["shard"], side.plan.table["id"]
        return lambda number: read_part_rows(side.ledger, shards[number].as_py(), parts[number].as_py(), columns)

    def read(self, rows: tuple[NDArray[np.intp], NDArray[np.intp]]) -> _Block:
        one = self._rows_of(self._a.rows, rows[0], self._part_of_a)
        other = self._rows_of(self._b.rows, rows[1], self._part_of_b)
        same_size = [pc.equal(one[name], other[name]) for name in ("width", "height")]
        kept = np.asarray(pc.and_(*same_size))
        one, other = one.filter(pa.array(kept)), other.filter(pa.array(kept))
        a = counts_of_rows(len(self._a.card.classes), one, self._meta)
        b = counts_of_rows(len(self._b.card.classes), other)
        matrices, resized = self._confusions(one, other) if self._with_masks else ([], np.zeros(2, np.int64))
        pixels = a.pixels if self._with_masks else np.empty(0, np.int64)
        ids = a.ids if self._with_masks else pa.chunked_array([], pa.string())
        masks = counts_of_matrices(len(self._common.classes), ids, pixels, matrices)
        moved = np.flatnonzero(np.asarray(pc.not_equal(one["uri"], other["uri"])))
        example = (one["uri"][moved[0]].as_py(), other["uri"][moved[0]].as_py()) if len(moved) else None
        return _Block(kept, a, b, masks, resized, len(moved), example)

    @staticmethod
    def _rows_of(listed: RunRows, rows: NDArray[np.intp], read: Callable[[int], pa.Table]) -> pa.Table:
        """Return rows, in this order, of the parts that hold them."""
        order = np.argsort(listed.part[rows], kind="stable")
        numbers, starts = np.unique(listed.part[rows][order], return_index=True)
        groups = np.split(listed.position[rows][order], starts[1:])
        tables = [read(int(number)).take(pa.array(some)) for number, some in zip(numbers, groups, strict=True)]
        back = np.empty(len(rows), np.intp)
        back[order] = np.arange(len(rows))
        return pa.concat_tables([table.replace_schema_metadata(None) for table in tables]).take(pa.array(back))

    def _confusions(self, one: pa.Table, other: pa.Table) -> tuple[list[Confusion], NDArray[np.int64]]:
        resized = np.zeros(2, np.int64)
        found = []
        columns = ["height", "width", "mask"]
        for row_a, row_b in zip(one.select(columns).to_pylist(), other.select(columns).to_pylist(), strict=True):
            is_large = row_a["mask"]["bytes"] is None or row_b["mask"]["bytes"] is None
            with self._large if is_large else contextlib.nullcontext():
                masks = [_mask(self._a, row_a), _mask(self._b, row_b)]
                size = (row_a["height"], row_a["width"])
                for number, side in enumerate((self._a, self._b)):
                    if masks[number].shape != size:
                        masks[number] = resize.restore_mask(masks[number], side.card.input, size)
                        resized[number] += 1
                to_a, to_b = self._common.tables
                found.append(Confusion.of(to_b[masks[1]], to_a[masks[0]], len(self._common.classes)))
        return found, resized


def _mask(side: Side, row: Mapping[str, Any]) -> NDArray[np.uint8]:
    return read_mask(side.ledger.store, side.ledger.output, row["mask"])


def image_agreement(masks: ImageCounts) -> NDArray[np.float64]:
    """Return the share of the pixels of each image to which both masks give one class, `float64[n]`."""
    shares = [np.empty(0)]
    for _, some in masks.blocks():
        owner = np.repeat(np.arange(len(some)), np.diff(some.offsets))
        same = some.cells // some.classes == some.cells % some.classes
        pixels = [
            np.bincount(owner[chosen], weights=some.counts[chosen], minlength=len(some))
            for chosen in (same, slice(None))
        ]
        shares.append(ratio(*pixels))
    return np.concatenate(shares)
