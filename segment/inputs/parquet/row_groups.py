"""Read the rows of Parquet parts by row group; recently read files and row groups are cached."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from segment.errors import SegmentError, UsageError
from segment.inputs.lookup import refuse_changed
from segment.inputs.metadata import kept_values
from segment.inputs.parquet.bounded_reads import FOOTER_BLOCK, BoundedFile
from segment.inputs.parquet.cells import Cell
from segment.inputs.parquet.columns import Columns, find_columns
from segment.inputs.parquet.copies import UnpacksTooLarge
from segment.inputs.parquet.kept_columns import kept_column
from segment.inputs.parquet.read_errors import PARQUET_DAMAGE, one_line, refuse_trouble
from segment.inputs.parquet.row_batches import read_row_group
from segment.inputs.parquet.row_ids import repeated_rows
from segment.inputs.parts import Part, Sample, check_sample, image_uri, label_fault
from segment.inputs.references import read_references
from segment.job import InputOptions
from segment.store.client import Store
from segment.store.names import row_id, shown

log = logging.getLogger("segment.parquet")

V = TypeVar("V")


class RecentCache(Generic[V]):
    """A small LRU cache. A value is made once even if several threads request it at the same time.

    Args:
        entries: greatest number of values.
    """

    def __init__(self, entries: int, weight: Callable[[V], int] = lambda value: 0) -> None:
        self._entries, self._weight = entries, weight
        self._values: OrderedDict[Any, Future[V]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any, make: Callable[[], V], limit: int = 0) -> V:
        """Return the value of `key`. An error of `make` is raised in all waiting threads and is not cached.

        Args:
            limit: greatest total weight; older values are evicted to keep to it.
        """
        with self._lock:
            future = self._values.get(key)
            is_new = future is None
            if future is None:
                future = self._values[key] = Future()
                while len(self._values) > self._entries:
                    self._values.popitem(last=False)
            self._values.move_to_end(key)
        if is_new:
            self._fill(key, future, make)
        value = future.result()
        self._evict(limit)
        return value

    def _fill(self, key: Any, future: Future[V], make: Callable[[], V]) -> None:
        try:
            future.set_result(make())
        except BaseException as error:
            with self._lock:
                if self._values.get(key) is future:
                    del self._values[key]
            future.set_exception(error)

    def _evict(self, limit: int) -> None:
        with self._lock:
            while len(self._values) > 1:
                done = [future.result() for future in self._values.values() if future.done() and not future.exception()]
                if sum(self._weight(value) for value in done) <= limit:
                    return
                self._values.popitem(last=False)


@dataclass(frozen=True, slots=True)
class _File:
    """What is kept of an opened file.

    Attributes:
        repeated: rows whose id an earlier row has, where an option names the id column.
        numbered: whether the row number precedes each id, because values of a detected id column repeat.
    """

    metadata: pq.FileMetaData
    columns: Columns
    repeated: frozenset[int] = frozenset()
    numbered: bool = False

    def first_row(self, row_group: int) -> int:
        return sum(self.metadata.row_group(i).num_rows for i in range(row_group))


# Consecutive parts of a row group are usually read by the same process, which then reads the row group once.
_files: RecentCache[_File] = RecentCache(8)
_tables: RecentCache[pa.Table | str] = RecentCache(2, lambda table: 0 if isinstance(table, str) else int(table.nbytes))


def read_parquet(part: Part, options: InputOptions, store: Store) -> list[Sample]:
    """Read the rows of a part. A row group that cannot be decoded gives `undecodable` samples, one that unpacks to more
    than `max_row_group_bytes` samples of `too_much_work`.

    Raises InputChanged: the file is not the planned one.
    """
    refuse_changed(part, store)
    file = _opened(part, options, store)
    key = (part.url, part.etag, part.size, part.row_group, file.columns)
    table = _tables.get(key, lambda: _read_row_group(part, file, store, options), options.max_row_group_bytes)
    if isinstance(table, str):
        numbers = [(index, row_id(index)) for index in range(part.start, part.stop)]
        return [Sample(name, image_uri(part, name), i, b"", None, table) for i, name in numbers]
    rows = table.slice(part.start - file.first_row(part.row_group), len(part))
    names = file.columns.ids(rows, part.start, numbered=file.numbered)
    images = _images(rows, file.columns.image, part, store, options.max_image_bytes)
    labels = _images(rows, file.columns.label, part, store, options.max_image_bytes)
    read = [
        _sample(part, index, name, image, label, index in file.repeated, options)
        for index, name, image, label in zip(range(part.start, part.stop), names, images, labels, strict=True)
    ]
    if file.columns.label is not None:
        read = [s if s.label is not None or s.fault else replace(s, remarks=("label_absent",)) for s in read]
    return _with_metadata(read, rows, file.columns, options) if options.keep else read


def _with_metadata(read: Sequence[Sample], rows: pa.Table, columns: Columns, options: InputOptions) -> list[Sample]:
    """Add the values to keep."""
    values = zip(*(kept_column(rows, place) for place in columns.kept), strict=True)
    found = [kept_values(options.keep, own) for own in values]
    return [
        replace(sample, meta=texts, remarks=sample.remarks + remarks)
        for sample, (texts, remarks) in zip(read, found, strict=True)
    ]


def read_row_ids(part: Part, options: InputOptions, store: Store) -> list[str]:
    """Read the ids of the rows of a part, equal to those of `read_parquet`; only the id column is read.

    Raises InputChanged: the file is not the planned one; SegmentError: the ids cannot be read.
    """
    refuse_changed(part, store)
    file = _opened(part, options, store)
    if file.columns.id is None:
        return [row_id(index) for index in range(part.start, part.stop)]
    with store.open(part.url, FOOTER_BLOCK, part.size, part.etag) as source, _damage_refused(part.url):
        bounded = BoundedFile(source, options.max_row_group_bytes)
        opened = bounded.opened(metadata=file.metadata)
        table = read_row_group(opened, bounded, part.row_group, [str(file.columns.id)])
    rows = table.slice(part.start - file.first_row(part.row_group), len(part))
    return file.columns.ids(rows, part.start, numbered=file.numbered)


@dataclass(frozen=True, slots=True)
class _Image:
    """One encoded image or label; or the fault if the row names it by a path that cannot be read."""

    data: bytes | None = None
    fault: str = ""


def _sample(
    part: Part, index: int, name: str, image: _Image, label: _Image, repeated: bool, options: InputOptions
) -> Sample:
    fault = "duplicate_id" if repeated else image.fault or (label_fault(label.fault) if label.fault else None)
    checked = check_sample(fault, image.data or b"", label.data, options.max_image_bytes)
    return Sample(name, image_uri(part, name), index, *checked)


def _images(rows: pa.Table, cell: Cell | None, part: Part, store: Store, most: int) -> list[_Image]:
    """Return the encoded images of a column; images given by path are read, relative to the file."""
    if cell is None:
        return [_Image()] * len(rows)
    data, paths = cell.encoded(rows), cell.paths(rows)
    named = [path if path and own is None else None for own, path in zip(data, paths, strict=True)]
    found = read_references({path for path in named if path}, part.url, store, most)
    images = []
    for own, path in zip(data, named, strict=True):
        got = found[path] if path else own
        images.append(_Image(fault=got) if isinstance(got, str) else _Image(got))
    return images


def _opened(part: Part, options: InputOptions, store: Store) -> _File:
    """Return the file of a part from the cache, or open it."""
    return _files.get((part.url, part.etag, part.size, options), lambda: _open_file(part, options, store))


@contextmanager
def _damage_refused(url: str) -> Iterator[None]:
    """Turn damage of a file that was sound when it was planned into a SegmentError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except PARQUET_DAMAGE as error:
        refuse_trouble(error, url)
        raise SegmentError(f"{shown(url)}: {one_line(error)}") from None


def _open_file(part: Part, options: InputOptions, store: Store) -> _File:
    with store.open(part.url, FOOTER_BLOCK, part.size, part.etag) as source, _damage_refused(part.url):
        file = BoundedFile(source, options.max_row_group_bytes)
        opened = file.opened()
        columns = find_columns(opened.schema_arrow, options, shown(part.url))
        repeated = repeated_rows(opened, file, columns, part.url)
        if "id" in columns.guessed:
            return _File(opened.metadata, columns, numbered=next(repeated, None) is not None)
        return _File(opened.metadata, columns, frozenset(repeated))


def _read_row_group(part: Part, file: _File, store: Store, options: InputOptions) -> pa.Table | str:
    """Read the columns of a row group; if that cannot be done, return the `SampleError` code of its images."""
    with store.open(part.url, size=part.size, etag=part.etag) as source:
        bounded = BoundedFile(source, options.max_row_group_bytes)
        try:
            opened = bounded.opened(metadata=file.metadata)
            images = [str(cell.data) for cell in (file.columns.image, file.columns.label) if cell and cell.data]
            table = read_row_group(opened, bounded, part.row_group, file.columns.names, images)
            if len(table) != file.metadata.row_group(part.row_group).num_rows:
                raise ValueError("rows are missing")
            return table
        except PARQUET_DAMAGE as error:
            refuse_trouble(error, part.url)
            if "Nested data conversions" in str(error):  # more than 2 GiB of a field in one row group
                where = f"{shown(part.url)}: row group {part.row_group}"
                raise UsageError(f"{where} is too large for pyarrow: write smaller ones ({one_line(error)})") from None
            log.warning("%s: row group %d cannot be read: %s", shown(part.url), part.row_group, one_line(error))
            return "too_much_work" if isinstance(error, UnpacksTooLarge) else "undecodable"
