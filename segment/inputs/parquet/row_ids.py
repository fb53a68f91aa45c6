"""Ids of Parquet rows: find ids that repeat within a file."""

import logging
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from segment.inputs.findings import Findings
from segment.inputs.lookup import in_threads
from segment.inputs.parquet.bounded_reads import BoundedFile
from segment.inputs.parquet.columns import Columns
from segment.inputs.parquet.copies import UnpacksTooLarge
from segment.inputs.parquet.read_errors import PARQUET_DAMAGE, one_line, refuse_trouble
from segment.inputs.parquet.row_batches import read_batches
from segment.inputs.shards import Shard
from segment.job import ROW_NUMBERS
from segment.store.client import Store
from segment.store.names import count, examples, shown

log = logging.getLogger("segment.parquet")

# Limits of what planning reads: a remote store takes one request for each row group.
_MOST_GROUPS = 1024
_MOST_ROWS = 500_000
_MOST_BYTES = 256 << 20  # of the ids of a file; up to 16 files are read at once
_BLOCK = 1 << 16


def repeated_rows(opened: pq.ParquetFile, file: BoundedFile, columns: Columns, url: str) -> Iterator[int]:
    """Yield the rows whose id an earlier row of the file has. Only the ids are read, batch by batch.

    Of ids of more than `file.most` bytes in all no further ones are compared, and a warning is logged.

    A row group that cannot be read is skipped: its rows get their numbers as ids.
    """
    if columns.id is None:
        return
    seen: set[str] = set()
    first = held = 0
    for group in range(opened.metadata.num_row_groups):
        row = first
        try:
            for batch in read_batches(opened, file, group, [str(columns.id)]):
                for name in columns.ids(pa.Table.from_batches([batch]), row):
                    if name in seen:
                        yield row
                    seen.add(name)
                    held += len(name)
                    row += 1
                if held > file.most:
                    raise UnpacksTooLarge(file.most)
        except UnpacksTooLarge as error:
            log.warning("%s: the ids of row group %d are not compared: %s", shown(url), group, one_line(error))
            if held > file.most:
                return
        except PARQUET_DAMAGE as error:
            refuse_trouble(error, url)
            log.info("%s: the ids of row group %d cannot be read: %s", shown(url), group, one_line(error))
        first += opened.metadata.row_group(group).num_rows


def report_repeated(files: Sequence[tuple[Shard, Columns]], store: Store, findings: Findings) -> None:
    """Warn of rows whose id is not unique within their file, and of what happens to them.

    Files beyond `_MOST_GROUPS` row groups or `_MOST_ROWS` rows in total are checked when they are read.
    """
    with_ids = [(shard, columns) for shard, columns in files if columns.id is not None]
    known = _within_bounds(with_ids)
    repeated = in_threads(lambda file: _count_repeated(*file, store), known)
    found = [(*file, number) for file, number in zip(known, repeated, strict=True) if number]
    guessed = any("id" in columns.guessed for _, columns in files)
    effect = "there the row number precedes every id" if guessed else "they will be error rows"
    if found:
        rows = count(sum(number for *_, number in found), "row has", "rows have")
        names = ", ".join(sorted({str(columns.id) for _, columns, _ in found}))
        findings.warnings.append(
            f"the ids in {shown(names)} are not unique: {rows} the id of an earlier row of the file, "
            f"{examples(shard.url for shard, *_ in found)}; {effect} (--id-column names another column, "
            f"{ROW_NUMBERS} selects row numbers)"
        )
    if len(known) < len(with_ids):
        files_left = count(len(with_ids) - len(known), "Parquet file")
        findings.notes.append(f"ids of {files_left} are checked when they are read; if some repeat, {effect}")


def _within_bounds(files: Sequence[tuple[Shard, Columns]]) -> list[tuple[Shard, Columns]]:
    groups = rows = 0
    for number, (shard, _) in enumerate(files):
        groups, rows = groups + len(shard.runs), rows + shard.images
        if groups > _MOST_GROUPS or rows > _MOST_ROWS:
            return list(files[:number])
    return list(files)


def _count_repeated(shard: Shard, columns: Columns, store: Store) -> int:
    try:
        with store.open(shard.url, _BLOCK, shard.size, shard.etag) as file:
            bounded = BoundedFile(file, _MOST_BYTES)
            opened = bounded.opened()
            return sum(1 for _ in repeated_rows(opened, bounded, columns, shard.url))
    except PARQUET_DAMAGE as error:
        refuse_trouble(error, shard.url)
        return 0
