"""The formats of an export: their encodings against other implementations, their files, odd names and colours."""

import copy
import csv
import io
import json
import time
import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as their_rle
from pycocotools.coco import COCO

from segment.models.classes import Classes
from segment.output.ledger import Ledger
from segment.report.exports import label_studio
from segment.report.exports.class_runs import ClassRuns, class_runs
from segment.report.exports.coco import compress
from segment.report.exports.exporting import _write, export
from segment.report.exports.json_files import JsonArray, JsonObject
from segment.report.exports.masked_images import MaskedImage
from segment.report.exports.voc import LabelMap, distinct_colours
from segment.report.exports.writers import Export, Exported, Writer
from segment.report.filenames import Names
from segment.store.client import Store
from segment.store.foreign_text import in_cell, in_label_map, visible
from tests.calls import Call
from tests.exports import exported, files, street
from tests.runs import CARD, Place, png, scene
from tests.tars import tar
from tests.written_runs import Made, read_template, write_run

Masks = dict[str, NDArray[np.uint8]]
CLASSES = len(CARD.classes)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Masks]:
    return street(tmp_path_factory.mktemp("formats"))


@st.composite
def masks(draw: st.DrawFn) -> NDArray[np.uint8]:
    """Masks of few or many runs, some with pixels of no class."""
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    seed, block = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 40))
    values = draw(st.sampled_from([[0], [0, 1], [3, 255], [0, 1, 2, 3, 254], [255]]))
    small = np.random.default_rng(seed).choice(np.array(values, np.uint8), (-(-height // block), -(-width // block)))
    return np.kron(small, np.ones((block, block), np.uint8))[:height, :width]


class Watched(Writer[None]):
    """Notes how many images are converted at once."""

    now = most = 0

    def convert(self, image: MaskedImage) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        time.sleep(0.02)
        self.now -= 1

    def collect(self, image: MaskedImage, converted: None) -> None: ...


class Images(list[MaskedImage]):
    without_mask = resized = not_done = tars_left = 0


@pytest.mark.parametrize(
    ("stored", "needs_whole_masks"), [(b"II*\0", True), (b"II*\0", False), (png(scene(0)[1]), True)]
)
def test_large_masks_are_decoded_one_at_a_time(stored: bytes, needs_whole_masks: bool, tmp_path: Path) -> None:
    writer = Watched(Export(CARD, Store(), f"file://{tmp_path}/to", Names([]), tmp_path, Exported()))
    writer.needs_whole_masks = needs_whole_masks  # type: ignore[misc]
    _write(writer, Images(MaskedImage("s", str(n), "u", n, True, None, stored) for n in range(8)))  # type: ignore[arg-type]
    assert (writer.most == 1) == (stored[:1] == b"I" and needs_whole_masks)


# --- run lengths ------------------------------------------------------------------------------------------------------


def check_coco(mask: NDArray[np.uint8], classes: int) -> None:
    found = {runs.index: runs for runs in class_runs([mask], mask.shape, classes, "columns")}
    assert list(found) == [value for value in np.unique(mask).tolist() if value < classes]
    for index, runs in found.items():
        theirs = their_rle.encode(np.asfortranarray(mask == index, dtype=np.uint8))
        assert compress(runs.counts) == theirs["counts"].decode()
        assert runs.area == their_rle.area(theirs)
        assert runs.box(mask.shape[0]) == their_rle.toBbox(theirs).tolist()


@settings(max_examples=300, deadline=None)
@given(masks())
def test_run_lengths_are_those_of_pycocotools(mask: NDArray[np.uint8]) -> None:
    check_coco(mask, 255)
    check_coco(mask, 2)


def test_long_runs_are_those_of_pycocotools() -> None:
    mask = np.zeros((2000, 1001), np.uint8)
    check_coco(mask, 2)
    mask[17, 3], mask[-1, -1] = 1, 1
    check_coco(mask, 2)


@settings(max_examples=100, deadline=None)
@given(masks(), st.integers(1, 5), st.sampled_from(["rows", "columns"]))
def test_runs_are_the_same_by_strips(mask: NDArray[np.uint8], rows: int, order: Any) -> None:
    strips = (mask[top : top + rows] for top in range(0, len(mask), rows))
    found, wanted = (list(class_runs(some, mask.shape, 255, order)) for some in (strips, [mask]))
    assert [runs.index for runs in found] == [runs.index for runs in wanted]
    assert all(np.array_equal(one.counts, other.counts) for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize("order", ["rows", "columns"])
def test_runs_of_a_large_mask_take_the_memory_of_a_strip(order: Any) -> None:
    """And encoding them that of the bytes: a mask of 64 MB, strips of 2 MB."""
    blocks = np.random.default_rng(0).integers(0, 5, (16, 16)).astype(np.uint8)
    strips = (blocks[row // 2].repeat(500)[None].repeat(250, 0) for row in range(32))
    tracemalloc.start()
    encode = label_studio.brush_lengths if order == "rows" else compress
    sizes = [len(encode(runs.counts)) for runs in class_runs(strips, (8000, 8000), 5, order)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(sizes) == 5
    assert peak < 64e6 / 3


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=9).filter(lambda counts: all(counts[1:])))
def test_counts_of_any_size_decode_to_themselves(counts: list[int]) -> None:
    """By the description of the format: pycocotools would need the pixels."""
    found, place = [], 0
    text = compress(np.array(counts))
    while place < len(text):
        number, shift, more = 0, 0, True
        while more:
            bits = ord(text[place]) - 48
            number |= (bits & 31) << shift
            more, shift, place = bool(bits & 32), shift + 5, place + 1
        number -= (1 << shift) * ((number >> shift - 1) & 1)
        found.append(number + (found[-2] if len(found) > 2 else 0))
    assert found == counts


def unbrushed(data: bytes) -> NDArray[np.uint8]:
    """The bytes that a brush's bit stream stands for."""
    bits = iter("".join(f"{byte:08b}" for byte in data))

    def read(number: int) -> int:
        return int("".join(next(bits) for _ in range(number)), 2)

    length, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]

    def values() -> Iterator[int]:
        passed = 0
        while passed < length:
            repeated, number = read(1), read(sizes[read(2)]) + 1
            yield from [read(word)] * number if repeated else [read(word) for _ in range(number)]
            passed += number

    return np.fromiter(values(), np.uint8)


def brush(runs: ClassRuns) -> NDArray[np.uint8]:
    return unbrushed(label_studio.brush_lengths(runs.counts))


@settings(max_examples=100, deadline=None)
@given(masks())
def test_a_brush_covers_the_pixels_of_its_class(mask: NDArray[np.uint8]) -> None:
    for runs in class_runs([mask], mask.shape, 255, "rows"):
        expected = np.repeat((mask == runs.index).ravel() * np.uint8(255), 4)
        assert np.array_equal(brush(runs), expected)


@pytest.mark.parametrize("pixels", [2, 4, 64, 65, 1 << 14, (1 << 14) + 1, 3 << 14])
def test_runs_of_a_brush_at_the_bounds_of_their_sizes(pixels: int) -> None:
    mask = np.repeat(np.array([[0, 1, 0]], np.uint8), pixels, axis=1)
    for runs in class_runs([mask], mask.shape, 2, "rows"):
        assert np.array_equal(brush(runs), np.repeat((mask == runs.index).ravel() * np.uint8(255), 4))


# --- names and colours ------------------------------------------------------------------------------------------------

ODD_NAMES = ["a:b", "two\nlines", "x, y", "=1+1", "#hash", "", "a_b", "  ", "\u2028"]


def test_odd_class_names_stand_on_a_line_each() -> None:
    assert in_label_map(ODD_NAMES) == [
        "a_b-2",
        "two lines",
        "x, y",
        "=1+1",
        "_hash",
        "class",
        "a_b",
        "class-2",
        "class-3",
    ]
    assert in_label_map(CARD.classes.names) == list(CARD.classes.names)


@given(st.lists(st.text(st.sampled_from("ab_-2:# \n,=") | st.characters(exclude_categories=["Cs"])), unique=True))
def test_written_names_are_unique_and_hold_no_separator(names: list[str]) -> None:
    written = in_label_map(names)
    assert len(set(written)) == len(names)
    for name, clean in zip(names, written, strict=True):
        assert clean == clean.strip()
        assert clean.isprintable()
        assert ":" not in clean
        assert not clean.startswith("#")
        assert clean
        assert (clean == name) or name not in written


@given(st.lists(st.tuples(*[st.sampled_from([0, 1, 2, 254, 255])] * 3), min_size=1, max_size=255))
def test_written_colours_are_unique(palette: list[tuple[int, int, int]]) -> None:
    colours = distinct_colours(palette)
    assert len(set(colours)) == len(palette)
    first = [n for n, colour in enumerate(palette) if colour not in palette[:n]]
    assert [colours[n] for n in first] == [palette[n] for n in first]


def test_one_grey_for_each_of_255_equal_colours() -> None:
    assert len(set(distinct_colours([(9, 9, 9)] * 255))) == 255
    greys = [(grey, grey, grey) for grey in range(1, 255)]
    assert len(set(distinct_colours([*greys, greys[0]]))) == 255


def test_a_label_map_tells_what_it_changes() -> None:
    palette = [(n, 0, 0) for n in range(len(ODD_NAMES) - 1)]
    labels = LabelMap(Classes.model_construct(names=tuple(ODD_NAMES), palette=(*palette, palette[0])))
    lines = [line.split(":") for line in labels.to_bytes().decode().splitlines()]
    assert lines[0] == ["# label", "color_rgb", "parts", "actions"]
    assert [line[0] for line in lines[1:]] == in_label_map(ODD_NAMES)
    assert all(len(line) == 4 for line in lines)
    assert len({line[1] for line in lines}) == len(lines)
    assert labels.notes[0] == "class 'a:b' is called 'a_b-2' in labelmap.txt"
    assert labels.notes[-1].endswith("has the colour of an earlier class: it is written in 1,1,1")


def test_odd_class_names_come_back_from_csv_and_xml() -> None:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerow([in_cell(name) for name in ODD_NAMES])
    (read,) = csv.reader(io.StringIO(buffer.getvalue(), newline=""))
    assert read == [f"'{name}" if name.startswith("=") else visible(name) for name in ODD_NAMES]
    classes = Classes(names=("<&\"'> =", "b"), palette=((1, 2, 3), (255, 0, 10)))
    labels = ElementTree.fromstring(label_studio.interface(classes)).iter("Label")
    assert [(label.get("value"), label.get("background")) for label in labels] == [
        ("<&\"'> =", "#010203"),
        ("b", "#ff000a"),
    ]


# --- files ------------------------------------------------------------------------------------------------------------


def test_voc_files_have_the_palette_and_the_same_indices(run: tuple[Place, Masks], tmp_path: Path) -> None:
    place, expected = run
    done = exported(place, tmp_path, "voc")
    assert (done.written, done.without_mask, done.notes) == (7, 1, [])
    for name, mask in expected.items():
        picture = Image.open(tmp_path / "SegmentationClass" / name)
        assert picture.mode == "P"
        assert np.array_equal(np.asarray(picture), mask)
        assert np.array_equal(np.asarray(picture.convert("RGB")), CARD.classes.palette_array[mask])
    lines = (tmp_path / "labelmap.txt").read_text().splitlines()
    classes = zip(CARD.classes.names, CARD.classes.palette, strict=True)
    assert lines[1:] == [f"{name}:{r},{g},{b}::" for name, (r, g, b) in classes]
    listed = (tmp_path / "ImageSets/Segmentation/default.txt").read_text("utf-8").splitlines()
    assert listed == [name.removesuffix(".png") for name in expected]


def test_the_zip_for_cvat_holds_what_voc_has(run: tuple[Place, Masks], tmp_path: Path) -> None:
    exported(run[0], tmp_path / "voc", "voc")
    assert exported(run[0], tmp_path / "cvat", "cvat").written == 1
    (path,) = files(tmp_path / "cvat")
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    voc = tmp_path / "voc"
    assert held == {file.relative_to(voc).as_posix(): file.read_bytes() for file in files(voc)}
    exported(run[0], tmp_path / "again", "cvat")
    assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def decoded(coco: COCO, image: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The mask of an image, whose classes must not overlap."""
    mask = np.full(shape, 255, np.uint8)
    for one in coco.loadAnns(coco.getAnnIds(imgIds=image)):
        pixels = coco.annToMask(one).astype(bool)
        assert (mask[pixels] == 255).all()
        assert one["area"] == pixels.sum()
        mask[pixels] = one["category_id"] - 1
    return mask


def test_coco_files_and_results_decode_by_pycocotools(run: tuple[Place, Masks], tmp_path: Path) -> None:
    place, expected = run
    exported(place, tmp_path, "coco-stuff")
    coco = COCO(tmp_path / "annotations/stuff_default.json")
    categories = [(category["id"], category["name"]) for category in coco.loadCats(coco.getCatIds())]
    assert categories == list(enumerate(CARD.classes.names, 1))
    results = coco.loadRes(str(tmp_path / "results.json"))
    images = coco.loadImgs(coco.getImgIds())
    assert [image["file_name"] for image in images] == list(expected)
    for image in images:
        mask = expected[image["file_name"]]
        assert (image["height"], image["width"]) == mask.shape
        assert np.array_equal(decoded(coco, image["id"], mask.shape), mask)
        assert np.array_equal(decoded(results, image["id"], mask.shape), mask)
    ids = [one["id"] for one in coco.dataset["annotations"]]
    assert len(set(ids)) == len(ids)


def test_panoptic_files_are_as_coco_describes_them(run: tuple[Place, Masks], tmp_path: Path) -> None:
    place, expected = run
    exported(place, tmp_path, "coco-panoptic")
    content = json.loads((tmp_path / "annotations/panoptic_default.json").read_text("utf-8"))
    assert all(set(category) >= {"id", "name", "isthing", "color"} for category in content["categories"])
    names = {image["id"]: image["file_name"] for image in content["images"]}
    for annotation in content["annotations"]:
        mask = expected[names[annotation["image_id"]]]
        picture = np.asarray(Image.open(tmp_path / "annotations/panoptic_default" / annotation["file_name"]))
        ids = picture.astype(np.int64) @ [1, 256, 256**2]
        assert np.array_equal(ids, mask.astype(np.int64) + 1)
        assert [segment["id"] for segment in annotation["segments_info"]] == np.unique(ids).tolist()
        for segment in annotation["segments_info"]:
            x, y, width, height = cv2.boundingRect((ids == segment["id"]).astype(np.uint8))
            assert segment["bbox"] == [x, y, width, height]
            assert segment["area"] == (ids == segment["id"]).sum()
            assert (segment["category_id"], segment["iscrowd"]) == (segment["id"], 0)
    assert len(content["annotations"]) == len(expected)


def quality(truth: Path, prediction: Path) -> dict[int, float]:
    """Panoptic quality by category, by the formula of Kirillov et al. 2019 as panopticapi computes it from such files.

    Segments of one category match where their IoU is above one half: PQ = sum of IoU / (TP + FP / 2 + FN / 2).
    """
    files = [
        json.loads((folder / "annotations/panoptic_default.json").read_text("utf-8")) for folder in (truth, prediction)
    ]
    annotations = [{one["image_id"]: one for one in file["annotations"]} for file in files]
    iou, matched, all_segments = Counter[int](), Counter[int](), Counter[int]()
    for image in annotations[0]:
        ids, areas = [], []
        for folder, of_image in zip((truth, prediction), annotations, strict=True):
            picture = np.asarray(Image.open(folder / "annotations/panoptic_default" / of_image[image]["file_name"]))
            ids.append(picture.astype(np.int64) @ [1, 256, 256**2])
            areas.append({one["id"]: one for one in of_image[image]["segments_info"]})
            assert set(np.unique(ids[-1])) - {0} == set(areas[-1])  # panopticapi refuses others
            all_segments.update(one["category_id"] for one in areas[-1].values())
        for (first, second), pixels in Counter(
            zip(ids[0].ravel().tolist(), ids[1].ravel().tolist(), strict=True)
        ).items():
            if not first or not second:
                continue
            one, other = areas[0][first], areas[1][second]
            share = pixels / (one["area"] + other["area"] - pixels)
            if one["category_id"] == other["category_id"] and share > 0.5:
                iou[one["category_id"]] += share
                matched[one["category_id"]] += 1
    return {category: iou[category] / (number / 2) for category, number in all_segments.items()}


def test_panoptic_quality_of_two_exports_is_that_of_their_masks(run: tuple[Place, Masks], tmp_path: Path) -> None:
    place, expected = run
    other = Place(tmp_path)
    for seed, name in enumerate(expected):  # the same names, other scenes: each image's is the one before
        other.write(name, png(scene(max(0, seed - 1))[0]))
    other.write("broken.png", b"no image")  # image ids are positions in the plan
    other.run()
    for one, folder in ((place, tmp_path / "a"), (other, tmp_path / "b")):
        exported(one, folder, "coco-panoptic")
    assert quality(tmp_path / "a", tmp_path / "a") == dict.fromkeys(quality(tmp_path / "a", tmp_path / "a"), 1.0)
    found = quality(tmp_path / "a", tmp_path / "b")
    masks = [(expected[name], scene(max(0, seed - 1))[1]) for seed, name in enumerate(expected)]
    for category, value in found.items():
        here = [(a == category - 1, b == category - 1) for a, b in masks]
        shares = [(a & b).sum() / (a | b).sum() for a, b in here if (a | b).any()]
        hits = [share for share in shares if share > 0.5]
        segments = sum(int(a.any()) + int(b.any()) for a, b in here)
        assert value == pytest.approx(2 * sum(hits) / segments)
    assert 0 < max(found.values()) < 1


def test_tasks_of_label_studio(run: tuple[Place, Masks], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, expected = run
    monkeypatch.setattr(label_studio, "_TASKS_PER_FILE", 2)
    done = exported(place, tmp_path, "label-studio")
    assert [file.name for file in files(tmp_path)] == ["labels.xml", *(f"tasks-0000{n}.json" for n in (1, 2, 3))]
    assert (done.written, done.notes) == (4, [])
    tasks = [task for file in files(tmp_path)[1:] for task in json.loads(file.read_text("utf-8"))]
    assert [task["data"]["id"] for task in tasks] == list(expected)
    for task in tasks:
        mask = expected[task["data"]["id"]]
        (prediction,) = task["predictions"]
        found = np.full(mask.shape, 255, np.uint8)
        for one in prediction["result"]:
            assert (one["original_height"], one["original_width"]) == mask.shape
            pixels = unbrushed(bytes(one["value"]["rle"])).reshape(*mask.shape, 4)[:, :, 3] > 0
            found[pixels] = CARD.classes.index(one["value"]["brushlabels"][0])
        assert np.array_equal(found, mask)
    root = str(place.images).lstrip("/")
    assert tasks[0]["data"]["image"] == f"/data/local-files/?d={root}/day%201/0.png"


def test_images_that_label_studio_cannot_open_are_told(tmp_path: Path) -> None:
    place = Place(tmp_path)
    tar(place.images / "some.tar", ("a.png", png(scene(0)[0])))
    place.run()
    done = exported(place, tmp_path / "to", "label-studio")
    assert done.notes == ["1 image is in tar or Parquet files, which Label Studio cannot open"]


@pytest.mark.parametrize("kind", ["coco-stuff", "coco-panoptic"])
def test_images_that_only_their_number_tells_apart_are_told(tmp_path: Path, kind: Any) -> None:
    place = Place(tmp_path)
    for name in ("one", "two"):
        tar(place.images / f"{name}.tar", ("a.png", png(scene(0)[0])), (f"{name}.png", png(scene(1)[0])))
    place.run()
    (note,) = exported(place, tmp_path / "to", kind).notes
    assert note.startswith("2 images are named like another but for suffix, case or shard: only their image ids")


def test_an_export_among_the_images_is_told(run: tuple[Place, Masks], tmp_path: Path) -> None:
    place, _ = run
    told = "DEST lies in the input: a run with --update, or a new one, takes its pictures for images"
    assert exported(place, place.images / "to", "coco-stuff").notes == [told]
    assert exported(place, tmp_path / "to", "coco-stuff").notes == []


@pytest.mark.parametrize("method", ["stretch", "letterbox"])
def test_masks_at_model_size_are_resized_to_their_images_and_told(
    run: tuple[Place, Masks], tmp_path: Path, method: str
) -> None:
    """As Pillow does it; of `letterbox` without the 8 rows of border below an image of 48 x 96."""
    small, own = (Made(name, scene(1)[1], size=size) for name, size in (("a.png", (48, 96)), ("b.png", None)))
    template = copy.deepcopy(read_template(run[0].output))
    template["card"]["input"]["resize"]["method"] = method
    output = write_run(tmp_path / "out", template, {"s": [small, own]})
    done = export(Ledger(Store(), f"file://{output}"), f"file://{tmp_path}/to", "png", Store())
    assert done.notes == ["1 mask at model size: resized to the image's (nearest neighbour)"]
    inside = Image.fromarray(scene(1)[1][: 24 if method == "stretch" else 16])
    wanted = {"a.png": inside.resize((96, 48), Image.Resampling.NEAREST), "b.png": scene(1)[1]}
    for name, mask in wanted.items():
        assert np.array_equal(np.asarray(Image.open(tmp_path / "to" / name)), np.asarray(mask))


def test_what_is_not_segmented_yet_is_told_and_comes_with_the_next_export(tmp_path: Path) -> None:
    place, expected = street(tmp_path)
    first = sorted(place.output.glob("masks/*/*"))[0]
    held = first.read_bytes()
    for file in [first, *place.output.glob("stats/*")]:
        file.unlink()
    done = exported(place, tmp_path / "to", "coco-stuff")
    before = COCO(tmp_path / "to/annotations/stuff_default.json").imgs
    assert (len(before), done.not_done) == (len(expected) - 1, 2)  # the broken image is in this part, too
    first.write_bytes(held)
    assert exported(place, tmp_path / "to", "coco-stuff").not_done == 0
    after = COCO(tmp_path / "to/annotations/stuff_default.json").imgs
    assert before.items() <= after.items()
    assert [image["file_name"] for image in after.values()] == list(expected)


def test_the_former_name_of_a_format_is_told(run: tuple[Place, Masks], segment: Call, tmp_path: Path) -> None:
    called = segment("export", str(run[0].output), str(tmp_path), "--format", "coco-rle")
    assert called.code == 0
    assert called.out == f"3 files written to {tmp_path}, 1 error row without a mask\n"
    assert called.err == "the format coco-rle is called coco-stuff now\n"


def test_long_arrays_of_json_grow_in_files(tmp_path: Path) -> None:
    whole = JsonObject(tmp_path / "whole.json", {"name": "é"}, ["some", "none"])
    whole.arrays["some"].add({"n": number} for number in range(3))
    whole.arrays["some"].add([{"n": 3}])
    assert json.loads(whole.finish().read_text("utf-8")) == {
        "name": "é",
        "some": [{"n": number} for number in range(4)],
        "none": [],
    }
    assert [path.name for path in tmp_path.iterdir()] == ["whole.json"]
    assert JsonArray(tmp_path / "empty.json").finish().read_text() == "[]\n"
