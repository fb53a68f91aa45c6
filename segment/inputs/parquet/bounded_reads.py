"""Parquet files whose columns are checked, as pyarrow reads them, by what their pages unpack to."""

import io
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple, cast

import pyarrow.parquet as pq

from segment.inputs.parquet.copies import UnpacksTooLarge
from segment.inputs.parquet.pages import column_size

FOOTER_BLOCK = 1 << 18  # bytes per request while a footer is read
_BATCH_BYTES = 256 << 20  # of a batch, if every row of it has the largest value
_REQUEST = 32 << 20  # bytes that are read at once
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}  # bytes of a value


class ShareLarge(ValueError):
    """Rows may share values so large that only few of them may be read at once; none if lists of them do."""

    def __init__(self, rows: int) -> None:
        super().__init__("rows share large values")
        self.rows = rows


class _Begun(Exception):  # no error
    """Pyarrow is about to read a column."""

    def __init__(self, at: int) -> None:
        super().__init__("a column is about to be read")
        self.at = at


class Leaf(NamedTuple):
    """A column without fields: its path, bytes of each value (0: any), whether it holds texts, and is in lists."""

    path: str = ""
    width: int = 0
    is_text: bool = False
    is_repeated: bool = False


_ANY = Leaf()


class BoundedFile(io.RawIOBase):
    """An open Parquet file whose columns are checked by the headers of their pages as pyarrow reads them.

    Pyarrow reads each column of a row group by one call, and nothing else once it has the footer, as `opened` asks for.

    Args:
        most: bytes that a column of a row group may unpack to.
    """

    def __init__(self, source: BinaryIO, most: int) -> None:
        self._source = cast(io.BufferedIOBase, source)
        self.most = most
        self._rows: float | None = None  # that are read at once; None while the footer is read
        self._leaves: Mapping[int, Leaf] = {}  # by their first byte
        self._shared: Collection[str] = ()
        self._is_tried = False
        self.values = 0  # of the longest column that was checked
        self._held: dict[tuple[int, int], bytes | bytearray] = {}
        self._size = source.seek(0, os.SEEK_END)

    def opened(self, **options: Any) -> pq.ParquetFile:
        """Open it in pyarrow, which is to check its pages' checksums; `options` as of `pq.ParquetFile`."""
        # `pre_buffer` would read columns that are side by side as one.
        return pq.ParquetFile(self, pre_buffer=False, page_checksum_verification=True, **options)

    def at_once(
        self, rows: float | None, leaves: Mapping[int, Leaf] | None = None, shared: Collection[str] = ()
    ) -> None:
        """Check the columns that are read from now on for batches of so many rows; None checks nothing.

        Args:
            rows: of a batch.
            leaves: columns by their first byte.
            shared: paths of columns that are read as dictionaries, so that rows share values.
        """
        self._rows, self._leaves, self._shared, self.values = rows, leaves or {}, shared, 0
        if rows is None:
            self._held.clear()

    def place_of(self, opened: pq.ParquetFile, group: int, leaf: int) -> int | None:
        """Return the first byte that pyarrow reads of a column, of which no byte is read here; None if it reads none.

        Only thereafter may pyarrow be asked for the metadata of the column: it ends the process where they are
        encrypted or damaged, and raises here.

        Args:
            opened: the Parquet file, opened from this one.
            leaf: number of the column among those without fields.

        Raises:
            Exception: of pyarrow, where the footer is damaged, or the column encrypted.
        """
        self._is_tried = True
        try:
            opened.reader.read_row_group(group, column_indices=[leaf], use_threads=False)
        except _Begun as begun:
            return begun.at
        finally:
            self._is_tried = False
        return None

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
        if self._is_tried:
            raise _Begun(self._source.tell())
        if self._rows is None or size < 0:
            return self._source.read(size)
        start = self._source.tell()
        if (column := self._held.get((start, size))) is None:
            column = self._held[start, size] = self._received(size)
            self._check(column, self._rows, self._leaves.get(start, _ANY))
            return column
        self._check(column, self._rows, self._leaves.get(start, _ANY))
        self._source.seek(start + len(column))
        return column

    def _received(self, size: int) -> bytes | bytearray:
        if size <= _REQUEST:
            return self._source.read(size)
        data, read = bytearray(max(0, min(size, self._size - self._source.tell()))), 0
        with memoryview(data) as view:
            while read < len(data) and (more := self._source.readinto(view[read : read + _REQUEST])):
                read += more
        del data[read:]
        return data

    def _check(self, column: bytes | bytearray, rows: float, leaf: Leaf) -> None:
        found = column_size(column, leaf.width)
        if found.unpacked > self.most:
            raise UnpacksTooLarge(self.most)
        self.values = max(self.values, found.values)
        fitting = max(1, _BATCH_BYTES // max(1, found.largest))
        if (found.shared if leaf.path in self._shared else found.most) <= self.most:
            return
        if leaf.is_text and leaf.is_repeated:
            raise ShareLarge(0)
        if rows > fitting:
            raise ShareLarge(fitting)


def leaves_of(opened: pq.ParquetFile, file: BoundedFile, group: int, columns: Sequence[str]) -> dict[int, Leaf]:
    """Return the leaves of some columns, by the first byte that pyarrow reads of each.

    Raises:
        Exception: of pyarrow, where the footer is damaged, or a column encrypted.
    """
    leaves: dict[int, Leaf] = {}
    for number in range(len(opened.schema)):
        kind = opened.schema.column(number)
        if not is_within(kind.path, columns) or (start := file.place_of(opened, group, number)) is None:
            continue
        is_text, is_repeated = kind.physical_type == "BYTE_ARRAY", kind.max_repetition_level > 0
        width = _WIDTHS.get(kind.physical_type, max(0, kind.length or 0))
        # A damaged file may have two columns in one place.
        leaves[start] = Leaf() if start in leaves else Leaf(kind.path, width, is_text, is_repeated)
    return leaves


def is_within(path: str, columns: Sequence[str]) -> bool:
    """Whether a column without fields is one of these, or a field of one."""
    return any(path == name or path.startswith(f"{name}.") for name in columns)
