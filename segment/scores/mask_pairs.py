"""The same images in two runs: the counts of both, and the pixels of their masks counted against each other."""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from segment.errors import SegmentError
from segment.images import resize
from segment.metrics import Confusion
from segment.metrics.bootstrap import CHUNK
from segment.metrics.common_classes import CommonClasses
from segment.metrics.conventions import ratio
from segment.metrics.regroup import Grouping
from segment.models.card import ModelCard
from segment.output.ledger import Ledger
from segment.output.mask_files import read_mask
from segment.output.part_rows import read_part_rows
from segment.output.plan import Plan
from segment.scores.boundaries import ImageBoundaries, boundaries_of_rows, joined_boundaries
from segment.scores.image_counts import ImageCounts, count_columns, counts_of_matrices, counts_of_rows, joined
from segment.scores.matching import Matches, RunRows, rows_at
from segment.scores.run_images import Units
from segment.store.background import in_order
from segment.store.names import shown

_MetaCounts = Mapping[str, NDArray[np.int64]]  # see `PairsRead.meta`
_THREADS = 8
_CACHED = 8  # parts of B whose rows are kept for the next part of A, where the parts of the runs do not coincide


@dataclass(frozen=True, eq=False)
class Side:
    """One of two runs that are compared: where its rows are, which they are, its card, and what metadata it keeps."""

    ledger: Ledger
    plan: Plan
    rows: RunRows
    card: ModelCard
    meta: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class PairsRead:
    """What was found while pairs were read.

    Attributes:
        other_size: images left out, as their source has another size in the other run.
        resized: `int64[2]`, number of masks of A and of B that were resized to their image.
        elsewhere: number of images whose source has another URI in the other run.
        example: both URIs of the first of these.
        rewritten: number of images in files of their own that have another time or ETag in the other run.
        meta: by name of the metadata that was read, number of images whose value differs, that have none in A, and that
            have none in B, `int64[3]`.
    """

    other_size: int
    resized: NDArray[np.int64]
    elsewhere: int
    example: tuple[str, str] | None
    rewritten: int = 0
    meta: _MetaCounts = field(default_factory=dict)

    @staticmethod
    def nothing() -> PairsRead:
        """Return what was found of no pairs."""
        return PairsRead(0, np.zeros(2, np.int64), 0, None)

    def __add__(self, other: PairsRead) -> PairsRead:
        return PairsRead(
            self.other_size + other.other_size,
            self.resized + other.resized,
            self.elsewhere + other.elsewhere,
            self.example or other.example,
            self.rewritten + other.rewritten,
            _added(self.meta, other.meta),
        )


def _added(some: _MetaCounts, others: _MetaCounts) -> _MetaCounts:
    return {**some, **{name: some[name] + counts if name in some else counts for name, counts in others.items()}}


@dataclass(frozen=True, eq=False)
class PairedImages:
    """n images of two runs that can be compared.

    Attributes:
        rows_a, rows_b: `int64[n]`, indices of their rows in `RunRows`.
        a, b: the counts of each run, by the classes of its card.
        masks: pixels by A's and B's mask, in the place of label and prediction, by the common classes; None if masks
            are not compared.
        sliced: A's counts by the classes that are compared, by which the images are divided into slices.
        units: `uint64[n]`, what resamples draw of each image.
        draws: how often, `float64[n, resamples]`; None without resamples.
        boundaries: boundary counts of A and of B, by the classes of their cards; empty where they are not compared.
        read: of the block that was read.
    """

    rows_a: NDArray[np.intp]
    rows_b: NDArray[np.intp]
    a: ImageCounts
    b: ImageCounts
    masks: ImageCounts | None
    sliced: ImageCounts
    units: NDArray[np.uint64]
    draws: NDArray[np.float64] | None
    boundaries: tuple[ImageBoundaries, ...]
    read: PairsRead

    def __len__(self) -> int:
        return len(self.rows_a)

    def take(self, images: NDArray[np.intp]) -> PairedImages:
        """Return some of the images."""
        return PairedImages(
            self.rows_a[images],
            self.rows_b[images],
            self.a.take(images),
            self.b.take(images),
            None if self.masks is None else self.masks.take(images),
            self.sliced.take(images),
            self.units[images],
            None if self.draws is None else self.draws[images],
            tuple(side.take(images) for side in self.boundaries),
            self.read,
        )


def read_pairs(
    a: Side,
    b: Side,
    matches: Matches,
    common: CommonClasses,
    grouping: Grouping,
    units: Units,
    with_masks: bool = True,
    meta: Collection[str] = (),
    fraction: float | None = None,
) -> Iterator[PairedImages]:
    """Read the rows of matched images, part by part of A, in several threads, and count their pixels.

    Memory holds a few parts, and both masks of one large image. Where B's images are in another order than A's, a part
    of B may be read several times.

    Args:
        a, b: the two runs.
        grouping: the classes that are compared, made from those of A's card.
        units: what resamples draw, by the rows of A.
        with_masks: count the pixels of the masks against each other; if not, no mask is read.
        meta: names of metadata that A keeps, to read with its counts, and to look whether B has the same.
        fraction: of the boundaries of both runs; None to read none.

    Raises:
        SegmentError: a masks file is damaged or lost.
    """
    reader = _Reader(a, b, common, with_masks, meta, fraction)
    blocks = in_order(reader.read, _by_part(a.rows, matches), name="pairs", threads=_THREADS, ahead=2 * _THREADS)
    for block in _in_chunks(blocks):
        drawn, draws = units.of(block.rows_a, block.a)
        masks, sliced = block.masks if with_masks else None, block.a.regrouped(grouping)
        yield PairedImages(
            block.rows_a, block.rows_b, block.a, block.b, masks, sliced, drawn, draws, block.boundaries, block.read
        )


def _in_chunks(blocks: Iterable[_Block]) -> Iterator[_Block]:
    """Join blocks, each of at most `CHUNK` images, so that those of all but the last have about as many."""
    waiting: list[_Block] = []
    for block in blocks:
        if waiting and sum(len(one.rows_a) for one in waiting) + len(block.rows_a) > CHUNK:
            yield _joined(waiting)
            waiting = []
        waiting.append(block)
    if waiting:
        yield _joined(waiting)


def _joined(blocks: Sequence[_Block]) -> _Block:
    return _Block(
        np.concatenate([block.rows_a for block in blocks]),
        np.concatenate([block.rows_b for block in blocks]),
        joined([block.a for block in blocks]),
        joined([block.b for block in blocks]),
        joined([block.masks for block in blocks]),
        tuple(joined_boundaries(side) for side in zip(*(block.boundaries for block in blocks), strict=True)),
        sum((block.read for block in blocks), PairsRead.nothing()),
    )


def _by_part(a: RunRows, matches: Matches) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield the rows of A and of B of the images of each of A's parts, at most `CHUNK` at a time."""
    cuts = np.flatnonzero(np.diff(a.places(matches.rows_a)[0])) + 1
    for first, last in itertools.pairwise([0, *cuts.tolist(), len(matches)]):
        for start in range(first, last, CHUNK):
            some = slice(start, min(start + CHUNK, last))
            yield matches.rows_a[some], matches.rows_b[some]


@dataclass(frozen=True, eq=False)
class _Block:
    """Images of a part of A that can be compared: their rows and counts."""

    rows_a: NDArray[np.intp]
    rows_b: NDArray[np.intp]
    a: ImageCounts
    b: ImageCounts
    masks: ImageCounts
    boundaries: tuple[ImageBoundaries, ...]
    read: PairsRead


class _Reader:
    """Reads parts of two runs; called in several threads."""

    def __init__(
        self, a: Side, b: Side, common: CommonClasses, with_masks: bool, meta: Collection[str], fraction: float | None
    ) -> None:
        self._a, self._b, self._common, self._with_masks, self._fraction = a, b, common, with_masks, fraction
        self._large = threading.Lock()  # masks in files of their own, of which one image's are in memory at once
        # What begins with a colon is measured in every run.
        self._meta, self._meta_of_b = meta, [name for name in meta if name in b.meta or name[0] == ":"]
        more = ["uri", *["mask"] * with_masks, *["boundary"] * (fraction is not None)]
        self._part_of_a = self._part_reader(a, [*count_columns(meta), *more])
        read_b = self._part_reader(b, [*count_columns(self._meta_of_b), *more])
        self._part_of_b = functools.lru_cache(maxsize=_CACHED)(read_b)

    @staticmethod
    def _part_reader(side: Side, columns: list[str]) -> Callable[[int], pa.Table]:
        def read(number: int) -> pa.Table:
            (part,) = side.plan.between(number, number + 1)
            rows = read_part_rows(side.ledger, part.shard, part.id, len(part), columns)
            etags = [member.image.etag or None for member in part.members] or [None] * len(rows)
            return rows.append_column("etag", pa.array(etags, pa.string()))

        return read

    def read(self, rows: tuple[NDArray[np.intp], NDArray[np.intp]]) -> _Block:
        one = rows_at(self._a.rows, rows[0], lambda numbers: ((number, self._part_of_a(number)) for number in numbers))
        other = rows_at(
            self._b.rows, rows[1], lambda numbers: ((number, self._part_of_b(number)) for number in numbers)
        )
        _check_ids(one["id"], other["id"])
        kept = np.asarray(pc.and_(*(pc.equal(one[name], other[name]) for name in ("width", "height"))))
        one, other = one.filter(pa.array(kept)), other.filter(pa.array(kept))
        a = counts_of_rows(len(self._a.card.classes), one, self._meta)
        b = counts_of_rows(len(self._b.card.classes), other, self._meta_of_b)
        matrices, resized = self._confusions(one, other) if self._with_masks else ([], np.zeros(2, np.int64))
        ids, pixels = (a.ids, a.pixels) if self._with_masks else (pa.chunked_array([], pa.string()), a.pixels[:0])
        masks = counts_of_matrices(len(self._common.classes), ids, pixels, matrices)
        moved = np.flatnonzero(np.asarray(pc.not_equal(one["uri"], other["uri"])))
        example = (one["uri"][moved[0]].as_py(), other["uri"][moved[0]].as_py()) if len(moved) else None
        same_uri_other_file = pc.and_(pc.equal(one["uri"], other["uri"]), pc.not_equal(one["etag"], other["etag"]))
        rewritten = int(np.count_nonzero(np.asarray(pc.fill_null(same_uri_other_file, False))))
        left_out = int(np.count_nonzero(~kept))
        found = PairsRead(left_out, resized, len(moved), example, rewritten, _meta_differences(a, b))
        return _Block(rows[0][kept], rows[1][kept], a, b, masks, self._boundaries(one, other), found)

    def _boundaries(self, one: pa.Table, other: pa.Table) -> tuple[ImageBoundaries, ...]:
        if self._fraction is None:
            return ()
        of_a, of_b = len(self._a.card.classes), len(self._b.card.classes)
        return boundaries_of_rows(of_a, self._fraction, one), boundaries_of_rows(of_b, self._fraction, other)

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


def _meta_differences(a: ImageCounts, b: ImageCounts) -> dict[str, NDArray[np.int64]]:
    """Return what `PairsRead.meta` holds; what B does not keep is missing in each of its images."""
    found = {}
    for name, of_a in a.meta.items():
        of_b = b.meta.get(name, pa.nulls(len(a), pa.string()))
        differ = pc.fill_null(pc.not_equal(of_a, of_b), False)
        only_b, only_a = (pc.and_(pc.is_null(one), pc.is_valid(other)) for one, other in ((of_a, of_b), (of_b, of_a)))
        found[name] = np.array([np.count_nonzero(np.asarray(which)) for which in (differ, only_b, only_a)])
    return found


def _mask(side: Side, row: Mapping[str, Any]) -> NDArray[np.uint8]:
    return read_mask(side.ledger.store, side.ledger.output, row["mask"])


def _check_ids(of_a: pa.ChunkedArray, of_b: pa.ChunkedArray) -> None:
    """Raise SegmentError if rows that were matched by the hash of their ids have other ids."""
    differ = np.flatnonzero(np.asarray(pc.not_equal(of_a, of_b)))
    if len(differ):
        names = " and ".join(repr(shown(ids[int(differ[0])].as_py())) for ids in (of_a, of_b))
        raise SegmentError(f"the ids {names} have one 64-bit hash, by which images are matched: rename one of them")


def image_agreement(masks: ImageCounts) -> NDArray[np.float64]:
    """Return the share of the pixels of each image to which both masks give one class, `float64[n]`."""
    label, prediction = np.divmod(np.arange((masks.classes + 1) * masks.classes), masks.classes)
    return ratio(masks.pixels_in(label == prediction), masks.pixels_in(np.full(len(label), True)))
