"""Plan Parquet files from their footers: columns, and row groups as the ranges that parts keep to."""

from collections import Counter
from collections.abc import Iterator, Sequence

import pyarrow.parquet as pq

from segment.errors import SegmentError, UsageError, did_you_mean
from segment.inputs.findings import Findings
from segment.inputs.lookup import in_threads
from segment.inputs.parquet.bounded_reads import FOOTER_BLOCK, BoundedFile, is_within
from segment.inputs.parquet.column_checks import check_columns
from segment.inputs.parquet.columns import Columns, find_columns
from segment.inputs.parquet.read_errors import PARQUET_DAMAGE, one_line, refuse_trouble
from segment.inputs.parquet.row_ids import report_repeated
from segment.inputs.parts import Part
from segment.inputs.shards import Planned, Shard
from segment.job import InputOptions
from segment.store.client import Entry, Store
from segment.store.names import count, examples, listed, shown

_BYTES_BY_PATH = 4 << 20  # assumed size of an image that a row names by path, for `part_bytes`
_CHECKED = 8  # files whose first rows are checked: one for each set of columns


def plan_parquet(entries: Sequence[Entry], options: InputOptions, store: Store, findings: Findings) -> Planned:
    """Plan the rows of Parquet files from their footers; note which columns are read.

    Raises UsageError: a file is not readable as Parquet, lacks the columns or has too large a row group; or no file has
    rows.
    """
    planned = in_threads(lambda entry: _plan_file(entry, options, store), entries)
    empty = [shard.url for shard, _ in planned if not shard.images]
    if len(empty) == len(planned):
        raise UsageError(f"no rows in {shown(empty[0])}" + (f" and {len(empty) - 1} more" if empty[1:] else ""))
    if empty:
        findings.warnings.append(
            f"{count(len(empty), 'Parquet file has', 'Parquet files have')} no rows, {examples(empty)}"
        )
    detected = Counter(columns for _, columns in planned)
    findings.notes += [f"columns read, {text}" + _of(number, len(planned)) for text, number in detected.most_common()]
    _check_kept(entries[0], detected, options, store, findings)
    filled = [(entry, *file) for entry, file in zip(entries, planned, strict=True) if file[0].images]
    for columns, number in detected.most_common(_CHECKED):
        if first := next((entry for entry, _, own in filled if own == columns), None):
            check_columns(first, columns, store, findings, _of(number, len(planned)))
    report_repeated([(shard, columns) for _, shard, columns in filled], store, findings)
    bare = [shard.url for shard, columns in planned if columns.label is None]
    if bare and len(bare) < len(planned):
        findings.warnings.append(
            f"{len(bare)} of {count(len(planned), 'Parquet file')} without a label column: segmented, not scored; "
            + examples(bare)
        )
    return Planned([shard for shard, _ in planned if shard.images], labels_known=len(bare) == len(planned))


def _check_kept(
    first: Entry, detected: Counter[Columns], options: InputOptions, store: Store, findings: Findings
) -> None:
    """Refuse columns to keep that no file has; warn of those that some files lack."""
    total = detected.total()
    for index, column in enumerate(options.keep):
        holding = sum(number for columns, number in detected.items() if columns.kept[index])
        if not holding:
            with store.open(first.url, FOOTER_BLOCK, first.size) as file:
                names = pq.ParquetFile(file).schema_arrow.names
            where = shown(first.url) if total == 1 else f"any of {total} Parquet files"
            known = f"{did_you_mean(column, names)} The columns of {shown(first.url)}: {listed(names)}"
            raise UsageError(f"keep: there is no column '{shown(column)}' in {where}.{known}")
        if holding < total:
            findings.warnings.append(f"the column '{shown(column)}' to keep is in {holding} of {total} Parquet files")


def has_label_column(part: Part, options: InputOptions, store: Store) -> bool:
    """Return whether the file of a part has a label column, by its footer; False if the footer cannot be read."""
    try:
        with store.inputs.open(part.url, FOOTER_BLOCK, part.size, part.etag) as file:
            return find_columns(pq.ParquetFile(file).schema_arrow, options, shown(part.url)).label is not None
    except (SegmentError, *PARQUET_DAMAGE):
        return False


def _of(number: int, total: int) -> str:
    return "" if number == total else f" (in {number} of {total} Parquet files)"


def _plan_file(entry: Entry, options: InputOptions, store: Store) -> tuple[Shard, Columns]:
    try:
        with store.open(entry.url, FOOTER_BLOCK, entry.size) as file:
            bounded = BoundedFile(file, options.max_row_group_bytes)
            opened = bounded.opened()
            columns = find_columns(opened.schema_arrow, options, shown(entry.url))
            runs = list(_row_groups(opened, bounded, columns, options, entry))
    except PARQUET_DAMAGE as error:
        refuse_trouble(error, entry.url)
        raise UsageError(f"{shown(entry.url)} is no readable Parquet file: {one_line(error)}") from None
    return Shard.of_object(entry, "parquet", runs=runs), columns


def _row_groups(
    opened: pq.ParquetFile, file: BoundedFile, columns: Columns, options: InputOptions, entry: Entry
) -> Iterator[tuple[int, int, int, int]]:
    """Yield the runs of a file, as in `Shard.runs`."""
    first = 0
    for number in range(opened.metadata.num_row_groups):
        group = opened.metadata.row_group(number)
        if not 0 <= group.num_rows <= entry.size:  # a forged number would fill the driver's memory with parts
            raise ValueError(f"{group.num_rows} rows in {entry.size} bytes")
        size = group.total_byte_size
        if size > options.max_row_group_bytes:
            size = _bytes_read(opened, file, number, columns)
        if size > options.max_row_group_bytes:
            raise UsageError(
                f"{shown(entry.url)}: row group {number} holds {size >> 20} MiB of images, more than a worker may "
                f"hold at once ({options.max_row_group_bytes >> 20} MiB, max_row_group_bytes). Write the file with "
                "smaller row groups, for example pyarrow.parquet.write_table(table, path, row_group_size=100)"
            )
        image_bytes = size // max(1, group.num_rows)
        yield number, first, group.num_rows, image_bytes if columns.image.data else max(image_bytes, _BYTES_BY_PATH)
        first += group.num_rows


def _bytes_read(opened: pq.ParquetFile, file: BoundedFile, group: int, columns: Columns) -> int:
    """Return the uncompressed bytes of the columns that are read."""
    leaves = [leaf for leaf in range(len(opened.schema)) if is_within(opened.schema.column(leaf).path, columns.names)]
    read = [leaf for leaf in leaves if file.place_of(opened, group, leaf) is not None]
    return sum(opened.metadata.row_group(group).column(leaf).total_uncompressed_size for leaf in read)
