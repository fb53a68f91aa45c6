"""The confusion counts of single images: sparse, a block of images at a time, as rows of masks files hold them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from segment.metrics import Confusion
from segment.metrics.conventions import ratio
from segment.metrics.regroup import Grouping
from segment.output.readable_rows import check_indices, column_of, damaged
from segment.store.names import shown

_COLUMNS = ["id", "width", "height", "confusion"]
BRIGHTNESS = ":brightness"  # among the names of kept metadata: what every run measures. A colon begins none of those
_BRIGHTNESS_COLUMN = BRIGHTNESS[1:]
_LARGEST = np.iinfo(np.uint32).max


@dataclass(frozen=True, eq=False)
class ImageCounts:
    """The counts of n images of C classes: 6 bytes a cell that is not zero, and the id.

    Attributes:
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

    def take(self, images: NDArray[np.intp]) -> Self:
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

    def regrouped(self, grouping: Grouping) -> Self:
        """Return the counts by other classes; a cell may then come several times in an image."""
        return replace(self, classes=len(grouping.names), cells=grouping.cells.astype(np.uint16)[self.cells])

    def total(self) -> Confusion:
        """Return the sum over all images."""
        flat = np.zeros((self.classes + 1) * self.classes, np.int64)
        np.add.at(flat, self.cells, self.counts)
        return Confusion(flat.reshape(-1, self.classes))

    def by_role(self, roles: NDArray[np.int16]) -> NDArray[np.float64]:
        """Return TP, FP and FN by class of each image, `float64[n, 3, C]`; whole numbers, exact below 2^53.

        Args:
            roles: `metrics.conventions.roles`.
        """
        owner, size = self._owner * (self.classes + 1), len(self) * (self.classes + 1)
        sums = [np.bincount(owner + role[self.cells], weights=self.counts, minlength=size) for role in roles]
        return np.stack([one.reshape(len(self), self.classes + 1)[:, :-1] for one in sums], axis=1)

    def pixels_in(self, cells: NDArray[np.bool_], weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Return the pixels of each image in some cells, `float64[n]`.

        Args:
            cells: `bool[(C + 1) * C]`.
            weights: `float64[n, C]`, of a pixel by image and predicted class; None for 1, and whole numbers.
        """
        chosen = cells[self.cells]
        owner, pixels = self._owner[chosen], self.counts[chosen].astype(np.float64)
        if weights is not None:
            pixels *= weights[owner, self.cells[chosen] % self.classes]
        return np.asarray(np.bincount(owner, weights=pixels, minlength=len(self)), np.float64)

    def label_share(self, index: int) -> NDArray[np.float64]:
        """Return the share of a class among the labelled pixels of each image, `float64[n]`; NaN without a label."""
        label = np.arange((self.classes + 1) * self.classes) // self.classes
        return ratio(self.pixels_in(label == index), self.pixels_in(label < self.classes))

    @property
    def _owner(self) -> NDArray[np.intp]:
        """The image of each cell."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))


def taken(offsets: NDArray[np.int64], images: NDArray[np.intp]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the offsets of some images' values, and the indices of these values; `offsets` as in `ImageCounts`."""
    lengths = np.diff(offsets)[images]
    found = np.append(0, np.cumsum(lengths))
    return found, np.repeat(offsets[images] - found[:-1], lengths) + np.arange(found[-1])


def count_columns(meta: Collection[str] = ()) -> list[str]:
    """Return the columns of masks files that `counts_of_rows` takes."""
    kept = ["meta"] if {*meta} - {BRIGHTNESS} else []
    return [*_COLUMNS, *kept, *([_BRIGHTNESS_COLUMN] if BRIGHTNESS in meta else [])]


def counts_of_rows(classes: int, rows: pa.Table, meta: Collection[str] = ()) -> ImageCounts:
    """Return the counts of rows of a masks file (`count_columns`), each of which has counts, and kept metadata.

    Raises SegmentError: a cell is none of so many classes, or metadata is not there.
    """
    stored = rows["confusion"].combine_chunks()
    cells = np.asarray(stored.field("cell").flatten())
    check_indices(cells, (classes + 1) * classes, "a cell of the counts")
    return ImageCounts(
        classes,
        rows["id"],
        np.asarray(rows["width"]).astype(np.int64) * np.asarray(rows["height"]),
        np.append(0, np.cumsum(np.asarray(pc.list_value_length(stored.field("cell"))).astype(np.int64))),
        cells.astype(np.uint16),
        compact(np.asarray(stored.field("count").flatten())),
        {name: _meta(rows, name) for name in meta},
    )


def _meta(rows: pa.Table, name: str) -> pa.ChunkedArray:
    if name == BRIGHTNESS:
        return rows[_BRIGHTNESS_COLUMN].cast(pa.string())
    meta = column_of(rows, "meta")
    if meta.type.get_field_index(name) < 0:
        raise damaged(f"the metadata {shown(name)!r}")
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


def joined(blocks: Sequence[ImageCounts]) -> ImageCounts:
    """Return the counts of the images of one or more blocks, in order."""
    first = blocks[0]
    return ImageCounts(
        first.classes,
        pa.chunked_array([chunk for block in blocks for chunk in block.ids.chunks], pa.string()),
        np.concatenate([block.pixels for block in blocks]),
        np.append(0, np.cumsum(np.concatenate([np.diff(block.offsets) for block in blocks]))),
        np.concatenate([block.cells for block in blocks]),
        np.concatenate([block.counts for block in blocks]),
        {
            name: pa.chunked_array([chunk for block in blocks for chunk in block.meta[name].chunks], pa.string())
            for name in first.meta
        },
    )


def compact(counts: NDArray[np.int64]) -> NDArray[np.integer]:
    """Return counts as `uint32`, where all of them fit."""
    return counts.astype(np.uint32) if not counts.size or counts.max() <= _LARGEST else counts
