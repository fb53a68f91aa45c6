"""Ids of Parquet rows from a detected column: unique, and the same whichever process reads a part."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import segment
from segment.inputs.discover import discover
from segment.inputs.parquet import row_ids
from segment.inputs.reads import read_part
from segment.job import InputOptions
from segment.models.card import load_card
from segment.store.client import Store
from tests.datasets import encoded, read_rows
from tests.graphs import painted
from tests.jobs import ENGINES, model, run_on, tree

PICTURE = encoded(np.zeros((4, 6, 3), np.uint8))
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def with_paths(path: Path, names: list[str | None], row_group_size: int = 2) -> Path:
    rows = [{"bytes": PICTURE, "path": name} for name in names]
    pq.write_table(pa.table({"image": pa.array(rows, IMAGE)}), path, row_group_size=row_group_size)
    return path


def ids(where: Path, **options: Any) -> list[str]:
    found = discover(str(where), InputOptions(**options), Store())
    parts = reversed(found.parts)  # ids do not depend on the order of reading
    read = {s.index: s for part in parts for s in read_part(part, InputOptions(**options), Store())}
    assert {s.fault for s in read.values()} == {None}
    return [read[index].id for index in sorted(read)]


def warnings(where: Path, **options: Any) -> list[str]:
    return discover(str(where), InputOptions(**options), Store()).warnings


def test_row_numbers_precede_ids_that_are_not_unique_in_their_file(tmp_path: Path) -> None:
    path = with_paths(tmp_path / "a.parquet", ["0.jpg", "1.jpg", None, "0.jpg", ""])
    expected = [
        "row-00000000/0.jpg", "row-00000001/1.jpg", "row-00000002", "row-00000003/0.jpg", "row-00000004",
    ]  # fmt: skip
    assert ids(path) == ids(path, part_size=1) == expected
    assert warnings(path) == [
        f"the ids in image.path are not unique: 1 row has the id of an earlier row of the file, e.g. {path}; there the "
        "row number precedes every id (--id-column names another column, :row selects row numbers)"
    ]
    assert ids(path, id_column=":row") == [f"row-{i:08d}" for i in range(5)]
    assert warnings(path, id_column=":row") == []


def test_unique_ids_stay_as_they_are(tmp_path: Path) -> None:
    path = with_paths(tmp_path / "a.parquet", ["0.jpg", "1.jpg", None, "2.jpg"])
    assert ids(path) == ["0.jpg", "1.jpg", "row-00000002", "2.jpg"]
    assert warnings(path) == []


def test_an_id_that_looks_like_a_row_number(tmp_path: Path) -> None:
    path = with_paths(tmp_path / "a.parquet", ["row-00000001", None, "row-00000000/a", "a"])
    found = ids(path)
    assert len(set(found)) == 4
    assert found[0] == "row-00000000/row-00000001"


def test_each_file_is_judged_by_itself(tmp_path: Path) -> None:
    with_paths(tmp_path / "a.parquet", ["0.jpg", "0.jpg"])
    with_paths(tmp_path / "b.parquet", ["0.jpg", "1.jpg"])
    found = discover(str(tmp_path), InputOptions(), Store())
    names = [s.id for part in found.parts for s in read_part(part, InputOptions(), Store())]
    assert names == ["row-00000000/0.jpg", "row-00000001/0.jpg", "0.jpg", "1.jpg"]
    with_paths(tmp_path / "c.parquet", ["0.jpg", "0.jpg"])  # other files of the folder change no id
    found = discover(str(tmp_path), InputOptions(), Store())
    assert [s.id for part in found.parts for s in read_part(part, InputOptions(), Store())][:4] == names


@pytest.mark.parametrize("name", ["id", "image_id", "file_name"])
def test_a_guessed_id_column_loses_no_image_and_a_named_one_is_strict(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({name: [7, 7, 8] if name != "file_name" else list("aab"), "image": [PICTURE] * 3}), path)
    assert len(set(ids(path))) == 3
    options = InputOptions(id_column=name)
    found = discover(str(path), options, Store())
    faults = [s.fault for part in found.parts for s in read_part(part, options, Store())]
    assert faults == [None, "duplicate_id", None]
    assert "they will be error rows" in found.warnings[0]


def test_ids_after_a_damaged_row_group_are_compared_too(tmp_path: Path) -> None:
    names = ["a" * 50, "b" * 50, "c" * 50, "d" * 50, "e" * 50, "a" * 50]
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"id": names, "image": [PICTURE] * 6}), path, row_group_size=2, use_dictionary=False,
        compression="none", write_page_checksum=True, write_statistics=False,
    )  # fmt: skip
    data = bytearray(path.read_bytes())
    data[data.index(b"c" * 50)] ^= 255
    path.write_bytes(data)
    found = discover(str(path), InputOptions(), Store())
    samples = [s for part in found.parts for s in read_part(part, InputOptions(), Store())]
    assert [s.fault for s in samples] == [None, None, "undecodable", "undecodable", None, None]
    assert len({s.id for s in samples}) == 6


def test_planning_compares_the_ids_of_so_many_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_ids, "_MOST_GROUPS", 2)
    with_paths(tmp_path / "a.parquet", ["0.jpg", "1.jpg"], row_group_size=1)
    with_paths(tmp_path / "b.parquet", ["0.jpg", "0.jpg"], row_group_size=1)
    found = discover(str(tmp_path), InputOptions(), Store())
    assert found.warnings == []
    assert found.notes[-1] == (
        "ids of 1 Parquet file are checked when they are read; if some repeat, there the row number precedes every id"
    )
    names = [s.id for part in found.parts for s in read_part(part, InputOptions(), Store())]
    assert names == ["0.jpg", "1.jpg", "row-00000000/0.jpg", "row-00000001/0.jpg"]


def test_a_run_segments_every_row_and_writes_the_same_with_any_engine(tmp_path: Path) -> None:
    parts = model(tmp_path)
    card = load_card(parts["model"])
    images = [painted(card, number, block=4)[0] for number in range(9)]
    rows = [{"bytes": encoded(image), "path": f"{i % 2}.png"} for i, image in enumerate(images)]
    pq.write_table(pa.table({"image": pa.array(rows, IMAGE)}), tmp_path / "in.parquet", row_group_size=4)
    jobs = [
        segment.Job(input=str(tmp_path / "in.parquet"), output=str(tmp_path / name), part_size=2, **parts)
        for name in ("one", "three")
    ]
    for job, engine in zip(jobs, ("local-1", "local-3"), strict=True):
        report = run_on(ENGINES[engine], job)
        assert (report.complete, report.errors) == (True, ())
    assert [row["id"] for row in read_rows(tmp_path / "one")] == [f"row-{i:08d}/{i % 2}.png" for i in range(9)]
    assert tree(tmp_path / "one", "masks") == tree(tmp_path / "three", "masks")
