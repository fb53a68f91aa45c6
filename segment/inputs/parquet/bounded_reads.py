"""Read rows of Parquet files within a bound on what they unpack to, whatever footer and pages declare."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from segment.inputs.parquet.pages import column_size

BATCH = 1 << 16  # rows that are read at once, where they may be
_BATCH_BYTES = 256 << 20  # of a batch, if every row of it has the largest value
_REQUEST = 32 << 20  # bytes that are read at once


class UnpacksTooLarge(ValueError):
    """Rows unpack to more bytes than may be held."""

    def __init__(self, most: int) -> None:
        super().__init__(f"it unpacks to more than {most} bytes, of which its footer does not tell")


class _ShareLarge(ValueError):
    """Rows may share values so large that only few of them may be read at once."""

    def __init__(self, rows: int) -> None:
        super().__init__("rows share large values")
        self.rows = rows


class BoundedFile(io.RawIOBase):
    """An open Parquet file whose columns are checked by the headers of their pages as pyarrow reads them.

    Without `pre_buffer`, pyarrow reads each column of a row group by one call, and nothing else once it has the footer.

    Args:
        source: the file.
        most: bytes that a column of a row group may unpack to.
    """

    def __init__(self, source: BinaryIO, most: int) -> None:
        self._source = cast(io.BufferedIOBase, source)
        self.most = most
        self._rows: float | None = None  # that are read at once; None while the footer is read
        self._held: dict[tuple[int, int], bytearray] = {}
        self._size = source.seek(0, os.SEEK_END)

    def at_once(self, rows: float | None) -> None:
        """Check the columns that are read from now on for batches of so many rows; None checks nothing."""
        self._rows = rows
        if rows is None:
            self._held.clear()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._source.seek(offset, whence)

    def tell(self) -> int:
        return self._source.tell()

    def read(self, size: int = -1) -> bytes | bytearray:
        """Return bytes; of a column, once it is checked.

        Raises:
            UnpacksTooLarge: a column is too large.
            PageError: it is damaged.
        """
        if self._rows is None or size < 0:
            return self._source.read(size)
        key = (self._source.tell(), size)
        if key not in self._held:
            self._held[key] = self._received(size)
        self._check(self._held[key], self._rows)
        self._source.seek(key[0] + len(self._held[key]))
        return self._held[key]

    def _received(self, size: int) -> bytearray:
        data, read = bytearray(max(0, min(size, self._size - self._source.tell()))), 0
        with memoryview(data) as view:
            while read < len(data) and (more := self._source.readinto(view[read : read + _REQUEST])):
                read += more
        del data[read:]
        return data

    def _check(self, column: bytes | bytearray, rows: float) -> None:
        found = column_size(column)
        if found.unpacked > self.most:
            raise UnpacksTooLarge(self.most)
        fitting = max(1, _BATCH_BYTES // max(1, found.largest))
        if found.most > self.most and rows > fitting:
            raise _ShareLarge(fitting)


def read_batches(
    opened: pq.ParquetFile, file: BoundedFile, group: int, columns: Sequence[str], rows: int = BATCH
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a row group, so many at once, or fewer where they may be large.

    Args:
        opened: the Parquet file, opened from `file`.
        file: bounds what a batch, and a column, may unpack to.
        group: number of the row group.
        columns: names of the columns to read.
        rows: of a batch.

    Raises:
        UnpacksTooLarge: a column, or a batch, is too large.
        PageError: the headers of its pages are damaged.
        Exception: of pyarrow, where the file is damaged.
    """
    try:
        while True:
            file.at_once(rows)
            try:
                for batch in opened.iter_batches(rows, row_groups=[group], columns=list(columns), use_threads=False):
                    if batch.nbytes > file.most:
                        raise UnpacksTooLarge(file.most)
                    yield batch
                return
            except _ShareLarge as error:  # before the first batch, for which all columns are read
                rows = error.rows
    finally:
        file.at_once(None)


def read_row_group(opened: pq.ParquetFile, file: BoundedFile, group: int, columns: Sequence[str]) -> pa.Table:
    """Return the rows of a row group; for arguments and errors see `read_batches`.

    Raises:
        UnpacksTooLarge: its rows take more than `file.most` bytes.
    """
    file.at_once(math.inf)
    try:
        return opened.read_row_group(group, list(columns), use_threads=False)
    except _ShareLarge:
        pass
    finally:
        file.at_once(None)
    held, size = [], 0
    for batch in read_batches(opened, file, group, columns):  # which is slower
        held.append(batch)
        size += batch.nbytes
        if size > file.most:
            raise UnpacksTooLarge(file.most)
    return pa.Table.from_batches(held)
