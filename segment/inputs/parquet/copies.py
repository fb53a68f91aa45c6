"""Rows whose texts are shared by dictionaries, and what they take once each row has its own copy."""

from collections.abc import Collection, Iterator

import pyarrow as pa
import pyarrow.compute as pc


class UnpacksTooLarge(ValueError):
    """Rows unpack to more bytes than may be held."""

    def __init__(self, most: int) -> None:
        super().__init__(f"it unpacks to more than {most} bytes, of which its footer does not tell")


_MOST_ROW = 256 << 20  # bytes of one row, such as a part of a plan that keeps long metadata


def copied_size(values: pa.ChunkedArray | pa.Array, path: str = "", shared: Collection[str] = ()) -> int:
    """Return the bytes of values if each row has its own copy, but for columns that are `shared`."""
    if isinstance(values, pa.ChunkedArray):
        return sum(copied_size(chunk, path, shared) for chunk in values.chunks)
    if pa.types.is_struct(values.type):
        fields = zip(values.type, values.flatten(), strict=True)
        return sum(copied_size(inner, f"{path}.{field.name}", shared) for field, inner in fields)
    if pa.types.is_list(values.type):
        return int(4 * len(values) + copied_size(values.flatten(), path, shared))
    if not pa.types.is_dictionary(values.type) or path in shared:
        return int(values.nbytes)
    return int(pc.sum(pc.binary_length(values.dictionary).take(values.indices)).as_py() or 0)


def longest_shared(values: pa.Array) -> int:
    """Return the bytes of the longest text in each dictionary of values, in all; 0 if they have none."""
    if pa.types.is_struct(values.type):
        return sum(map(longest_shared, values.flatten()))
    if pa.types.is_list(values.type):
        return longest_shared(values.flatten())
    if not pa.types.is_dictionary(values.type):
        return 0
    return int(pc.max(pc.binary_length(values.dictionary)).as_py() or 0)


def copied(batch: pa.RecordBatch, schema: pa.Schema, most: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows with copies of their texts, as many at once as take no more than `most` bytes.

    Args:
        schema: of the file, without dictionaries.

    Raises UnpacksTooLarge: one row takes more.
    """
    size = sum(map(copied_size, batch.columns))
    if size <= (most if len(batch) > 1 else max(most, _MOST_ROW)):
        plain = pa.schema([schema.field(name) for name in batch.schema.names])
        yield from pa.Table.from_batches([batch]).cast(plain).to_batches()
        return
    if len(batch) < 2:
        raise UnpacksTooLarge(most)
    for start in (0, len(batch) // 2):
        yield from copied(batch.slice(start, len(batch) // 2 + (len(batch) % 2 if start else 0)), schema, most)
