"""Parquet is bounded by what it unpacks to: small files of large tables are refused, and all others read as before."""

import io
import logging
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segment.errors import SegmentError
from segment.inputs.discover import discover
from segment.inputs.parquet.bounded_reads import BoundedFile
from segment.inputs.parquet.copies import UnpacksTooLarge
from segment.inputs.parquet.pages import PageError, column_size
from segment.inputs.parquet.row_batches import read_batches, read_row_group
from segment.inputs.parts import Sample
from segment.inputs.reads import read_ids, read_part
from segment.job import InputOptions
from segment.store.client import Store
from tests.bombs import lying_footer, shared_values, table_file, varint
from tests.runs import png, scene

MIB = 1 << 20
PICTURE = png(scene(1)[0])
MOST = 2 * MIB
SHARED = bytes(MIB // 8)


def images(values: list[Any], **columns: Any) -> pa.Table:
    return pa.table({"image": values, **columns})


def byte_lists(rows: int, length: int) -> pa.Table:
    offsets, values = range(0, rows * length + 1, length), pa.array(np.zeros(rows * length, np.uint8))
    return pa.table({"image": pa.ListArray.from_arrays(list(offsets), values)})


DELTA = {"column_encoding": {"image": "DELTA_BYTE_ARRAY"}, "use_dictionary": False}
BOMBS: dict[str, Callable[[], bytes]] = {
    "one path of a dictionary": lambda: table_file(
        images([{"bytes": PICTURE, "path": "a" * len(SHARED)}] * 64), dictionary_pagesize_limit=1 << 30
    ),
    "one id of a dictionary": lambda: shared_values(b"a" * len(SHARED), 64, of="id"),
    "a large dictionary": lambda: lying_footer(shared_values(bytes(8 * MIB), 2)),
    "zeros of zstd": lambda: lying_footer(
        table_file(images([bytes(8 * MIB)]), use_dictionary=False, compression="zstd")
    ),
    "zeros of gzip": lambda: lying_footer(
        table_file(images([bytes(MIB)] * 8), use_dictionary=False, compression="gzip")
    ),
    "values that begin as the one before": lambda: table_file(images([SHARED] * 64), compression="zstd", **DELTA),
    "bytes as numbers": lambda: lying_footer(table_file(byte_lists(4, MIB), compression="zstd")),
    "a list of one kept text": lambda: table_file(
        images([PICTURE] * 2, text=[["a" * MIB] * 300, ["b"]]), dictionary_pagesize_limit=1 << 30, compression="zstd"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BOMBS)
def test_what_unpacks_to_too_much_is_refused_row_group_by_row_group(
    what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.parquet").write_bytes(BOMBS[what]())
    (tmp_path / "b.parquet").write_bytes(table_file(images([PICTURE] * 3)))
    with caplog.at_level(logging.WARNING):
        read = read_all(tmp_path, max_row_group_bytes=MOST, keep=("text",) if "kept" in what else ())
    faults = {sample.fault for sample in read if "a.parquet" in sample.url}
    assert faults == {"too_much_work"}
    assert f"cannot be read: it unpacks to more than {MOST} bytes, of which its footer does not tell" in caplog.text
    assert [sample.image for sample in read if "b.parquet" in sample.url] == [PICTURE] * 3


SHARING: dict[str, Callable[[], bytes]] = {
    "one image": lambda: shared_values(SHARED, 64),
    "one image, lying": lambda: lying_footer(shared_values(SHARED, 64)),
    "in a struct": lambda: table_file(
        images([{"bytes": SHARED, "path": f"{row % 3}"} for row in range(64)]), dictionary_pagesize_limit=1 << 30
    ),
    "with nulls and others, of which the dictionary has no place": lambda: table_file(
        images(([SHARED, None] * 31) + [bytes(MIB // 4), PICTURE]), dictionary_pagesize_limit=1 << 16
    ),
    "large, with long kept text": lambda: table_file(
        images([SHARED] * 64, text=["b" * 900] * 64, number=list(range(64))), dictionary_pagesize_limit=1 << 30
    ),
}


@pytest.mark.parametrize("what", SHARING)
def test_rows_that_share_few_large_images_are_read_and_share_them(what: str, tmp_path: Path) -> None:
    """An ordinary table, though its rows would take more than the bound if each had a copy."""
    data = SHARING[what]()
    (tmp_path / "a.parquet").write_bytes(data)
    kept = {"keep": ("text", "number")} if "kept" in what else {}
    read = read_all(tmp_path, max_row_group_bytes=MOST, **kept)
    wanted = [row["image"] for row in pq.read_table(io.BytesIO(data)).to_pylist()]
    wanted = [value["bytes"] if isinstance(value, dict) else value for value in wanted]
    assert sum(len(value or b"") for value in wanted) > MOST
    assert [sample.image or None for sample in read] == wanted
    assert read[0].image is read[0 if "null" in what else 1].image
    assert not kept or [sample.meta for sample in read] == [("b" * 900, str(row)) for row in range(64)]


def read_all(folder: Path, **options: Any) -> list[Sample]:
    asked = InputOptions(part_size=2, image_column="image", **options)
    found = discover(str(folder), asked, Store())
    return [sample for part in found.parts for sample in read_part(part, asked, Store())]


def test_ids_are_bounded_where_they_alone_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(BOMBS["one id of a dictionary"]())
    options = InputOptions(max_row_group_bytes=MOST)
    part = discover(str(tmp_path), options, Store()).parts[0]
    with pytest.raises(SegmentError, match=r"a\.parquet: it unpacks to more than"):
        read_ids(part, options, Store())


@pytest.mark.parametrize("what", ["one id of a dictionary", "values that begin as the one before"])
def test_few_rows_at_once_are_read_of_large_shared_values(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fits is read, though all rows could have the largest value."""
    monkeypatch.setattr("segment.inputs.parquet.bounded_reads._BATCH_BYTES", 4 * len(SHARED))
    file = BoundedFile(io.BytesIO(BOMBS[what]()), MOST)
    opened = file.opened()
    column = "id" if "id" in what else "image"
    sizes = [len(batch) for batch in read_batches(opened, file, 0, [column])]
    assert sum(sizes) == 64
    assert max(sizes) <= 4
    with pytest.raises(UnpacksTooLarge):
        read_row_group(opened, file, 0, [column])


@pytest.mark.parametrize("names", [["n", "text"], ["text", "n"], ["n", "m", "text"]])
def test_each_column_is_bounded_by_its_own_pages_whatever_lies_beside_it(names: list[str]) -> None:
    """Columns side by side, which pyarrow would read at once: the width of numbers bounds no text."""
    columns = {name: ["a" * len(SHARED)] * 64 if name == "text" else list(range(64)) for name in names}
    file = BoundedFile(io.BytesIO(table_file(pa.table(columns), dictionary_pagesize_limit=1 << 30)), MOST)
    with pytest.raises(UnpacksTooLarge):
        read_row_group(file.opened(), file, 0, names)


Texts = list[list[str | None] | None]
LISTS: dict[str, Callable[[Texts], pa.Array]] = {
    "lists": lambda rows: pa.array(rows, pa.list_(pa.string())),
    "lists of bytes": lambda rows: pa.array(rows, pa.list_(pa.string())).cast(pa.list_(pa.binary())),
    "lists of lists": lambda rows: pa.array([[row] for row in rows]),
    "lists of structs": lambda rows: pa.array(
        [None if row is None else [{"a": text, "b": 1} for text in row] for row in rows]
    ),
    "structs of lists": lambda rows: pa.array([{"a": row, "b": 1} for row in rows]),
    "maps": lambda rows: pa.array(
        [[(str(key), text) for key, text in enumerate(row or ())] for row in rows], pa.map_(pa.string(), pa.string())
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize("images_first", [True, False])
def test_lists_that_share_long_texts_are_read_beside_large_images(kind: str, images_first: bool) -> None:
    """Rows have copies of the texts: of both columns only so many rows at once may be large."""
    numbers = np.random.default_rng(0)
    texts = [
        None if row % 9 == 5 else ["t", None if row % 2 else "s", "a" * MIB if row == 40 else "u"] for row in range(96)
    ]
    listed = LISTS[kind](texts)
    columns = {"image": [numbers.bytes(MIB // 32) for _ in texts], "tags": listed}
    names = sorted(columns, reverse=not images_first)
    table = pa.table(columns).select(names)
    data = table_file(table, dictionary_pagesize_limit=1 << 30, compression="zstd")
    file = BoundedFile(io.BytesIO(data), 8 * MIB)
    opened = file.opened()
    assert pa.Table.from_batches(list(read_batches(opened, file, 0, names))).equals(table)
    assert read_row_group(opened, file, 0, names).equals(table)


WRITERS: dict[str, dict[str, Any]] = {
    "plain": {"use_dictionary": False},
    "dictionary": {},
    "dictionary of few": {"dictionary_pagesize_limit": 64},
    "version 1": {"version": "1.0", "data_page_version": "1.0"},
    "pages of version 2": {"data_page_version": "2.0"},
    "small pages": {"data_page_size": 64, "write_batch_size": 4},
    "statistics and checksums": {"write_page_checksum": True, "write_page_index": True},
    "deltas": {"use_dictionary": False, "column_encoding": {"image": "DELTA_BYTE_ARRAY", "n": "DELTA_BINARY_PACKED"}},
    "lengths": {"use_dictionary": False, "column_encoding": {"image": "DELTA_LENGTH_BYTE_ARRAY"}},
    "brotli": {"compression": "brotli"},
    "lz4": {"compression": "lz4"},
    "none": {"compression": "none"},
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("most", [1 << 30, 70_000])
def test_all_kinds_of_pages_are_read_as_without_bounds(writer: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if most < 1 << 30:
        monkeypatch.setattr("segment.inputs.parquet.bounded_reads._BATCH_BYTES", 2000)
    values = [None if row % 7 == 0 else bytes([row % 5]) * (row % 50) for row in range(700)]
    wanted = images(values, n=list(range(700)), t=[str(row % 3) for row in range(700)], s=[{"a": [1, 2]}] * 700)
    data = table_file(wanted, row_group_size=300, **WRITERS[writer])
    file = BoundedFile(io.BytesIO(data), most)
    opened = file.opened()
    found = [read_row_group(opened, file, group, wanted.schema.names).cast(wanted.schema) for group in range(3)]
    assert pa.concat_tables(found).equals(wanted)


def test_a_column_is_measured_by_its_pages() -> None:
    data = table_file(images([b"a" * 1000, b"b" * 500] * 50), data_page_size=400, write_batch_size=10)
    chunk = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(0)
    column = data[chunk.dictionary_page_offset :][: chunk.total_compressed_size]
    found = column_size(column)
    assert found.largest == 1508  # the dictionary
    assert found.most == 1508 + 100 * 1508
    assert 1508 <= found.unpacked < 1508 + 1000
    assert column_size(column + bytes(100)) == found  # pyarrow may read a little more
    for cut in (1, 10):
        assert column_size(column[:-cut]).most <= found.most


@pytest.mark.parametrize("writer", WRITERS)
def test_usual_headers_mean_at_one_stroke_what_they_mean_field_by_field(
    writer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So do those with a changed byte, of which some stay usual and others do not."""
    random = np.random.default_rng(5)
    wanted = images(
        [bytes([row % 5]) * 9 for row in range(300)], n=[*range(300)], t=[f"text {row}" for row in range(300)]
    )
    data = table_file(wanted, **{"write_page_checksum": True, **WRITERS[writer]})
    chunks = [pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(number) for number in range(3)]
    columns = [
        data[chunk.dictionary_page_offset or chunk.data_page_offset :][: chunk.total_compressed_size]
        for chunk in chunks
    ]
    for column in columns:
        changed = [bytearray(column) for _ in range(300)]
        for one in changed[1:]:
            one[random.integers(min(60, len(one)))] = random.integers(256)
        at_one_stroke = [measured(one) for one in changed]
        with monkeypatch.context() as patch:
            patch.setattr("segment.inputs.parquet.pages._USUAL", re.compile(b"(?!)"))
            assert [measured(one) for one in changed] == at_one_stroke


ROWS = bytes.fromhex(
    "2c1502150015061506 00 00".replace(" ", "")
)  # one row, plain; the end of a header without a checksum
UNLIKE = {
    "packed bytes of more than 32 bits": b"\x15\x00\x15\x02\x15" + varint(2 * (2**32 + 60)) + ROWS,
    "packed bytes told twice": b"\x15\x00\x15\x02\x15\x78\x05\x06\x02" + ROWS,
    "unpacked bytes of 64 bits": b"\x15\x00\x16\x02\x15\x78" + ROWS,
    "a field whose number is cut to another": b"\x15\x00\x15\x02\x15\x78\x05" + varint(2 * 65539) + b"\x02" + ROWS,
    "an encoding of 33 bits": b"\x15\x00\x15\x02\x15\x78\x2c\x15\x02\x15" + varint(2 * (2**32 + 8)) + ROWS[5:],
}


@pytest.mark.parametrize("what", UNLIKE)
def test_what_pyarrow_reads_otherwise_is_damage(what: str) -> None:
    """A page could hide behind it: pyarrow cuts numbers, and leaves out fields of another type."""
    with pytest.raises(PageError):
        column_size(UNLIKE[what] + bytes(300))
    assert column_size(b"\x15\x00\x15\x02\x15\x78" + ROWS + bytes(60)).unpacked == 4


@pytest.mark.parametrize(
    "nested", [b"\x19\x19", b"\x1a\x1a", b"\x1c", b"\x1b\x01\xbb"], ids=["lists", "sets", "structs", "maps"]
)
def test_a_header_that_nests_without_end_is_damaged(nested: bytes) -> None:
    with pytest.raises(PageError):
        column_size(nested + nested[1:] * 5000 if len(nested) > 1 else nested * 5000)


def test_a_long_header_takes_little_memory() -> None:
    header = b"\x15\x00\x15\x02\x15\x78\x2c\x15\x02\x15\x00\x15\x06\x15\x06\x1c" + b"\x11" * (4 << 20)
    tracemalloc.start()
    with pytest.raises(PageError):
        column_size(header)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def measured(column: bytes | bytearray) -> Any:
    try:
        return column_size(column)
    except PageError as error:
        return str(error)


@pytest.mark.parametrize("data", [b"\xff" * 200, b"\x15" * 300, b"\x1c" * 300, b"\x19\xff" + bytes(300), bytes(300)])
def test_damaged_headers_of_pages_are_told(data: bytes) -> None:
    with pytest.raises(PageError, match=r"the header of a page is damaged|pages in a row group"):
        column_size(data)
