"""Exports and overlays: the content of the files, their names, and refused targets."""

import io
import json
import unicodedata
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segment.errors import UsageError
from segment.images.codec import decode_mask
from segment.images.drawing import borders
from segment.report.exports.writers import Exported
from segment.report.filenames import Names
from segment.runs.driver import run
from segment.store.client import Store
from segment.store.names import safe_path
from tests.calls import Call
from tests.exports import exported, files
from tests.runs import CARD, Place, png, scene
from tests.s3 import S3Server

IDS = [
    "../../evil.png",
    "/etc/passwd",
    "a/b.png",
    "a/B.jpg",
    "a/b.jpg",
    "..",
    "C:\\x.png",
    "a//./c",
    "é漢.png",
    "x\n y",
]
ODD = 9  # of these ids cannot be file names of their own
REST = f"1 error row without a mask, {ODD} under another name than the id (.renamed.jsonl)"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A run over Parquet input, whose ids may be any text."""
    place = Place(tmp_path_factory.mktemp("export"))
    pictures = [png(scene(n)[0]) for n in range(len(IDS))] + [b"no image"]
    table = pa.table({"image": pa.array(pictures, pa.binary()), "id": [*IDS, "broken"]})
    place.images.joinpath("images").mkdir()
    pq.write_table(table, place.images / "images" / "some.parquet", row_group_size=4)
    place.run(input=str(place.images / "images"), id_column="id")
    return place


# --- names -----------------------------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("./\\:"), max_size=300))
def test_a_safe_path_stays_below_its_folder_on_any_system(name: str) -> None:
    path = safe_path(name)
    parts = path.split("/")
    assert all(part and part.strip(".") and part == part.strip(" ") for part in parts)
    assert not PurePosixPath(path).is_absolute()
    assert not set(path) & set('\\:*?"<>|%#\n\0')
    assert all(len(f"{part}-12345678.png".encode()) <= 255 for part in parts)
    assert safe_path(name) == path


ids = st.lists(
    st.one_of(
        st.text(st.sampled_from("aAb./\\-é"), max_size=8),
        st.sampled_from(
            [
                "p.png",
                "p.png/q.png",
                "P.PNG/q",
                "p.png_/q",
                "p",
                "p.jpg",
                "p.tif/q.png",
                "é.png",
                "e\u0301.png",
                "nul",
                "a.",
            ]
        ),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    ),
    unique=True,
    max_size=12,
)


def as_a_disk_sees_it(path: str) -> str:
    """The same text for all names that some file system does not distinguish."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())


@settings(max_examples=300, deadline=None)
@given(ids, st.sampled_from([".png", ".tif"]))
def test_every_image_has_a_file_of_its_own_on_any_system(names: list[str], suffix: str) -> None:
    # some ids equal the generated file names of others, whose digits anybody can compute
    planned = Names(names, suffix)
    names += [name for name in (planned.file("s", one) for one in names) if name not in names]
    chosen = Names(names, suffix)
    paths = [as_a_disk_sees_it(chosen.file("s", name)) for name in names]
    assert len(set(paths)) == len(names)
    folders = {"/".join(path.split("/")[:depth]) for path in paths for depth in range(1, path.count("/") + 1)}
    assert not folders & set(paths)
    assert [chosen.file("s", name) for name in names] == [Names(names[::-1], suffix).file("s", name) for name in names]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("x" * 5000, "x" * 30 + "-"),
        ("d/" * 3000 + "x.png", "d/" * 19 + "d-"),
        ("é" * 300, "é" * 30 + "-"),
        ("con.png", "_con"),
        ("LPT1/a", "_LPT1/a"),
        ("a./b.", "a_/b_"),
        ("a.PNG/b.png", "a.PNG_/b"),
    ],
)
def test_what_cannot_be_a_file_name_becomes_one(name: str, path: str, tmp_path: Path) -> None:
    safe = safe_path(name)
    assert safe.startswith(path)
    assert len(safe.encode()) <= 700
    (tmp_path / f"{safe}.png").parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / f"{safe}.png").write_bytes(b"")


def test_long_names_that_begin_alike_stay_apart() -> None:
    assert safe_path("d/" * 3000 + "x") != safe_path("d/" * 3000 + "y")
    assert safe_path("d" * 3000 + "x") != safe_path("d" * 3000 + "y")


def test_ordinary_names_stay_as_they_are() -> None:
    assert safe_path("street/day 1/0001.v2.png") == "street/day 1/0001.v2"
    assert safe_path("0001") == "0001"
    assert safe_path("a.b") == "a.b"  # `.b` is no image suffix


# --- formats ---------------------------------------------------------------------------------------------------------


def test_png_files_are_the_masks(place: Place, tmp_path: Path) -> None:
    done = exported(place, tmp_path / "deep" / "png", "png")
    assert done == Exported(written=len(IDS), skipped=0, without_mask=1, renamed=ODD)
    found = files(tmp_path)
    assert len(found) == len(IDS)
    assert all(path.resolve().is_relative_to(tmp_path / "deep" / "png") for path in found)
    masks = {decode_mask(path.read_bytes()).tobytes() for path in found}
    assert masks == {scene(n)[1].tobytes() for n in range(len(IDS))}
    names = [path.relative_to(tmp_path / "deep/png").as_posix() for path in found]
    assert len({name.casefold() for name in names}) == len(IDS)  # unique on case-insensitive file systems, too
    assert "é漢.png" in names
    assert "_/_/evil.png" in names


AWKWARD = ["p.png", "p.png/q.png", "P.png", "x" * 5000, "d/" * 2500 + "e.png", "nul", "a.", "plain.png"]


@pytest.fixture(scope="module")
def awkward(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A run over Parquet input with ids that cannot be file names of their own."""
    place = Place(tmp_path_factory.mktemp("awkward"))
    pictures = pa.array([png(scene(n)[0]) for n in range(len(AWKWARD))], pa.binary())
    pq.write_table(pa.table({"image": pictures, "id": AWKWARD}), place.images / "some.parquet")
    place.run(input=str(place.images), id_column="id")
    return place


def test_an_id_that_cannot_be_a_file_name_does_not_stop_an_export(awkward: Place, tmp_path: Path) -> None:
    done = exported(awkward, tmp_path, "png")
    assert done == Exported(written=8, skipped=0, without_mask=0, renamed=7)
    lines = [json.loads(line) for line in (tmp_path / ".renamed.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines] == AWKWARD[:-1]
    for line in [*lines, {"id": "plain.png", "file": "plain.png"}]:
        mask = scene(AWKWARD.index(line["id"]))[1]
        assert np.array_equal(decode_mask((tmp_path / line["file"]).read_bytes()), mask)
    assert exported(awkward, tmp_path, "png") == Exported(written=0, skipped=8, without_mask=0, renamed=7)


def test_an_id_that_cannot_be_a_file_name_does_not_stop_an_overlay(
    segment: Call, awkward: Place, tmp_path: Path
) -> None:
    called = segment("overlay", str(awkward.output), "--sample", "20", "--to", str(tmp_path))
    assert called.code == 0
    assert called.err == "7 overlays under another name: their ids cannot be file names\n"
    assert all(Path(line).is_file() for line in called.out.splitlines())
    assert len(set(called.out.splitlines())) == 8


def test_names_do_not_depend_on_how_far_a_run_is_nor_on_the_others_of_a_call(segment: Call, tmp_path: Path) -> None:
    mine = Place(tmp_path)
    for name in ("a.jpg", "a.png", "b.png"):
        mine.add(name, seed=1)
    mine.run(part_size=1)
    whole = sorted(path.name for path in files_of(mine, tmp_path / "whole"))
    for name in ("a.jpg", "a.png"):
        assert segment("overlay", str(mine.output), "--ids", name, "--to", str(tmp_path / "drawn")).code == 0
    assert {path.name for path in files(tmp_path / "drawn")} == set(whole) - {"b.png"}
    lost = sorted(mine.output.glob("masks/*/*"))[1]
    for file in [lost, *mine.output.glob("stats/*")]:
        file.unlink()
    part = sorted(path.name for path in files_of(mine, tmp_path / "part"))
    assert len(part) == 2
    assert set(part) < set(whole)


def files_of(place: Place, folder: Path) -> list[Path]:
    exported(place, folder, "png")
    return files(folder)


def test_an_image_that_is_listed_twice_keeps_its_name(tmp_path: Path) -> None:
    mine = Place(tmp_path)
    mine.add("a.png", seed=1, label=False)
    listed = mine.images / "list.txt"
    listed.write_text("a.png\na.png\n")
    mine.run(input=str(listed))
    assert [path.name for path in files_of(mine, tmp_path / "to")] == ["a.png"]


def test_an_export_goes_on_where_it_broke_off(place: Place, tmp_path: Path) -> None:
    exported(place, tmp_path, "png")
    before = {path: path.read_bytes() for path in files(tmp_path)}
    lost = next(iter(before))
    lost.unlink()
    assert exported(place, tmp_path, "png") == Exported(written=1, skipped=len(IDS) - 1, without_mask=1, renamed=ODD)
    assert {path: path.read_bytes() for path in files(tmp_path)} == before


def test_masks_of_two_runs_or_formats_are_never_mixed(place: Place, tmp_path: Path) -> None:
    exported(place, tmp_path, "png")
    with pytest.raises(UsageError, match="holds the export of another run or format"):
        exported(place, tmp_path, "voc")


def test_an_export_from_before_an_update_is_not_gone_on_with(tmp_path: Path) -> None:
    mine = Place(tmp_path)
    mine.add("a.png", seed=1)
    mine.run()
    exported(mine, tmp_path / "to", "png")
    mine.add("a.png", seed=2)  # another mask under the same name
    run(mine.job(), update=True)
    with pytest.raises(UsageError, match="of this run before an --update: choose another folder"):
        exported(mine, tmp_path / "to", "png")


def test_a_folder_with_other_files_is_no_destination(place: Place, tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_bytes(b"")
    exported(place, tmp_path, "png")  # an operating system's file is nobody's
    (tmp_path / "mine" / "deeper").mkdir(parents=True)
    (tmp_path / "mine" / "deeper" / "a.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"mine is not empty and holds no export \(deeper/a.png ...\): give a new"):
        exported(place, tmp_path / "mine", "png")
    assert [path.name for path in files(tmp_path / "mine")] == ["a.png"]


@pytest.mark.parametrize("below", ["", "masks", "masks/deeper", "report"])
def test_the_run_itself_is_no_destination(place: Place, below: str) -> None:
    with pytest.raises(UsageError, match="belongs to the run itself"):
        exported(place, place.output / below if below else place.output, "png")


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_the_input_is_no_destination(segment: Call, labelled: Place, kind: str) -> None:
    target = getattr(labelled, kind)
    before = {path: path.read_bytes() for path in target.iterdir()}
    for command in (["export", str(labelled.output), str(target)],
                    ["overlay", str(labelled.output), "--worst", "1", "--to", str(target)]):  # fmt: skip
        called = segment(*command)
        assert (called.code, "holds the input of the run" in called.err) == (2, True)
    assert {path: path.read_bytes() for path in target.iterdir()} == before


def test_an_overlay_takes_no_place_of_an_image_or_label(segment: Call, tmp_path: Path) -> None:
    place = Place(tmp_path)
    for name in ("a.png", "x/a.png"):
        place.add(name, 1)
    place.run()
    for to, more in ((place.images / "x", ()), (place.labels / "x", ()), (place.images / "a.png", ["--contact-sheet"])):
        called = segment("overlay", str(place.output), "--ids", "a.png", "--to", str(to), *more)
        assert (called.code, "is an image or a label of the run" in called.err) == (2, True)
    assert (place.images / "x/a.png").read_bytes() == png(scene(1)[0])


@pytest.mark.parametrize("below", ["", "masks"])
def test_overlays_are_not_written_into_the_run(segment: Call, labelled: Place, below: str) -> None:
    called = segment("overlay", str(labelled.output), "--worst", "1", "--to", str(labelled.output / below))
    assert (called.code, "belongs to the run itself" in called.err) == (2, True)


def test_an_export_to_a_bucket(place: Place, s3_server: S3Server, segment: Call) -> None:
    bucket = s3_server.bucket_url("exports")
    options = [f"--storage-option={key}={value}" for key, value in s3_server.options.items()]
    called = segment("export", str(place.output), f"{bucket}/masks-png", *options)
    assert called.code == 0, called.err
    assert called.out == f"{len(IDS)} files written to {bucket}/masks-png, {REST}\n"
    assert len(Store(s3_server.options).list(f"{bucket}/masks-png")) == len(IDS) + 2


# --- overlays --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("overlay"))
    for n in range(6):
        label = scene(n)[1].copy()
        label[:, : 4 * n] = (label[:, : 4 * n] + 1) % 3
        place.write(f"{n}.png", png(scene(n)[0]), png(label))
    place.write("bad.png", b"", png(scene(9)[1]))
    place.run()
    return place


def test_overlays_of_named_images(segment: Call, labelled: Place, tmp_path: Path) -> None:
    called = segment("overlay", str(labelled.output), "--ids", "2.png", "--ids", "0.png", "--to", str(tmp_path))
    assert called.out.splitlines() == [f"{tmp_path}/2.png", f"{tmp_path}/0.png"]
    picture = cv2.imread(str(tmp_path / "2.png"))[:, :, ::-1]
    pixels, mask = scene(2)
    share = np.where(borders(mask, (3,)), 0.99, 0.55) * (mask != 3)  # class 3, Unlabeled, is left clear
    expected = pixels + share[:, :, None] * (CARD.classes.palette_array[mask] - pixels.astype(float))
    assert np.abs(picture - expected).max() <= 1


def test_overlays_of_the_worst_and_of_a_sample(segment: Call, labelled: Place, tmp_path: Path) -> None:
    from tests.runs import read_rows

    sound = [row for row in read_rows(labelled.output) if row["status"] == "ok"]
    worst = [row["id"] for row in sorted(sound, key=lambda row: row["miou"])][:2]
    called = segment("overlay", str(labelled.output), "--worst", "2", "--to", str(tmp_path))
    assert called.out.splitlines() == [f"{tmp_path}/{name}" for name in worst]
    called = segment("overlay", str(labelled.output), "--sample", "3", "--to", str(tmp_path / "s"))
    assert [Path(line).name for line in called.out.splitlines()] == ["0.png", "2.png", "5.png"]


def test_a_contact_sheet_is_one_picture(segment: Call, labelled: Place, tmp_path: Path) -> None:
    target = tmp_path / "sheet.png"
    assert segment("overlay", str(labelled.output), "--worst=3", "--contact-sheet", "-t", str(target)).code == 0
    picture = Image.open(io.BytesIO(target.read_bytes()))
    assert picture.width == 3 * 326 + 6
    assert segment("overlay", str(labelled.output), "--sample=3", "--contact-sheet", "-t", str(tmp_path)).code == 0
    assert (tmp_path / "contact-sheet.png").exists()


def test_a_contact_sheet_of_very_long_images_stays_small(segment: Call, tmp_path: Path) -> None:
    place = Place(tmp_path)
    for name, shape in (("high.png", (3000, 1, 3)), ("wide.png", (1, 3000, 3))):
        place.write(name, png(np.full(shape, 200, np.uint8)))
    place.run()
    target = tmp_path / "sheet.png"
    assert segment("overlay", str(place.output), "--sample=2", "--contact-sheet", "-t", str(target)).code == 0
    picture = Image.open(io.BytesIO(target.read_bytes()))
    assert picture.width == 2 * 326 + 6
    assert picture.height < 800


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "choose images with one of"),
        (("--worst", "1", "--sample", "1"), "choose images with one of"),
        (("--ids", "nobody.png"), "e.g. nobody.png"),
        (("--ids", "bad.png"), "'bad.png' is an error row"),
    ],
)
def test_overlays_that_cannot_be(segment: Call, labelled: Place, arguments: tuple[str, ...], words: str) -> None:
    called = segment("overlay", str(labelled.output), *arguments)
    assert called.code in (1, 2)
    assert words in called.err


def test_an_overlay_without_its_source_is_the_mask_alone(segment: Call, tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.add("a.png", 1)
    place.run()
    (place.images / "a.png").unlink()
    called = segment("overlay", str(place.output), "--ids", "a.png", "--to", str(tmp_path / "to"))
    assert "1 image is gone, changed, not allowed or too large to draw; its overlay shows the mask only" in called.err
    picture = cv2.imread(str(tmp_path / "to" / "a.png"))[:, :, ::-1]
    assert np.array_equal(picture, CARD.classes.palette_array[scene(1)[1]])


def test_an_export_says_what_it_did(segment: Call, place: Place, tmp_path: Path) -> None:
    first = segment("export", str(place.output), str(tmp_path), "--format", "voc")
    assert first.out == f"{len(IDS) + 2} files written to {tmp_path}, {REST}\n"
    again = segment("export", str(place.output), str(tmp_path), "--format", "voc")
    assert again.out == f"2 files written to {tmp_path}, {len(IDS)} there already, {REST}\n"
    assert json.loads((tmp_path / ".export.json").read_text())["format"] == "voc"
