"""Ids of Parquet rows: are they unique within the file?"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from segment.inputs.cutting import Shard
from segment.inputs.findings import Findings
from segment.inputs.lookup import in_threads
from segment.inputs.parquet.columns import Columns
from segment.inputs.parquet.opened import PARQUET_DAMAGE, one_line, refuse_trouble
from segment.job import ROW_NUMBERS
from segment.store.client import Store
from segment.store.names import count, examples, shown

log = logging.getLogger("segment.parquet")

# Planning reads the ids of so many row groups and rows: where the store is remote, a request for each row group.
_MOST_GROUPS = 1024
_MOST_ROWS = 500_000
_BLOCK = 1 << 16


def repeated_rows(opened: pq.ParquetFile, columns: Columns, url: str) -> Iterator[int]:
    """Yield the rows whose id an earlier row of the file has. Reads the ids, some at a time, and nothing else.

    A row group that cannot be read is passed over: its rows get their numbers as ids.
    """
    if columns.id is None:
        return
    seen: set[str] = set()
    first = 0
    for group in range(opened.metadata.num_row_groups):
        row = first
        try:
            for batch in opened.iter_batches(row_groups=[group], columns=[str(columns.id)], use_threads=False):
                for name in columns.ids(pa.Table.from_batches([batch]), row):
                    if name in seen:
                        yield row
                    seen.add(name)
                    row += 1
        except PARQUET_DAMAGE as error:
            refuse_trouble(error, url)
            log.info("%s: the ids of row group %d cannot be read: %s", shown(url), group, one_line(error))
        first += opened.metadata.row_group(group).num_rows


def tell_repeated(files: Sequence[tuple[Shard, Columns]], store: Store, findings: Findings) -> None:
    """Count the rows whose id is not unique within their file, and say what becomes of them.

    Files beyond `_MOST_GROUPS` row groups or `_MOST_ROWS` rows are not looked at: only reading them tells.
    """
    with_ids = [(shard, columns) for shard, columns in files if columns.id is not None]
    known = _within_bounds(with_ids)
    repeated = in_threads(lambda file: _count_repeated(*file, store), known)
    found = [(*file, number) for file, number in zip(known, repeated, strict=True) if number]
    guessed = any("id" in columns.guessed for _, columns in files)
    fate = "there the row number stands before every id" if guessed else "they will be error rows"
    if found:
        rows = count(sum(number for *_, number in found), "row has", "rows have")
        names = ", ".join(sorted({str(columns.id) for _, columns, _ in found}))
        findings.warnings.append(
            f"the ids in {shown(names)} are not unique: {rows} the id of an earlier row of the file, "
            f"{examples(shard.url for shard, *_ in found)}; {fate} (--id-column names another column, "
            f"{ROW_NUMBERS} takes row numbers)"
        )
    if len(known) < len(with_ids):
        files_left = count(len(with_ids) - len(known), "Parquet file")
        findings.notes.append(f"ids of {files_left} are compared when they are read; if some come twice, {fate}")


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
            opened = pq.ParquetFile(file, page_checksum_verification=True)
            return sum(1 for _ in repeated_rows(opened, columns, shard.url))
    except PARQUET_DAMAGE as error:
        refuse_trouble(error, shard.url)
        return 0
