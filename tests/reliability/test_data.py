"""Hostile and odd data in whole runs: each is what the documentation says, everything else is right, the audit holds.

Images and labels that are bad one by one are in `tests/test_bad_input.py`; what damage of any kind does is `fuzz.py`'s.
"""

import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segment.errors import InputChanged, TooManyErrors, UsageError
from segment.inputs.parquet import row_groups
from segment.runs.driver import run
from tests.calls import process
from tests.reliability.trouble import assert_sound, command, street
from tests.runs import CARD, Outcome, Place, expect, png, read_rows, scene

MEMBERS = [
    (f"{seed}.{suffix}", png(scene(seed)[i])) for seed in range(4) for i, suffix in enumerate(("png", "seg.png"))
]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def pack(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    """Write a tar of files, given by name and content, and of whatever else."""
    with tarfile.open(path, "w") as tar:
        for one in members:
            if isinstance(one, tarfile.TarInfo):
                tar.addfile(one)
            else:
                header = tarfile.TarInfo(one[0])
                header.size = len(one[1])
                tar.addfile(header, io.BytesIO(one[1]))
    return path


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, target
    return header


def all_four(outcome: Outcome, place: Place) -> None:
    """The four pictures are there, right to the last pixel, and nothing else."""
    assert sorted(outcome.rows) == ["0", "1", "2", "3"]
    for seed in range(4):
        expect(outcome.rows[str(seed)], seed)
    assert outcome.report.total.images == 4
    assert_sound(place.output)


@pytest.mark.parametrize(("width", "height"), [(10_000, 1), (1, 10_000), (1, 1)])
def test_odd_proportions(tmp_path: Path, width: int, height: int) -> None:
    """They are images like any other: the mask has their size, and their pixels are counted."""
    place = street(tmp_path, images=1)
    pixels = np.full((height, width, 3), CARD.classes.palette[1], np.uint8)
    label = np.full((height, width), 1, np.uint8)
    place.write("odd.png", png(pixels), png(label))
    row = place.run().rows["odd.png"]
    assert (row["status"], row["width"], row["height"]) == ("ok", width, height)
    assert row["confusion"] == {"cell": [len(CARD.classes) + 1], "count": [width * height]}
    assert_sound(place.output)


def test_members_that_lead_out_and_links(place: Place) -> None:
    """They are neither followed nor extracted: left out and counted. A link to another member is that member."""
    secret = place.folder / "secret.png"
    secret.write_bytes(MEMBERS[0][1])
    bad = [
        ("../out.png", MEMBERS[0][1]), ("/abs.png", MEMBERS[0][1]), ("a/../../b.png", MEMBERS[0][1]),
        link("soft.png", str(secret), tarfile.SYMTYPE), link("hard.png", "0.png", tarfile.LNKTYPE),
        link("pipe.png", "", tarfile.FIFOTYPE),
    ]  # fmt: skip
    tar = pack(place.folder / "a.tar", *MEMBERS[:4], *bad, *MEMBERS[4:])
    before = sorted(path for path in place.folder.parent.rglob("*"))
    outcome = place.run(input=str(tar))
    assert [line for line in outcome.warnings if line.startswith("left out: 5 tar members that are links")] != []
    expect(outcome.rows.pop("hard"), 0, labelled=False)  # a link to a file of the same tar
    assert outcome.report.total.images == 5
    assert sorted(outcome.rows) == ["0", "1", "2", "3"]
    for seed in range(4):
        expect(outcome.rows[str(seed)], seed)
    assert_sound(place.output)
    shutil.rmtree(place.output)
    assert sorted(path for path in place.folder.parent.rglob("*")) == before


def test_a_tar_with_too_many_members_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segment.inputs.tars.archive._MAX_MEMBERS", 7)
    tar = pack(place.folder / "a.tar", *MEMBERS)
    with pytest.raises(UsageError) as caught:
        place.run(input=str(tar))
    assert str(caught.value) == f"{tar} has more than 7 members: split it into smaller tars"


def cut_off(path: Path) -> bytes:
    """Write the four images as a tar that ends within the last one; return the whole one."""
    whole = pack(path, *MEMBERS).read_bytes()
    with tarfile.open(path) as opened:
        last = opened.getmember("3.png")
    path.write_bytes(whole[: last.offset_data + last.size // 2])
    return whole


def header_damaged(path: Path) -> bytes:
    """Write the four images as a tar with a damaged header, of the third image; return the sound one."""
    whole = pack(path, *MEMBERS).read_bytes()
    with tarfile.open(path) as opened:
        offset = opened.getmember("2.png").offset
    path.write_bytes(whole[: offset + 150] + b"?" + whole[offset + 151 :])
    return whole


@pytest.mark.parametrize(
    ("damage", "read", "lost", "exact"),
    [(cut_off, 3, 1, False), (header_damaged, 2, 2, True)],
    ids=["cut off", "header"],
)
def test_a_damaged_tar_is_not_complete(place: Place, damage: Any, read: int, lost: int, exact: bool) -> None:
    """What is before the damage is done, the rest is counted as failed; accepted or mended it is complete."""
    tar = place.folder / "a.tar"
    whole = damage(tar)
    with pytest.raises(TooManyErrors) as caught:
        place.run(input=str(tar), max_error_rate=0.4 if exact else 0.9)
    if exact:
        assert "0 of 2 images failed and 2 more are lost in damaged archives" in str(caught.value)
    else:
        words = "an unknown number of images is lost in damaged archives: left out: at least 1 image after the damage"
        assert words in str(caught.value)
    assert caught.value.exit_code == 3
    assert not (place.output / "_SUCCESS").exists()
    (left,) = json.loads((place.output / "run.json").read_bytes())["input"]["left_out"]
    assert (left["reason"], left["number"], left["exact"]) == ("damaged", lost, exact)
    summary = json.loads((place.output / "report" / "summary.json").read_bytes())
    assert "damaged" in json.dumps(summary)
    assert [row["id"] for row in read_rows(place.output)] == ["0", "1", "2"][:read]

    again = process(*command(place, input=str(tar), max_error_rate=0.05), timeout=120)
    assert again.returncode == 3
    assert "max-error-rate" in again.stderr
    assert place.run(input=str(tar), max_error_rate=1.0 if not exact else 0.5).report.total.images == read
    assert_sound(place.output)

    tar.write_bytes(whole)
    assert run(place.job(input=str(tar), max_error_rate=0.0), update=True).total.images == 4
    assert json.loads((place.output / "run.json").read_bytes())["input"]["left_out"] == []
    assert_sound(place.output)
    for row in read_rows(place.output):
        expect(row, int(row["id"]))


def test_joined_tars_and_one_without_an_end_mark(place: Place) -> None:
    """What is behind an end mark is lost, as every other reader of tars has it; a missing end mark loses nothing."""
    first = pack(place.folder / "a.tar", *MEMBERS[:4])
    second = pack(place.folder / "b.tar", *MEMBERS[4:])
    with tarfile.open(second) as opened:
        end = max(one.offset_data + -(-one.size // 512) * 512 for one in opened.getmembers())
    joined = place.folder / "joined.tar"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    with pytest.raises(TooManyErrors, match="0 of 2 images failed and 2 more are lost"):
        place.run(input=str(joined), max_error_rate=0.05)
    os.truncate(second, end)
    joined.unlink()
    shutil.rmtree(place.output)
    outcome = place.run(input=str(place.folder), format="webdataset", max_error_rate=0.0)
    assert [line for line in outcome.warnings if "without an end mark: 2 images before that, 0 lost" in line] != []
    all_four(outcome, place)


def test_ids_that_come_again_in_a_shard_and_in_another(place: Place) -> None:
    """Within a shard the second is an error row; in another shard it is another image."""
    pack(place.folder / "a.tar", *MEMBERS[:4], *MEMBERS[:2])
    pack(place.folder / "b.tar", *MEMBERS[:4])
    outcome = place.run(input=str(place.folder / "{a,b}.tar"))
    rows = [(row["id"], row["status"]) for row in outcome.all_rows]
    assert sorted(rows) == [("0", "error"), ("0", "ok"), ("0", "ok"), ("1", "ok"), ("1", "ok")]
    assert {row["error"] for row in outcome.all_rows if row["error"]} == {
        "duplicate_id: another image of the same shard has this id already"
    }
    assert_sound(place.output)


def test_a_shard_named_twice_is_read_once(place: Place) -> None:
    pack(place.folder / "a.tar", *MEMBERS)
    outcome = place.run(input=str(place.folder / "{a,a,*}.tar"))
    assert [line for line in outcome.warnings if "named twice and read once" in line] != []
    all_four(outcome, place)


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_shard_replaced_between_run_and_rerun(place: Place, kind: str) -> None:
    """The rerun does not mix: what is committed stays, the rest is refused until the shard is as it was."""
    shard = place.folder / f"a.{kind}"

    def make(order: list[int]) -> None:
        if kind == "tar":
            pack(shard, *(MEMBERS[2 * seed + i] for seed in order for i in range(2)))
        else:
            cells = {"image": [MEMBERS[2 * s][1] for s in order], "label": [MEMBERS[2 * s + 1][1] for s in order]}
            pq.write_table(pa.table({**cells, "id": [str(seed) for seed in order]}), shard, row_group_size=2)

    make([0, 1, 2, 3])
    sound = shard.read_bytes(), shard.stat()
    place.run(input=str(shard))
    kept = max(place.output.glob("masks/*/*.parquet"))
    min(place.output.glob("masks/*/*.parquet")).unlink()
    for gone in (*place.output.glob("stats/*"), place.output / "_SUCCESS"):
        gone.unlink()
    before = kept.read_bytes()
    make([3, 2, 1, 0])
    forget()
    with pytest.raises(InputChanged, match="has changed since the run was planned"):
        place.run(input=str(shard))
    assert [path.name for path in place.output.glob("masks/*/*.parquet")] == [kept.name]
    assert kept.read_bytes() == before
    shard.write_bytes(sound[0])
    os.utime(shard, ns=(sound[1].st_atime_ns, sound[1].st_mtime_ns))
    all_four(place.run(input=str(shard)), place)


def forget() -> None:
    """As a process that is started anew: row groups that were read are not kept."""
    row_groups._files._values.clear()
    row_groups._tables._values.clear()


# --- Parquet ----------------------------------------------------------------------------------------------------------


def cells(*seeds: int | None) -> dict[str, Any]:
    image = [None if seed is None else MEMBERS[2 * seed][1] for seed in seeds]
    label = [None if seed is None else MEMBERS[2 * seed + 1][1] for seed in seeds]
    return {"id": [f"n{i}" if s is None else str(s) for i, s in enumerate(seeds)], "image": image, "label": label}


@pytest.mark.parametrize(("kind", "value"), [(pa.string(), "no.png"), (pa.list_(pa.uint8()), [1, 2])], ids=str)
def test_a_guess_that_holds_no_images_is_refused_before_anything_is_begun(
    place: Place, kind: pa.DataType, value: Any
) -> None:
    path = place.folder / "a.parquet"
    pq.write_table(pa.table({"image": pa.array([value], kind)}), path)
    with pytest.raises(UsageError, match="'image' was detected as the image column, but"):
        place.run(input=str(path))
    assert not place.output.exists()


@pytest.mark.parametrize(("kind", "value"), [(pa.int64(), 7), (pa.float64(), 0.5)], ids=str)
def test_images_of_a_wrong_type_are_refused_before_anything_is_begun(
    place: Place, kind: pa.DataType, value: Any
) -> None:
    path = place.folder / "a.parquet"
    pq.write_table(pa.table({"image": pa.array([value], kind)}), path)
    with pytest.raises(UsageError) as caught:
        place.run(input=str(path))
    assert f"{path} has no image column" in str(caught.value)
    with pytest.raises(UsageError) as caught:
        place.run(input=str(path), image_column="image")
    assert f"the image column 'image' is {kind}" in str(caught.value)
    assert not place.output.exists()


def test_nulls(place: Place) -> None:
    """A row without image is an error row, one without label is not scored."""
    path = place.folder / "a.parquet"
    table = cells(0, None, 1, 2, 3)
    table["label"][3] = None
    table["id"][4] = None
    pq.write_table(pa.table(table), path, row_group_size=2)
    outcome = place.run(input=str(path))
    assert outcome.rows["n1"]["error"] == "empty: the image has no bytes"
    expect(outcome.rows["2"], 2, labelled=False)
    for name, seed in (("0", 0), ("1", 1), ("row-00000004", 3)):
        expect(outcome.rows[name], seed)
    assert_sound(place.output)


def test_a_row_group_without_rows(place: Place) -> None:
    path = place.folder / "a.parquet"
    first, last = pa.table(cells(0, 1)), pa.table(cells(2, 3))
    with pq.ParquetWriter(path, first.schema) as writer:
        for table in (first, first.slice(0, 0), last):
            writer.write_table(table)
    assert [pq.ParquetFile(path).metadata.row_group(i).num_rows for i in range(3)] == [2, 0, 2]
    all_four(place.run(input=str(path)), place)
