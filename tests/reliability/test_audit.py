"""`segment audit` and `segment status`: what they say of a sound output and of a damaged one, and their exit codes."""

import io
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segment.errors import SegmentError, StoreError
from segment.output.audit import audit_run
from segment.output.ledger import Ledger
from segment.runs.driver import run
from segment.store.client import Store
from tests.calls import Call
from tests.graphs import colour_classifier
from tests.jobs import tree
from tests.reliability.tampering import reseal
from tests.reliability.trouble import street
from tests.runs import CARD, Notes, Place

VERIFY = "run the same `segment run` again with --verify"
HELD = "every planned image has exactly one row, and the statistics are the sum of the rows"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Five images in three parts, one of them broken; done."""
    place = street(tmp_path, images=4)
    place.write("9.png", b"no image")
    place.run()
    return place


def contents(output: Path) -> dict[str, bytes]:
    return {str(file.relative_to(output)): file.read_bytes() for file in output.rglob("*") if file.is_file()}


def first_masks(place: Place) -> Path:
    return min(place.output.glob("masks/*/*.parquet"))


def short(place: Place, file: Path) -> str:
    return file.relative_to(place.output).as_posix()


@pytest.mark.parametrize("how", [[], ["--deep"]])
def test_a_sound_output(segment: Call, place: Place, how: list[str]) -> None:
    before = contents(place.output)
    called = segment("audit", str(place.output), *how)
    assert (called.code, called.err) == (0, "")
    proof, *read = called.out.splitlines()
    assert proof == f"5 images, 3 parts, 1 shard, 1 error row: {HELD}"
    size = sum(file.stat().st_size for file in place.output.glob("masks/*/*"))
    if how:
        assert read == [f"read 3 masks files, 5 rows, {size:,} bytes, and checked their bytes, masks and counts"]
    else:
        assert read == ["masks were not read: --deep compares every byte with what was written"]
    assert contents(place.output) == before


def test_a_flipped_byte_of_a_mask_is_found_by_reading_every_byte(segment: Call, place: Place) -> None:
    file = first_masks(place)
    data = file.read_bytes()
    group = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0)
    (chunk,) = [c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == "mask.bytes"]
    at = chunk.data_page_offset + chunk.total_compressed_size - 9
    file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    assert segment("audit", str(place.output)).code == 0  # the masks are not looked at
    called = segment("audit", str(place.output), "--deep")
    assert called.code == 1
    assert called.out.splitlines() == [
        f"wrong: {short(place, file)} is not the file that was written (SHA-256): {VERIFY}",
        "the audit found 1 problem (5 images, 3 parts, 1 shard, 1 error row)",
        *called.out.splitlines()[2:],
    ]
    assert called.out.splitlines()[2].startswith("read 3 masks files, 3 rows, ")
    place.run(verify=True)  # as it says
    assert segment("audit", str(place.output), "--deep").code == 0
    assert file.read_bytes() == data


def test_what_is_in_no_plan(segment: Call, place: Place) -> None:
    file = first_masks(place)
    stranger = file.with_name("stranger.parquet")
    shutil.copy(file, stranger)
    (file.parent / ".DS_Store").write_bytes(b"a file manager was here")
    called = segment("audit", str(place.output))
    assert called.code == 1
    assert called.out.splitlines()[0] == f"wrong: {short(place, stranger)} is in no plan: delete it"
    assert called.out.splitlines()[1].startswith("the audit found 1 problem (")


def test_masks_of_another_run(segment: Call, place: Place) -> None:
    file = first_masks(place)
    other = place.folder / "other"
    (place.folder / "other.onnx").write_bytes(colour_classifier(CARD, opset=16))
    place.run(output=str(other), weights=str(place.folder / "other.onnx"))
    shutil.copy(other / short(place, file), file)  # even with the same masks in it
    called = segment("audit", str(place.output))
    assert called.code == 1
    wrong = f"wrong: {short(place, file)} was written by another run (fingerprint): "
    assert called.out.splitlines()[0] == wrong + "run the same `segment run` again with --verify"
    assert called.out.splitlines()[1].startswith("the audit found 1 problem (")


def test_a_part_under_another_ones_name(segment: Call, place: Place) -> None:
    first, second, _ = sorted(place.output.glob("masks/*/*.parquet"))
    shutil.copy(second, first)
    called = segment("audit", str(place.output))
    assert called.code == 1
    assert [line.partition(short(place, first))[2] for line in called.out.splitlines()[:2]] == [
        " holds 2 rows that are not the planned images 0 to 1: run the same `segment run` again with --verify",
        f" has the footer of part {second.stem} with 2 rows: run the same `segment run` again with --verify",
    ]


def test_statistics_that_are_not_the_sum_of_their_parts(segment: Call, place: Place) -> None:
    (stats,) = place.output.glob("stats/*")
    kept = stats.read_bytes()
    other = place.folder / "other"
    place.add("9.png", 9)
    place.run(output=str(other))
    (theirs,) = other.glob("stats/*")
    stats.write_bytes(theirs.read_bytes())
    reseal(place.output)
    called = segment("audit", str(place.output))
    assert called.code == 1
    wrong = f"wrong: {short(place, stats)} is not the sum of its parts: run the same `segment run` again with --verify"
    assert called.out.splitlines()[0] == wrong
    place.run(verify=True)  # as it says
    assert stats.read_bytes() == kept
    assert segment("audit", str(place.output)).code == 0


@pytest.mark.parametrize("column", ["tp", "fn", "label_pixels", "predicted_pixels", "iou", "class_name"])
def test_any_column_of_the_statistics_that_does_not_follow_from_the_rows(
    segment: Call, place: Place, column: str
) -> None:
    (file,) = place.output.glob("stats/*")
    kept, table = file.read_bytes(), pq.read_table(file)
    at, values = table.schema.get_field_index(column), table[column].to_pylist()
    values[0] = "other" if column == "class_name" else 0.5 if column == "iou" else values[0] + 1
    field = table.schema.field(at)
    pq.write_table(table.set_column(at, field, pa.array(values, field.type)), file, write_page_checksum=True)
    reseal(place.output)
    called = segment("audit", str(place.output))
    assert (called.code, called.out.splitlines()[0]) == (
        1,
        f"wrong: {short(place, file)} is not the sum of its parts: run the same `segment run` again with --verify",
    )
    place.run(verify=True)  # as it says
    assert file.read_bytes() == kept


def test_what_is_left_out_is_told_with_the_proof(segment: Call, place: Place) -> None:
    output = str(place.folder / "more")
    place.write("more.jp2", b"")
    place.run(output=output)
    called = segment("audit", output)
    assert called.code == 0
    assert called.out.splitlines()[0].startswith("warning: left out: 1 file in a format that is not read: .jp2 x 1")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("plan.parquet", "the run at {} has no plan.parquet: run the same `segment run` again to plan it"),
        ("run.json", "{} holds parts of a run but no run.json"),
    ],
)
@pytest.mark.parametrize("command", ["audit", "status", "report"])
def test_a_lost_file_of_a_run_is_not_called_no_run(
    segment: Call, place: Place, name: str, words: str, command: str
) -> None:
    (place.output / name).unlink()
    called = segment(command, str(place.output))
    assert called.code == 2
    assert called.err.startswith(f"error: {words.format(place.output)}")


def test_a_run_that_broke_off(segment: Call, place: Place) -> None:
    """Two of three parts are committed: both commands say so, and neither touches anything."""
    lost = max(place.output.glob("masks/*/*.parquet"))
    for gone in (lost, *place.output.glob("stats/*"), place.output / "_SUCCESS"):
        gone.unlink()
    before = contents(place.output)
    called = segment("audit", str(place.output))
    assert called.code == 1
    assert called.out.splitlines() == [
        "1 of 5 images not done yet: run the same `segment run` again",
        "so far 4 images, 2 parts, 0 shards, 0 error rows: every image that is done has exactly one row",
    ]
    called = segment("status", str(place.output))
    assert called.code == 0
    assert called.out.splitlines() == [
        "blocks: not complete",
        "4 of 5 images committed (80.0 %)",
        "2 of 3 parts, 0 of 1 shards finished",
        "1 attempt, ended: the same `segment run` resumes the run",
    ]
    assert contents(place.output) == before


def test_statistics_that_cannot_be_read_leave_the_errors_open(segment: Call, place: Place) -> None:
    (stats,) = place.output.glob("stats/*")
    stats.write_bytes(b"damaged")
    called = segment("status", str(place.output))
    assert called.code == 0
    assert "5 of 5 images committed (100.0 %); errors are not known: " in called.out
    assert "is damaged" in called.out


def test_the_status_of_a_run_step_by_step(segment: Call, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    done = ["5 of 5 images committed (100.0 %), 1 error", "3 of 3 parts, 1 of 1 shards finished", "1 attempt"]
    assert segment("status", str(place.output)).out.splitlines() == ["blocks: complete", *done]
    (place.output / "_SUCCESS").unlink()
    assert segment("status", str(place.output)).out.splitlines() == [
        "blocks: all committed, not complete: the same `segment run` ends it, or says why it fails",
        *done,
    ]
    shutil.rmtree(place.output / "masks")
    shutil.rmtree(place.output / "stats")

    def refuse(*_: object, **__: object) -> None:
        raise StoreError("the store is away")

    monkeypatch.setattr("segment.pipeline.worker.write_masks", refuse)
    monkeypatch.setattr("segment.runs.rounds._ROUNDS", ("none",))
    with pytest.raises(StoreError, match="the store is away"):
        place.run()
    called = segment("status", str(place.output))
    assert called.out.splitlines()[1:] == [
        "0 of 5 images committed (0.0 %)",
        "0 of 3 parts, 0 of 1 shards finished",
        "2 attempts, ended: the same `segment run` resumes the run",
    ]
    for timings in (place.output / "runs").glob("*.parquet"):
        timings.unlink()
    assert segment("status", str(place.output)).out.splitlines()[-1] == (
        "2 attempts: the last one goes on, or was killed and the same `segment run` resumes the run"
    )


@pytest.mark.parametrize("command", ["audit", "status"])
def test_where_there_is_no_run(segment: Call, tmp_path: Path, command: str) -> None:
    called = segment(command, str(tmp_path / "nothing"))
    assert (called.code, called.out) == (2, "")
    assert called.err.startswith(f"error: no run at {tmp_path}/nothing: ")
    assert not (tmp_path / "nothing").exists()


def test_a_lost_part_of_a_finished_shard_is_found_at_the_end_and_done_again_in_the_same_run(place: Place) -> None:
    before = tree(place.output)
    lost = max(place.output.glob("masks/*/*.parquet"))
    lost.unlink()
    notes = Notes()
    report = run(place.job(), notes)  # by its statistics the shard is finished; only the audit lists every part
    assert "1 committed part of finished shards has been lost: done again" in notes.lines
    assert report.complete
    assert tree(place.output) == before
    assert (place.output / "_SUCCESS").exists()


def test_what_no_round_can_mend_is_told_and_takes_the_success_back(place: Place) -> None:
    foreign = max(place.output.glob("masks/*/*.parquet")).with_name("foreign.parquet")
    foreign.write_bytes(b"")
    with pytest.raises(SegmentError) as caught:
        place.run()
    assert str(caught.value) == (
        f"the audit of {place.output} found 1 problem:\n"
        f"  masks/{foreign.parent.name}/foreign.parquet is in no plan: delete it"
    )
    assert not (place.output / "_SUCCESS").exists()
    foreign.unlink()
    assert place.run().report.complete


def test_a_small_part_is_audited_by_one_request(tmp_path: Path) -> None:
    """Where it is listed, nobody asks for its size, and no column is a request of its own."""
    requests = []
    for images in (2, 5):
        (tmp_path / str(images)).mkdir()
        place, store = Place(tmp_path / str(images)), Store()
        for number in range(images):
            place.add(f"{number}.png", number)
        output = f"memory://{tmp_path.name}-{images}"
        run(place.job(output=output, part_size=1), Notes())
        assert audit_run(Ledger(store, output)).problems == ()
        requests.append(store.calls)
    assert requests[1] - requests[0] == 3
