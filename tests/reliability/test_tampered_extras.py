"""What is beside the masks (confidence, boundaries, metadata) is audited, too, and so are odd things among the objects.

In each test manifest and `_SUCCESS` are made anew, so that only what contradicts itself is told.
"""

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segment.errors import SegmentError
from segment.images.codec import decode_mask
from segment.inputs.parquet.copies import UnpacksTooLarge
from segment.output.audit import audit_run
from segment.output.manifest import MANIFEST
from segment.output.plan import Plan
from segment.output.tables import read_table
from segment.runs.driver import run
from tests.bombs import lying_footer, table_file
from tests.reliability.tampering import Rows, change_json, change_rows, give, ledger_of, masks_files, reseal, swap
from tests.runs import CARD, CARD_TOML, FULL, Notes, Place, list_with_weather, png

OPTIONS = FULL | {"probabilities": ("Road", 2)}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Five images, of which the last is broken."""
    place, listed = list_with_weather(tmp_path_factory.mktemp("done"), 5, broken=True)
    place.run(input=listed, **OPTIONS)
    assert problems(place.output) == []
    return place


@pytest.fixture
def output(done: Place, tmp_path: Path) -> Path:
    shutil.copytree(done.output, tmp_path / "out")
    return tmp_path / "out"


def problems(output: Path) -> list[str]:
    return list(audit_run(ledger_of(output), deep=True).problems)


def again(place: Place, output: Path, *, verify: bool) -> None:
    run(place.job(input=str(place.images / "list.csv"), output=str(output), **OPTIONS), Notes(), verify=verify)


def give_in(column: str, **values: Any) -> Callable[[Rows], None]:
    return lambda rows: rows[0][column].update(values)


def boundary(name: str, value: int) -> Callable[[Rows], None]:
    return lambda rows: rows[0]["boundary"][name].__setitem__(0, value)


WAYS: dict[str, Callable[[Rows], Any]] = {
    "no map": give(confidence=None),
    "garbage for a map": give(confidence={"bytes": b"garbage", "path": None}),
    "a path for a map": give(confidence={"bytes": None, "path": "/etc/passwd"}),
    "no probabilities": give(probabilities=None),
    "no probability of a class": give_in("probabilities", Road=None),
    "a mean beyond 1": give(mean_confidence=7.0),
    "a mean that is no number": give(mean_confidence=float("nan")),
    "no mean": give(mean_confidence=None),
    "a mean of fewer classes": give(class_confidence=[0.5]),
    "no mean of a class of the mask": give(class_confidence=[None] * 4, mean_confidence=0.5),
    "no means of classes": give(class_confidence=None),
    "more boundary than label": boundary("both", 10_000),
    "a boundary below 0": boundary("both", -1),
    "a boundary of no class": boundary("class_id", 99),
    "a boundary of an ignored class": lambda rows: rows[0]["boundary"]["class_id"].__setitem__(-1, 3),
    "a boundary without a count": lambda rows: rows[0]["boundary"]["label"].pop(),
    "no boundary": give(boundary=None),
    "two kept values": swap("meta"),
    "another kept value": give_in("meta", weather="fog"),
    "a brightness that is none": give(brightness=256.0),
    "a brightness below 0": give(brightness=-1.0),
    "no kept values": give(meta=None),
    "a size below 0": give(width=-5, height=-5, status="error", error="undecodable: x", confusion=None, miou=None,
        pixel_accuracy=None, mask=None, confidence=None, probabilities=None, mean_confidence=None,
        class_confidence=None, boundary=None),
    "a mask of an image that could not be segmented": give(status="error", error="undecodable: x", confusion=None,
        miou=None, pixel_accuracy=None),
    "no mask where the label is at fault": give(status="error", error="label_size: x", confusion=None, miou=None,
        pixel_accuracy=None, mask=None),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_what_is_beside_a_mask_cannot_be_changed_unnoticed(output: Path, way: str) -> None:
    change_rows(masks_files(output)[0], WAYS[way])
    reseal(output)
    assert any("--verify" in line for line in problems(output))


@pytest.mark.parametrize("way", ["another kept value", "no boundary"])
def test_verify_mends_it(done: Place, output: Path, way: str) -> None:
    change_rows(masks_files(output)[0], WAYS[way])
    reseal(output)
    again(done, output, verify=True)
    assert [file.read_bytes() for file in masks_files(output)] == [f.read_bytes() for f in masks_files(done.output)]
    assert problems(output) == []


@pytest.mark.parametrize(
    "footer", [{"format": 99}, {"precision": "f16"}, {"files": ["../../etc/passwd"]}, {"part": "\x1b[2J" * 1000}]
)
def test_a_footer_goes_with_its_rows(output: Path, footer: dict[str, Any]) -> None:
    file = masks_files(output)[0]
    table = pq.ParquetFile(file).read()
    known = dict(table.schema.metadata)
    known[b"segment"] = json.dumps(json.loads(known[b"segment"]) | footer).encode()
    pq.write_table(table.replace_schema_metadata(known), file, write_page_checksum=True)
    reseal(output)
    (found,) = problems(output)
    assert "footer" in found
    assert found.isprintable()
    assert len(found) < 600


@pytest.mark.parametrize(
    "change",
    [
        lambda success: success.pop("images"),
        lambda success: success.update(errors=True),
        lambda success: success.update(miou=0.99),
        lambda success: success["sha256"].pop("plan.parquet"),
        lambda success: success["sha256"].update({"run.json": 5}),
    ],
)
def test_success_says_what_a_run_says(done: Place, output: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    change_json(output / "_SUCCESS", change)
    assert [line.endswith(": run the same `segment run` again") for line in problems(output)] == [True]
    again(done, output, verify=False)  # as it says
    assert problems(output) == []


def test_a_class_of_the_border_alone_has_no_confidence(tmp_path: Path) -> None:
    """A mask at the model's size holds the border of a letterbox, which is in no mean."""
    place = Place(tmp_path)
    letterbox = 'channels = "RGB"\nresize = { method = "letterbox", pad = [0, 0, 0] }'
    place.card_path.write_text(CARD_TOML.replace('channels = "RGB"', letterbox))
    place.write("road.png", png(np.full((24, 24, 3), CARD.classes.palette[1], np.uint8)))
    (row,) = place.run(mask_size="model", confidence="maximum").all_rows
    assert set(np.unique(decode_mask(row["mask"]["bytes"])).tolist()) == {1, 3}
    assert row["class_confidence"][3] is None
    assert problems(place.output) == []


def test_masks_may_have_as_many_pixels_as_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segment.output.part_audit.MOST_PNG_PIXELS", 100)
    place = Place(tmp_path)
    place.add("0.png", 0)
    place.run(max_pixels=24 * 32)
    assert problems(place.output) == []


# --- odd things in place of objects -----------------------------------------------------------------------------------


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


MASKS, STATS = "masks/*/*.parquet", "stats/*"
ODD: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "a pipe for a part": (MASKS, os.mkfifo),
    "a device for a part": (MASKS, lambda path: path.symlink_to("/dev/zero")),
    "a link to itself for a part": (MASKS, lambda path: path.symlink_to(path.name)),
    "a part of a terabyte": (MASKS, sparse),
    "statistics of a terabyte": (STATS, sparse),
    "a pipe for statistics": (STATS, os.mkfifo),
}


@pytest.mark.parametrize("way", ODD)
def test_odd_things_are_faults_that_the_advice_mends(done: Place, output: Path, way: str) -> None:
    pattern, make = ODD[way]
    path = min(output.glob(pattern))
    path.unlink()
    make(path)
    found = problems(output)
    assert found
    again(done, output, verify=any("--verify" in line for line in found))
    assert problems(output) == []
    assert path.read_bytes() == (done.output / path.relative_to(output)).read_bytes()


@pytest.mark.parametrize(("pattern", "column"), [(MASKS, "id"), ("plan.parquet", "id"), (MANIFEST, "path")])
def test_kilobytes_that_stand_for_gigabytes_are_not_unpacked(
    output: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, column: str
) -> None:
    monkeypatch.setattr("segment.output.tables._MOST_UNPACKED", 1 << 20)
    file = min(output.glob(pattern))
    table = pq.read_table(file)
    rows = pa.concat_tables([table] * 50)
    at, long = rows.schema.get_field_index(column), pa.array(["a" * (1 << 16)] * len(rows))  # 16 MB of some kB
    rows = rows.set_column(at, rows.schema.field(at), long)
    file.write_bytes(lying_footer(table_file(rows, compression="zstd", dictionary_pagesize_limit=1 << 30)))
    with file.open("rb") as opened, pytest.raises(UnpacksTooLarge):
        (Plan.read if pattern == "plan.parquet" else read_table)(opened)


def test_odd_things_in_no_plan_are_faults(output: Path, tmp_path: Path) -> None:
    os.mkfifo(output / "masks" / "pipe.parquet")
    os.mkfifo(min((output / "masks").iterdir()) / "_x-000000-0123456789abcdef.tif")
    (output / "stats" / "link.parquet").symlink_to("nothing")
    found = problems(output)
    assert [line.endswith(" is in no plan: delete it") for line in found] == [True] * 3


def test_a_folder_with_objects_in_a_file_s_place_is_named(done: Place, output: Path) -> None:
    for pattern in (MASKS, STATS):
        path = min(output.glob(pattern))
        path.unlink()
        path.mkdir()
        (path / "x").touch()
    named = [line.partition(" ")[0] for line in problems(output) if "is a folder, and a file is expected" in line]
    assert len(named) == 2
    for name in named:
        shutil.rmtree(output / name)
    again(done, output, verify=False)
    assert problems(output) == []


def test_nobody_is_advised_to_delete_what_a_link_leads_to(output: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for number in range(3):
        (tmp_path / "mine" / f"{number}.txt").touch()
    (output / "masks" / "linked").symlink_to(tmp_path / "mine")
    (output / "masks" / "up").symlink_to("..")
    words = "is a link to a folder, and in no plan: delete the link, not its target"
    assert problems(output) == [f"masks/{name} {words}" for name in ("linked", "up")]
    moved = (output / "masks").rename(tmp_path / "masks")  # which is no fault; nor is deleting it the remedy
    (output / "masks").symlink_to(moved)
    for name in ("linked", "up"):
        (moved / name).unlink()
    (moved / "x.parquet").touch()
    assert problems(output) == ["masks/x.parquet is in no plan: delete it"]


@pytest.mark.parametrize("name", ["plan.parquet", "run.json", "_SUCCESS", MANIFEST])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Path.mkdir, "it is a folder, and a file is expected: move it away, and run the same command again"),
        (os.mkfifo, "is no regular file: a device, pipe or socket, or of the kernel: move it away, and run"),
        (lambda path: path.symlink_to(path.name), "a symbolic link of its path leads to itself; delete the link"),
        (partial(sparse), "bytes"),
    ],
)
def test_odd_things_for_files_of_the_run_are_told(
    output: Path, name: str, make: Callable[[Path], Any], words: str
) -> None:
    if words == "bytes":
        words = {
            "plan.parquet": "delete it, and the same `segment run` writes it again",
            MANIFEST: "delete it, and the same `segment run` writes it again",
            "run.json": "is not a run of this program: restore it if it is damaged",
        }.get(name, words)
    (output / name).unlink()
    make(output / name)
    if (name, words) == ("_SUCCESS", "bytes"):
        assert problems(output) == ["_SUCCESS is damaged: run the same `segment run` again"]
        return
    with pytest.raises(SegmentError) as caught:
        problems(output)
    assert words in str(caught.value)
    assert ("move it away" in str(caught.value)) is ("move it away" in words)
    assert "can be resumed" not in str(caught.value)
