"""A few rows of a Parquet file, looked at when a run is planned: do they hold what the columns were taken for?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from segment.errors import BadReference, SegmentError, UsageError
from segment.images.magic import image_format
from segment.inputs.findings import Findings
from segment.inputs.lookup import in_threads
from segment.inputs.parquet.cells import Cell, readable_cells
from segment.inputs.parquet.columns import Columns
from segment.inputs.parquet.content import content_of, embedded, is_label_format
from segment.inputs.parquet.opened import PARQUET_DAMAGE, one_line, refuse_trouble
from segment.inputs.parquet.unread import unread
from segment.inputs.references import resolve_reference
from segment.job import NO_LABELS
from segment.store.client import Entry, Store
from segment.store.names import listed, shown
from segment.store.urls import parent_url

_ROWS = 64  # of a row group
# Bytes of a row group that is read for some rows, since its pages hold up to 1,024: on this machine, and elsewhere.
_MOST_LOCAL = 512 << 20
_MOST_REMOTE = 128 << 20
_PATHS = 4  # that are looked up
_BLOCK = 1 << 16


def look_at_rows(entry: Entry, columns: Columns, store: Store, findings: Findings, which: str) -> None:
    """Refuse columns that were guessed and do not hold images; warn of named ones, and of labels that are not read.

    Args:
        entry: a file with these columns.
        columns: of the file.
        store, findings: where to read it, whom to tell.
        which: said of the files with these columns, if others have other ones.

    Raises:
        UsageError: a guess is contradicted, or the columns cannot be read, whoever named them.
    """
    with store.open(entry.url, _BLOCK, entry.size) as file:
        opened = pq.ParquetFile(file)
        others = [cell for cell in readable_cells(opened.schema_arrow) if not {*cell.fields} & {*columns.names}]
        fields = [name for cell in others for name in cell.fields]
        rows = next(_samples(opened, fields, entry.url), None) if others else None
        for what, cell in (("image", columns.image), ("label", columns.label)):
            if cell and (found := _contradiction(opened, cell, what, entry, store, findings)):
                if what in columns.guessed:
                    raise UsageError(_wrong_guess(entry, cell, what, found, columns, others, rows))
                findings.warnings.append(f"{shown(entry.url)}: the {what} column '{shown(str(cell))}': {found}")
        findings.warnings += [line + which for line in unread(opened.schema_arrow, columns, others, rows)]


def _samples(opened: pq.ParquetFile, fields: list[str], url: str, *, needed: bool = False) -> Iterator[pa.Table]:
    """Yield some rows of the first, the last and a middle row group; none of one that is damaged or too large to read.

    Raises:
        UsageError: the file is encrypted; or pyarrow cannot read these fields, and they are `needed`.
    """
    metadata, most = opened.metadata, _MOST_LOCAL if url.startswith("file://") else _MOST_REMOTE
    filled = [group for group in range(metadata.num_row_groups) if metadata.row_group(group).num_rows]
    unsupported = ""
    read = 0
    for group in dict.fromkeys(filled[i] for i in (0, -1, len(filled) // 2) if filled):
        if metadata.row_group(group).total_byte_size > most:
            continue
        try:
            batch = next(opened.iter_batches(_ROWS, row_groups=[group], columns=fields, use_threads=False))
        except PARQUET_DAMAGE as error:  # the row group will tell, when it is read
            refuse_trouble(error, url)
            unsupported = one_line(error) if isinstance(error, pa.ArrowNotImplementedError) else ""
            continue
        read += 1
        yield pa.Table.from_batches([batch])
    if needed and unsupported and not read:
        advice = "Write the images as a binary column, compressed with snappy, zstd or not at all"
        raise UsageError(f"{shown(url)}: {listed(fields)} cannot be read: {unsupported}. {advice}")


def _contradiction(
    opened: pq.ParquetFile, cell: Cell, what: str, entry: Entry, store: Store, findings: Findings
) -> str:
    """Say what a column holds instead of images, as far as some rows tell; `""` if one is an image, or all are null.

    Labels that are all null are a warning.
    """
    known = is_label_format if what == "label" else image_format
    contents: Counter[str] = Counter()
    paths: list[str] = []
    looked_at = 0
    for rows in _samples(opened, cell.fields, entry.url, needed=True):
        looked_at += len(rows)
        data = [value for value in cell.encoded(rows) if value]
        if any(known(value) for value in data):
            return ""
        contents.update(content_of(value) for value in data)
        paths += [path for path in cell.paths(rows) if path]
    if contents:
        number = contents.total()
        held = contents.most_common(1)[0][0]
        rows_told = "the one row looked at holds" if number == 1 else f"the {number} rows looked at hold"
        return f"{rows_told} {held}, not JPEG, PNG, WebP, BMP or TIFF images (pixels have to be encoded)"
    if kind := next((found for path in paths if (found := embedded(path))), ""):
        raise UsageError(_encoded_text(entry, cell, what, kind))
    if paths:
        return _missing(list(dict.fromkeys(paths)), entry.url, store)
    if what == "label" and looked_at:
        rows_told = "the one row" if looked_at == 1 else f"the {looked_at} rows"
        findings.warnings.append(
            f"{shown(entry.url)}: the label column '{shown(str(cell))}' is empty in {rows_told} looked at"
        )
    return ""


def _wrong_guess(
    entry: Entry, cell: Cell, what: str, found: str, columns: Columns, others: list[Cell], rows: pa.Table | None
) -> str:
    """Say that a guess is contradicted, and which column is the right one, as far as that can be seen."""
    name = shown(str(cell))
    better = [
        str(other)
        for other in others
        if rows is not None
        and other != columns.label
        and any(image_format(data or b"") for data in other.encoded(rows))
    ]
    hint = f" (images are in: {listed(better)})" if better and what == "image" else ""
    none = f", or read none by --label-column {NO_LABELS}" if what == "label" else ""
    return (
        f"{shown(entry.url)}: nobody named the {what} column, and '{name}' looked like it, but {found}. Name the right "
        f"one with --{what}-column{hint}{none}; --{what}-column '{name}' takes this one all the same"
    )


def _encoded_text(entry: Entry, cell: Cell, what: str, kind: str) -> str:
    """Say of text that is an encoded image itself how to decode it."""
    name = str(cell)
    text = f"split_part(\"{name}\", ',', 2)" if kind == "data URIs" else f'"{name}"'
    return (
        f"{shown(entry.url)}: the {what} column '{shown(name)}' holds {kind}, and binary columns are read. Decode it, "
        f"for example with DuckDB: COPY (SELECT * REPLACE (from_base64({text}) AS \"{name}\") FROM 'in.parquet') TO "
        "'out.parquet'"
    )


def _missing(paths: list[str], table: str, store: Store) -> str:
    """Say that none of some paths names a file; `""` if one does, or nobody can tell."""
    some = paths[:: max(1, len(paths) // _PATHS)][:_PATHS]

    def is_missing(path: str) -> bool:
        try:
            return not store.exists(resolve_reference(path, parent_url(table)))
        except BadReference:
            return True
        except SegmentError:
            return False

    if not all(in_threads(is_missing, some)):
        return ""
    looked = "the one path looked at names" if len(some) == 1 else f"the {len(some)} paths looked at name"
    try:
        first = shown(resolve_reference(some[0], parent_url(table)))
    except BadReference as error:
        first = str(error)
    return f"{looked} no file, such as {first} (a path is relative to the Parquet file)"
