"""Report columns of a Parquet file that may hold labels or images and are not read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pyarrow as pa

from segment.inputs.parquet.cells import Cell, cell_of, described, is_text, storage_of
from segment.inputs.parquet.columns import Columns
from segment.inputs.parquet.content import is_label_format
from segment.inputs.roles import LABEL_PARTS, role_of
from segment.store.names import is_label, listed, shown

_SHAPES = re.compile(r"(mask_?|segmentation_?)?(rles?|polygons?)(_mask)?|encoded_?(pixels|mask)")
_LABEL = re.compile("|".join([*LABEL_PARTS, "segm", "truth", "(?<![a-z])(gt|seg)(?![a-z])"]))


def unread_columns(schema: pa.Schema, columns: Columns, others: Sequence[Cell], rows: pa.Table | None) -> Iterator[str]:
    """Yield warnings of columns that may hold labels or other images and are not read.

    Args:
        schema: schema of the file.
        columns: the columns that are read.
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
