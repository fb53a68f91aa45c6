"""Columns of a Parquet file whose values are kept in the rows of a run (`keep`)."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from segment.errors import UsageError
from segment.inputs.parquet.cells import (
    FieldPath,
    described,
    extension_name,
    find_field,
    is_binary,
    is_byte_list,
    is_text,
    plain_values,
    storage_of,
)
from segment.store.names import shown

_BEYOND = "out of range"  # in Arrow's text of a moment that no calendar has


def find_kept(schema: pa.Schema, keep: Sequence[str], name: str) -> tuple[FieldPath | None, ...]:
    """Find the columns, or fields of struct columns, to keep; None for one that the file lacks.

    Raises UsageError: a column holds bytes or pixels, or several have its name.
    """
    found = []
    for column in keep:
        if (number := schema.names.count(column)) > 1:
            raise UsageError(f"{name} has {number} columns '{shown(column)}', which cannot be told apart: rename them")
        place = find_field(schema, column)
        if place and _holds_bytes(place[0]):
            kind = described(place[0].type)
            raise UsageError(f"{name}: '{shown(column)}' is {kind}: it holds images or other bytes, which are not kept")
        found.append(place[1] if place else None)
    return tuple(found)


def _holds_bytes(field: pa.Field) -> bool:
    kind = storage_of(field.type)
    if (
        is_binary(kind)
        or is_byte_list(kind)
        or pa.types.is_fixed_size_binary(kind)
        or "tensor" in extension_name(field)
    ):
        return True
    return any(_holds_bytes(kind.field(number)) for number in range(kind.num_fields))


def kept_column(rows: pa.Table, place: FieldPath | None) -> list[object]:
    """Return the values of a kept column as `segment.inputs.metadata.value_text` takes them.

    Times and dates are ISO 8601; with a time zone they are UTC and end in Z. 32-bit floats have the digits that tell
    them apart: 0.1, not 0.10000000149011612.
    """
    if place is None:
        return [None] * len(rows)
    values = place.of(rows)
    kind = values.type
    if is_text(kind):
        return plain_values(values)
    if pa.types.is_timestamp(kind):
        end = "Z" if kind.tz else ""
        texts = values.cast(pa.timestamp(kind.unit)).cast(pa.string()).to_pylist()
        return [None if text is None or _BEYOND in text else text.replace(" ", "T") + end for text in texts]
    if pa.types.is_date(kind) or pa.types.is_time(kind):
        return list(values.cast(pa.string()).to_pylist())
    if pa.types.is_float16(kind) or pa.types.is_float32(kind):
        short = np.float16 if pa.types.is_float16(kind) else np.float32
        return [value if value is None else float(str(short(value))) for value in values.to_pylist()]
    return [_readable(value) for value in values]


def _readable(value: pa.Scalar) -> object:
    """Return a value; None if it cannot be one of Python's, as nested text that is not UTF-8 and some dates."""
    try:
        return value.as_py()
    except (ValueError, OverflowError):
        return None
