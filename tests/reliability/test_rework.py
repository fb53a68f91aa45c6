"""What a rerun does beyond resuming: error rows again, new input, replaced input. Rows never get fewer."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from segment.errors import InputChanged, StoreError, UsageError, sample_error_text
from segment.output.ledger import Ledger
from segment.pipeline.stages import decode
from segment.runs.driver import run
from tests.calls import Call
from tests.datasets import Item, write_tars
from tests.jobs import ENGINES, on, run_on
from tests.reliability.trouble import assert_sound, holding, masks, street
from tests.runs import Notes, Place, expect, png, read_rows, scene

EMPTY = "empty: the image has no bytes"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return street(tmp_path)


def rerun(place: Place, **how: Any) -> Notes:
    """Run again with `retry_errors` or `update`; return what was told."""
    notes = Notes()
    run(place.job(), notes, **how)
    return notes


def written(output: Path) -> dict[str, int]:
    """When each masks file was written."""
    return {path.name: path.stat().st_mtime_ns for path in output.glob("masks/*/*.parquet")}


# --- error rows, again ------------------------------------------------------------------------------------------------


@pytest.fixture
def unlucky(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The place after a run in which nothing could be made of `2.png` and `3.png`, which are one part."""

    def fail(samples: Any, task: Any) -> Any:
        frames = decode(samples, task)
        for image in frames.images:
            if image.row.id in ("2.png", "3.png"):
                image.row = replace(image.row, error=sample_error_text("model_failed"))
        return frames

    with monkeypatch.context() as patch:
        patch.setattr("segment.pipeline.worker.decode", fail)
        outcome = place.run()
    assert (outcome.report.total.images, outcome.report.total.errors) == (6, 2)
    return place


def test_error_rows_of_unchanged_images_are_done_again_with_their_parts(unlucky: Place) -> None:
    part = holding(unlucky.output, "2.png")
    before = written(unlucky.output)
    assert "2 error rows done again, with their parts" in rerun(unlucky, retry_errors=True).lines
    rows = read_rows(unlucky.output)
    assert len(rows) == 6
    for row in rows:
        expect(row, int(row["id"][0]))
    after = written(unlucky.output)
    assert [name for name in before if after[name] != before[name]] == [part.name]
    calm = unlucky.folder / "calm"
    unlucky.run(output=str(calm))
    assert masks(unlucky.output) == masks(calm)
    assert_sound(unlucky.output)


def test_error_rows_that_stay_errors_are_there_once(place: Place) -> None:
    place.write("9.png", b"")
    place.run()
    before, rows = masks(place.output), read_rows(place.output)
    assert "1 error row done again, with their parts" in rerun(place, retry_errors=True).lines
    assert masks(place.output) == before
    assert read_rows(place.output) == rows
    assert_sound(place.output)


def test_error_rows_whose_images_changed_stay(unlucky: Place) -> None:
    """A run keeps its plan until --update: a mended image is not the planned one, and its row is better than none."""
    before, rows = masks(unlucky.output), read_rows(unlucky.output)
    unlucky.add("2.png", 12)
    told = rerun(unlucky, retry_errors=True).lines
    assert "0 error rows done again, with their parts" in told
    assert "2 error rows left as they are: the input has changed; use --update to plan it again" in told
    assert masks(unlucky.output) == before
    (unlucky.images / "3.png").unlink()
    told = rerun(unlucky, retry_errors=True).lines
    assert "2 error rows left as they are: the input has changed; use --update to plan it again" in told
    assert (masks(unlucky.output), read_rows(unlucky.output)) == (before, rows)
    assert_sound(unlucky.output)


def test_some_error_rows_again_and_some_not(unlucky: Place) -> None:
    unlucky.write("8.png", b"")  # by --update a shard of its own
    rerun(unlucky, update=True)
    unlucky.write("8.png", png(scene(8)[0]))
    told = rerun(unlucky, retry_errors=True).lines
    assert "2 error rows done again, with their parts" in told
    assert "1 error row left as it is: the input has changed; use --update to plan it again" in told
    assert [(row["id"], row["error"]) for row in read_rows(unlucky.output) if row["error"]] == [("8.png", EMPTY)]
    assert len(read_rows(unlucky.output)) == 7
    assert_sound(unlucky.output)


def test_a_retry_that_breaks_off_is_resumed(unlucky: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise StoreError("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr("segment.pipeline.worker.write_masks", away)
        patch.setattr("segment.runs.rounds._ROUNDS", ("none",))
        with pytest.raises(StoreError, match=r"1 of 3 parts not committed after 1 round: the store is away"):
            rerun(unlucky, retry_errors=True)
    assert not (unlucky.output / "_SUCCESS").exists()  # it does not say that six images are done
    unlucky.run()
    assert [row["error"] for row in read_rows(unlucky.output)] == [None] * 6
    assert_sound(unlucky.output)


def test_the_flags_of_the_command_line(segment: Call, unlucky: Place) -> None:
    unlucky.add("7.png", 7)
    called = segment(*unlucky.flags(), "--retry-errors", "--update")
    assert called.code == 0
    assert "2 error rows done again, with their parts" in called.err
    assert "new in the input: 1 image" in called.err
    assert "7 images · 2 shards · 0 errors · 7 scored" in called.out
    assert_sound(unlucky.output)


# --- what is new in the input -----------------------------------------------------------------------------------------


def test_new_files_are_added_and_nothing_else_is_touched(place: Place) -> None:
    place.run()
    before, when = masks(place.output), written(place.output)
    plan = pq.read_table(place.output / "plan.parquet")
    place.add("4b.png", 14)  # in the middle of the old ones
    place.add("9.png", 9, label=False)
    place.run()
    assert masks(place.output) == before  # a mere rerun keeps its plan
    told = rerun(place, update=True)
    assert told.warnings == [f"1 of 8 images has no label in {place.labels}: segmented, not scored; e.g. 9.png"]
    assert "new in the input: 2 images" in told.lines
    rows = {row["id"]: row for row in read_rows(place.output)}
    expect(rows["4b.png"], 14)
    expect(rows["9.png"], 9, labelled=False)
    assert len(rows) == 8
    assert {name: data for name, data in masks(place.output).items() if name in before} == before
    assert {name: time for name, time in written(place.output).items() if name in when} == when
    longer = pq.read_table(place.output / "plan.parquet")
    assert longer.slice(0, len(plan)).equals(plan)
    assert json.loads((place.output / "_SUCCESS").read_text())["images"] == 8
    assert_sound(place.output)


def test_an_update_without_news_changes_nothing(place: Place) -> None:
    place.run()
    before = {path: path.read_bytes() for path in place.output.rglob("*") if path.is_file()}
    told = rerun(place, update=True).lines
    assert told == ["new in the input: 0 images", "complete already: 6 images, nothing to do"]
    assert {path: path.read_bytes() for path in place.output.rglob("*") if path.is_file()} == before


def test_update_of_what_was_never_begun_is_a_run(place: Place) -> None:
    rerun(place, update=True, retry_errors=True)
    assert len(read_rows(place.output)) == 6
    assert_sound(place.output)


# --- what was replaced in the input -----------------------------------------------------------------------------------


def test_a_mended_image_is_done_again_by_an_update(place: Place) -> None:
    place.write("2.png", b"")
    assert place.run().report.total.errors == 1
    kept = {path.name for path in place.output.glob("masks/*/*.parquet")} - {holding(place.output, "2.png").name}
    place.add("2.png", 12)
    place.add("9.png", 9)
    told = rerun(place, update=True)
    assert told.lines[:2] == ["new in the input: 1 image", "replaced in the input: 1 image, done again with 1 part"]
    rows = read_rows(place.output)
    assert sorted(row["id"] for row in rows) == [*(f"{seed}.png" for seed in range(6)), "9.png"]
    for row in rows:
        expect(row, 12 if row["id"] == "2.png" else int(row["id"][0]))
    assert kept < {path.name for path in place.output.glob("masks/*/*.parquet")}
    assert json.loads((place.output / "_SUCCESS").read_text())["images"] == 7
    assert_sound(place.output)
    before = masks(place.output)
    assert rerun(place, update=True).lines[0] == "new in the input: 0 images"
    assert masks(place.output) == before


def test_a_label_that_came_or_changed_is_scored_by_an_update(place: Place) -> None:
    label = (place.labels / "1.png").read_bytes()
    (place.labels / "1.png").unlink()
    assert place.run().report.total.scored == 5
    (place.labels / "1.png").write_bytes(label)
    (place.labels / "4.png").write_bytes(png(scene(3)[1]))
    told = rerun(place, update=True).lines
    assert "replaced in the input: 2 images, done again with 2 parts" in told
    rows = {row["id"]: row for row in read_rows(place.output)}
    expect(rows["1.png"], 1)
    assert rows["4.png"]["miou"] < 1
    assert json.loads((place.output / "_SUCCESS").read_text())["scored"] == 6
    assert_sound(place.output)


def test_what_is_gone_stays_unless_its_part_is_done_again(place: Place) -> None:
    place.run()
    (place.images / "0.png").unlink()  # of a part with 1.png
    (place.images / "4.png").unlink()  # of a part with 5.png
    place.add("1.png", 11)
    told = rerun(place, update=True).lines
    assert told[1:4] == [
        "new in the input: 0 images",
        "replaced in the input: 1 image, done again with 1 part",
        "gone from the input: 2 images; their committed rows stay, except for 1 in parts that are done again",
    ]
    assert sorted(row["id"] for row in read_rows(place.output)) == [f"{seed}.png" for seed in (1, 2, 3, 4, 5)]
    assert_sound(place.output)


@pytest.mark.parametrize("at", ["reopen", "replace_plan", "rounds"])
def test_an_update_that_breaks_off_is_brought_to_its_end_by_the_next(
    place: Place, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    place.run()
    for name, seed in (("0.png", 10), ("3.png", 13)):
        place.add(name, seed)

    def broken(*_: object, **__: object) -> None:
        raise StoreError("the store is away")

    reopen = Ledger.reopen

    def reopened(ledger: Ledger, *args: Any) -> None:
        reopen(ledger, *args)
        broken()

    with monkeypatch.context() as patch:
        if at == "reopen":
            patch.setattr(Ledger, "reopen", reopened)
        elif at == "replace_plan":
            patch.setattr(Ledger, "replace_plan", broken)
        else:
            patch.setattr("segment.runs.rounds.Rounds.run", broken)
        with pytest.raises(StoreError):
            rerun(place, update=True)
    assert not (place.output / "_SUCCESS").exists()
    if at == "rounds":
        rerun(place)
    else:
        with pytest.raises(InputChanged, match="plan its new content with --update"):
            rerun(place)
        rerun(place, update=True)
    for row in read_rows(place.output):
        expect(row, int(row["id"][0]) + (10 if row["id"] in ("0.png", "3.png") else 0))
    assert len(read_rows(place.output)) == 6
    assert_sound(place.output)


def test_a_listed_image_that_came_is_done_by_an_update(place: Place) -> None:
    lines = [*(f"images/{seed}.png labels/{seed}.png" for seed in range(3)), "images/late.png", "images/0.png"]
    (place.folder / "list.txt").write_text("\n".join(lines))
    job = place.job(input=str(place.folder / "list.txt"))
    assert run(job).total.errors == 2  # the missing one, and the one that is there twice
    place.add("late.png", 8, label=False)
    notes = Notes()
    assert run(job, notes, update=True).total.errors == 1
    assert notes.lines[1:3] == [
        "new in the input: 0 images",
        "replaced in the input: 1 image, done again with 1 part",
    ]
    assert_sound(place.output)


ITEMS = [Item(f"{seed:02d}.png", png(scene(seed)[0]), png(scene(seed)[1])) for seed in range(12)]


@pytest.fixture
def tars(place: Place) -> dict[str, str]:
    """Three tars of four images each, in parts of two."""
    return write_tars(place.folder / "tars", ITEMS, shards=3)


def test_new_tars_are_added(place: Place, tars: dict[str, str]) -> None:
    folder = Path(tars["input"])
    late = (folder / "part-000001.tar").rename(place.folder / "late.tar")
    job = place.job(**tars)
    run(job)
    before = masks(place.output)
    assert len(before) == 4
    late.rename(folder / "part-000001.tar")
    (folder / "part-000009.tar").write_bytes((folder / "part-000002.tar").read_bytes()[:700])
    notes = Notes()
    run(job, notes, update=True)
    cut_off, left_out = notes.warnings
    assert cut_off.startswith(
        f"{folder}/part-000009.tar is truncated within 08.png: 0 images before that, at least 1 lost"
    )
    assert left_out.startswith("left out: at least 1 image after the damage or the end mark of a tar; e.g. 08.png")
    assert "new in the input: 4 images" in notes.lines
    assert sorted(row["id"] for row in read_rows(place.output)) == [f"{seed:02d}" for seed in range(12)]
    assert before.items() <= masks(place.output).items()
    assert_sound(place.output)


def test_a_replaced_tar_is_done_again_by_an_update(place: Place, tars: dict[str, str]) -> None:
    job = place.job(**tars)
    run(job)
    before = masks(place.output)
    others = {name: data for name, data in before.items() if "part-000001" not in name}
    write_tars(place.folder / "new", [Item("04.png", png(scene(20)[0]), png(scene(20)[1])), *ITEMS[5:7]], shards=1)
    (place.folder / "new" / "part-000000.tar").replace(Path(tars["input"]) / "part-000001.tar")
    (Path(tars["input"]) / "part-000002.tar").unlink()
    notes = Notes()
    report = run(job, notes, update=True)
    assert notes.lines[:3] == [
        "new in the input: 0 images",
        "replaced in the input: 4 images, done again with 2 parts",
        "gone from the input: 4 images; their committed rows stay",
    ]
    assert report.total.images == 11
    rows = {row["id"]: row for row in read_rows(place.output)}
    assert sorted(rows) == [f"{seed:02d}" for seed in range(12) if seed != 7]
    expect(rows["04"], 20)
    assert others.items() <= masks(place.output).items()
    assert len(masks(place.output)) == 6
    assert_sound(place.output)


# --- replaced input ---------------------------------------------------------------------------------------------------


@on("local-1", "ray-split")
def test_a_replaced_tar_does_not_stand_in_the_others_way(engine: str, place: Place, tars: dict[str, str]) -> None:
    job = place.job(**tars)
    run(job)
    before = masks(place.output)
    for name in ("masks", "stats"):
        shutil.rmtree(place.output / name)
    tar = Path(tars["input"]) / "part-000001.tar"
    planned, data = tar.stat(), tar.read_bytes()
    tar.write_bytes(
        data.replace(ITEMS[4].image, ITEMS[5].image.ljust(len(ITEMS[4].image), b"\0")[: len(ITEMS[4].image)])
    )
    with pytest.raises(InputChanged) as caught:
        run_on(ENGINES[engine], job)
    assert str(caught.value) == (
        f"2 parts of 6 cannot be done, all others are committed: {tar} has changed since the run was planned. "
        "Restore the original file, or plan its new content with --update."
    )
    others = {name: data for name, data in before.items() if "part-000001" not in name}
    assert len(others) == 4
    assert masks(place.output) == others
    assert not (place.output / "_SUCCESS").exists()
    assert len(list(place.output.glob("stats/*"))) == 2
    tar.write_bytes(data)
    os.utime(tar, ns=(planned.st_atime_ns, planned.st_mtime_ns))
    run(job)
    assert masks(place.output) == before
    assert_sound(place.output)


def test_parts_that_fail_for_the_store_are_told_before_changed_ones(place: Place, tars: dict[str, str]) -> None:
    """One tar is replaced, another may not be read: the run can be resumed for the second, so that is what is said."""
    job = place.job(**tars)
    run(job)
    for name in ("masks", "stats"):
        shutil.rmtree(place.output / name)
    folder = Path(tars["input"])
    os.utime(folder / "part-000001.tar", (1, 1))
    in_the_way = place.output / "masks"
    in_the_way.mkdir()
    (shard,) = [
        row for row in pq.read_table(place.output / "plan.parquet")["shard"].unique().to_pylist() if "000002" in row
    ]
    (in_the_way / shard).write_text("a file where a folder should be")
    with pytest.raises(StoreError) as caught:
        run(job)
    assert str(caught.value).startswith("2 of 6 parts not committed after 3 rounds: could not write ")
    (in_the_way / shard).unlink()
    with pytest.raises(InputChanged, match="2 parts of 6 cannot be done, all others are committed: "):
        run(job)


# --- an output within the input ---------------------------------------------------------------------------------------


def test_an_output_below_its_input_is_no_input(place: Place) -> None:
    output = place.images / "results"
    place.run(output=str(output))
    rows = read_rows(output)
    assert len(rows) == 6
    (output / "report" / "overlay.png").write_bytes(png(scene(1)[0]))  # somebody's picture of a mask
    notes = Notes()
    run(place.job(output=str(output)), notes, update=True)
    assert "new in the input: 0 images" in notes.lines
    assert read_rows(output) == rows
    assert_sound(output)


def test_tables_of_an_output_below_its_input_of_tars_are_no_input(place: Place, tars: dict[str, str]) -> None:
    output = Path(tars["input"]) / "out"
    job = place.job(**tars, output=str(output))
    run(job)
    notes = Notes()
    run(job, notes, update=True)  # else the input would be tars and Parquet files
    assert notes.lines == ["new in the input: 0 images", "complete already: 12 images, nothing to do"]
    other = Path(tars["input"]) / "out2"
    notes = Notes()
    run(place.job(**tars, output=str(other)), notes)
    assert re.match(r"left out: \d+ files in outputs of other runs: \.parquet x .*; e\.g\. out$", notes.lines[0])
    assert masks(other) == masks(output)
    with pytest.raises(UsageError, match=rf"^{output} is the output of a run, and no input; its masks are in masks/$"):
        run(place.job(input=str(output), output=str(place.folder / "out3")))
    (output / "run.json").write_text("{}")  # somebody else's
    with pytest.raises(UsageError, match=r"holds .* Parquet files and 3 tars: select one kind"):
        run(place.job(**tars, output=str(place.folder / "out3")))
