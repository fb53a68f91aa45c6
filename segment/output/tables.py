"""The Parquet files of a run: deterministic bytes, and bounds on what is read.

`masks/` has one object per part, whose write is the commit; one row per image (`ImageRow`).
"""

import functools
import io
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from segment.inputs.metadata import Values
from segment.inputs.parquet.bounded_reads import BoundedFile
from segment.inputs.parquet.copies import UnpacksTooLarge
from segment.inputs.parquet.row_batches import read_row_group
from segment.metrics import Confusion
from segment.output.mask_columns import (
    CELLS,
    MASK,
    MASKS_SCHEMA,
    NO_COLUMNS,
    ExtraColumns,
    ImageExtras,
    features_of,
    masks_schema,
)
from segment.output.stored import Stored

FORMAT_VERSION = (
    5  # covers the meaning of masks, labels and counts, and the bytes of PNGs, too; runs of another version are refused
)
_LAST_WITHOUT_BRIGHTNESS = 4

_MOST_UNPACKED = 64 << 20  # bytes to which a column unpacks, or so many times those of its file:
_MOST_TIMES = 64


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One row of `masks/`.

    Attributes:
        id, url, index: of the sample.
        size: (height, width) of the image in pixels; None if it could not be decoded.
        error: text of a `SampleError`, or None.
        mask: PNG of class indices; None if the image could not be segmented, or the mask has a file of its own.
        confusion: counts; None with an error. Without a label, every pixel counts as void.
        pixel_accuracy, miou: 0-1, `miou` under the card's convention; None if unscored.
        remarks: codes of `segment.output.remarks.REMARKS`; reported, not written.
        labelled: whether a label was used; not written.
        mask_file: the object of a mask that is too large for a row; see `mask_files`.
        extras: what is written beside the mask, if anything.
        meta: what is kept of the image's metadata; empty if nothing is kept or it was not read.
        brightness: mean luma of the image, 0-255; None if it could not be decoded, is read in tiles, or is not RGB.
    """

    id: str
    url: str
    index: int
    size: tuple[int, int] | None
    error: str | None
    mask: bytes | None
    confusion: Confusion | None
    pixel_accuracy: float | None
    miou: float | None
    remarks: tuple[str, ...] = ()
    labelled: bool = False
    mask_file: Stored | None = None
    extras: ImageExtras | None = None
    meta: Values = ()
    brightness: float | None = None

    @property
    def mask_path(self) -> str | None:
        """Path below the output of a mask that has a file of its own."""
        return self.mask_file.path if self.mask_file else None


def write_masks(
    rows: Sequence[ImageRow],
    *,
    shard: str,
    part: str,
    fingerprint: str,
    precision: str = "",
    extra: ExtraColumns = NO_COLUMNS,
) -> bytes:
    """Return the bytes of a masks file: one row group, page checksums, no value that a rerun would change."""
    footer: dict[str, object] = {"format": FORMAT_VERSION, "part": part, "rows": len(rows), "fingerprint": fingerprint}
    if precision:  # in a run of mixed precision
        footer["precision"] = precision
    if files := [row.mask_path for row in rows if row.mask_path]:
        footer["files"] = files
    table = pa.table(
        [
            pa.array([row.id for row in rows], pa.string()),
            pa.array([row.url for row in rows], pa.string()),
            pa.array([shard] * len(rows), pa.string()),
            pa.array([part] * len(rows), pa.string()),
            pa.array([row.index for row in rows], pa.int32()),
            pa.array([row.size[1] if row.size else None for row in rows], pa.int32()),
            pa.array([row.size[0] if row.size else None for row in rows], pa.int32()),
            pa.array([row.brightness for row in rows], pa.float32()),
            pa.array(["error" if row.error else "ok" for row in rows], pa.string()),
            pa.array([row.error for row in rows], pa.string()),
            pa.array([_mask_cell(row) for row in rows], MASK),
            _cells_array([row.confusion for row in rows]),
            pa.array([row.pixel_accuracy for row in rows], pa.float64()),
            pa.array([row.miou for row in rows], pa.float64()),
            *extra.arrays([row.extras for row in rows], [row.meta for row in rows]),
        ],
        schema=masks_schema(extra).with_metadata(
            {
                "huggingface": json.dumps({"info": {"features": features_of(extra)}}),
                "segment": json.dumps(footer),
            }
        ),
    )
    return to_parquet(table, plain=["mask.bytes", *extra.plain])


def to_parquet(table: pa.Table, plain: Sequence[str] = ()) -> bytes:
    """Serialise a table as one row group with page checksums; `plain` columns, compressed already, stay as they are."""
    sink = pa.BufferOutputStream()
    write_parquet(sink, table.schema, [table], plain)
    return bytes(sink.getvalue())


def write_parquet(sink: object, schema: pa.Schema, groups: Iterable[pa.Table], plain: Sequence[str] = ()) -> None:
    """Write tables to a file as one row group each; see `to_parquet`."""
    leaves = _leaf_names(schema.remove_metadata())
    compression = {leaf: "none" if leaf in plain else "zstd" for leaf in leaves}
    dictionaries = [leaf for leaf in leaves if leaf not in plain]
    with pq.ParquetWriter(
        sink, schema, compression=compression, use_dictionary=dictionaries, write_page_checksum=True
    ) as writer:
        for table in groups:
            writer.write_table(table, row_group_size=max(1, len(table)))


@functools.lru_cache(maxsize=16)
def _leaf_names(schema: pa.Schema) -> list[str]:
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    parquet = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    return [parquet.column(i).path for i in range(len(parquet))]


def _mask_cell(row: ImageRow) -> dict[str, object] | None:
    return {"bytes": row.mask, "path": row.mask_path} if row.mask or row.mask_path else None


def _cells_array(confusions: Sequence[Confusion | None]) -> pa.Array:
    nothing = np.empty(0, np.int32), np.empty(0, np.int64)
    pairs = [nothing if c is None else c.to_cells() for c in confusions]
    offsets = pa.array(np.cumsum([0, *(len(cells) for cells, _ in pairs)]), pa.int32())
    leaves = [np.concatenate(column) for column in zip(nothing, *pairs, strict=True)]
    children = [pa.ListArray.from_arrays(offsets, pa.array(leaf)) for leaf in leaves]
    return pa.StructArray.from_arrays(children, fields=list(CELLS), mask=_absent(confusions))


def _absent(values: Sequence[object]) -> pa.Array:
    return pa.array([value is None for value in values], pa.bool_())


def read_masks(file: BinaryIO, columns: Sequence[str] | None = None, rows: int | None = None) -> pa.Table:
    """Read an open masks file and check its page checksums; only the given columns are fetched (None: all).

    Args:
        rows: that it is to have; None if that is not known.

    Raises:
        ValueError: a column of every run is not there, is of another type, or lacks values; or it has other rows.
    """
    table = _with_brightness(read_table(file, columns, rows=rows), columns)
    found = {field.name: field.type for field in table.schema}
    for field in MASKS_SCHEMA:
        if columns is not None and field.name not in columns:
            continue
        if found.get(field.name) != field.type:
            raise ValueError(f"no column {field.name} of {field.type}")
        if not field.nullable and table[field.name].null_count:
            raise ValueError(f"{field.name} is missing in a row")
    return table


def _with_brightness(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    """Add the column as nulls if it is asked for, to the rows of a version that did not have it."""
    name, version = "brightness", footer_of(table).get("format")
    if name in table.column_names or (columns is not None and name not in columns):
        return table
    if not isinstance(version, int) or version > _LAST_WITHOUT_BRIGHTNESS:
        return table
    place = MASKS_SCHEMA.get_field_index(name) if columns is None else table.num_columns
    return table.add_column(place, MASKS_SCHEMA.field(name), pa.nulls(len(table), MASKS_SCHEMA.field(name).type))


def footer_of(table: pa.Table) -> dict[str, object]:
    """Return the metadata of a masks file: format, part, rows, fingerprint; empty if it has none."""
    found = json.loads((table.schema.metadata or {}).get(b"segment", b"{}"))
    return found if isinstance(found, dict) else {}


def read_table(
    source: BinaryIO | bytes, columns: Sequence[str] | None = None, *, rows: int | None = None, most: float = math.inf
) -> pa.Table:
    """Parse a Parquet file and check its page checksums; only the given columns (None: all).

    Args:
        rows: that it is to have; None if that is not known.
        most: bytes to which it may unpack, if the caller knows better than `open_table`.

    Raises:
        pa.ArrowException, OSError, ValueError: it is none, is damaged, has other rows, or unpacks to far more than its
            size explains.
    """
    file, bounded = open_table(io.BytesIO(source) if isinstance(source, bytes) else source, most)
    if rows not in (None, file.metadata.num_rows):
        raise ValueError(f"{file.metadata.num_rows} rows, not {rows}")
    names = file.schema_arrow.names if columns is None else columns
    groups: list[pa.Table] = []
    held = 0
    for number in range(file.num_row_groups):
        groups.append(_row_group(file, bounded, number, names))
        held += groups[-1].nbytes
        if held > bounded.most:
            raise UnpacksTooLarge(bounded.most)
    table = pa.concat_tables(groups) if groups else file.read(columns)
    if len(table) != file.metadata.num_rows:  # a footer has no checksum, and tells the number twice
        raise ValueError("rows are missing")
    return table


def _row_group(file: pq.ParquetFile, bounded: BoundedFile, number: int, names: Sequence[str]) -> pa.Table:
    bounded.at_once(math.inf)  # without the columns' types, which is faster, and suffices as a rule
    try:
        return file.read_row_group(number, list(names), use_threads=False)
    except ValueError:
        return read_row_group(file, bounded, number, names)
    finally:
        bounded.at_once(None)


def open_table(source: BinaryIO, most: float = math.inf) -> tuple[pq.ParquetFile, BoundedFile]:
    """Open a Parquet file that anybody may have written, and what bounds it: kilobytes may stand for gigabytes.

    Args:
        most: bytes to which it may unpack, if the caller knows better.
    """
    size = source.seek(0, os.SEEK_END)
    bounded = BoundedFile(source, int(min(most, max(_MOST_UNPACKED, _MOST_TIMES * size))))
    return bounded.opened(), bounded
