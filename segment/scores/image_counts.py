"""The confusion counts of each image of a run: read from the masks files, without their masks, and held sparsely."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from segment.metrics import Confusion
from segment.metrics.bootstrap import CHUNK
from segment.metrics.conventions import ratio
from segment.metrics.regroup import Grouping
from segment.output.ledger import Ledger
from segment.output.part_rows import numbers_of, part_tables
from segment.output.plan import Plan

_COLUMNS = ["id", "width", "height", "confusion"]
_LARGEST = np.iinfo(np.uint32).max


@dataclass(frozen=True, eq=False)
class ImageCounts:
    """The counts of n images of C classes: 6 bytes a cell that is not zero, and the id.

    Attributes:
        classes: C.
        ids: of the images, in the order of the input; an id may come in several shards.
        pixels: of the images, `int64[n]`: width times height, not those that were counted.
        offsets: `int64[n + 1]`: the cells of image i are `cells[offsets[i]:offsets[i + 1]]`.
        cells: `uint16[m]`, `label * C + prediction`; label C is void.
        counts: pixels, `uint32[m]`, or `int64` where one has more.
        meta: the kept metadata that was read, by name: text of each image.
    """

    classes: int
    ids: pa.ChunkedArray
    pixels: NDArray[np.int64]
    offsets: NDArray[np.int64]
    cells: NDArray[np.uint16]
    counts: NDArray[np.integer]
    meta: Mapping[str, pa.ChunkedArray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, images: NDArray[np.intp]) -> ImageCounts:
        """Return the counts of these images, in this order."""
        offsets, chosen = taken(self.offsets, images)
        return replace(
            self,
            ids=self.ids.take(pa.array(images)),
            pixels=self.pixels[images],
            offsets=offsets,
            cells=self.cells[chosen],
            counts=self.counts[chosen],
            meta={name: values.take(pa.array(images)) for name, values in self.meta.items()},
        )

    def regrouped(self, grouping: Grouping) -> ImageCounts:
        """Return the counts by other classes; a cell may then come several times in an image."""
        return replace(self, classes=len(grouping.names), cells=grouping.cells.astype(np.uint16)[self.cells])

    def total(self) -> Confusion:
        """Return the sum over all images."""
        flat = np.zeros((self.classes + 1) * self.classes, np.int64)
        np.add.at(flat, self.cells, self.counts)
        return Confusion(flat.reshape(-1, self.classes))

    def by_role(
        self, roles: NDArray[np.int16], units: NDArray[np.intp] | None = None, number: int | None = None
    ) -> NDArray[np.float64]:
        """Return TP, FP and FN by class of each image or unit, `float64[n, 3, C]`; whole numbers, exact below 2^53.

        Args:
            roles: `metrics.conventions.roles`.
            units: the unit of each image; None for the images themselves.
            number: of units.
        """
        units, number = (np.arange(len(self)), len(self)) if units is None or number is None else (units, number)
        owner = np.repeat(units * (self.classes + 1), np.diff(self.offsets))
        size = number * (self.classes + 1)
        sums = [np.bincount(owner + role[self.cells], weights=self.counts, minlength=size) for role in roles]
        return np.stack([one.reshape(number, self.classes + 1)[:, :-1] for one in sums], axis=1)

    def label_share(self, index: int) -> NDArray[np.float64]:
        """Return the share of a class among the labelled pixels of each image, `float64[n]`; NaN without a label."""
        shares = []
        for _, some in self.blocks():
            owner = np.repeat(np.arange(len(some)), np.diff(some.offsets))
            label = some.cells // self.classes
            pixels = [
                np.bincount(owner[chosen], weights=some.counts[chosen], minlength=len(some))
                for chosen in (label == index, label < self.classes)
            ]
            shares.append(ratio(*pixels))
        return np.concatenate([np.empty(0), *shares])

    def holding(self, cells: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Return the indices of the images that hold any of these cells, `bool[(C + 1) * C]`, in order."""
        found = [np.empty(0, np.intp)]
        for start, some in self.blocks():
            owner = np.repeat(np.arange(len(some)), np.diff(some.offsets))
            found.append(start + np.unique(owner[cells[some.cells]]))
        return np.concatenate(found)

    def blocks(self) -> Iterator[tuple[int, ImageCounts]]:
        """Yield the images in blocks of `CHUNK`, each with the index of its first image."""
        for start in range(0, len(self), CHUNK):
            offsets = self.offsets[start : start + CHUNK + 1]
            inside = slice(int(offsets[0]), int(offsets[-1]))
            ids, pixels = self.ids.slice(start, len(offsets) - 1), self.pixels[start : start + CHUNK]
            some = self.cells[inside], self.counts[inside]
            yield start, ImageCounts(self.classes, ids, pixels, offsets - offsets[0], *some)

    def chunks(
        self, images: NDArray[np.intp], units: NDArray[np.intp]
    ) -> Iterator[tuple[NDArray[np.intp], ImageCounts]]:
        """Yield units and counts of the images of the next `CHUNK` units; see `unit_chunks`."""
        for unit, some in unit_chunks(images, units):
            yield unit, self.take(some)


def taken(offsets: NDArray[np.int64], images: NDArray[np.intp]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the offsets of some images' values, and the indices of these values; `offsets` as in `ImageCounts`."""
    lengths = np.diff(offsets)[images]
    found = np.append(0, np.cumsum(lengths))
    return found, np.repeat(offsets[images] - found[:-1], lengths) + np.arange(found[-1])


def unit_chunks(
    images: NDArray[np.intp], units: NDArray[np.intp]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield the images of the next `CHUNK` units: the unit of each, from 0 in every chunk, and its index.

    Args:
        images: indices of images.
        units: the unit of each of these, from 0; every unit has an image.
    """
    order = np.argsort(units, kind="stable")
    images, units = images[order], units[order]
    for start in range(0, int(units[-1]) + 1 if len(units) else 0, CHUNK):
        first, last = np.searchsorted(units, [start, start + CHUNK])
        yield units[first:last] - start, images[first:last]


def read_image_counts(
    ledger: Ledger, plan: Plan, parts: Collection[str], classes: int, meta: Collection[str] = ()
) -> ImageCounts:
    """Read the counts of the images of committed parts; of each masks file no mask.

    Error rows have no counts and are left out; images without a label have all their pixels in the void row.

    Args:
        ledger, plan: of the run.
        parts: ids of the parts.
        classes: number of classes of the run's card.
        meta: names of kept metadata to read.

    Raises:
        SegmentError: a masks file is damaged or lost.
    """
    blocks = [
        counts_of_rows(classes, table.filter(pc.is_valid(table["confusion"])), meta)
        for _, table in part_tables(ledger, plan, numbers_of(plan, parts), count_columns(meta))
    ]
    return joined(classes, blocks, meta)


def count_columns(meta: Collection[str] = ()) -> list[str]:
    """Return the columns of masks files that `counts_of_rows` takes."""
    return [*_COLUMNS, *(["meta"] if meta else [])]


def counts_of_rows(classes: int, rows: pa.Table, meta: Collection[str] = ()) -> ImageCounts:
    """Return the counts of rows of a masks file (`count_columns`), each of which has counts, and kept metadata."""
    stored = rows["confusion"].combine_chunks()
    return ImageCounts(
        classes,
        rows["id"],
        np.asarray(rows["width"]).astype(np.int64) * np.asarray(rows["height"]),
        np.append(0, np.cumsum(np.asarray(pc.list_value_length(stored.field("cell"))).astype(np.int64))),
        np.asarray(stored.field("cell").flatten()).astype(np.uint16),
        compact(np.asarray(stored.field("count").flatten())),
        {name: _kept(rows["meta"], name) for name in meta},
    )


def _kept(meta: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    return pa.chunked_array([pc.struct_field(meta.combine_chunks(), [meta.type.get_field_index(name)])])


def counts_of_matrices(
    classes: int, ids: pa.ChunkedArray, pixels: NDArray[np.int64], matrices: Sequence[Confusion]
) -> ImageCounts:
    """Return the counts of images, given the matrix of each."""
    pairs = [matrix.to_cells() for matrix in matrices]
    return ImageCounts(
        classes,
        ids,
        pixels,
        np.cumsum([0, *(len(cells) for cells, _ in pairs)]),
        np.concatenate([np.empty(0, np.uint16), *(cells.astype(np.uint16) for cells, _ in pairs)]),
        compact(np.concatenate([np.empty(0, np.int64), *(counts for _, counts in pairs)])),
    )


def joined(classes: int, blocks: Sequence[ImageCounts], meta: Collection[str] = ()) -> ImageCounts:
    """Return the counts of the images of all blocks, in order, and their metadata of these names."""
    return ImageCounts(
        classes,
        pa.chunked_array([chunk for block in blocks for chunk in block.ids.chunks], pa.string()),
        np.concatenate([np.empty(0, np.int64), *(block.pixels for block in blocks)]),
        np.append(0, np.cumsum(np.concatenate([np.empty(0, np.int64), *(np.diff(block.offsets) for block in blocks)]))),
        np.concatenate([np.empty(0, np.uint16), *(block.cells for block in blocks)]),
        np.concatenate([np.empty(0, np.uint32), *(block.counts for block in blocks)]),
        {
            name: pa.chunked_array([chunk for block in blocks for chunk in block.meta[name].chunks], pa.string())
            for name in meta
        },
    )


def compact(counts: NDArray[np.int64]) -> NDArray[np.integer]:
    """Return counts as `uint32`, where all of them fit."""
    return counts.astype(np.uint32) if not counts.size or counts.max() <= _LARGEST else counts
