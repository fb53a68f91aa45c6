"""Remarks are counted and reported once; a run of which no label can be used ends early."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from segment.errors import TooManyErrors, UsageError
from segment.job import Job
from segment.output.attempts import count_over_attempts, read_attempts
from segment.output.ledger import Ledger
from segment.output.remarks import REMARKS
from segment.runs.driver import run
from segment.store.client import Store
from tests.calls import Call, process, segment
from tests.images.test_decoder_stderr import corrupt_jpeg, with_bad_profile
from tests.runs import Notes, Place, jpeg, png, scene

__all__ = ["segment"]  # a fixture


def several_pages(seed: int) -> bytes:
    picture, _ = scene(seed)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "TIFF", save_all=True, append_images=[Image.fromarray(255 - picture)])
    return buffer.getvalue()


def turned(seed: int) -> bytes:
    """An image that its EXIF orientation turns upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(np.rot90(scene(seed)[0])).save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


def odd_place(folder: Path) -> Place:
    place = Place(folder)
    for seed in range(4):
        place.add(f"{seed}.png", seed)
    for seed in (4, 5, 6):
        place.write(f"{seed}.png", turned(seed), png(scene(seed)[1]))
    for seed in (7, 8):
        place.write(f"{seed}.tif", several_pages(seed), png(scene(seed)[1]))
    return place


TOLD = [
    "3 images: the image is turned by its EXIF orientation and the label has none: the label is taken as turned "
    "already",
    "2 images: the file has several pages or frames; the first one is segmented",
]


def test_rows_of_parquet_without_a_label_are_told(tmp_path: Path) -> None:
    place = Place(tmp_path)
    pictures = [png(scene(seed)[0]) for seed in range(4)]
    labels = [png(scene(seed)[1]) if seed % 2 else None for seed in range(4)]
    for name, given in (("some", labels), ("none", [None] * 4)):
        pq.write_table(
            pa.table({"image": pictures, "label": pa.array(given, pa.binary())}), tmp_path / f"{name}.parquet"
        )
    some = place.run(input=str(tmp_path / "some.parquet"), labels=None)
    assert some.warnings == ["2 images: no label in the label column: segmented, not scored"]
    assert some.report.miou() == 1.0
    none = place.run(input=str(tmp_path / "none.parquet"), labels=None, output=str(tmp_path / "other"))
    assert none.warnings[0].endswith("the label column 'label' is empty in the 4 sampled rows")
    assert none.warnings[1] == "4 images: no label in the label column: segmented, not scored"


def test_remarks_are_counted_told_once_and_kept(tmp_path: Path, segment: Call) -> None:
    place, notes = odd_place(tmp_path), Notes()
    assert run(place.job(workers="2", max_error_rate=0.0), notes).miou() == 1.0
    assert notes.warnings == TOLD
    kept = read_attempts(Ledger(Store(), f"file://{place.output}"))
    assert count_over_attempts(kept, "remarks") == {"label_not_turned": 3, "image_frames": 2}
    status = segment("status", str(place.output)).out
    assert [line.removeprefix("noticed: ") for line in status.splitlines() if "noticed" in line] == TOLD
    assert place.run(workers="2").warnings == []  # no image was segmented, so no remark is repeated


def test_one_class_throughout_is_told_once_a_run_whatever_the_workers(tmp_path: Path) -> None:
    place, notes = Place(tmp_path), Notes()
    for value in range(12):
        place.write(f"{value:02d}.png", png(np.full((24, 32, 3), value, np.uint8)))
    run(place.job(workers="2", part_size=1), notes)
    assert [line.partition(": ")[2] for line in notes.warnings] == [REMARKS["model_one_class"]]


def test_where_nothing_is_noticed_nothing_is_said(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.add("0.png", 0)
    assert place.run().warnings == []


def test_a_json_log_holds_nothing_but_json(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.add("0.png", 0)
    place.write("profile.png", with_bad_profile())
    place.write("corrupt.jpg", corrupt_jpeg())
    place.write("crc.png", png(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8))[:-20] + bytes(20))
    ended = process(sys.executable, "-m", "segment", *place.flags(), "--log-format", "json")
    events = [json.loads(line) for line in ended.stderr.splitlines()]
    assert (ended.returncode, [event["done"] for event in events if event["event"] == "end"]) == (0, [4])
    assert [event["message"] for event in events if event["event"] == "warning"] == [
        f"3 of 4 images have no label in {place.labels}: segmented, not scored; e.g. corrupt.jpg",
        "1 image: the decoder reports damage but returns an image: parts of it may be wrong",
    ]


# --- no label can be used ---------------------------------------------------------------------------------------------


def labelled_place(folder: Path, images: int, label: Any) -> Place:
    place = Place(folder)
    for seed in range(images):
        place.write(f"{seed:03d}.png", png(scene(seed)[0]), label(scene(seed)[1]))
    return place


def seventy_seven(mask: np.ndarray[Any, Any]) -> bytes:
    odd = mask.copy()
    odd[0, 0] = 77
    return png(odd)


def as_jpeg(mask: np.ndarray[Any, Any]) -> bytes:
    return jpeg(np.repeat(mask[:, :, None], 3, axis=2))


def advice(output: Path) -> str:
    return (
        "Other labels (--labels, --label-pattern, --label-key, --label-column) or another meaning (--label-remap) "
        f"are another run: choose another output, or delete {output} first.\nLabels mended in place: the same "
        "command with --update, or with --retry-errors where a Parquet file gives their paths."
    )


def test_a_run_none_of_whose_labels_can_be_used_ends_early_and_says_what_to_do(tmp_path: Path, segment: Call) -> None:
    place = labelled_place(tmp_path, 40, seventy_seven)
    called = segment(*place.flags(max_error_rate=0.05))
    assert called.code == 3
    assert called.err.endswith(
        "\nerror: none of the first 16 labels could be used, for the same reason: label_value: the label holds a value "
        "that is no class and is not ignored (--label-remap says what values mean, '*' all others): 77.\n"
        f"{advice(place.output)}\nWith --max-error-rate 1 the same command continues without them.\n"
    )
    assert len(list(place.output.glob("masks/*/*.parquet"))) < 20
    assert not (place.output / "_SUCCESS").exists()
    # the advice is correct
    with pytest.raises(UsageError, match=r"labels\.remap\.77"):
        place.run(label_remap={"77": "ignore"}, max_error_rate=0.05)
    elsewhere = place.run(label_remap={"77": "ignore"}, max_error_rate=0.05, output=str(tmp_path / "elsewhere"))
    assert (elsewhere.report.complete, elsewhere.report.total.scored) == (True, 40)
    everything = place.run(max_error_rate=1.0)
    assert (everything.report.complete, everything.report.total.errors) == (True, 40)


def test_labels_that_were_mended_where_they_are_are_done_again_by_update(tmp_path: Path) -> None:
    place = labelled_place(tmp_path, 40, seventy_seven)
    with pytest.raises(TooManyErrors):
        place.run(max_error_rate=0.05)
    for seed in range(40):
        (place.labels / f"{seed:03d}.png").write_bytes(png(scene(seed)[1]))
    report = run(place.job(max_error_rate=0.05), update=True)
    assert (report.complete, report.total.scored, report.total.errors) == (True, 40, 0)


def test_labels_that_a_parquet_file_gives_by_path_are_done_again_by_retry_errors(tmp_path: Path) -> None:
    place = labelled_place(tmp_path, 40, seventy_seven)
    names = [f"{seed:03d}.png" for seed in range(40)]
    table = {"image": [(place.images / name).read_bytes() for name in names], "label": [f"labels/{n}" for n in names]}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    job = place.job(input=str(tmp_path / "t.parquet"), labels=None, label_column="label", max_error_rate=0.05)
    with pytest.raises(TooManyErrors, match="or with --retry-errors where a Parquet file gives their paths"):
        run(job)
    for seed, name in enumerate(names):
        (place.labels / name).write_bytes(png(scene(seed)[1]))
    report = run(job, retry_errors=True)
    assert (report.complete, report.total.scored, report.total.errors) == (True, 40, 0)


def test_a_run_that_goes_on_is_not_given_up_for_its_labels(tmp_path: Path) -> None:
    """The first attempt uses 80 of 100 labels, so 16 failed ones of the second do not end the run."""
    place = labelled_place(tmp_path, 80, png)
    place.run(max_error_rate=0.0)
    for seed in range(80, 120):
        place.write(f"{seed:03d}.png", png(scene(seed)[0]), seventy_seven(scene(seed)[1]))
    with pytest.raises(TooManyErrors, match=r"^40 of 120 images failed, more than --max-error-rate 0\.05 allows"):
        run(place.job(max_error_rate=0.05), update=True)


def test_lossy_labels_end_a_run_early_and_can_be_allowed(tmp_path: Path) -> None:
    place = labelled_place(tmp_path, 40, as_jpeg)
    with pytest.raises(TooManyErrors, match=r"label_lossy: .* with --allow-lossy-labels: JPEG\."):
        place.run(max_error_rate=0.05)
    with pytest.raises(UsageError, match=r"labels\.allow_lossy: False there, True now"):
        place.run(allow_lossy_labels=True, max_error_rate=0.05)
    allowed = place.run(
        allow_lossy_labels=True, label_encoding="index", label_remap={"*": 0}, output=str(tmp_path / "b")
    )
    assert (allowed.report.total.errors, allowed.report.total.scored) == (0, 40)


def test_few_images_are_done_to_the_end_and_the_advice_is_the_same(tmp_path: Path) -> None:
    place = labelled_place(tmp_path, 4, seventy_seven)
    with pytest.raises(TooManyErrors) as caught:
        place.run(max_error_rate=0.05)
    assert str(caught.value).startswith(
        "4 of 4 images failed, more than --max-error-rate 0.05 allows; the first is 000"
    )
    assert str(caught.value).endswith(f"\n{advice(place.output)}")


@pytest.mark.parametrize("what", ["one label is sound", "labels fail for two reasons"])
def test_a_run_whose_labels_do_not_all_fail_alike_goes_on(tmp_path: Path, what: str) -> None:
    place = labelled_place(tmp_path, 40, seventy_seven)
    place.write("000.png", png(scene(0)[0]), png(scene(0)[1]) if what == "one label is sound" else b"no image")
    with pytest.raises(TooManyErrors, match=r"^(39|40) of 40 images failed, more than"):
        place.run(max_error_rate=0.05)


def test_a_few_images_at_the_end_do_not_end_a_run_that_allows_for_them(tmp_path: Path) -> None:
    place = labelled_place(tmp_path, 30, png)
    place.run(max_error_rate=0.0)
    for number in range(30, 50):
        place.write(f"{number:03d}.png", png(scene(number)[0]), seventy_seven(scene(number)[1]))
    report = run(place.job(max_error_rate=0.4), update=True)
    assert (report.complete, report.total.errors, report.total.scored) == (True, 20, 30)


def test_images_that_fail_are_no_labels_that_fail(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for number in range(30):
        place.write(f"{number:02d}.png", b"no image", png(scene(number)[1]))
    with pytest.raises(TooManyErrors) as caught:
        place.run(max_error_rate=0.05)
    assert "label" not in str(caught.value)


def test_the_option_is_a_flag_and_a_key(tmp_path: Path, segment: Call) -> None:
    place = Place(tmp_path)
    printed = segment(*place.flags(), "--allow-lossy-labels", "--print-job").out
    assert "allow_lossy_labels = true" in printed
    assert Job(input="a", output="b", model="c").allow_lossy_labels is False
