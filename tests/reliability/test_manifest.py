"""A run proves itself: whatever is changed in its output, by accident or on purpose, `segment audit --deep` tells."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from segment.errors import SegmentError
from segment.output.audit import audit_run
from segment.output.ledger import Ledger
from segment.output.manifest import FIGURES, MANIFEST
from segment.output.success import load_digests
from segment.runs.driver import run
from tests.calls import Call
from tests.datasets import Item, write_tars
from tests.reliability.tampering import (
    OBJECTS,
    RECORD,
    ROWS,
    STATS,
    change_json,
    change_rows,
    ledger_of,
    masks_files,
    reseal,
)
from tests.runs import Notes, Place, png, scene

SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Ten images in two tars, whose labels differ a little from their masks; the last one is broken."""
    place = Place(tmp_path_factory.mktemp("done"))
    items = []
    for number in range(9):
        pixels, mask = scene(number)
        mask[: 2 + number, :9] = 1
        items.append(Item(f"{number}.png", png(pixels), png(mask)))
    tars = write_tars(place.images / "tars", [*items, Item("9.png", b"no image")], shards=2)
    place.run(input=tars["input"])
    assert problems(place.output) == []
    return place


@pytest.fixture
def output(done: Place, tmp_path: Path) -> Path:
    shutil.copytree(done.output, tmp_path / "out")
    return tmp_path / "out"


def problems(output: Path, *, deep: bool = True) -> list[str]:
    """What an audit finds; that it cannot read the plan or `run.json` is an answer, too."""
    try:
        return list(audit_run(ledger_of(output), deep=deep).problems)
    except SegmentError as error:
        return [str(error)]


def verify(place: Place, output: Path) -> Notes:
    """As `segment run --verify`, to this output."""
    notes = Notes()
    run(place.job(input=str(place.images / "tars"), output=str(output)), notes, verify=True)
    return notes


def contents(output: Path) -> dict[str, bytes]:
    names = ("masks", "stats", "plan.parquet", "run.json", MANIFEST, "_SUCCESS")
    found = [file for name in names for file in [output / name, *(output / name).rglob("*")] if file.is_file()]
    return {file.relative_to(output).as_posix(): file.read_bytes() for file in found}


# --- what is written --------------------------------------------------------------------------------------------------


def test_the_manifest_lists_each_object(done: Place) -> None:
    import hashlib

    table = pq.read_table(done.output / MANIFEST)
    rows = {row["path"]: row for row in table.to_pylist()}
    written = [
        *done.output.glob("masks/**/*.parquet"),
        *done.output.glob("stats/*"),
        *map(done.output.joinpath, FIGURES),
    ]
    assert list(rows) == sorted(file.relative_to(done.output).as_posix() for file in written)
    for name, row in rows.items():
        data = (done.output / name).read_bytes()
        assert (row["size"], row["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert row["md5"] == hashlib.md5(data).hexdigest()
        assert row["rows"] == (pq.read_metadata(io.BytesIO(data)).num_rows if name.endswith(".parquet") else None)
    success = json.loads((done.output / "_SUCCESS").read_text())
    assert success["sha256"] == {
        name: hashlib.sha256((done.output / name).read_bytes()).hexdigest()
        for name in (MANIFEST, "plan.parquet", "run.json")
    }


@pytest.mark.parametrize(
    "lost", [[], ["masks"], ["stats"], ["masks", "stats", "_SUCCESS"], [MANIFEST], [MANIFEST, "_SUCCESS"]]
)
def test_a_resumed_run_writes_the_same_manifest(done: Place, output: Path, lost: list[str]) -> None:
    """Also of parts that another attempt has committed, which are read once."""
    before = contents(output)
    for name in lost:
        file = output / name if name in (MANIFEST, "_SUCCESS") else min((output / name).rglob("*.parquet"))
        file.unlink()
    if MANIFEST in lost and "_SUCCESS" not in lost:
        change_json(output / "_SUCCESS", lambda success: success.pop("sha256"))  # as earlier versions wrote it
    notes = Notes()
    run(done.job(input=str(done.images / "tars"), output=str(output)), notes)
    assert contents(output) == before
    assert problems(output) == []
    read = "reading 6 parts of other attempts once, for manifest.parquet"
    assert (read in notes.lines) == (MANIFEST in lost)


def test_a_damaged_part_is_not_taken_for_what_was_written(done: Place, output: Path) -> None:
    (output / MANIFEST).unlink()
    (output / "_SUCCESS").unlink()
    change_rows(masks_files(output)[0], ROWS["pixels of a mask"])
    with pytest.raises(
        SegmentError, match=r"other pixels than were counted .*: run the same `segment run` again with --verify"
    ):
        run(done.job(input=str(done.images / "tars"), output=str(output)), Notes())
    assert not (output / MANIFEST).exists()
    verify(done, output)
    assert problems(output) == []


# --- what is noticed --------------------------------------------------------------------------------------------------

WAYS: dict[str, Callable[[Path], Any]] = {
    **{f"rows: {name}": lambda output, way=way: change_rows(masks_files(output)[1], way) for name, way in ROWS.items()},
    **{
        f"stats: {name}": lambda output, way=way: change_rows(min(output.glob("stats/*")), way)
        for name, way in STATS.items()
    },
    **{
        f"run.json: {name}": lambda output, way=way: change_json(output / "run.json", way)
        for name, way in RECORD.items()
    },
    **{f"objects: {name}": way for name, way in OBJECTS.items()},
}
# That these are others than were written only the manifest tells, or the signature of who made it.
OF_THE_MANIFEST = (
    "objects: a mask of nobody", "objects: figures", "objects: the summary", "objects: URLs of the plan",
    "objects: garbage for _SUCCESS", "objects: _SUCCESS without digests", "objects: the manifest lost",
    "objects: the manifest cut off", "objects: a part forgotten in the manifest", "objects: figures lost",
)  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_what_is_changed_is_noticed(output: Path, way: str) -> None:
    WAYS[way](output)
    found = problems(output)
    assert found
    assert all("Error" not in line or "damaged" in line for line in found)
    if not any("restore" in line or "is in no plan" in line for line in found):
        assert all("run the same `segment run` again" in line or "delete" in line or "choose" in line for line in found)


@pytest.mark.parametrize("way", [way for way in WAYS if way not in OF_THE_MANIFEST])
def test_what_is_changed_is_noticed_also_where_the_manifest_is_changed_with_it(output: Path, way: str) -> None:
    WAYS[way](output)
    reseal(output)
    assert problems(output)


@pytest.mark.parametrize("way", ["objects: a part cut off", "objects: a shard dropped from plan, masks and stats",
    "objects: figures lost", "rows: another score", "objects: the manifest cut off"])  # fmt: skip
def test_what_is_noticed_without_reading_masks(output: Path, way: str) -> None:
    WAYS[way](output)
    assert problems(output, deep=False)


def test_old_outputs_are_audited_as_before(output: Path, segment: Call) -> None:
    (output / MANIFEST).unlink()
    change_json(output / "_SUCCESS", lambda success: success.pop("sha256"))
    for how in ([], ["--deep"]):
        called = segment("audit", str(output), *how)
        assert called.code == 0
        assert called.out.splitlines()[-1].startswith("not checked: whether the bytes are those that were written, as ")
    change_rows(masks_files(output)[0], ROWS["two masks"])
    assert problems(output)


# --- what mends it ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "way",
    ["rows: pixels of a mask", "rows: an unknown status", "rows: another score", "stats: tp", "stats: fewer rows",
     "run.json: class names swapped", "run.json: ignore", "objects: two parts exchanged", "objects: a part emptied",
     "objects: statistics cut off", "objects: the manifest cut off", "objects: figures",
     "objects: garbage for _SUCCESS"],
)  # fmt: skip
def test_verify_mends_it(done: Place, output: Path, way: str) -> None:
    WAYS[way](output)
    assert problems(output)
    verify(done, output)
    assert problems(output) == []
    kept, found = contents(done.output), contents(output)
    assert [name for name in kept if name not in ("run.json", "_SUCCESS") and kept[name] != found[name]] == []


def test_verify_mends_a_flipped_byte_of_a_page(done: Place, output: Path) -> None:
    file = masks_files(output)[0]
    data = file.read_bytes()
    group = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0)
    (chunk,) = [c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == "mask.bytes"]
    at = chunk.data_page_offset + chunk.total_compressed_size - 9
    file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    assert "verified: 1 damaged or lost part done again" in verify(done, output).lines
    assert file.read_bytes() == data


@pytest.mark.parametrize("way", ["URLs of the plan", "a shard dropped from plan, masks and stats"])
def test_a_changed_plan_is_not_followed(done: Place, output: Path, way: str) -> None:
    OBJECTS[way](output)
    with pytest.raises(
        SegmentError, match=r"plan\.parquet is not the one that _SUCCESS names: restore it, or delete it"
    ):
        verify(done, output)
    (output / "plan.parquet").unlink()  # as it says
    verify(done, output)
    assert problems(output) == []
    assert contents(output)["plan.parquet"] == contents(done.output)["plan.parquet"]


def test_a_changed_record_is_not_followed_without_verify(done: Place, output: Path) -> None:
    change_json(output / "run.json", swap := RECORD["class names swapped"])
    assert swap
    with pytest.raises(SegmentError, match=r"run\.json is not the one that _SUCCESS names: .* with --verify"):
        run(done.job(input=str(done.images / "tars"), output=str(output)), Notes())


def test_ledger_of_nothing(tmp_path: Path) -> None:
    assert load_digests(Ledger(ledger_of(tmp_path).store, f"file://{tmp_path}")) == ""
