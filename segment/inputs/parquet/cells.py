"""How an encoded image is stored in a Parquet column: one decision by the column's type, for planning and reading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from segment.store.names import listed

_SHORTEST_IMAGE = 58  # bytes: a BMP of one pixel; hashes, UUIDs and decimals are shorter
_NUMBERS = (
    "holds numbers instead of encoded images. Encode pixels as PNG in a binary column (Pillow: "
    "Image.fromarray(array).save(buffer, 'PNG'))"
)
_SEVERAL = (
    "holds several images per row instead of one. Write a row for each image (pandas: table.explode, DuckDB: unnest)"
)
_EXPECTED = "expected binary, a struct {bytes: binary, path: string}, or text with paths or URLs"
_LONGEST_TYPE = 60  # characters of a type that messages show
_NO_IMAGE = f"cannot hold images; {_EXPECTED}"


@dataclass(frozen=True, slots=True)
class FieldPath:
    """A column, or a field of a struct column.

    Attributes:
        names: names of the fields that lead to the values, from the outermost struct inwards.
    """

    column: str
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ".".join((self.column, *self.names))

    def within(self, name: str) -> FieldPath:
        """Return the field `name` of this struct."""
        return FieldPath(self.column, (*self.names, name))

    def of(self, rows: pa.Table) -> pa.ChunkedArray:
        """Return the values without dictionaries and extension types; null where an enclosing struct is null."""
        return _plain(self.stored(rows))

    def stored(self, rows: pa.Table) -> pa.ChunkedArray:
        """Return the values as they are held; null where an enclosing struct is null."""
        values = rows[self.column]
        for name in self.names:
            values = _plain(values)
            values = pc.struct_field(values, [values.type.get_field_index(name)])
        return values


@dataclass(frozen=True, slots=True)
class Cell:
    """Where a column stores the encoded image of a row: as bytes, as a path or URL, or as either. One is not None."""

    data: FieldPath | None
    path: FieldPath | None

    def __str__(self) -> str:
        own = self.data or self.path
        assert own is not None
        inner = own.names[:-1] if own.names and own.names[-1] in ("bytes", "path") else own.names
        return str(FieldPath(own.column, inner))

    @property
    def column(self) -> str:
        """Name of the column."""
        return cast(FieldPath, self.data or self.path).column

    @property
    def fields(self) -> list[str]:
        """Names of the columns to read, in pyarrow's notation."""
        return [str(field) for field in (self.data, self.path) if field]

    def encoded(self, rows: pa.Table) -> list[bytes | None]:
        """Return the bytes in `rows`; None where there are none. Rows that share a value share its object."""
        if self.data is None:
            return [None] * len(rows)
        values = self.data.stored(rows)
        if pa.types.is_dictionary(values.type) and is_binary(values.type.value_type):
            return [value for chunk in values.chunks for value in _shared_bytes(chunk)]
        values = _plain(values)
        if not is_byte_list(values.type):
            return cast(list[bytes | None], values.to_pylist())
        return [cell.values.fill_null(0).to_numpy().tobytes() if cell.is_valid else None for cell in values]

    def paths(self, rows: pa.Table) -> list[str | None]:
        """Return the paths or URLs in `rows`; None where there are none."""
        return [None] * len(rows) if self.path is None else plain_values(self.path.of(rows))


def cell_of(field: pa.Field) -> Cell | str:
    """Return how images are read from a column of this type, or the reason why they cannot be."""
    return _cell(FieldPath(field.name), field)


def _cell(at: FieldPath, field: pa.Field) -> Cell | str:
    if refused := _refused_extension(field):
        return refused
    kind = storage_of(field.type)
    if is_text(kind):
        return Cell(None, at)
    if is_binary(kind) or is_byte_list(kind):
        return Cell(at, None)
    if pa.types.is_fixed_size_binary(kind):
        return Cell(at, None) if kind.byte_width >= _SHORTEST_IMAGE else f"is too short for an image; {_EXPECTED}"
    if pa.types.is_struct(kind):
        return _struct_cell(at, kind)
    return _refused_list(kind) if _is_list(kind) else _NO_IMAGE


def _struct_cell(at: FieldPath, kind: pa.StructType) -> Cell | str:
    """Find bytes and path in a struct: `{bytes, path}` in any order, either alone, or one such struct in another."""
    fields = {field.name: field for field in _children(kind)}
    path = at.within("path") if kind.get_field_index("path") >= 0 and is_text(fields["path"].type) else None
    if kind.get_field_index("bytes") < 0 or pa.types.is_null(fields["bytes"].type):
        if path:
            return Cell(None, path)
        if "data" in fields and not fields.keys().isdisjoint(("shape", "mode", "height")):
            return _NUMBERS  # Ray's tensors, Spark's image source, Daft's images
        inner = [str(cell) for cell in _readable_fields(at, kind)]
        return f"has no bytes and no path; fields that may hold images: {listed(inner)}" if inner else _NO_IMAGE
    inner_cell = _cell(at.within("bytes"), fields["bytes"])
    if isinstance(inner_cell, Cell) and inner_cell.data is None:
        return f"has text as its bytes; {_EXPECTED}"
    return inner_cell if isinstance(inner_cell, str) else Cell(inner_cell.data, inner_cell.path or path)


def _refused_extension(field: pa.Field) -> str:
    """Return why an extension type is not read, or `""`. The library that defines the type need not be loaded."""
    name = extension_name(field)
    if "tensor" in name:
        return _NUMBERS
    if name.startswith(("geoarrow", "ogc")):
        return f"holds geometries ({name}) and no images; {_EXPECTED}"
    return (
        f"is of the extension type {name} and holds no images; {_EXPECTED}"
        if name in ("arrow.json", "arrow.uuid", "arrow.bool8")
        else ""
    )


def extension_name(field: pa.Field) -> str:
    """Return the lower-case name of a column's extension type; `""` if it has none."""
    if isinstance(field.type, pa.BaseExtensionType):
        return str(field.type.extension_name).lower()
    name: bytes = (field.metadata or {}).get(b"ARROW:extension:name", b"")
    return name.decode("utf-8", "replace").lower()


def _refused_list(kind: pa.DataType) -> str:
    """Return why a list is no encoded image."""
    inner, depth = storage_of(kind.value_type), 1
    while _is_list(inner):
        inner, depth = storage_of(inner.value_type), depth + 1
    if pa.types.is_primitive(inner):
        return _NUMBERS if depth > 1 or pa.types.is_fixed_size_list(kind) or _is_byte(inner) else _NO_IMAGE
    return _SEVERAL if isinstance(_cell(FieldPath(""), pa.field("", inner)), Cell) else _NO_IMAGE


def described(kind: pa.DataType) -> str:
    """Return a type as messages show it."""
    text = str(kind)
    return text if len(text) <= _LONGEST_TYPE else f"{text[:_LONGEST_TYPE]}..."


def find_field(schema: pa.Schema, name: str) -> tuple[pa.Field, FieldPath] | None:
    """Find the column with this name, or else the field of a struct: `image.bytes`; None if there is none or several.

    A column whose own name has dots takes precedence over a field of another column.
    """
    found = _find_field(list(schema), name)
    if found is None or schema.names.count(found[1][0]) != 1:
        return None
    return found[0], FieldPath(found[1][0], found[1][1:])


def _find_field(fields: Sequence[pa.Field], name: str) -> tuple[pa.Field, tuple[str, ...]] | None:
    same = [field for field in fields if field.name == name]
    if same:
        return (same[0], (name,)) if len(same) == 1 else None
    for field in fields:
        if name.startswith(f"{field.name}."):
            inner = _find_field(_children(storage_of(field.type)), name[len(field.name) + 1 :])
            if inner:
                return inner[0], (field.name, *inner[1])
    return None


def cell_at(schema: pa.Schema, name: str) -> Cell | str | None:
    """Return `cell_of` the column or field that `find_field` finds; None if there is none."""
    found = find_field(schema, name)
    return None if found is None else _cell(found[1], found[0])


def readable_cells(schema: pa.Schema) -> Iterator[Cell]:
    """Yield every column, or field of a struct column, that images can be read from, whatever its name."""
    for field in schema:
        if schema.names.count(field.name) == 1:
            yield from _readable(FieldPath(field.name), field)


def _readable(at: FieldPath, field: pa.Field) -> Iterator[Cell]:
    cell = _cell(at, field)
    if isinstance(cell, Cell):
        yield cell
    elif cell != _NUMBERS and not _refused_extension(field):
        yield from _readable_fields(at, storage_of(field.type))


def _readable_fields(at: FieldPath, kind: pa.DataType) -> Iterator[Cell]:
    for child in _children(kind):
        yield from _readable(at.within(child.name), child)


def plain_values(column: pa.ChunkedArray) -> list[Any]:
    """Return a column's values. Invalid UTF-8 in text, which Parquet allows, is escaped."""
    if not is_text(column.type):
        return cast(list[Any], column.to_pylist())
    encoded = column.cast(pa.large_binary()).to_pylist()
    return [value if value is None else value.decode("utf-8", "backslashreplace") for value in encoded]


def storage_of(kind: pa.DataType) -> pa.DataType:
    """Return a type without its extension and dictionary."""
    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pa.types.is_dictionary(kind):
            kind = kind.value_type
        else:
            return kind


def _plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return values without the extensions and dictionaries that `storage_of` removes from the type."""
    while values.type != (plain := storage_of(values.type)):
        if pa.types.is_dictionary(values.type):
            chunks = [chunk.dictionary_decode() for chunk in values.chunks]
            values = pa.chunked_array(chunks, values.type.value_type)
        else:
            values = pa.chunked_array([chunk.storage for chunk in values.chunks], values.type.storage_type)
    assert values.type == plain
    return values


def _shared_bytes(values: pa.DictionaryArray) -> Iterator[bytes | None]:
    used = pc.unique(values.indices.drop_null())
    held = dict(zip(used.to_pylist(), values.dictionary.take(used).to_pylist(), strict=True))
    return (held.get(index) for index in values.indices.to_pylist())


def is_text(kind: pa.DataType) -> bool:
    """Return whether values are text, dictionaries of text included."""
    kind = storage_of(kind)
    return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def is_binary(kind: pa.DataType) -> bool:
    """Return whether values are byte strings of variable length."""
    return any(test(kind) for test in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))


def is_byte_list(kind: pa.DataType) -> bool:
    """Return whether values are lists of bytes, as Spark and pandas write byte strings that they treat as numbers."""
    return (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and _is_byte(kind.value_type)


def _is_byte(kind: pa.DataType) -> bool:
    return bool(pa.types.is_uint8(kind) or pa.types.is_int8(kind))


def _is_list(kind: pa.DataType) -> bool:
    tests = (
        pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view,
        pa.types.is_large_list_view,
    )  # fmt: skip
    return any(test(kind) for test in tests)


def _children(kind: pa.DataType) -> list[pa.Field]:
    return [kind.field(i) for i in range(kind.num_fields)] if pa.types.is_struct(kind) else []
