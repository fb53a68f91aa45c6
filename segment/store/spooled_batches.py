"""Arrow batches of which there are too many for memory: compressed, and beyond some megabytes in a temporary file."""

import tempfile
import threading
import weakref
from array import array
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Self

import pyarrow as pa

from segment.store.temporary_room import discard, needing_room

IN_MEMORY = 16 << 20  # compressed bytes, beyond which they go to a file
_CODEC = "zstd"
_ROWS = 4096  # of a batch


class SpooledBatches:
    """A sequence of record batches of one schema, to which others can be appended. Thread-safe.

    Listings and plans repeat themselves: a batch takes about a fifth of its size. The temporary file has no name, so it
    is gone with the process, however that ends.

    Raises (when a batch is appended):
        SegmentError: there is no room in the folder for temporary files.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115  # it lives as long as this
        weakref.finalize(self, discard, self._file)
        self._stops, self._sizes = array("q", [0]), array("q")  # of blocks in the file, and of the batches in memory
        self._lock = threading.Lock()
        self._last: tuple[int, pa.RecordBatch] | None = None  # readers go through a batch piece by piece

    def __len__(self) -> int:
        return len(self._sizes)

    @property
    def nbytes(self) -> int:
        """Bytes of all batches, not compressed."""
        return sum(self._sizes)

    def append(self, batch: pa.RecordBatch) -> None:
        """Add a batch at the end."""
        plain = batch.serialize()
        self._append(pa.compress(plain, _CODEC, asbytes=True), plain.size)

    def extend(self, other: Self) -> None:
        """Add all batches of another sequence of this schema at the end."""
        for number in range(len(other)):
            self._append(*other._block(number))

    def __getitem__(self, number: int) -> pa.RecordBatch:
        last = self._last
        if last is None or last[0] != number:
            block, size = self._block(number)
            last = number, pa.ipc.read_record_batch(pa.decompress(block, size, _CODEC), self.schema)
            self._last = last
        return last[1]

    def _append(self, block: bytes, size: int) -> None:
        with self._lock:
            with needing_room("the listing of the input or its plan"):
                self._file.seek(self._stops[-1])
                self._file.write(block)
                self._file.flush()  # else a later read would find that there is no room
            self._stops.append(self._stops[-1] + len(block))
            self._sizes.append(size)

    def _block(self, number: int) -> tuple[bytes, int]:
        with self._lock:
            start, stop = self._stops[number], self._stops[number + 1]
            self._file.seek(start)
            return self._file.read(stop - start), self._sizes[number]


class SpooledRows:
    """Tuples in the order in which they come, each a value by column of a schema. They can be read again and again.

    Args:
        rows: the tuples; they are taken piece by piece.
    """

    def __init__(self, rows: Iterable[tuple[Any, ...]], schema: pa.Schema) -> None:
        self._batches = SpooledBatches(schema)
        left = iter(rows)
        while piece := list(islice(left, _ROWS)):
            self._batches.append(batch_of(zip(*piece, strict=True), schema))

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for number in range(len(self._batches)):
            yield from rows_of(self._batches[number])


def batch_of(columns: Iterable[Iterable[Any]], schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch of columns of values; text is stored as bytes, as names of local files need not be UTF-8."""
    arrays = [
        pa.array([text.encode("utf-8", "surrogatepass") for text in values], field.type)
        if pa.types.is_binary(field.type)
        else pa.array(list(values), field.type)
        for field, values in zip(schema, columns, strict=True)
    ]
    return pa.record_batch(arrays, schema=schema)


def columns_of(batch: pa.RecordBatch) -> list[list[Any]]:
    """Return the columns of values that `batch_of` has stored."""
    return [texts_of(column) if pa.types.is_binary(column.type) else column.to_pylist() for column in batch.columns]


def rows_of(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    """Return the rows of values that `batch_of` has stored."""
    return zip(*columns_of(batch), strict=True)


def texts_of(column: pa.Array) -> list[str]:
    """Return the texts of a column of bytes."""
    return [data.decode("utf-8", "surrogatepass") for data in column.to_pylist()]
