"""Read rows of Parquet files within a bound on what they unpack to, whatever footer and pages declare."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from segment.inputs.parquet.bounded_reads import BoundedFile, Leaf, ShareLarge, leaves_of
from segment.inputs.parquet.copies import UnpacksTooLarge, copied, copied_size, longest_shared

BATCH = 1 << 16  # rows that are read at once, where they may be


class _RowGroup(NamedTuple):
    """Columns of a row group of a Parquet file, which is opened from `file`."""

    opened: pq.ParquetFile
    file: BoundedFile
    number: int
    columns: Sequence[str]

    def batches(
        self, rows: int, leaves: Mapping[int, Leaf], dictionaries: Sequence[str] = ()
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows. Raises ShareLarge before the first batch, for which all columns are read.

        Args:
            dictionaries: paths of columns to be read as dictionaries, so that rows share values.
        """
        opened = self.opened
        if dictionaries:
            opened = self.file.opened(metadata=opened.metadata, read_dictionary=dictionaries)
        self.file.at_once(rows, leaves, dictionaries)
        yield from opened.iter_batches(rows, row_groups=[self.number], columns=list(self.columns), use_threads=False)

    def lists_share_little(self, leaves: Mapping[int, Leaf], texts: Sequence[str]) -> bool:
        """Whether the texts that lists share are so short that all rows may have copies, as those of most plans are.

        Raises UnpacksTooLarge: they are too large even as dictionaries.
        """
        try:
            first = next(self.batches(1, leaves, texts), None)
        except ShareLarge:
            raise UnpacksTooLarge(self.file.most) from None
        largest = 4 * sum(map(longest_shared, first.columns)) if first else 0  # with what they hold beside texts
        return largest * self.file.values <= self.file.most


def read_batches(
    opened: pq.ParquetFile, file: BoundedFile, group: int, columns: Sequence[str], rows: int = BATCH
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a row group, so many at once, or fewer where they may be large.

    Args:
        opened: the Parquet file, opened from `file`.
        file: bounds what a batch, and a column, may unpack to.
        columns: names of the columns to read.
        rows: of a batch.

    Raises:
        UnpacksTooLarge: a column, or a batch, is too large.
        PageError: the headers of its pages are damaged.
        Exception: of pyarrow, where the file is damaged.
    """
    found, leaves = _RowGroup(opened, file, group, columns), leaves_of(opened, file, group, columns)
    texts = [leaf.path for leaf in leaves.values() if leaf.is_text and leaf.is_repeated]
    shared: Sequence[str] = ()
    try:
        while True:
            try:
                for batch in found.batches(rows, leaves, shared):
                    if shared:
                        yield from copied(batch, opened.schema_arrow, file.most)
                    elif batch.nbytes > file.most:
                        raise UnpacksTooLarge(file.most)
                    else:
                        yield batch
                return
            except ShareLarge as error:
                if error.rows:
                    rows = error.rows
                elif found.lists_share_little(leaves, texts):
                    leaves = {start: leaf._replace(is_repeated=False) for start, leaf in leaves.items()}
                else:
                    shared = texts
    finally:
        file.at_once(None)


def read_row_group(
    opened: pq.ParquetFile, file: BoundedFile, group: int, columns: Sequence[str], shared: Collection[str] = ()
) -> pa.Table:
    """Return the rows of a row group; for other arguments and errors see `read_batches`.

    Where rows may share large values, columns are dictionaries: 100,000 rows of ten images take no more than the ten.

    Args:
        shared: columns whose values the caller never copies for each row.

    Raises:
        UnpacksTooLarge: its rows take more than `file.most` bytes, those of `shared` as dictionaries.
    """
    leaves = leaves_of(opened, file, group, columns)
    try:
        file.at_once(math.inf, leaves)
        if (table := _table(opened, group, columns)) is not None:
            return table
    finally:
        file.at_once(None)
    try:
        return _joined(opened, file, group, columns)  # which is slower
    except UnpacksTooLarge:
        names = [leaf.path for leaf in leaves.values() if leaf.is_text and not leaf.is_repeated]
        table = _as_dictionaries(opened, file, group, columns, names)
    if table is None or sum(copied_size(table[name], name, shared) for name in table.column_names) > file.most:
        raise UnpacksTooLarge(file.most)
    return table


def _as_dictionaries(
    opened: pq.ParquetFile, file: BoundedFile, group: int, columns: Sequence[str], names: Sequence[str]
) -> pa.Table | None:
    file.at_once(math.inf, leaves_of(opened, file, group, columns), names)
    try:
        sharing = file.opened(metadata=opened.metadata, read_dictionary=names)
        return _table(sharing, group, columns)
    finally:
        file.at_once(None)


def _table(opened: pq.ParquetFile, group: int, columns: Sequence[str]) -> pa.Table | None:
    try:
        return opened.read_row_group(group, list(columns), use_threads=False)
    except ShareLarge:
        return None


def _joined(opened: pq.ParquetFile, file: BoundedFile, group: int, columns: Sequence[str]) -> pa.Table:
    held, size = [], 0
    for batch in read_batches(opened, file, group, columns):
        held.append(batch)
        size += batch.nbytes
        if size > file.most:
            raise UnpacksTooLarge(file.most)
    return pa.Table.from_batches(held)
