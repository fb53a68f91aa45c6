"""Parquet inputs: columns, row groups, ids, damage."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segment.errors import InputChanged, StoreError, UsageError
from segment.inputs.discover import discover
from segment.inputs.discovery import Discovery
from segment.inputs.parquet import row_groups
from segment.inputs.parts import Sample
from segment.inputs.reads import read_part
from segment.job import InputOptions
from segment.store.bounds import MOST_BYTES
from segment.store.client import Store

STORE = Store()
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


class CountingStore(Store):
    """A store that records the byte ranges that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[tuple[int | None, int | None]] = []

    def read(
        self, url: str, start: int | None = None, stop: int | None = None, etag: str = "", most: int = MOST_BYTES
    ) -> bytes:
        self.reads.append((start, stop))
        return super().read(url, start, stop, etag, most)


def write(path: Path, columns: dict[str, Any], row_group_size: int = 1000, **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size, **options)
    return path


def picture(i: int, size: int = 0) -> bytes:
    """Return bytes with the signature of a JPEG. Nothing here is decoded."""
    return b"\xff\xd8\xff image %d" % i + os.urandom(size)


def drawing(i: int) -> bytes:
    """Return bytes with the signature of a PNG."""
    return b"\x89PNG\r\n\x1a\n label %d" % i


def images(n: int) -> pa.Array:
    return pa.array([picture(i) for i in range(n)], pa.binary())


def labels(n: int) -> pa.Array:
    return pa.array([drawing(i) for i in range(n)], pa.binary())


def find(where: object, store: Store = STORE, **options: Any) -> Discovery:
    return discover(str(where), InputOptions(**options), store)


def samples(found: Discovery, store: Store = STORE, **options: Any) -> list[Sample]:
    return [sample for part in found.parts for sample in read_part(part, InputOptions(**options), store)]


def refusal(where: object, **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        find(where, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_rows_become_samples_and_parts_stay_within_row_groups(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"image": images(10), "label": labels(10)}, row_group_size=6)
    found = find(path, part_size=4)
    assert [(p.start, p.stop, p.row_group, p.members) for p in found.parts] == [
        (0, 4, 0, ()), (4, 6, 0, ()), (6, 10, 1, ()),
    ]  # fmt: skip
    assert (found.images, found.labelled, found.warnings) == (10, None, [])
    assert [(s.id, s.image, s.label, s.index, s.fault) for s in samples(found)] == [
        (f"row-{i:08d}", picture(i), drawing(i), i, None) for i in range(10)
    ]
    assert samples(found)[7].url == f"file://{path}#row-00000007"


def test_files_without_label_column_are_known_to_be_unlabelled(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"image": images(2)})
    assert find(tmp_path).labelled == 0
    write(tmp_path / "b.parquet", {"image": images(2), "label": labels(2)})
    found = find(tmp_path)
    assert found.labelled is None
    assert found.warnings == [
        f"1 of 2 Parquet files without a label column: segmented, not scored; e.g. {tmp_path}/a.parquet"
    ]
    assert [s.label for s in samples(found)] == [None, None, drawing(0), drawing(1)]


@pytest.mark.parametrize(
    "kind",
    [pa.binary(), pa.large_binary(), IMAGE, pa.struct([("path", pa.large_string()), ("bytes", pa.large_binary())])],
)
def test_binary_and_hugging_face_columns(tmp_path: Path, kind: pa.DataType) -> None:
    def column(text: str) -> pa.Array:
        values = [(picture if text == "image" else drawing)(i) for i in range(3)]
        if pa.types.is_struct(kind):
            return pa.array([{"bytes": v, "path": f"{text}{i}.png"} for i, v in enumerate(values)], kind)
        return pa.array(values, kind)

    found = find(write(tmp_path / "a.parquet", {"image": column("image"), "label": column("label")}))
    assert [(s.image, s.label) for s in samples(found)] == [(picture(i), drawing(i)) for i in range(3)]
    names = [f"image{i}.png" for i in range(3)] if pa.types.is_struct(kind) else [f"row-{i:08d}" for i in range(3)]
    assert [s.id for s in samples(found)] == names


@pytest.mark.parametrize(
    ("columns", "chosen"),
    [
        ({"Image": 0, "Mask": 1, "x": 2}, ("Image", "Mask")),
        ({"jpg": 0, "seg.png": 1, "__key__": 3}, ("jpg", "seg.png")),
        ({"photo": 0, "annotation": 1, "label": 4}, ("photo", "annotation")),
        ({"bytes": 0}, ("bytes", None)),
    ],
)
def test_columns_are_detected(tmp_path: Path, columns: dict[str, int], chosen: tuple[str, str | None]) -> None:
    kinds = [images(2), labels(2), pa.array([0.5, 1]), pa.array(["a", "b"]), pa.array([3, 4])]
    found = find(write(tmp_path / "a.parquet", {name: kinds[kind] for name, kind in columns.items()}))
    assert [s.image for s in samples(found)] == [picture(0), picture(1)]
    assert [s.label for s in samples(found)] == ([drawing(0), drawing(1)] if chosen[1] else [None, None])


def test_columns_by_name(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"x": labels(2), "image": images(2), "y": images(2), "n": pa.array([7, 8])})
    options = {"image_column": "y", "label_column": "x", "id_column": "n"}
    found = find(tmp_path / "a.parquet", **options)
    assert [(s.id, s.image, s.label) for s in samples(found, **options)] == [
        ("7", picture(0), drawing(0)),
        ("8", picture(1), drawing(1)),
    ]


@pytest.mark.parametrize("name", ["id", "image_id", "key", "__key__", "filename", "file_name"])
def test_id_columns_are_detected(tmp_path: Path, name: str) -> None:
    write(tmp_path / "a.parquet", {name: pa.array(["b", None, "", "a"]), "image": images(4)})
    assert [s.id for s in samples(find(tmp_path))] == ["b", "row-00000001", "row-00000002", "a"]


def test_text_that_is_not_utf8_becomes_a_storable_id(tmp_path: Path) -> None:
    odd = pa.Array.from_buffers(pa.string(), 2, pa.array([b"a\xff", b"b"], pa.binary()).buffers())
    paths = pa.StructArray.from_arrays([images(2), odd], ["bytes", "path"])
    assert [s.id for s in samples(find(write(tmp_path / "a.parquet", {"image": images(2), "id": odd})))] == [
        "a\\xff",
        "b",
    ]
    found = find(write(tmp_path / "a.parquet", {"image": paths}))
    assert [(s.id, s.image) for s in samples(found)] == [("a\\xff", picture(0)), ("b", picture(1))]


def test_a_dictionary_of_ids(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"id": pa.array(["a", "b", "c"]).dictionary_encode(), "image": images(3)})
    assert [s.id for s in samples(find(tmp_path))] == ["a", "b", "c"]


def test_repeated_ids_of_a_named_column_are_faults_across_parts_and_row_groups(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"id": list("abcadb"), "image": images(6)}, row_group_size=2)
    found = find(tmp_path, part_size=1, id_column="id")
    faults = [None, None, None, "duplicate_id", None, "duplicate_id"]
    assert [s.fault for s in samples(found, id_column="id")] == faults
    assert [s.fault for s in read_part(found.parts[3], InputOptions(id_column="id"), Store())] == ["duplicate_id"]
    assert found.warnings == [
        "the ids in id are not unique: 2 rows have the id of an earlier row of the file, e.g. "
        f"{tmp_path}/a.parquet; they will be error rows (--id-column names another column, :row selects row numbers)"
    ]


def test_null_and_empty_and_large_images(tmp_path: Path) -> None:
    column = pa.array([b"", None, picture(0, 100), picture(1), picture(2)], pa.binary())
    marks = pa.array([drawing(0), drawing(0), drawing(0), None, b""], pa.binary())
    found = find(write(tmp_path / "a.parquet", {"image": column, "label": marks}))
    assert [(s.fault, s.image, s.label) for s in samples(found, max_image_bytes=50)] == [
        ("empty", b"", None), ("empty", b"", None), ("too_many_bytes", b"", None),
        (None, picture(1), None), (None, picture(2), b""),
    ]  # fmt: skip
    nulls = pa.array([None, {"bytes": None, "path": None}, {"bytes": picture(0), "path": None}], IMAGE)
    found = find(write(tmp_path / "a.parquet", {"image": nulls}))
    assert [s.fault for s in samples(found)] == ["empty", "empty", None]


def test_images_by_path_lie_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "i").mkdir()
    (tmp_path / "i" / "a b.png").write_bytes(b"a")
    rows = ["i/a b.png", "i/none.png", "nowhere://a/a.png", "i/a b.png", f"{tmp_path}/i/a b.png"]
    column = pa.array([{"bytes": None, "path": path} for path in rows], IMAGE)
    marks = pa.array([{"bytes": None, "path": p} for p in ("i/a b.png", None, None, "i/none.png", None)], IMAGE)
    found = find(write(tmp_path / "a.parquet", {"image": column, "label": marks, "id": list("abcde")}))
    assert [(s.fault, s.image, s.label) for s in samples(found)] == [
        (None, b"a", b"a"), ("missing", b"", None), ("bad_reference", b"", None), ("label_missing", b"a", None),
        (None, b"a", None),
    ]  # fmt: skip


# --- little is read, and once ----------------------------------------------------------------------------------------


def test_a_row_group_is_read_once_and_no_other(tmp_path: Path) -> None:
    columns = {
        "image": pa.array([picture(0, 20_000) for _ in range(120)], pa.binary()),
        "unused": pa.array([picture(0, 20_000) for _ in range(120)], pa.binary()),
    }
    path = write(tmp_path / "a.parquet", columns, row_group_size=40, compression="none")
    store = CountingStore()
    store.write("memory://once/a.parquet", path.read_bytes())
    store.reads.clear()
    found = find("memory://once/a.parquet", store, part_size=10)
    planned = sum((stop or 0) - (start or 0) for start, stop in store.reads)
    assert planned < 1.2 * 2 * 40 * 20_000  # footers, and the first row group of columns that may hold images
    store.reads.clear()
    read = [s for part in found.parts[4:8] for s in read_part(part, InputOptions(), store)]
    assert [s.image for s in read] == columns["image"].to_pylist()[40:80]
    once = list(store.reads)
    assert sum((stop or 0) - (start or 0) for start, stop in once) < 1.6 * 40 * 20_000 + (1 << 18)
    read_part(found.parts[5], InputOptions(), store)
    assert store.reads == once


def test_only_two_row_groups_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"image": images(40)}, row_group_size=4)
    samples(find(path))
    assert len(row_groups._tables._values) == 2


def test_recent_values_are_made_once_for_all_threads() -> None:
    made = []
    start = threading.Barrier(8)
    recent: row_groups.RecentCache[int] = row_groups.RecentCache(2)

    def make() -> int:
        made.append(1)
        return 7

    def get(_: int) -> int:
        start.wait()
        return recent.get("key", make)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(get, range(8))) == [7] * 8
    assert len(made) == 1


def test_recent_failures_are_not_kept() -> None:
    recent: row_groups.RecentCache[int] = row_groups.RecentCache(2)
    with pytest.raises(ZeroDivisionError):
        recent.get("key", lambda: 1 // 0)
    assert recent.get("key", lambda: 3) == 3


def test_recent_values_go_when_they_weigh_too_much() -> None:
    recent: row_groups.RecentCache[int] = row_groups.RecentCache(2, weight=lambda value: value)
    recent.get("a", lambda: 60, limit=100)
    recent.get("b", lambda: 60, limit=100)
    assert list(recent._values) == ["b"]
    recent.get("c", lambda: 40, limit=100)
    assert list(recent._values) == ["b", "c"]
    recent.get("d", lambda: 500, limit=100)
    assert list(recent._values) == ["d"]


def test_part_bytes_caps_parts_of_rows(tmp_path: Path) -> None:
    column = pa.array([picture(0, 1000) for _ in range(20)], pa.binary())
    found = find(write(tmp_path / "a.parquet", {"image": column}), part_size=10, part_bytes=3500)
    assert {len(part) for part in found.parts} <= {2, 3}
    assert len(samples(found)) == 20


# --- bad input -------------------------------------------------------------------------------------------------------


def test_no_image_column(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"pixels": [1, 2], "text": ["a", "b"]})
    assert refusal(path) == (
        f"{path} has no image column; if one of these is it, name it with --image-column: 'text'. "
        "Its columns: pixels: int64, text: string"
    )
    write(path, {"left": images(1), "right": images(1)})
    assert "has no image column" in refusal(path)


def test_a_named_column_that_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"image": images(1), "masks": labels(1)})
    assert refusal(path, label_column="mask") == (
        f"{path} has no label column 'mask'. Did you mean 'masks'? Its columns: image: binary, masks: binary"
    )
    assert "has no image column 'imag'. Did you mean 'image'?" in refusal(path, image_column="imag")
    assert "has no id column 'x'." in refusal(path, id_column="x")


def test_a_named_column_of_the_wrong_type(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"image": images(1), "label": [3], "score": [0.5]})
    assert refusal(path, label_column="label") == (
        f"{path}: the label column 'label' is int64: it cannot hold images; expected binary, a struct {{bytes: binary, "
        "path: string}, or text with paths or URLs. Its columns: image: binary, label: int64, score: double"
    )
    assert "the id column 'score' is double; expected text or integers" in refusal(path, id_column="score")
    assert find(path).labelled == 0


def test_no_rows(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"image": images(0)})
    assert refusal(tmp_path) == f"no rows in {tmp_path}/a.parquet"
    write(tmp_path / "b.parquet", {"image": images(1)})
    found = find(tmp_path)
    assert (found.images, found.warnings) == (1, [f"1 Parquet file has no rows, e.g. {tmp_path}/a.parquet"])


@pytest.mark.parametrize(
    "data", [b"", b"PAR1", b"no parquet at all" * 10, b"PAR1" + bytes(100) + b"\xff\xff\xff\x7fPAR1"]
)
def test_what_is_no_parquet(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(data)
    assert refusal(tmp_path).startswith(f"{tmp_path}/a.parquet is no readable Parquet file: ")


def test_a_footer_that_claims_more_rows_than_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"image": pa.nulls(5000, pa.binary())}, row_group_size=5000)
    assert path.stat().st_size < 5000
    assert f"{path} is no readable Parquet file: 5000 rows in " in refusal(path)


@pytest.mark.parametrize("at", [20, 40, 60])
def test_a_damaged_footer(tmp_path: Path, at: int) -> None:
    path = write(tmp_path / "a.parquet", {"image": images(10)})
    data = path.read_bytes()
    path.write_bytes(data[: -8 - at] + b"\xff" * at + data[-8:])
    assert refusal(path).startswith(f"{path} is no readable Parquet file: ")


def test_a_truncated_parquet_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"image": images(100)})
    os.truncate(path, path.stat().st_size // 2)
    assert "is no readable Parquet file" in refusal(path)


def test_too_large_a_row_group(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"image": pa.array([picture(0, 1 << 20) for _ in range(3)], pa.binary())})
    text = refusal(path, max_row_group_bytes=2 << 20)
    assert "row group 0 holds 3 MiB of images, more than a worker may hold at once (2 MiB, max_row_group" in text
    assert "row_group_size=100" in text
    assert find(path, max_row_group_bytes=4 << 20).images == 3
    unread = pa.array([picture(0, 1 << 20) for _ in range(3)], pa.binary())
    write(path, {"image": images(3), "unread": unread})
    assert find(path, max_row_group_bytes=2 << 20).images == 3


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_a_damaged_row_group_is_error_rows_and_the_rest_is_unharmed(
    tmp_path: Path, compression: str, caplog: pytest.LogCaptureFixture
) -> None:
    column = pa.array([picture(0) + bytes([i]) * 5000 for i in range(8)], pa.binary())
    options: dict[str, Any] = {"compression": compression, "use_dictionary": False, "write_page_checksum": True}
    path = write(tmp_path / "a.parquet", {"image": column}, row_group_size=4, **options)
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(0)
    data = bytearray(path.read_bytes())
    middle = chunk.data_page_offset + chunk.total_compressed_size // 2
    data[middle] ^= 255
    path.write_bytes(data)
    found = find(path)
    assert [s.fault for s in samples(found)] == ["undecodable"] * 4 + [None] * 4
    assert [s.id for s in samples(found)] == [f"row-{i:08d}" for i in range(8)]
    assert "a.parquet: row group 0 cannot be read" in caplog.text


def test_store_trouble_is_not_damage(tmp_path: Path) -> None:
    class Failing(Store):
        broken = False

        def read(
            self, url: str, start: int | None = None, stop: int | None = None, etag: str = "", most: int = MOST_BYTES
        ) -> bytes:
            if self.broken:
                raise StoreError("permission denied")
            return super().read(url, start, stop, etag, most)

    store = Failing()
    path = write(tmp_path / "a.parquet", {"image": images(10)})
    store.write("memory://trouble/a.parquet", path.read_bytes())
    found = find("memory://trouble/a.parquet", store)
    store.broken = True
    with pytest.raises(StoreError, match="permission denied"):
        samples(found, store)
    store.broken = False
    assert len(samples(found, store)) == 10


def test_a_changed_file_ends_the_run(tmp_path: Path) -> None:
    found = find(write(tmp_path / "a.parquet", {"image": images(3)}))
    write(tmp_path / "a.parquet", {"image": images(4)})
    with pytest.raises(InputChanged, match=r"a\.parquet has changed since the run was planned"):
        samples(found)


def test_the_columns_that_are_read_are_noted(tmp_path: Path) -> None:
    data = images(1)
    pq.write_table(pa.table({"jpg": data, "truthful": data, "key": ["a"]}), tmp_path / "a.parquet")
    found = discover(str(tmp_path), InputOptions(), Store())
    assert found.notes == ["columns read, image: jpg, id: key"]
    assert found.warnings == ["no label column is read; if one of these is it, name it with --label-column: 'truthful'"]
    found = discover(str(tmp_path), InputOptions(label_column="truthful"), Store())
    assert (found.notes, found.warnings) == (["columns read, image: jpg, label: truthful, id: key"], [])
    pq.write_table(pa.table({"image": data, "mask": data}), tmp_path / "b.parquet")
    found = discover(str(tmp_path), InputOptions(), Store())
    assert found.notes == [
        "columns read, image: jpg, id: key (in 1 of 2 Parquet files)",
        "columns read, image: image, label: mask, id: the row number (in 1 of 2 Parquet files)",
    ]


def test_several_columns_that_could_be_meant_are_refused(tmp_path: Path) -> None:
    data = images(1)
    pq.write_table(pa.table({"image": data, "label": data, "mask": data, "jpg": data}), tmp_path / "a.parquet")
    name = f"{tmp_path}/a.parquet"
    with pytest.raises(UsageError) as caught:
        discover(name, InputOptions(), Store())
    assert (
        str(caught.value) == f"{name}: 'image', 'jpg' could each be the image column: name the one with --image-column"
    )
    with pytest.raises(UsageError, match="'label', 'mask' could each be the label column: name the one with --label-c"):
        discover(name, InputOptions(image_column="image"), Store())
    found = discover(name, InputOptions(image_column="image", label_column="mask"), Store())
    assert found.notes == ["columns read, image: image, label: mask, id: the row number"]
