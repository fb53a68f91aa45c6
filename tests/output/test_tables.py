"""The tables: documented schemas, deterministic bytes, and exact sums."""

import hashlib
import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segment.metrics import Confusion, image_scores, score
from segment.output.mask_columns import MASKS_SCHEMA
from segment.output.shard_stats import STATS_SCHEMA, ShardStats, fold, merge, read_stats, stats_table
from segment.output.tables import ImageRow, read_masks, to_parquet, write_masks
from tests.runs import CARD, CLASSES, png, scene

# As in DESIGN.md, section 7.
DOCUMENTED_MASKS = {
    "id": "string", "uri": "string", "shard": "string", "part": "string", "index": "int32", "width": "int32",
    "height": "int32", "brightness": "float", "status": "string", "error": "string",
    "mask": "struct<bytes: binary, path: string>",
    "confusion": "struct<cell: list<int32>, count: list<int64>>", "pixel_accuracy": "double", "miou": "double",
}  # fmt: skip
DOCUMENTED_STATS = {
    "shard": "string", "class_id": "int32", "class_name": "string", "tp": "int64", "fp": "int64", "fn": "int64",
    "label_pixels": "int64", "predicted_pixels": "int64", "iou": "double", "images": "int64", "errors": "int64",
}  # fmt: skip
IGNORE = CARD.classes.ignored_classes


def image_row(seed: int, index: int = 0, kind: str = "scored") -> ImageRow:
    """A row of one kind: scored, unlabelled, with a bad label, or with a bad image."""
    _, mask = scene(seed)
    name, url = f"{seed}.png", f"file:///in/{seed}.png"
    if kind == "bad image":
        return ImageRow(name, url, index, None, "empty: the image has no bytes", None, None, None, None)
    if kind == "bad label":
        return ImageRow(name, url, index, mask.shape, "label_size: ...", png(mask), None, None, None)
    prediction = np.roll(mask, 1)
    confusion = Confusion.of(prediction, mask if kind == "scored" else None, CLASSES)
    accuracy, miou = image_scores(confusion, IGNORE, "omz")
    return ImageRow(name, url, index, mask.shape, None, png(prediction), confusion, accuracy, miou)


KINDS = ("scored", "unlabelled", "bad label", "bad image")
ROWS = [image_row(seed, seed, KINDS[seed % 4]) for seed in range(8)]


def written(rows: list[ImageRow]) -> bytes:
    return write_masks(rows, shard="in-00000-abc", part="abc-000000-000008", fingerprint="f" * 64)


def table_of(data: bytes) -> pa.Table:
    return read_masks(io.BytesIO(data))


def plain(table_type: pa.DataType) -> str:
    """The name of a type, without the name that Parquet gives to list items."""
    return str(table_type).replace("<item: ", "<").replace("<element: ", "<")


# --- masks -----------------------------------------------------------------------------------------------------------


def test_the_masks_schema_is_the_documented_one() -> None:
    assert {field.name: plain(field.type) for field in MASKS_SCHEMA} == DOCUMENTED_MASKS
    found = pq.read_schema(io.BytesIO(written(ROWS)))
    assert {field.name: plain(field.type) for field in found} == DOCUMENTED_MASKS
    nullable = {field.name for field in found if field.nullable}
    assert nullable == {"width", "height", "brightness", "error", "mask", "confusion", "pixel_accuracy", "miou"}


def test_rows_come_back_as_they_were() -> None:
    rows = table_of(written(ROWS)).to_pylist()
    assert [row["id"] for row in rows] == [row.id for row in ROWS]
    assert [row["index"] for row in rows] == list(range(8))
    assert {(row["shard"], row["part"]) for row in rows} == {("in-00000-abc", "abc-000000-000008")}
    for row, given_row in zip(rows, ROWS, strict=True):
        assert row["uri"] == given_row.url
        assert row["status"] == ("error" if given_row.error else "ok")
        assert row["error"] == given_row.error
        assert (row["height"], row["width"]) == (given_row.size or (None, None))
        assert row["mask"] == (None if given_row.mask is None else {"bytes": given_row.mask, "path": None})
        assert (row["pixel_accuracy"], row["miou"]) == (given_row.pixel_accuracy, given_row.miou)
        if given_row.confusion is None:
            assert row["confusion"] is None
        else:
            cells = row["confusion"]
            assert Confusion.from_cells(cells["cell"], cells["count"], CLASSES) == given_row.confusion


def test_hugging_face_sees_a_picture() -> None:
    metadata = json.loads(pq.read_schema(io.BytesIO(written(ROWS))).metadata[b"huggingface"])
    features = metadata["info"]["features"]
    assert list(features) == list(DOCUMENTED_MASKS)
    assert features["mask"] == {"_type": "Image"}
    assert features["id"] == {"dtype": "string", "_type": "Value"}
    assert features["index"] == {"dtype": "int32", "_type": "Value"}
    assert features["miou"] == {"dtype": "float64", "_type": "Value"}
    assert features["confusion"]["count"] == {"feature": {"dtype": "int64", "_type": "Value"}, "_type": "List"}


def test_hugging_face_datasets_opens_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    (tmp_path / "a.parquet").write_bytes(written(ROWS))
    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "a.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert np.array_equal(np.asarray(loaded[0]["mask"]), np.roll(scene(0)[1], 1))


def test_the_footer_says_whose_part_it_is() -> None:
    metadata = json.loads(pq.read_schema(io.BytesIO(written(ROWS))).metadata[b"segment"])
    assert metadata == {"format": 5, "part": "abc-000000-000008", "rows": 8, "fingerprint": "f" * 64}


def test_one_row_group_and_masks_stored_as_they_are() -> None:
    file = pq.ParquetFile(io.BytesIO(written(ROWS)))
    assert file.metadata.num_row_groups == 1
    columns = {file.metadata.row_group(0).column(i).path_in_schema: i for i in range(file.metadata.num_columns)}
    group = file.metadata.row_group(0)
    assert group.column(columns["mask.bytes"]).compression == "UNCOMPRESSED"
    assert group.column(columns["id"]).compression == "ZSTD"


def test_a_flipped_byte_is_noticed() -> None:
    data = bytearray(written(ROWS))
    at = data.index(ROWS[0].mask or b"")
    data[at + 20] ^= 1
    with pytest.raises(OSError, match="CRC checksum"):
        table_of(bytes(data))


def test_only_the_columns_asked_for_are_read() -> None:
    table = read_masks(io.BytesIO(written(ROWS)), ["status", "miou"])
    assert table.column_names == ["status", "miou"]


@pytest.mark.parametrize("name", ["ü漢 %20 #?.png", "a\nb\t.png", "x" * 5000, "'\"|<>&", "  "])
def test_odd_names_survive(name: str) -> None:
    row = image_row(0)
    odd = ImageRow(name, f"file:///{name}", 0, row.size, None, row.mask, row.confusion, None, None)
    found = table_of(written([odd])).to_pylist()[0]
    assert (found["id"], found["uri"]) == (name, f"file:///{name}")


def digest() -> str:
    total = merge([fold(table_of(written(ROWS)), CLASSES)], CLASSES)
    stats = to_parquet(stats_table("in-00000-abc", total, CARD))
    return hashlib.sha256(written(ROWS)).hexdigest() + hashlib.sha256(stats).hexdigest()


@pytest.mark.parametrize("threads", ["1", "4"])
def test_bytes_are_the_same_in_another_process(threads: str) -> None:
    code = "from tests.output.test_tables import digest; print(digest())"
    environment = {**os.environ, "PYTHONHASHSEED": threads, "OMP_NUM_THREADS": threads, "TZ": "Asia/Tokyo"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == digest()


# --- sums ---------------------------------------------------------------------------------------------------------


def test_the_fold_of_a_file_is_the_sum_of_its_rows() -> None:
    found = fold(table_of(written(ROWS)), CLASSES)
    confusions = [row.confusion for row in ROWS if row.confusion is not None]
    mious = [row.miou for row in ROWS if row.miou is not None]
    assert len(confusions) == 4
    assert found.confusion == sum(confusions, Confusion.zeros(CLASSES))
    assert (found.images, found.errors, found.scored) == (8, 4, 2)
    assert found.image_miou_sum == math.fsum(mious)
    assert found.image_miou == math.fsum(mious) / 2


@pytest.mark.parametrize(("cell", "count"), [(-1, 5), (20, 5), (None, 5), (1, None)])
def test_damaged_counts_are_not_folded(cell: int | None, count: int | None) -> None:
    table = table_of(written(ROWS))
    column = [{"cell": [0, cell], "count": [3, count]}, *table["confusion"].to_pylist()[1:]]
    at = table.schema.get_field_index("confusion")
    table = table.set_column(at, "confusion", pa.array(column, table.schema.field(at).type))
    with pytest.raises((IndexError, ValueError)):
        fold(table, CLASSES)


def test_the_fold_of_nothing_but_errors_is_zero() -> None:
    found = fold(table_of(written([image_row(0, 0, "bad image"), image_row(1, 1, "bad label")])), CLASSES)
    assert found == ShardStats(Confusion.zeros(CLASSES), 2, 2, 0, 0.0)
    assert found.image_miou is None


@settings(max_examples=15, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=12),
    cut=st.integers(0, 12),
    order=st.randoms(use_true_random=False),
)
def test_however_rows_are_cut_in_parts_the_sum_is_the_same(kinds: list[str], cut: int, order: Any) -> None:
    rows = [image_row(i, i, kind) for i, kind in enumerate(kinds)]
    whole = fold(table_of(written(rows)), CLASSES)
    shuffled = order.sample(rows, len(rows))
    parts = [fold(table_of(written(some)), CLASSES) for some in (shuffled[:cut], shuffled[cut:]) if some]
    merged = merge(parts, CLASSES)
    assert merged.confusion == whole.confusion
    assert (merged.images, merged.errors, merged.scored) == (whole.images, whole.errors, whole.scored)
    assert merged.image_miou_sum == pytest.approx(whole.image_miou_sum, abs=1e-12)
    assert merge(reversed(parts), CLASSES) == merged  # bit-identical in any order


# --- stats -----------------------------------------------------------------------------------------------------------


def test_the_stats_schema_is_the_documented_one() -> None:
    types = {field.name: plain(field.type) for field in STATS_SCHEMA}
    assert {name: types[name] for name in DOCUMENTED_STATS} == DOCUMENTED_STATS
    assert set(types) - set(DOCUMENTED_STATS) == {"scored", "image_miou_sum", "confusion"}
    assert types["confusion"] == "list<int64>"


def test_stats_round_trip_and_say_what_they_mean() -> None:
    stats = fold(table_of(written(ROWS)), CLASSES)
    scored = score(stats.confusion, IGNORE, "omz")
    table = stats_table("in-00000-abc", stats, CARD)
    found = read_stats(to_parquet(table))
    assert found == stats
    rows = table.to_pylist()
    assert [row["class_id"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["class_name"] for row in rows] == ["Sky", "Road", "Car", "Unlabeled", "void"]
    assert {row["shard"] for row in rows} == {"in-00000-abc"}
    for index, row in enumerate(rows[:3]):
        assert (row["tp"], row["fp"], row["fn"]) == (scored.tp[index], scored.fp[index], scored.fn[index])
        assert row["iou"] == scored.iou[index]
        assert row["label_pixels"] == stats.confusion.counts[index].sum()
        assert row["predicted_pixels"] == stats.confusion.counts[:, index].sum()
    assert (rows[3]["tp"], rows[3]["iou"]) == (0, None)  # ignored
    assert rows[4]["label_pixels"] == stats.confusion.counts[4].sum()
    assert (rows[4]["tp"], rows[4]["predicted_pixels"], rows[4]["iou"]) == (0, 0, None)
    assert np.array_equal([row["confusion"] for row in rows], stats.confusion.counts)


def test_stats_hold_more_pixels_than_fit_in_a_float() -> None:
    counts = np.zeros((CLASSES + 1, CLASSES), np.int64)
    counts[0, 0] = 2**53 + 1
    stats = ShardStats(Confusion(counts), 10**7, 3, 10**7 - 3, 1234567.875)
    assert read_stats(to_parquet(stats_table("s", stats, CARD))) == stats


def test_merging_nothing_is_zero() -> None:
    assert merge([], CLASSES) == ShardStats(Confusion.zeros(CLASSES), 0, 0, 0, 0.0)


def test_the_sum_of_scores_is_correctly_rounded_in_any_order() -> None:
    some = [ShardStats(Confusion.zeros(1), 1, 0, 1, value) for value in (1e16, 1.0, 1.0, *[0.1] * 10)]
    assert merge(some, 1).image_miou_sum == merge(reversed(some), 1).image_miou_sum == 1e16 + 4
    assert merge(some[3:], 1).image_miou_sum == 1.0


def test_values_that_every_row_has_are_there() -> None:
    table = read_masks(io.BytesIO(written(ROWS)))
    rows, schema = table.to_pylist(), pa.schema([field.with_nullable(True) for field in table.schema])
    for name in ("id", "uri", "shard", "part", "index", "status"):
        lost = pa.Table.from_pylist([*rows[:-1], rows[-1] | {name: None}], schema=schema)
        with pytest.raises(ValueError, match=f"{name} is missing in a row"):
            read_masks(io.BytesIO(to_parquet(lost)), [name])


@pytest.mark.parametrize("column", MASKS_SCHEMA.names)
def test_columns_of_other_names_or_types_are_damage(column: str) -> None:
    """A flipped byte of the footer may rename a column: its readers would find nothing, or fail in their own ways."""
    table = pa.Table.from_pylist([], schema=MASKS_SCHEMA)
    at = table.column_names.index(column)
    for wrong in (
        table.rename_columns([name if name != column else "x" for name in table.column_names]),
        table.set_column(at, column, pa.array([], pa.struct([("x", pa.int8())]))),
    ):
        file = io.BytesIO()
        pq.write_table(wrong, file)
        with pytest.raises(ValueError, match=f"no column {column} of"):
            read_masks(file, [column] if column in wrong.column_names else None)
    file = io.BytesIO()
    pq.write_table(table, file)
    assert read_masks(file, [column, "meta"]).column_names == [column]
