"""Check at plan time, by a few rows, that the columns of a Parquet file hold what they were detected as."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from segment.errors import BadReference, SegmentError, UsageError
from segment.images.magic import image_format
from segment.inputs.findings import Findings
from segment.inputs.lookup import in_threads
from segment.inputs.parquet.bounded_reads import BoundedFile
from segment.inputs.parquet.cells import Cell, cell_of, described, is_text, readable_cells, storage_of
from segment.inputs.parquet.columns import Columns
from segment.inputs.parquet.content import content_of, embedded, is_label_format
from segment.inputs.parquet.read_errors import PARQUET_DAMAGE, one_line, refuse_trouble
from segment.inputs.parquet.row_batches import read_batches
from segment.inputs.references import absolute_url, resolve_reference
from segment.inputs.roles import LABEL_PARTS, role_of
from segment.job import NO_LABELS
from segment.store.client import Entry, Store
from segment.store.names import count, examples, is_label, listed, shown
from segment.store.scope import OUTSIDE, NotAllowed, Scope, advice
from segment.store.urls import parent_url

_SHAPES = re.compile(r"(mask_?|segmentation_?)?(rles?|polygons?)(_mask)?|encoded_?(pixels|mask)")
_LABEL = re.compile("|".join([*LABEL_PARTS, "segm", "truth", "(?<![a-z])(gt|seg)(?![a-z])"]))

_ROWS = 64  # sampled rows of a row group
# Largest row group, in bytes, that is sampled. Pages hold up to 1,024 rows, so a few rows may take much of it.
_MOST_LOCAL = 512 << 20
_MOST_REMOTE = 128 << 20
_PATHS = 4  # paths that are looked up
_BLOCK = 1 << 16


def check_columns(entry: Entry, columns: Columns, store: Store, findings: Findings, which: str) -> None:
    """Refuse detected columns that hold no images; warn of named ones, and of labels that are not read.

    Args:
        which: suffix of warnings that tells which files have these columns; `""` if all have.

    Raises:
        UsageError: a detected column holds no images; or a column cannot be read.
    """
    with store.open(entry.url, _BLOCK, entry.size) as file:
        bounded = BoundedFile(file, _MOST_LOCAL)
        opened = bounded.opened()
        others = [cell for cell in readable_cells(opened.schema_arrow) if not {*cell.fields} & {*columns.names}]
        fields = [name for cell in others for name in cell.fields]
        rows = next(_samples(opened, bounded, fields, entry.url), None) if others else None
        for what, cell in (("image", columns.image), ("label", columns.label)):
            if cell and (found := _contradiction(opened, bounded, cell, what, entry, store, findings)):
                if what in columns.guessed:
                    raise UsageError(_wrong_guess(entry, cell, what, found, columns, others, rows))
                findings.warnings.append(f"{shown(entry.url)}: the {what} column '{shown(str(cell))}': {found}")
        findings.warnings += [line + which for line in unread_columns(opened.schema_arrow, columns, others, rows)]


def _samples(
    opened: pq.ParquetFile, file: BoundedFile, fields: list[str], url: str, *, needed: bool = False
) -> Iterator[pa.Table]:
    """Yield some rows of the first, the last and a middle row group, except damaged ones and ones too large to read.

    Raises UsageError: the file is encrypted; or pyarrow cannot read these fields, and they are `needed`.
    """
    metadata, most = opened.metadata, _MOST_LOCAL if url.startswith("file://") else _MOST_REMOTE
    filled = [group for group in range(metadata.num_row_groups) if metadata.row_group(group).num_rows]
    unsupported = ""
    read = 0
    for group in dict.fromkeys(filled[i] for i in (0, -1, len(filled) // 2) if filled):
        if metadata.row_group(group).total_byte_size > most:
            continue
        try:
            batch = next(read_batches(opened, file, group, fields, _ROWS), None)
        except PARQUET_DAMAGE as error:  # it is reported when the row group is read
            refuse_trouble(error, url)
            unsupported = one_line(error) if isinstance(error, pa.ArrowNotImplementedError) else ""
            continue
        if batch is None:  # damaged: it has rows, says the footer
            continue
        read += 1
        yield pa.Table.from_batches([batch])
    if needed and unsupported and not read:
        advice = "Write the images as a binary column, compressed with snappy, zstd or not at all"
        raise UsageError(f"{shown(url)}: {listed(fields)} cannot be read: {unsupported}. {advice}")


def _contradiction(
    opened: pq.ParquetFile, file: BoundedFile, cell: Cell, what: str, entry: Entry, store: Store, findings: Findings
) -> str:
    """Return what a column holds instead of images; `""` if a sampled row is an image, or all are null.

    Labels that are all null give a warning.
    """
    known = is_label_format if what == "label" else image_format
    contents: Counter[str] = Counter()
    paths: list[str] = []
    sampled_rows = 0
    for rows in _samples(opened, file, cell.fields, entry.url, needed=True):
        sampled_rows += len(rows)
        data = [value for value in cell.encoded(rows) if value]
        if any(known(value) for value in data):
            return ""
        contents.update(content_of(value) for value in data)
        paths += [path for path in cell.paths(rows) if path]
    if contents:
        number = contents.total()
        held = contents.most_common(1)[0][0]
        sampled = "the one sampled row holds" if number == 1 else f"the {number} sampled rows hold"
        return f"{sampled} {held}, not JPEG, PNG, WebP, BMP or TIFF images (pixels have to be encoded)"
    if kind := next((found for path in paths if (found := embedded(path))), ""):
        raise UsageError(_encoded_text(entry, cell, what, kind))
    if paths:
        return _unreadable(list(dict.fromkeys(paths)), what, entry.url, store, findings)
    if what == "label" and sampled_rows:
        rows_text = "the one sampled row" if sampled_rows == 1 else f"the {sampled_rows} sampled rows"
        findings.warnings.append(f"{shown(entry.url)}: the label column '{shown(str(cell))}' is empty in {rows_text}")
    return ""


def _wrong_guess(
    entry: Entry, cell: Cell, what: str, found: str, columns: Columns, others: list[Cell], rows: pa.Table | None
) -> str:
    """Return the message of a detected column that holds no images, and the right column if the rows show it."""
    name = shown(str(cell))
    better = [
        str(other)
        for other in others
        if rows is not None
        and other != columns.label
        and any(image_format(data or b"") for data in other.encoded(rows))
    ]
    hint = f" (images are in: {listed(better)})" if better and what == "image" else ""
    none = f", or read none with --label-column {NO_LABELS}" if what == "label" else ""
    return (
        f"{shown(entry.url)}: '{name}' was detected as the {what} column, but {found}. Name the right one with "
        f"--{what}-column{hint}{none}; --{what}-column '{name}' uses this one anyway"
    )


def _encoded_text(entry: Entry, cell: Cell, what: str, kind: str) -> str:
    """Return the message of text that is an encoded image, with a command that decodes it."""
    name = str(cell)
    text = f"split_part(\"{name}\", ',', 2)" if kind == "data URIs" else f'"{name}"'
    return (
        f"{shown(entry.url)}: the {what} column '{shown(name)}' holds {kind} instead of binary data. Decode it, "
        f"for example with DuckDB: COPY (SELECT * REPLACE (from_base64({text}) AS \"{name}\") FROM 'in.parquet') TO "
        "'out.parquet'"
    )


def _unreadable(paths: list[str], what: str, table: str, store: Store, findings: Findings) -> str:
    """Return what is wrong if none of the sampled paths names a file that may be read; warn of some that do not."""
    scope, outside = store.scope or Scope(), dict[str, str]()
    for path in paths:
        try:
            resolve_reference(path, parent_url(table), scope)
        except NotAllowed:
            outside[path] = absolute_url(path, parent_url(table))
        except BadReference:
            continue
    urls = list(outside.values())
    if outside:
        found = f"{OUTSIDE}, {examples(urls)}; {advice(urls)}"
        if len(outside) == len(paths):
            return f"{'the sampled path names' if len(paths) == 1 else 'the sampled paths name'} what is {found}"
        sampled = f"{len(outside)} of {count(len(paths), f'sampled {what}')}"
        findings.warnings.append(f"{shown(table)}: {sampled} will be error rows, as what they name is {found}")
    return _missing([path for path in paths if path not in outside], table, scope, store)


def _missing(paths: list[str], table: str, scope: Scope, store: Store) -> str:
    """Return the message if none of some paths names a file; `""` if one does, or the store does not answer."""
    some = paths[:: max(1, len(paths) // _PATHS)][:_PATHS]

    def is_missing(path: str) -> bool:
        try:
            return not store.inputs.exists(resolve_reference(path, parent_url(table), scope))
        except BadReference:
            return True
        except SegmentError:
            return False

    if not all(in_threads(is_missing, some)):
        return ""
    sampled = "the one sampled path names" if len(some) == 1 else f"the {len(some)} sampled paths name"
    try:
        first = shown(resolve_reference(some[0], parent_url(table), scope))
    except BadReference as error:
        first = str(error)
    return f"{sampled} no file, such as {first} (a path is relative to the Parquet file)"


def unread_columns(schema: pa.Schema, columns: Columns, others: Sequence[Cell], rows: pa.Table | None) -> Iterator[str]:
    """Yield warnings of columns that may hold labels or other images and are not read.

    Args:
        others: other readable columns.
        rows: sampled rows of `others`; None without any.
    """
    unlabelled = columns.label is None and "label" in columns.guessed
    names = listed([str(cell) for cell in others if _may_matter(cell, rows, labels=unlabelled)])
    if names and unlabelled:
        yield f"no label column is read; if one of these is it, name it with --label-column: {names}"
    elif names:
        yield f"columns with images that are not read: {names} (--image-column and --label-column select others)"
    if unlabelled:
        yield from _unreadable_labels(schema, columns)


def _may_matter(cell: Cell, rows: pa.Table | None, *, labels: bool) -> bool:
    """Return whether a column holds images or may hold them; with `labels`, also whether its name indicates labels."""
    if cell.data is not None:
        data = [value for value in cell.encoded(rows) if value] if rows is not None else []
        return not data or (labels and _is_labelled(str(cell), "")) or any(is_label_format(value) for value in data)
    paths = [path for path in cell.paths(rows) if path] if rows is not None else []
    return labels and any(is_label(path.partition("?")[0]) and _is_labelled(str(cell), path) for path in paths)


def _is_labelled(column: str, path: str) -> bool:
    return role_of(column) == "label" or _LABEL.search(f"{column} {path}".lower()) is not None


def _unreadable_labels(schema: pa.Schema, columns: Columns) -> Iterator[str]:
    """Yield warnings of columns that are named like labels and hold arrays, lists or polygons."""
    for field in schema:
        why = cell_of(field)
        if is_text(field.type) and _SHAPES.fullmatch(field.name.lower()):
            yield (
                f"no labels are used, but the column '{shown(field.name)}' could hold them: it is text, and polygons "
                "and run lengths have to be drawn as label images first"
            )
        nested = pa.types.is_nested(storage_of(field.type))
        is_usual = role_of(field.name) == "label" or _SHAPES.fullmatch(field.name.lower())
        if isinstance(why, str) and nested and is_usual and field.name != columns.image.column:
            kind = described(field.type)
            yield f"no labels are used, but the column '{shown(field.name)}' could hold them: it is {kind} and {why}"
