"""Parquet files with encoded images in a column: planned from their footers, read by row group."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq

from segment.errors import SegmentError, UsageError
from segment.inputs.cutting import Planned, Shard, shard_hash
from segment.inputs.findings import Findings
from segment.inputs.lookup import in_threads, refuse_changed
from segment.inputs.parquet.cells import Cell
from segment.inputs.parquet.columns import Columns, find_columns
from segment.inputs.parquet.first_rows import look_at_rows
from segment.inputs.parquet.opened import PARQUET_DAMAGE, one_line, refuse_trouble
from segment.inputs.parquet.recent import Recent
from segment.inputs.parquet.row_ids import repeated_rows, tell_repeated
from segment.inputs.parts import Part, Sample, image_uri, settle
from segment.inputs.references import read_references
from segment.job import InputOptions
from segment.store.client import Entry, Store
from segment.store.names import basename, count, examples, row_id, shown, slug

log = logging.getLogger("segment.parquet")

_FOOTER_BLOCK = 1 << 18
_BYTES_BY_PATH = 4 << 20  # an image that is named by its path is taken to have, where parts are cut by bytes
_LOOKS = 8  # files whose first rows are looked at: one for each choice of columns


def plan_parquet(entries: Sequence[Entry], options: InputOptions, store: Store, findings: Findings) -> Planned:
    """Plan the rows of Parquet files from their footers; note which columns are read.

    Raises:
        UsageError: a file is no Parquet, lacks the columns, has too large a row group; or there are no rows.
    """
    planned = in_threads(lambda entry: _plan_file(entry, options, store), entries)
    empty = [shard.url for shard, _ in planned if not shard.images]
    if len(empty) == len(planned):
        raise UsageError(f"no rows in {shown(empty[0])}" + (f" and {len(empty) - 1} more" if empty[1:] else ""))
    if empty:
        findings.warnings.append(
            f"{count(len(empty), 'Parquet file has', 'Parquet files have')} no rows, {examples(empty)}"
        )
    chosen = Counter(columns for _, columns in planned)
    findings.notes += [f"columns read, {text}" + _of(number, len(planned)) for text, number in chosen.most_common()]
    filled = [(entry, *file) for entry, file in zip(entries, planned, strict=True) if file[0].images]
    for columns, number in chosen.most_common(_LOOKS):
        if first := next((entry for entry, _, own in filled if own == columns), None):
            look_at_rows(first, columns, store, findings, _of(number, len(planned)))
    tell_repeated([(shard, columns) for _, shard, columns in filled], store, findings)
    bare = [shard.url for shard, columns in planned if columns.label is None]
    if bare and len(bare) < len(planned):
        findings.warnings.append(
            f"{len(bare)} of {count(len(planned), 'Parquet file')} without a label column: segmented, not scored; "
            + examples(bare)
        )
    return Planned([shard for shard, _ in planned if shard.images], labels_known=len(bare) == len(planned))


def has_label_column(part: Part, options: InputOptions, store: Store) -> bool:
    """Whether the file of a part has a column of labels. Only its footer is read; False where that cannot be had."""
    try:
        with store.open(part.url, _FOOTER_BLOCK, part.size, part.etag) as file:
            return find_columns(pq.ParquetFile(file).schema_arrow, options, shown(part.url)).label is not None
    except (SegmentError, *PARQUET_DAMAGE):
        return False


def _of(number: int, total: int) -> str:
    return "" if number == total else f" (in {number} of {total} Parquet files)"


def _plan_file(entry: Entry, options: InputOptions, store: Store) -> tuple[Shard, Columns]:
    try:
        with store.open(entry.url, _FOOTER_BLOCK, entry.size) as file:
            opened = pq.ParquetFile(file)
            columns = find_columns(opened.schema_arrow, options, shown(entry.url))
            runs = list(_row_groups(opened.metadata, columns, options, entry))
    except PARQUET_DAMAGE as error:
        refuse_trouble(error, entry.url)
        raise UsageError(f"{shown(entry.url)} is no readable Parquet file: {one_line(error)}") from None
    shard = Shard(
        name=slug(basename(entry.url)),
        hash=shard_hash(entry.url, entry.etag, entry.size),
        format="parquet",
        url=entry.url,
        size=entry.size,
        etag=entry.etag,
        members=(),
        runs=runs,
    )
    return shard, columns


def _row_groups(
    metadata: pq.FileMetaData, columns: Columns, options: InputOptions, entry: Entry
) -> Iterator[tuple[int, int, int, int]]:
    first = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if not 0 <= group.num_rows <= entry.size:
            raise ValueError(f"{group.num_rows} rows in {entry.size} bytes")  # before anything is made for each
        size = group.total_byte_size
        if size > options.max_row_group_bytes:
            size = _bytes_read(group, columns)
        if size > options.max_row_group_bytes:
            raise UsageError(
                f"{shown(entry.url)}: row group {number} holds {size >> 20} MiB of images, more than a worker should "
                f"hold at once ({options.max_row_group_bytes >> 20} MiB, max_row_group_bytes). Write the file with "
                "smaller row groups, for example pyarrow.parquet.write_table(table, path, row_group_size=100)"
            )
        image_bytes = size // max(1, group.num_rows)
        yield number, first, group.num_rows, image_bytes if columns.image.data else max(image_bytes, _BYTES_BY_PATH)
        first += group.num_rows


def _bytes_read(group: pq.RowGroupMetaData, columns: Columns) -> int:
    """Return the uncompressed bytes of the columns that are read.

    Asked for seldom: pyarrow aborts the process here on some damaged footers, which `total_byte_size` survives.
    """
    chunks = [group.column(i) for i in range(group.num_columns)]
    return sum(chunk.total_uncompressed_size for chunk in chunks if _is_read(chunk.path_in_schema, columns))


def _is_read(path: str, columns: Columns) -> bool:
    return any(path == name or path.startswith(f"{name}.") for name in columns.names)


@dataclass(frozen=True, slots=True)
class _File:
    """What is kept of an opened file.

    Attributes:
        metadata: its footer.
        columns: what is read.
        repeated: rows whose id, of a column that was named, an earlier row has.
        numbered: whether ids that nobody named come twice, so that the row number stands before each.
    """

    metadata: pq.FileMetaData
    columns: Columns
    repeated: frozenset[int] = frozenset()
    numbered: bool = False

    def first_row(self, row_group: int) -> int:
        return sum(self.metadata.row_group(i).num_rows for i in range(row_group))


# Consecutive parts of a row group usually come to the same process: the row group is read once for them.
_files: Recent[_File] = Recent(8)
_tables: Recent[pa.Table | None] = Recent(2, lambda table: 0 if table is None else int(table.nbytes))


def read_parquet(part: Part, options: InputOptions, store: Store) -> list[Sample]:
    """Read the rows of a part. A row group that cannot be decoded gives `undecodable` samples.

    Raises:
        InputChanged: the file is not the planned one.
    """
    refuse_changed(part, store)
    file = _files.get((part.url, part.etag, part.size, options), lambda: _open_file(part, options, store))
    key = (part.url, part.etag, part.size, part.row_group, file.columns)
    table = _tables.get(key, lambda: _read_row_group(part, file, store), options.max_row_group_bytes)
    if table is None:
        numbers = [(index, row_id(index)) for index in range(part.start, part.stop)]
        return [Sample(name, image_uri(part, name), i, b"", None, "undecodable") for i, name in numbers]
    rows = table.slice(part.start - file.first_row(part.row_group), len(part))
    names = file.columns.ids(rows, part.start, numbered=file.numbered)
    images = _images(rows, file.columns.image, part, store)
    labels = _images(rows, file.columns.label, part, store)
    read = [
        _sample(part, index, name, image, label, index in file.repeated, options)
        for index, name, image, label in zip(range(part.start, part.stop), names, images, labels, strict=True)
    ]
    if file.columns.label is None:
        return read
    return [s if s.label is not None or s.fault else replace(s, remarks=("label_absent",)) for s in read]


def read_ids(part: Part, options: InputOptions, store: Store) -> list[str]:
    """Read the ids of the rows of a part, as `read_parquet` gives them: of its row group only the column of ids.

    Raises:
        InputChanged: the file is not the planned one.
        SegmentError: it cannot be read.
    """
    refuse_changed(part, store)
    file = _files.get((part.url, part.etag, part.size, options), lambda: _open_file(part, options, store))
    if file.columns.id is None:
        return [row_id(index) for index in range(part.start, part.stop)]
    with store.open(part.url, _FOOTER_BLOCK, part.size, part.etag) as source:
        try:
            opened = pq.ParquetFile(source, metadata=file.metadata, page_checksum_verification=True)
            table = opened.read_row_group(part.row_group, [str(file.columns.id)], use_threads=False)
        except PARQUET_DAMAGE as error:
            refuse_trouble(error, part.url)
            raise SegmentError(f"{shown(part.url)}: {one_line(error)}") from None
    rows = table.slice(part.start - file.first_row(part.row_group), len(part))
    return file.columns.ids(rows, part.start, numbered=file.numbered)


def _sample(
    part: Part, index: int, name: str, image: _Image, label: _Image, repeated: bool, options: InputOptions
) -> Sample:
    fault = image.absent or (f"label_{label.absent}" if label.absent else None)
    settled = settle("duplicate_id" if repeated else fault, image.data or b"", label.data, options.max_image_bytes)
    return Sample(name, image_uri(part, name), index, *settled)


@dataclass(frozen=True, slots=True)
class _Image:
    """One encoded image or label, or the fault if the row names it by a path and it cannot be had."""

    data: bytes | None = None
    absent: str = ""


def _images(rows: pa.Table, cell: Cell | None, part: Part, store: Store) -> list[_Image]:
    """Return the encoded images of a column; those that are only a path are read, relative to the file."""
    if cell is None:
        return [_Image()] * len(rows)
    data, paths = cell.encoded(rows), cell.paths(rows)
    named = [path if path and own is None else None for own, path in zip(data, paths, strict=True)]
    found = read_references({path for path in named if path}, part.url, store)
    images = []
    for own, path in zip(data, named, strict=True):
        got = found[path] if path else own
        images.append(_Image(absent=got) if isinstance(got, str) else _Image(got))
    return images


def _open_file(part: Part, options: InputOptions, store: Store) -> _File:
    with store.open(part.url, _FOOTER_BLOCK, part.size, part.etag) as file:
        opened = pq.ParquetFile(file, page_checksum_verification=True)
        columns = find_columns(opened.schema_arrow, options, shown(part.url))
        repeated = repeated_rows(opened, columns, part.url)
        if "id" in columns.guessed:
            return _File(opened.metadata, columns, numbered=next(repeated, None) is not None)
        return _File(opened.metadata, columns, frozenset(repeated))


def _read_row_group(part: Part, file: _File, store: Store) -> pa.Table | None:
    """Read the columns of a row group; None if it is damaged."""
    with store.open(part.url, size=part.size, etag=part.etag) as source:
        try:
            opened = pq.ParquetFile(source, metadata=file.metadata, pre_buffer=True, page_checksum_verification=True)
            table = opened.read_row_group(part.row_group, file.columns.names, use_threads=False)
            if len(table) != file.metadata.row_group(part.row_group).num_rows:
                raise ValueError("rows are missing")
            return table
        except PARQUET_DAMAGE as error:
            refuse_trouble(error, part.url)
            if "Nested data conversions" in str(error):  # more than 2 GiB of a field in one row group
                where = f"{shown(part.url)}: row group {part.row_group}"
                raise UsageError(f"{where} is too large for pyarrow: write smaller ones ({one_line(error)})") from None
            log.warning("%s: row group %d cannot be read: %s", shown(part.url), part.row_group, one_line(error))
            return None
