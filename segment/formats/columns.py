"""Which columns of a Parquet file hold image, label and id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from segment.errors import UsageError, nearest
from segment.names import shown
from segment.parts import InputOptions
from segment.urls import unsigned_name

IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "bytes", "image_bytes", "content")
LABEL_COLUMNS = (
    "label", "mask", "annotation", "segmentation", "seg", "seg.png", "mask.png", "label.png", "segmentation_mask",
    "semantic_segmentation", "label_bytes", "mask_bytes",
)  # fmt: skip
ID_COLUMNS = ("id", "image_id", "key", "__key__", "filename", "file_name")


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns to read.

    Attributes:
        image: column of encoded images.
        label: column of encoded labels, or None.
        id: column of ids, `<image>.path` for the path within the image struct, or None for row numbers.
        unread: other columns that could hold encoded images.
    """

    image: str
    label: str | None
    id: str | None
    unread: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """The columns, each once."""
        own_id = None if self.id == f"{self.image}.path" else self.id
        return list(dict.fromkeys(name for name in (self.image, self.label, own_id) if name))

    def __str__(self) -> str:
        chosen = {"image": self.image, "label": self.label, "id": self.id or "the row number"}
        return ", ".join(f"{what}: {shown(column)}" for what, column in chosen.items() if column)

    def ids(self, rows: pa.Table, first: int) -> list[str]:
        """Return the ids of `rows`, whose first is row `first` of the file; the row number where there is none."""
        if self.id is None:
            values: Sequence[object] = [None] * len(rows)
        elif self.id in rows.column_names:
            values = plain_values(rows[self.id])
        else:
            values = plain_values(pc.struct_field(rows[self.image], "path"))
        return [
            row_id(first + i) if value in (None, "") else unsigned_name(str(value)) for i, value in enumerate(values)
        ]


def plain_values(column: pa.ChunkedArray) -> list[Any]:
    """Return a column's values; of text that is not valid UTF-8, which Parquet does not rule out, the bytes escaped."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not _is_text(column.type):
        return cast(list[Any], column.to_pylist())
    encoded = column.cast(pa.large_binary()).to_pylist()
    return [value if value is None else value.decode("utf-8", "backslashreplace") for value in encoded]


def row_id(row: int) -> str:
    """Return the id of an image that has no other."""
    return f"row-{row:08d}"


def find_columns(schema: pa.Schema, options: InputOptions, name: str) -> Columns:
    """Find the columns by the options, or else by their usual names and types.

    Args:
        schema: of the file.
        options: may name the columns.
        name: of the file, for messages.

    Raises:
        UsageError: a column is not there, or its type cannot be an image, a label or an id; or several columns could be
            meant and none is named.
    """
    image = _named(schema, options.image_column, "image", name) or _detected(schema, IMAGE_COLUMNS, "image", name)
    if image is None:
        others = [f.name for f in schema if is_encoded(f.type) and f.name.lower() not in LABEL_COLUMNS]
        if len(others) != 1:
            raise UsageError(f"{name} has no image column: name it with --image-column. {_there(schema)}")
        image = others[0]
    label = _named(schema, options.label_column, "label", name) or _detected(schema, LABEL_COLUMNS, "label", name)
    label = None if label == image else label
    unread = tuple(f.name for f in schema if is_encoded(f.type) and f.name not in (image, label))
    return Columns(image, label, _id_column(schema, image, options, name), unread)


def is_encoded(kind: pa.DataType) -> bool:
    """Whether a type can hold encoded images: binary, or Hugging Face's `struct<bytes: binary, path: string>`."""
    if pa.types.is_struct(kind):
        position = kind.get_field_index("bytes")
        return position >= 0 and is_encoded(kind.field(position).type)
    return any(test(kind) for test in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))


def has_path(kind: pa.DataType) -> bool:
    """Whether an image's type names a path beside the bytes."""
    return pa.types.is_struct(kind) and kind.get_field_index("path") >= 0 and _is_text(kind.field("path").type)


def _is_text(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def _is_id(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_id(kind.value_type)
    return _is_text(kind) or pa.types.is_integer(kind)


def _named(schema: pa.Schema, column: str | None, what: str, name: str) -> str | None:
    if column is None:
        return None
    _refuse_absent(schema, column, what, name)
    if not is_encoded(schema.field(column).type):
        raise UsageError(
            f"{name}: the {what} column '{column}' is {schema.field(column).type}; expected binary, or a struct "
            f"{{bytes: binary, path: string}}. {_there(schema)}"
        )
    return column


def _refuse_absent(schema: pa.Schema, column: str, what: str, name: str) -> None:
    if schema.names.count(column) != 1:
        raise UsageError(f"{name} has no {what} column '{column}'.{nearest(column, schema.names)} {_there(schema)}")


def _detected(schema: pa.Schema, usual: Sequence[str], what: str, name: str) -> str | None:
    found = [f.name for f in schema if f.name.lower() in usual and is_encoded(f.type)]
    if len(found) > 1:
        which = ", ".join(f"'{shown(column)}'" for column in found)
        raise UsageError(f"{name}: {which} could each be the {what} column: name the one with --{what}-column")
    return found[0] if found else None


def _id_column(schema: pa.Schema, image: str, options: InputOptions, name: str) -> str | None:
    if options.id_column is not None:
        _refuse_absent(schema, options.id_column, "id", name)
        if not _is_id(schema.field(options.id_column).type):
            kind = schema.field(options.id_column).type
            raise UsageError(f"{name}: the id column '{options.id_column}' is {kind}; expected text or integers")
        return options.id_column
    found = {f.name.lower(): f.name for f in schema if _is_id(f.type) and schema.names.count(f.name) == 1}
    detected = next((found[column] for column in ID_COLUMNS if column in found), None)
    return detected or (f"{image}.path" if has_path(schema.field(image).type) else None)


def _there(schema: pa.Schema) -> str:
    columns = ", ".join(f"{shown(f.name)}: {str(f.type)[:60]}" for f in schema) or "none"
    return f"Its columns: {columns}"
