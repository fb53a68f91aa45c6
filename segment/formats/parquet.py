"""Parquet files with encoded images in a column: planned from their footers, read by row group."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from segment.errors import SegmentError, StoreError, UsageError
from segment.findings import Findings
from segment.formats.columns import Columns, find_columns, has_path, plain_values, row_id
from segment.formats.cutting import Shard, shard_hash
from segment.formats.lookup import in_threads, refuse_changed
from segment.formats.recent import Recent
from segment.names import basename, count, examples, shown, slug
from segment.parts import InputOptions, Part, Sample, image_uri, settle
from segment.store import Entry, Store
from segment.urls import join_url, parent_url

log = logging.getLogger("segment.parquet")

_FOOTER_BLOCK = 1 << 18
_DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError)


def plan_parquet(
    entries: Sequence[Entry], options: InputOptions, store: Store, findings: Findings
) -> tuple[list[Shard], int | None]:
    """Plan the rows of Parquet files from their footers; note which columns are read.

    Returns:
        The shards, and how many images have a label: 0 without a label column, else None (only the rows tell).

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
    chosen = Counter(str(columns) for _, columns in planned)
    findings.notes += [f"columns read, {text}" + _of(number, len(planned)) for text, number in chosen.most_common()]
    bare = [shard.url for shard, columns in planned if columns.label is None]
    unread = sorted({name for _, columns in planned if columns.label is None for name in columns.unread})
    if unread:
        others = ", ".join(shown(name) for name in unread)
        findings.warnings.append(
            f"no label column is known; if one of these is it, name it with --label-column: {others}"
        )
    if bare and len(bare) < len(planned):
        findings.warnings.append(
            f"{len(bare)} of {count(len(planned), 'Parquet file')} without a label column: segmented, not scored; "
            + examples(bare)
        )
    return [shard for shard, _ in planned if shard.images], 0 if len(bare) == len(planned) else None


def has_label_column(part: Part, options: InputOptions, store: Store) -> bool:
    """Whether the file of a part has a column of labels. Only its footer is read; False where that cannot be had."""
    try:
        with store.open(part.url, _FOOTER_BLOCK, part.size, part.etag) as file:
            return find_columns(pq.ParquetFile(file).schema_arrow, options, shown(part.url)).label is not None
    except (SegmentError, *_DAMAGE):
        return False


def _of(number: int, total: int) -> str:
    return "" if number == total else f" (in {number} of {total} Parquet files)"


def _plan_file(entry: Entry, options: InputOptions, store: Store) -> tuple[Shard, Columns]:
    try:
        with store.open(entry.url, _FOOTER_BLOCK, entry.size) as file:
            opened = pq.ParquetFile(file)
            columns = find_columns(opened.schema_arrow, options, shown(entry.url))
            runs = list(_row_groups(opened.metadata, columns, options, entry))
    except _DAMAGE as error:
        _refuse_trouble(error, entry.url)
        raise UsageError(f"{shown(entry.url)} is no readable Parquet file: {_one_line(error)}") from None
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
        yield number, first, group.num_rows, size // max(1, group.num_rows)
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
    """What is kept of an opened file: its footer, its columns, where its row groups begin, repeated ids."""

    metadata: pq.FileMetaData
    columns: Columns
    repeated: frozenset[int]

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
    images = _cells(rows, file.columns.image, part, store)
    labels = _cells(rows, file.columns.label, part, store)
    return [
        _sample(part, index, name, image, label, index in file.repeated, options)
        for index, name, image, label in zip(
            range(part.start, part.stop), file.columns.ids(rows, part.start), images, labels, strict=True
        )
    ]


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
            table = opened.read_row_group(part.row_group, [file.columns.id], use_threads=False)
        except _DAMAGE as error:
            _refuse_trouble(error, part.url)
            raise SegmentError(f"{shown(part.url)}: {_one_line(error)}") from None
    rows = table.slice(part.start - file.first_row(part.row_group), len(part))
    return file.columns.ids(rows, part.start)


def _sample(
    part: Part, index: int, name: str, image: _Cell, label: _Cell, repeated: bool, options: InputOptions
) -> Sample:
    fault: str | None = "duplicate_id" if repeated else None
    if image.missing or label.missing:
        fault = fault or ("missing" if image.missing else "label_missing")
    settled = settle(fault, image.data or b"", label.data, options.max_image_bytes)
    return Sample(name, image_uri(part, name), index, *settled)


@dataclass(frozen=True, slots=True)
class _Cell:
    """One encoded image or label; `missing` if the row only has a path, and nothing is there."""

    data: bytes | None
    missing: bool = False


def _cells(rows: pa.Table, column: str | None, part: Part, store: Store) -> list[_Cell]:
    """Return the encoded images of a column; those that are only a path are read, relative to the file."""
    if column is None:
        return [_Cell(None)] * len(rows)
    values = rows[column]
    paths: list[Any] = [None] * len(rows)
    if pa.types.is_struct(values.type):
        if has_path(values.type):
            paths = plain_values(pc.struct_field(values, "path"))
        values = pc.struct_field(values, "bytes")
    data = values.to_pylist()
    cells = [_Cell(value) for value in data]
    places = {i: _beside(part.url, path) for i, path in enumerate(paths) if path and data[i] is None}
    urls = sorted({url for url in places.values() if url})
    found = dict(zip(urls, store.read_many(urls), strict=True))
    for i, url in places.items():
        cells[i] = _Cell(found.get(url), missing=found.get(url) is None)
    return cells


def _beside(url: str, path: str) -> str:
    """Return the URL of a path in a row; `""` where it names another kind of store, which is not followed."""
    try:
        target = "" if "\0" in path else join_url(parent_url(url), path)
    except UsageError:
        target = ""
    return target if target.split("://")[0] == url.split("://")[0] else ""


def _open_file(part: Part, options: InputOptions, store: Store) -> _File:
    with store.open(part.url, _FOOTER_BLOCK, part.size, part.etag) as file:
        opened = pq.ParquetFile(file, page_checksum_verification=True)
        columns = find_columns(opened.schema_arrow, options, shown(part.url))
        return _File(opened.metadata, columns, _repeated(opened, columns, part.url))


def _repeated(opened: pq.ParquetFile, columns: Columns, url: str) -> frozenset[int]:
    """Return the rows whose id an earlier row has. Reads the ids of the whole file, and nothing else."""
    if columns.id is None:
        return frozenset()
    seen: set[str] = set()
    repeated = []
    row = 0
    try:
        for batch in opened.iter_batches(columns=[columns.id], use_threads=False):
            for name in columns.ids(pa.Table.from_batches([batch]), row):
                if name in seen:
                    repeated.append(row)
                seen.add(name)
                row += 1
    except _DAMAGE as error:  # the row groups will tell, when they are read
        _refuse_trouble(error, url)
    return frozenset(repeated)


def _refuse_trouble(error: BaseException, url: str) -> None:
    """Raise again what is no damage of the file: no memory, a failing disk."""
    if isinstance(error, MemoryError):
        raise error
    if isinstance(error, OSError) and error.errno is not None:  # pyarrow's own have no number
        raise StoreError(f"could not read {shown(url)}: {_one_line(error)}")


def _read_row_group(part: Part, file: _File, store: Store) -> pa.Table | None:
    """Read the columns of a row group; None if it is damaged."""
    with store.open(part.url, size=part.size, etag=part.etag) as source:
        try:
            opened = pq.ParquetFile(source, metadata=file.metadata, pre_buffer=True, page_checksum_verification=True)
            table = opened.read_row_group(part.row_group, file.columns.names, use_threads=False)
            if len(table) != file.metadata.row_group(part.row_group).num_rows:
                raise ValueError("rows are missing")
            return table
        except _DAMAGE as error:
            _refuse_trouble(error, part.url)
            log.warning("%s: row group %d cannot be read: %s", shown(part.url), part.row_group, _one_line(error))
            return None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
