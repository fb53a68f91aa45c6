"""The bad-input table: what is wrong is named in words, and everything else of the run is right to the last count."""

import ctypes
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from segment.errors import InputChanged, SegmentError, StoreError, TooManyErrors, UsageError
from segment.images.codec import decode_mask
from segment.inputs.parts import Sample
from segment.metrics import Confusion
from segment.models.sessions import Runtime, open_session
from segment.pipeline.stages import Frame, Frames, first_row, segment
from segment.report.console import print_report
from tests.graphs import TRIGGER, as_weights, colour_classifier, nan_graph, out_of_range_graph
from tests.runs import CARD, CLASSES, INDEX_CARD, Outcome, Place, expect, jpeg, png, read_rows, scene

PICTURE, MASK = scene(7)
IMAGE, LABEL = png(PICTURE), png(MASK)
SOUND = {"a.png": 1, "m.png": 2, "zz.png": 3}  # the sound images around each bad one: name and seed


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and has no pixels."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"")))
    packed = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def forged_jpeg(width: int, height: int) -> bytes:
    """A JPEG of a few hundred bytes that declares a size of many megapixels."""
    data = jpeg(PICTURE)
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def with_value(value: int) -> bytes:
    """A label with one pixel of another value."""
    label = MASK.copy()
    label[5, 5] = value
    return png(label)


@dataclass(frozen=True)
class Bad:
    """A row of the table: an image file, its label, the whole text of the error row, and whether its mask is kept."""

    name: str
    image: bytes
    label: bytes | None
    error: str
    keeps_mask: bool = False


HTML = b"<!DOCTYPE html><html><head><title>403 Forbidden</title></head></html>\n"
NO_IMAGE = "not_an_image: the bytes are no JPEG, PNG, WebP, BMP or TIFF image"
DAMAGED = "undecodable: the image is damaged: it could not be decoded"
TOO_MANY = "too_many_pixels: the image's header declares more pixels than --max-pixels allows"
LABEL_DAMAGED = "label_undecodable: the label is damaged or no image"
LABEL_SIZE = "label_size: the label's width and height are not those of its image"
LABEL_VALUE = (
    "label_value: the label holds a value that is no class and is not ignored (--label-remap says what values mean, "
    "'*' all others)"
)
LABEL_COLOUR = (
    "label_colour: the label holds a colour that is not in the palette (--label-remap says what colours mean)"
)
PIXELS = (
    "pixel_format: the image's pixels are of a kind that is not read; supported are, unsigned, grey of up to 8 and of "
    "16 bits, RGB, RGBA and CMYK of 8 and 16, palettes of up to 8, grey with alpha of 8, and JPEGs of 8 bits: "
)
_halved = sorted({tuple(c) for c in (PICTURE // 2).reshape(-1, 3)} - set(CARD.classes.palette))
HALVED = ", ".join("{},{},{}".format(*colour) for colour in _halved[:3])


def tiff(pixels: np.ndarray[Any, Any]) -> bytes:
    return cv2.imencode(".tif", pixels)[1].tobytes()


def cmyk_tiff(pixels: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert("CMYK").save(buffer, "TIFF")
    return buffer.getvalue()


TABLE = [
    Bad("zero-byte.png", b"", LABEL, "empty: the image has no bytes"),
    Bad("garbage.png", bytes(range(256)), LABEL, NO_IMAGE),
    Bad("page.jpg", HTML, LABEL, NO_IMAGE),
    Bad("text.png", b"hello, world\n", None, NO_IMAGE),
    Bad("archive.png", b"PK\x03\x04" + bytes(60), LABEL, NO_IMAGE),
    Bad("truncated.png", IMAGE[: len(IMAGE) // 2], LABEL, DAMAGED),
    Bad("truncated.jpg", jpeg(PICTURE)[:-40], LABEL, DAMAGED),
    Bad("header-only.jpg", jpeg(PICTURE)[:24], LABEL, DAMAGED),
    Bad("bomb.png", png_header(50_000, 50_000), LABEL, TOO_MANY),
    Bad("bomb.jpg", forged_jpeg(12_000, 12_000), LABEL, TOO_MANY),
    Bad(
        "float.tif", tiff(np.ones((24, 32), np.float32)), LABEL, PIXELS + "a TIFF of floating-point numbers of 32 bits"
    ),
    Bad(
        "float-rgb.tif",
        tiff(np.ones((24, 32, 3), np.float32)),
        LABEL,
        PIXELS + "a TIFF of floating-point numbers of 32 bits",
    ),
    Bad("long.tif", tiff(np.ones((24, 32), np.int32)), LABEL, PIXELS + "a TIFF of signed numbers of 32 bits"),
    Bad("truncated.tif", tiff(PICTURE)[:-200], LABEL, DAMAGED),
    Bad("label-size.png", IMAGE, png(MASK[:, :-1]), f"{LABEL_SIZE}: 31x24 for an image of 32x24", keeps_mask=True),
    Bad(
        "label-turned.png",
        IMAGE,
        png(np.ascontiguousarray(MASK.T)),
        f"{LABEL_SIZE}: 24x32 for an image of 32x24",
        keeps_mask=True,
    ),
    Bad("label-value.png", IMAGE, with_value(4), f"{LABEL_VALUE}: 4", keeps_mask=True),
    Bad("label-value-254.png", IMAGE, with_value(254), f"{LABEL_VALUE}: 254", keeps_mask=True),
    Bad("label-colour.png", IMAGE, png(PICTURE // 2), f"{LABEL_COLOUR}: {HALVED}", keeps_mask=True),
    Bad(
        "label-lossy.png",
        IMAGE,
        jpeg(np.repeat(MASK[:, :, None], 3, axis=2)),
        "label_lossy: the label was compressed with loss, so that its pixels are not those that were drawn: use labels "
        "of a lossless format such as PNG, or take these as they are with --allow-lossy-labels: JPEG",
        keeps_mask=True,
    ),
    Bad(
        "label-alpha.png",
        IMAGE,
        png(np.dstack([PICTURE, MASK * 80])),
        "label_alpha: the label has transparent pixels, and no rule says what class they are: write it without alpha",
        keeps_mask=True,
    ),
    Bad(
        "label-cmyk.png",
        IMAGE,
        cmyk_tiff(PICTURE),
        "label_pixels: the label's pixels are of a kind that cannot be read exactly; supported are grey, palette and "
        "RGB of up to 16 bits, and grey TIFF of 32 bits: CMYK colours",
        keeps_mask=True,
    ),
    Bad("label-empty.png", IMAGE, b"", "label_empty: the label has no bytes", keeps_mask=True),
    Bad("label-page.png", IMAGE, HTML, LABEL_DAMAGED, keeps_mask=True),
    Bad("label-truncated.png", IMAGE, LABEL[:-30], LABEL_DAMAGED, keeps_mask=True),
    Bad(
        "label-bomb.png",
        IMAGE,
        png_header(50_000, 50_000),
        f"{LABEL_SIZE}: 50000x50000 for an image of 32x24",
        keeps_mask=True,
    ),
]


def sound_place(folder: Path, **options: Any) -> Place:
    place = Place(folder, **options)
    for name, seed in SOUND.items():
        place.add(name, seed)
    return place


def unharmed(outcome: Outcome, bad: int = 0) -> None:
    """Assert that the sound rows are right, and that the run's totals are theirs."""
    for name, seed in SOUND.items():
        expect(outcome.rows[name], seed)
    report = outcome.report
    assert report.complete
    assert (report.total.images, report.total.errors, report.total.scored) == (len(SOUND) + bad, bad, len(SOUND))
    masks = [scene(seed)[1] for seed in SOUND.values()]
    assert report.total.confusion == sum((Confusion.of(m, m, CLASSES) for m in masks), Confusion.zeros(CLASSES))
    assert report.miou() == 1.0


def is_error(row: dict[str, Any], bad: Bad) -> None:
    assert (row["status"], row["error"]) == ("error", bad.error)
    assert (row["confusion"], row["miou"], row["pixel_accuracy"]) == (None, None, None)
    if bad.keeps_mask:
        assert np.array_equal(decode_mask(row["mask"]["bytes"]), MASK)
        assert (row["width"], row["height"]) == (32, 24)
    else:
        assert (row["mask"], row["width"], row["height"]) == (None, None, None)


# --- images and labels -----------------------------------------------------------------------------------------------


def items() -> Iterator[tuple[str, bytes, bytes | None]]:
    """All of the table, the sound images in between."""
    for bad in TABLE[:6]:
        yield bad.name, bad.image, bad.label
    for name, seed in SOUND.items():
        pixels, mask = scene(seed)
        yield name, png(pixels), png(mask)
    for bad in TABLE[6:]:
        yield bad.name, bad.image, bad.label


def as_tar(place: Place) -> dict[str, Any]:
    with tarfile.open(place.folder / "all.tar", "w") as tar:
        for name, image, label in items():
            stem, _, suffix = name.rpartition(".")
            members = [(f"{stem}-{suffix}.{suffix}", image), (f"{stem}-{suffix}.seg.png", label)]
            for member, data in members:
                if data is not None:
                    header = tarfile.TarInfo(member)
                    header.size = len(data)
                    tar.addfile(header, io.BytesIO(data))
    return {"input": str(place.folder / "all.tar")}


def as_parquet(place: Place) -> dict[str, Any]:
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = list(items())
    table = pa.table(
        {
            "image": pa.array([{"bytes": image, "path": name} for name, image, _ in rows], cell),
            "label": pa.array([None if label is None else {"bytes": label} for *_, label in rows], cell),
            "id": [name for name, *_ in rows],
        }
    )
    pq.write_table(table, place.folder / "all.parquet", row_group_size=4)
    return {"input": str(place.folder / "all.parquet")}


def as_files(place: Place) -> dict[str, Any]:
    for name, image, label in items():
        (place.images / name).write_bytes(image)
        if label is not None:
            (place.images / f"{name}.label").mkdir()
            (place.images / f"{name}.label" / "label.png").write_bytes(label)
    return {"label_pattern": "{dir}/{name}.label/label.png"}


def as_list(place: Place) -> dict[str, Any]:
    as_files(place)
    lines = [
        {
            "image": f"images/{name}",
            "id": name,
            **({"label": f"images/{name}.label/label.png"} if label is not None else {}),
        }
        for name, _, label in items()
    ]
    (place.folder / "all.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"input": str(place.folder / "all.jsonl")}


@pytest.mark.parametrize("write", [as_files, as_tar, as_parquet, as_list])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_whole_table_in_one_run_of_any_format(tmp_path: Path, write: Any, batch_size: int) -> None:
    place = Place(tmp_path)
    outcome = place.run(**write(place), batch_size=batch_size, workers="2", part_size=5)
    rows = outcome.rows
    if write is as_tar:
        rows = {"{}.{}".format(*key.rsplit("-", 1)): row for key, row in rows.items()}
    assert set(rows) == {bad.name for bad in TABLE} | set(SOUND)
    for bad in TABLE:
        is_error(rows[bad.name], bad)
    wrong = {key: row["error"] for key, row in outcome.rows.items() if row["error"]}
    assert outcome.report.errors
    assert all(wrong[error.id] == error.error for error in outcome.report.errors)
    unharmed(Outcome(outcome.report, [{**row, "id": name} for name, row in rows.items()], []), bad=len(TABLE))


def test_images_that_are_odd_but_sound_are_segmented_as_any_other(tmp_path: Path) -> None:
    place = sound_place(tmp_path)
    upright = Image.fromarray(PICTURE)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees to the right
    odd: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "alpha.png": (Image.fromarray(np.dstack([PICTURE, np.full((24, 32), 9, np.uint8)])), {}),
        "alpha.tif": (Image.fromarray(np.dstack([PICTURE, np.full((24, 32), 9, np.uint8)])), {}),
        "palette.png": (upright.quantize(4), {}),
        "plain.bmp": (upright, {}),
        "SHOUTED.WEBP": (upright, {"lossless": True}),
        "turned.png": (upright.transpose(Image.Transpose.ROTATE_90), {"exif": turned}),
    }
    for name, (image, options) in odd.items():
        image.save(place.images / name, **options)
        (place.labels / name).with_suffix(".png").write_bytes(LABEL)
    deep = (PICTURE.astype(np.uint16) * 257)[:, :, ::-1]
    place.write("sixteen.png", cv2.imencode(".png", deep)[1].tobytes(), LABEL)
    outcome = place.run()
    for name in (*odd, "sixteen.png"):
        expect(outcome.rows[name], 7)
    assert outcome.report.total.errors == 0


def test_limits_of_the_job_are_named(tmp_path: Path) -> None:
    place = sound_place(tmp_path)
    place.write("large.png", png(np.zeros((100, 100, 3), np.uint8)))
    place.write("noisy.png", png(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)))
    outcome = place.run(max_pixels=5000, max_image_bytes=1500)
    assert outcome.rows["large.png"]["error"] == TOO_MANY
    assert outcome.rows["noisy.png"]["error"] == "too_many_bytes: the image is larger than --max-image-bytes allows"
    unharmed(outcome, bad=2)


def test_too_many_bad_images_end_the_run_and_a_higher_rate_resumes_it(tmp_path: Path) -> None:
    place = sound_place(tmp_path)
    for name in ("c.png", "d.png"):
        place.write(name, b"")
    with pytest.raises(TooManyErrors) as caught:
        place.run(max_error_rate=0.05)
    assert str(caught.value) == (
        "2 of 5 images failed, more than --max-error-rate 0.05 allows; the first is c.png, empty: the image has no "
        f"bytes.\nAll others are done: `segment report {place.output}` lists failed and left-out images."
    )
    assert not (place.output / "_SUCCESS").exists()
    assert len(read_rows(place.output)) == 5  # so few are done to the end, and reported
    assert json.loads((place.output / "report/summary.json").read_text())["errors"] == 2
    unharmed(place.run(max_error_rate=0.4), bad=2)


# --- labels and images that miss each other --------------------------------------------------------------------------


def test_an_image_without_label_is_segmented_and_not_scored(tmp_path: Path) -> None:
    place = sound_place(tmp_path)
    place.add("bare.png", 7, label=False)
    outcome = place.run()
    expect(outcome.rows["bare.png"], 7, labelled=False)
    for name, seed in SOUND.items():
        expect(outcome.rows[name], seed)
    assert (outcome.report.total.errors, outcome.report.total.scored, outcome.report.miou()) == (0, 3, 1.0)
    assert outcome.warnings == [f"1 of 4 images has no label in {place.labels}: segmented, not scored; e.g. bare.png"]


def test_a_label_without_image_is_a_warning(tmp_path: Path) -> None:
    place = sound_place(tmp_path)
    (place.labels / "idle.png").write_bytes(LABEL)
    outcome = place.run()
    unharmed(outcome)
    assert outcome.warnings == ["left out: 1 label file that no image uses: .png x 1; e.g. idle.png"]


def test_labels_that_fit_no_image_are_refused(tmp_path: Path) -> None:
    place = sound_place(tmp_path)
    place.labels.rename(tmp_path / "gt")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "other.png").write_bytes(LABEL)
    with pytest.raises(UsageError) as caught:
        place.run()
    assert str(caught.value) == (
        f"none of the 3 images has a label: looked for {place.labels}/a.png (or another image suffix); "
        f"1 image there, e.g. {place.labels}/other.png"
    )
    assert not place.output.exists()
    unharmed(place.run(labels=str(tmp_path / "gt")))


def test_listed_files_that_do_not_exist_are_error_rows(tmp_path: Path) -> None:
    place = sound_place(tmp_path)
    place.add("gone.png", 5)
    (place.labels / "gone.png").unlink()
    lines = [*(f"images/{name} labels/{name}" for name in SOUND), "images/gone.png labels/gone.png", "images/never.png"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    outcome = place.run(input=str(tmp_path / "list.txt"))
    rows = {row_id.removeprefix("images/"): row for row_id, row in outcome.rows.items()}
    assert rows["gone.png"]["error"] == "label_missing: the label is listed but does not exist"
    assert rows["never.png"]["error"] == "missing: the image is listed but does not exist"
    unharmed(Outcome(outcome.report, [{**row, "id": name} for name, row in rows.items()], []), bad=2)
    assert outcome.warnings == [
        f"1 of 5 images listed do not exist, e.g. {place.images}/never.png",
        f"1 listed label does not exist, e.g. {place.labels}/gone.png",
        "1 of 5 images listed without a label: segmented, not scored; e.g. images/never.png",
    ]


# --- duplicate ids ---------------------------------------------------------------------------------------------------

DUPLICATE = "duplicate_id: another image of the same shard has this id already"


def test_an_image_listed_twice(tmp_path: Path) -> None:
    place = sound_place(tmp_path)
    names = [*SOUND, "m.png"]
    (place.folder / "list.txt").write_text("".join(f"images/{name} labels/{name}\n" for name in names))
    outcome = place.run(input=str(place.folder / "list.txt"))
    assert [row["id"] for row in outcome.all_rows] == [f"images/{name}" for name in names]
    assert outcome.all_rows[3]["error"] == DUPLICATE
    rows = [{**row, "id": row["id"].removeprefix("images/")} for row in outcome.all_rows]
    unharmed(Outcome(outcome.report, rows, []), bad=1)
    assert outcome.warnings == ["1 image has the id of an earlier one and will be an error row, e.g. images/m.png"]


def test_duplicate_keys_in_a_tar(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with tarfile.open(place.folder / "in.tar", "w") as tar:
        for name, seed in (*SOUND.items(), ("a.png", 9)):
            for member, pixels in ((name, scene(seed)[0]), (name.replace(".png", ".seg.png"), scene(seed)[1])):
                header = tarfile.TarInfo(member)
                header.size = len(png(pixels))
                tar.addfile(header, io.BytesIO(png(pixels)))
    outcome = place.run(input=str(place.folder / "in.tar"))
    assert [row["id"] for row in outcome.all_rows] == ["a", "m", "zz", "a"]
    assert outcome.all_rows[3]["error"] == DUPLICATE
    rows = [{**row, "id": f"{row['id']}.png"} for row in outcome.all_rows]
    unharmed(Outcome(outcome.report, rows, []), bad=1)
    assert outcome.warnings == ["1 image has the id of an earlier one and will be an error row, e.g. a"]


# --- odd names -------------------------------------------------------------------------------------------------------

ODD = [
    "with spaces .png", "p%20q.png", "100%.png", "ü漢字🙂.png", "new\nline.png", "h#x.png", "q?y.png", "tab\t.png",
    " lead.png", "sub dir/deep?/z.png", "plus+&=.png", "quo'te\".png", "back\\slash.png", "[x].png", "{a,b}.png",
    "*.png", "\x1b[31mred.png", "~.png", "a|b`c`*d*<e>.png", "e\u0301.png", "\u202erevo.png",
]  # fmt: skip


@pytest.mark.parametrize("output", ["out", "o %20#?\nü"])
def test_odd_names_are_names_like_any_other(tmp_path: Path, output: str) -> None:
    place = sound_place(tmp_path)
    for seed, name in enumerate(ODD, 10):
        place.add(name, seed)
    place.write("bad\n#?%41.png", HTML)
    outcome = place.run(output=str(tmp_path / output))
    for seed, name in enumerate(ODD, 10):
        expect(outcome.rows[name], seed)
        assert outcome.rows[name]["uri"] == f"file://{place.images}/{name}"
    assert outcome.rows["bad\n#?%41.png"]["error"] == NO_IMAGE
    assert (outcome.report.total.images, outcome.report.total.errors) == (len(ODD) + 4, 1)
    again = place.run(output=str(tmp_path / output))
    assert again.all_rows == outcome.all_rows


def test_odd_names_are_shown_on_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = sound_place(tmp_path)
    place.write("bad\n\x1b[31m#?%41.png", HTML)
    print_report(place.run().report)
    assert "bad\\n\\x1b[31m#?%41.png" in capsys.readouterr().out


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    place = sound_place(tmp_path)
    try:
        (Path(os.fsdecode(os.fsencode(place.images) + b"/bad\xff.png"))).write_bytes(IMAGE)
    except OSError:
        pytest.skip("this file system refuses such names itself")
    with pytest.raises(UsageError) as caught:
        place.run()
    assert str(caught.value) == f"1 file name is not UTF-8, e.g. {place.images}/bad\\xff.png: rename them"
    assert not place.output.exists()


# --- the input as a whole --------------------------------------------------------------------------------------------


def refusal(place: Place, kind: type[SegmentError] = UsageError, **changes: Any) -> str:
    with pytest.raises(kind) as caught:
        place.run(**changes)
    return str(caught.value)


def test_a_missing_input(tmp_path: Path) -> None:
    place = sound_place(tmp_path)
    assert refusal(place, input=str(tmp_path / "nowhere")) == f"nothing at {tmp_path}/nowhere"
    assert refusal(place, input=str(tmp_path / "no*.tar")) == f"nothing at {tmp_path}/no*.tar"
    assert refusal(place, input=f"{tmp_path}/{{a,b}}.tar") == f"nothing at {tmp_path}/a.tar: 2 of 2 are not there"
    assert not place.output.exists()


def test_an_empty_input(tmp_path: Path) -> None:
    place = sound_place(tmp_path)
    (tmp_path / "empty").mkdir()
    assert refusal(place, input=str(tmp_path / "empty")) == f"{tmp_path}/empty is empty: no image"
    (tmp_path / "empty" / "notes.md").write_text("x")
    assert refusal(place, input=str(tmp_path / "empty")) == (
        f"{tmp_path}/empty: 1 file, none of them an image (.md x 1), e.g. {tmp_path}/empty/notes.md"
    )
    (tmp_path / "empty" / "notes.md").rename(tmp_path / "empty" / ".hidden.png")
    assert refusal(place, input=str(tmp_path / "empty")).startswith(
        f"{tmp_path}/empty holds no image; left out: 1 hidden file (its name or a folder of it begins with '.' or '_')"
    )
    assert not place.output.exists()


def test_an_empty_list(tmp_path: Path) -> None:
    place = sound_place(tmp_path)
    (tmp_path / "list.txt").write_text("\n\n")
    assert refusal(place, input=str(tmp_path / "list.txt")) == f"{tmp_path}/list.txt lists no images"


def without_powers() -> None:
    """In a child process of root's: permissions count for it, too. Of anybody else's: nothing."""
    drop, overrides, searches = 24, 1, 2  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    for capability in (overrides, searches):
        ctypes.CDLL(None).prctl(drop, capability, 0, 0, 0)


def run_without_powers(place: Place) -> str:
    """Run in a process for which permissions count; return its last line on stderr. It must end with 1."""
    command = [sys.executable, "-m", "segment", *place.flags(), "--quiet"]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[1],
        preexec_fn=without_powers,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    return done.stderr.splitlines()[-1]


def test_an_input_without_permission(tmp_path: Path) -> None:
    place = sound_place(tmp_path)
    place.images.chmod(0)
    message = run_without_powers(place)
    place.images.chmod(0o700)
    assert message.startswith(f"error: could not list {place.images}: permission denied: check that ")
    assert not place.output.exists()
    unharmed(place.run())


def test_an_image_without_permission_is_no_bad_image(tmp_path: Path) -> None:
    """Store trouble is never a data error: the run fails, what is committed stays, and it resumes."""
    place = sound_place(tmp_path)
    (place.images / "zz.png").chmod(0)
    message = run_without_powers(place)
    (place.images / "zz.png").chmod(0o600)
    assert message.startswith("error: 1 of 2 parts not committed after 3 rounds: could not read /")
    assert "zz.png: permission denied" in message
    assert len(list(place.output.glob("masks/*/*.parquet"))) == 1
    unharmed(place.run())


# --- card, job, output -----------------------------------------------------------------------------------------------


def test_an_unknown_card_key(tmp_path: Path) -> None:
    place = sound_place(tmp_path)
    place.card_path.write_text(place.card_path.read_text().replace("convention", "convetion"))
    message = refusal(place)
    assert message == (f"model card {place.card_path}:\n  metric.convetion: unknown key. Did you mean 'convention'?")
    assert not place.output.exists()


def test_weights_that_do_not_fit_the_card(tmp_path: Path) -> None:
    place = sound_place(tmp_path)
    place.weights_path.write_bytes(colour_classifier(CARD, [(0, 0, 0), (255, 255, 255)]))
    assert "blocks" in refusal(place, SegmentError)
    place.weights_path.write_bytes(b"no model")
    message = refusal(place, SegmentError, output=str(tmp_path / "other"))
    assert message == f"weights {place.weights_path}: this is not an ONNX model: the bytes cannot be parsed"
    assert not list(tmp_path.glob("*/masks"))


def test_a_remap_to_no_class(tmp_path: Path) -> None:
    message = refusal(sound_place(tmp_path), label_remap={"1": "Rood"})
    assert (
        message == "label_remap: remap to 'Rood': no class. Give 'ignore' or one of 0 Sky, 1 Road, 2 Car, 3 Unlabeled"
    )


def test_an_output_that_is_a_file(tmp_path: Path) -> None:
    place = sound_place(tmp_path)
    place.output.write_text("mine")
    assert refusal(place, UsageError) == f"the output {place.output} is a file: give a folder or prefix"
    assert place.output.read_text() == "mine"
    words = f"the output {place.output}/a/b: {place.output} is a file, not a folder"
    assert refusal(place, UsageError, output=f"{place.output}/a/b") == words


def test_an_output_where_no_folder_can_be_made(tmp_path: Path) -> None:
    message = refusal(sound_place(tmp_path), StoreError, output="/proc/nowhere/out")
    assert message.startswith("/proc/nowhere/out cannot take the output of a run: could not write ")
    assert message.endswith("its folder cannot be created: /proc is of a file system that takes no new folders")


def test_an_output_that_holds_the_input(tmp_path: Path) -> None:
    place = sound_place(tmp_path)
    place.output = place.folder
    assert "is, or holds, the input" in refusal(place, UsageError)


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    place = sound_place(tmp_path)
    place.output.mkdir(mode=0o500)
    message = run_without_powers(place)
    place.output.chmod(0o700)
    assert message.startswith(f"error: {place.output} cannot take the output of a run: could not write ")
    assert "permission denied: check that you may read (and for an output: write) this place" in message
    assert list(place.output.iterdir()) == []
    unharmed(place.run())


def test_an_output_that_takes_all_parts_but_one_resumes(tmp_path: Path) -> None:
    place = sound_place(tmp_path)
    place.run()
    in_the_way = max(place.output.glob("masks/*/*.parquet"))
    shutil.rmtree(place.output)
    (in_the_way / "a folder").mkdir(parents=True)
    message = refusal(place, StoreError)
    begin = f"1 of 2 parts not committed after 3 rounds: could not write {in_the_way}: it is a folder, "
    assert message.startswith(begin)
    assert message.count("same command") == 1
    assert message.endswith("Committed parts stay; the same command resumes the run.")
    shutil.rmtree(in_the_way)
    unharmed(place.run())


@pytest.mark.parametrize("data", ['{"version": 2, "runs": []}', "[1, 2]", "not json at all"])
def test_an_output_with_somebody_elses_run_json(tmp_path: Path, data: str) -> None:
    place = sound_place(tmp_path)
    place.output.mkdir()
    (place.output / "run.json").write_text(data)
    message = refusal(place)
    words = "is not a run of this program: restore it if it is damaged, or choose another output"
    assert message == f"{place.output}/run.json {words}"
    assert [file.name for file in place.output.iterdir()] == ["run.json"]
    assert (place.output / "run.json").read_text() == data


def test_an_output_of_another_run(tmp_path: Path) -> None:
    place = sound_place(tmp_path)
    first = place.run()
    place.write("b.png", IMAGE, LABEL)
    message = refusal(place, label_encoding="index")
    assert message.startswith(f"{place.output} holds another run; its masks would mix with these:\n")
    assert "  labels.encoding: 'auto' there, 'index' now\n" in message
    assert place.run().all_rows == first.all_rows  # the plan is frozen: what came later is not in it


def test_an_input_that_changed_between_plan_and_run(tmp_path: Path) -> None:
    place = sound_place(tmp_path)
    place.run()
    shutil.rmtree(place.output / "masks")
    shutil.rmtree(place.output / "stats")
    image = place.images / "zz.png"
    planned = image.stat()
    before = "1 part of 2 cannot be done, all others are committed: "
    put_back = "Restore the original file, or plan its new content with --update."
    image.unlink()
    message = refusal(place, InputChanged)
    assert message == f"{before}{image} has vanished since the run was planned. {put_back}"
    place.write("zz.png", png(scene(SOUND["zz.png"])[0]))  # the same bytes, but who knows that?
    message = refusal(place, InputChanged)
    assert message == f"{before}{image} has changed since the run was planned. {put_back}"
    os.utime(image, ns=(planned.st_atime_ns, planned.st_mtime_ns))
    unharmed(place.run())


# --- the model's output ----------------------------------------------------------------------------------------------


def poisoned() -> bytes:
    """A picture that makes `nan_graph` and `out_of_range_graph` misbehave at one pixel."""
    pixels = PICTURE.copy()
    pixels[3, 4] = TRIGGER
    return png(pixels)


def spoilt(outcome: Outcome, names: Sequence[str], error: str) -> None:
    for name in names:
        row = outcome.rows[name]
        assert (row["status"], row["error"], row["mask"], row["confusion"]) == ("error", error, None, None)
        assert (row["width"], row["height"]) == (32, 24)
    unharmed(outcome, bad=len(names))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_scores_that_are_no_numbers(tmp_path: Path, batch_size: int, runtime: str) -> None:
    place = sound_place(tmp_path, graph=nan_graph(CARD))
    for name in ("nan.png", "nan2.png"):
        place.write(name, poisoned(), LABEL)
    outcome = place.run(batch_size=batch_size, part_size=5, runtime=runtime, precision="f32")
    spoilt(outcome, ["nan.png", "nan2.png"], "model_not_finite: the model's scores are not finite numbers")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("shift", [4, 300, -5])
def test_a_class_out_of_range(tmp_path: Path, shift: int, runtime: str) -> None:
    graph = out_of_range_graph(INDEX_CARD, shift=shift)
    place = sound_place(tmp_path, graph=graph, card=INDEX_CARD)
    place.write("range.png", poisoned(), LABEL)
    outcome = place.run(batch_size=4, part_size=5, runtime=runtime, precision="f32")
    spoilt(outcome, ["range.png"], "model_range: the model predicted a class index or a probability out of range")


def test_faults_belong_to_their_image_whatever_the_batches() -> None:
    """A part of more images than a batch, as a GPU gets it, one of which has no pixels."""
    session = open_session(CARD, as_weights(nan_graph(CARD)), Runtime("onnxruntime", "cpu", "f32", ""))
    poisoned_picture = PICTURE.copy()
    poisoned_picture[3, 4] = TRIGGER
    pixels = np.stack([PICTURE, PICTURE, PICTURE, poisoned_picture])
    rows = [replace(first_row(Sample(str(i), "", i, b"", None)), size=(24, 32)) for i in range(5)]
    rows[1] = replace(rows[1], size=None, error="empty")
    found = segment(Frames([Frame(row) for row in rows], pixels), session, batch_size=3)
    errors = [image.row.error and image.row.error.partition(":")[0] for image in found.images]
    assert errors == [None, "empty", None, None, "model_not_finite"]
    masks = [image.mask for image in found.images]
    assert masks.pop(1) is None
    assert np.array_equal(np.stack(masks[:3]), [MASK] * 3)
    assert len(found.pixels) == 0
