"""Outputs that somebody has touched: what is no longer the planned image's row, the audit finds, by id and URI."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segment.output.audit import audit_run
from segment.output.ledger import Ledger
from segment.store.client import Store
from tests.calls import Call
from tests.datasets import Item, write_tars
from tests.reliability.tampering import Rows, change_rows, masks_files, reseal
from tests.runs import Place, png, scene


def swap_ids(rows: Rows) -> None:
    rows[0]["id"], rows[1]["id"] = rows[1]["id"], rows[0]["id"]


def swap_images(rows: Rows) -> None:
    """Id and URI together, so that each row agrees with itself."""
    for name in ("id", "uri"):
        rows[0][name], rows[1][name] = rows[1][name], rows[0][name]


def one_id_for_all(rows: Rows) -> None:
    for row in rows:
        row["id"], row["uri"] = rows[0]["id"], rows[0]["uri"]


def other_uri(rows: Rows) -> None:
    rows[1]["uri"] += ".bak"


def other_shard(rows: Rows) -> None:
    rows[1]["shard"] = "other"


def other_part(rows: Rows) -> None:
    rows[1]["part"] = "other"


def tamper(place: Place, change: Callable[[Rows], None], number: int = 0) -> Path:
    """Change the rows of a masks file and keep all else: schema, footer, checksums that hold, and a manifest."""
    file = masks_files(place.output)[number]
    change_rows(file, change)
    reseal(place.output)
    return file


def found(place: Place, *, deep: bool = False) -> tuple[str, ...]:
    return audit_run(Ledger(Store(), f"file://{place.output}"), deep=deep).problems


def by_files(place: Place) -> str:
    for number in range(6):
        place.add(f"{number}.png", number)
    return str(place.images)


def by_tar(place: Place) -> str:
    items = [Item(f"{number}.png", png(scene(number)[0]), png(scene(number)[1])) for number in range(6)]
    return str(write_tars(place.images / "tars", items, shards=1)["input"])


def by_parquet(place: Place) -> str:
    pictures = pa.array([png(scene(number)[0]) for number in range(6)], pa.binary())
    table = pa.table({"image": pictures, "id": [f"p{i}" for i in range(6)]})
    pq.write_table(table, place.images / "a.parquet", write_page_checksum=True, use_dictionary=False)
    return str(place.images)


KINDS = {"files": by_files, "webdataset": by_tar, "parquet": by_parquet}


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Six images in three parts of one shard; done, and sound."""
    place = Place(tmp_path)
    place.run(input=KINDS[request.param](place))
    assert found(place) == found(place, deep=True) == ()
    return place


@pytest.mark.parametrize("change", [swap_ids, one_id_for_all, other_uri, other_shard, other_part])
@pytest.mark.parametrize("deep", [False, True])
def test_rows_of_other_images_are_found(place: Place, change: Callable[[Rows], None], deep: bool) -> None:
    file = tamper(place, change)
    problems = found(place, deep=deep)
    assert problems
    for problem in problems:
        assert problem.startswith(f"masks/{file.parent.name}/{file.name} ")
        assert problem.endswith(": run the same `segment run` again with --verify")
    file.unlink()
    place.run(input=json.loads((place.output / "run.json").read_text())["job"]["input"])
    assert found(place) == ()


@pytest.mark.parametrize("place", ["files", "webdataset"], indirect=True)
def test_rows_that_agree_with_themselves_but_not_with_the_plan(place: Place, segment: Call) -> None:
    file = tamper(place, swap_images, 1)
    called = segment("audit", str(place.output))
    assert called.code == 1
    assert called.out.splitlines()[0].startswith(
        f"wrong: masks/{file.parent.name}/{file.name} names image 2 '3.png', planned is '2.png': run the"
        if any(place.images.glob("2.png"))
        else f"wrong: masks/{file.parent.name}/{file.name} names image 2 '3', planned is '2': run the"
    )


@pytest.mark.parametrize("place", ["parquet"], indirect=True)
def test_an_id_of_another_part_of_the_shard(place: Place) -> None:
    def take(rows: Rows) -> None:
        rows[0]["uri"] = rows[0]["uri"].replace(f"#{rows[0]['id']}", "#p0")
        rows[0]["id"] = "p0"

    file = tamper(place, take, 2)
    (problem,) = found(place)
    assert problem.startswith(f"masks/{file.parent.name}/{file.name} repeats 1 id of its shard, e.g. 'p0'")


def test_ids_that_were_repeated_in_the_input_are_as_planned(tmp_path: Path) -> None:
    place = Place(tmp_path)
    pictures = pa.array([png(scene(number)[0]) for number in range(4)], pa.binary())
    pq.write_table(pa.table({"image": pictures, "id": ["a", "b", "a", "a"]}), place.images / "a.parquet")
    rows = place.run(input=str(place.images), id_column="id").all_rows
    assert sum(row["status"] == "error" for row in rows) == 2
    assert found(place) == ()


def test_rows_that_could_not_be_asked_for_their_id_are_as_planned(tmp_path: Path) -> None:
    place = Place(tmp_path)
    given = by_parquet(place)
    group = pq.ParquetFile(place.images / "a.parquet").metadata.row_group(0)
    chunk = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == "image")
    data = bytearray((place.images / "a.parquet").read_bytes())
    data[chunk.data_page_offset + chunk.total_compressed_size - 9] ^= 255
    (place.images / "a.parquet").write_bytes(data)
    rows = place.run(input=given).all_rows
    assert {row["error"].partition(":")[0] for row in rows if row["error"]} == {"undecodable"}
    assert found(place, deep=True) == ()


def test_a_file_that_is_no_table_of_ours_is_a_problem_and_no_traceback(place: Place) -> None:
    file = min(place.output.glob("masks/*/*.parquet"))
    pq.write_table(pa.table({"index": [0, 1]}), file)
    (problem,) = found(place)
    assert problem == f"masks/{file.parent.name}/{file.name} is damaged: run the same `segment run` again with --verify"


def test_many_damaged_files_are_a_few_lines(tmp_path: Path, segment: Call) -> None:
    place = Place(tmp_path)
    for number in range(30):
        place.add(f"{number:02d}.png", number)
    place.run(part_size=1)
    for file in place.output.glob("masks/*/*.parquet"):
        file.write_bytes(b"")
    called = segment("audit", str(place.output))
    assert len(called.out.splitlines()) == 12
    assert called.out.splitlines()[-2:] == [
        "wrong: 20 more damaged masks files",
        "the audit found 30 problems (30 images, 30 parts, 1 shard, 0 error rows)",
    ]


def test_damaged_statistics_are_a_problem_and_the_rows_are_looked_at_all_the_same(place: Place) -> None:
    file = tamper(place, other_uri)
    (stats,) = place.output.glob("stats/*")
    stats.write_bytes(stats.read_bytes()[:-30])
    problems = found(place)
    assert problems[0] == f"stats/{stats.name} is damaged: run the same `segment run` again with --verify"
    assert file.name in problems[1]
    assert len(problems) == 2


@pytest.mark.parametrize("place", ["parquet"], indirect=True)
def test_a_deep_audit_reads_the_ids_of_parquet_again_where_it_can(place: Place, segment: Call) -> None:
    file = tamper(place, swap_images, 1)
    assert found(place) == ()  # the plan knows no ids, and these agree with themselves
    called = segment("audit", str(place.output), "--deep")
    assert called.code == 1
    name = f"masks/{file.parent.name}/{file.name}"
    assert called.out.splitlines()[0].startswith(f"wrong: {name} names image 2 'p3', planned is 'p2': run the")
    (place.images / "a.parquet").unlink()
    called = segment("audit", str(place.output), "--deep")
    assert called.code == 0
    assert called.out.splitlines()[-1] == (
        "6 rows of Parquet files that are gone, changed, damaged or not allowed (--allow-input): "
        "their ids were not compared with the input"
    )
