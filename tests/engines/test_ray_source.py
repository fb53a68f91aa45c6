"""`ImageSource`: the rows of a job's input as blocks of Ray Data. Read tasks are called here; no cluster is needed."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ray import cloudpickle

import segment
from segment.errors import InputChanged, UsageError
from segment.images.codec import decode_picture
from segment.images.labels import LabelDecoder
from tests.datasets import FORMATS, Item, encoded, read_rows
from tests.jobs import model, motley
from tests.tars import tar


def rows_of(source: segment.ImageSource, parallelism: int = 1000) -> list[dict[str, Any]]:
    """The rows of all read tasks, in order, as `iter_rows` gives them; each task travels as Ray sends it."""
    from ray.data.block import BlockAccessor

    tasks = cloudpickle.loads(cloudpickle.dumps(source.get_read_tasks(parallelism)))
    blocks = [block for task in tasks for block in task()]
    return [dict(row.items()) for block in blocks for row in BlockAccessor.for_block(block).iter_rows(False)]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def items(names: dict[str, str]) -> list[Item]:
    return motley(segment.load_card(names["model"]))


@pytest.mark.parametrize("form", FORMATS)
def test_rows_are_those_of_a_job(form: str, names: dict[str, str], items: list[Item], tmp_path: Path) -> None:
    how = {**FORMATS[form](tmp_path / "input", items), "part_size": 3}
    job = segment.Job(output=tmp_path / "out", engine="local", workers=1, max_error_rate=1, **names, **how)
    segment.run(job)
    expected = read_rows(tmp_path / "out")
    source = segment.ImageSource(**how, model=names["model"])
    rows = rows_of(source)
    assert source.images == len(rows) == len(expected) == 14
    by_stem = {item.stem: item for item in items}
    decoder = LabelDecoder(segment.load_card(names["model"]).classes)
    for row, stored in zip(rows, expected, strict=True):
        assert list(row) == ["id", "uri", "image", "label", "error"]
        assert (row["id"], row["uri"], row["error"]) == (stored["id"], stored["uri"], stored["error"] or "")
        item = by_stem[stored["stem"]]
        assert (row["image"].dtype, row["label"].dtype) == (np.uint8, np.uint8)
        if stored["mask"] is None:
            assert row["image"].shape == (0, 0, 3)
            continue
        np.testing.assert_array_equal(row["image"], decode_picture(item.image, 10**8).pixels)
        if item.label is None or row["error"]:
            assert row["label"].shape == (0, 0)
        else:
            np.testing.assert_array_equal(row["label"], decoder.decode(item.label, *row["image"].shape[:2]))


@pytest.mark.parametrize("form", FORMATS)
def test_encoded_rows_are_the_bytes_of_the_input(form: str, items: list[Item], tmp_path: Path) -> None:
    rows = rows_of(segment.ImageSource(**FORMATS[form](tmp_path / "input", items), decode=False))
    by_stem = {item.stem: item for item in items}
    for row in rows:
        item = by_stem[Path(row["id"]).stem]
        assert row["image"] == item.image
        assert row["label"] == item.label or (row["error"] and not item.image)
        assert row["error"].partition(":")[0] == ("" if item.image else "empty")
    labels_only = rows_of(segment.ImageSource(**FORMATS[form](tmp_path / "again", items)))
    assert {row["label"] for row in labels_only} == {row["label"] for row in rows}


def test_read_tasks_are_parts_or_several_parts_in_turn(items: list[Item], tmp_path: Path) -> None:
    source = segment.ImageSource(**FORMATS["tars"](tmp_path / "input", items), part_size=2)
    assert source.parts == 8  # of three tars with 5, 4 and 5 images
    assert len(source.get_read_tasks(200)) == 8
    for parallelism in (1, 3, 8):
        tasks = source.get_read_tasks(parallelism)
        assert len(tasks) == parallelism
        assert sum(task.metadata.num_rows for task in tasks) == 14
        assert [row["id"] for row in rows_of(source, parallelism)] == [row["id"] for row in rows_of(source)]
    assert {len(task.metadata.input_files) for task in source.get_read_tasks(8)} == {1}
    limited = source.get_read_tasks(1, per_task_row_limit=3)
    assert sum(block.num_rows for block in limited[0]()) == 3


def test_blocks_are_bounded(items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    how = FORMATS["files"](tmp_path / "input", items)
    monkeypatch.setattr("segment.engines.ray_source._BLOCK_BYTES", 6000)
    (task,) = segment.ImageSource(**how, part_size=14).get_read_tasks(1)
    blocks = list(task())
    assert sum(block.num_rows for block in blocks) == 14
    assert len(blocks) > 4


def test_metadata_is_kept(items: list[Item], tmp_path: Path) -> None:
    held = b'{"weather": "fog", "speed": 30}'
    path = tar(tmp_path / "in.tar", (items[0].name, items[0].image), (f"{items[0].stem}.json", held))
    rows = rows_of(segment.ImageSource(path, keep=["speed", "weather"]))
    assert [row["meta"] for row in rows] == [{"speed": "30", "weather": "fog"}]
    with pytest.raises(UsageError, match="brightness is measured of every image"):
        segment.ImageSource(path, keep=[":brightness"])


def test_an_input_without_labels_has_no_such_column(items: list[Item], tmp_path: Path) -> None:
    how = FORMATS["files"](tmp_path / "input", items)
    assert list(rows_of(segment.ImageSource(how["input"]))[0]) == ["id", "uri", "image", "error"]


def test_what_is_left_out_is_logged(items: list[Item], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    how = FORMATS["files"](tmp_path / "input", items)
    Path(how["input"], "clip.mp4").write_bytes(b"no image")
    with caplog.at_level(logging.WARNING):
        segment.ImageSource(how["input"])
    assert "clip.mp4" in caplog.text


def test_an_object_that_has_changed_is_an_error_and_no_row(items: list[Item], tmp_path: Path) -> None:
    how = FORMATS["tars"](tmp_path / "input", items)
    source = segment.ImageSource(**how)
    tar = next(Path(how["input"]).glob("*.tar"))
    tar.write_bytes(tar.read_bytes() + bytes(1024))
    with pytest.raises(InputChanged):
        rows_of(source)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lables": "x"}, "lables: unknown key. Did you mean 'labels'?"),
        ({"limit": 0}, "limit: expected a whole number from 1 up, not 0"),
        ({"label_remap": {"1": "Road"}}, "labels are decoded only where `model` names their classes"),
        ({"model": "demo-streets", "decode": False}, "labels are decoded only where"),
        ({"model": "demo-streets", "label_remap": {"1": "Motorway"}}, "label_remap: remap to 'Motorway'"),
        (
            {"model": "demo-streets", "label_encoding": "color"},
            "label_encoding: 'color' is none of auto, index, colour",
        ),
        ({"model": "demo-street"}, "Did you mean 'demo-streets'?"),
        ({"image_key": "jpg"}, "--image-key is for tars"),
        ({"decode": False, "max_pixels": 100}, "max_pixels: with decode=False no image is decoded here"),
        ({"decode": False, "max_pixels": 100_000_000}, "give it to Segmenter(max_pixels=...)"),
        ({"max_pixels": 0}, "max_pixels = 0: give 1 or more"),
    ],
)
def test_wrong_options_are_refused_in_words(
    options: dict[str, Any], words: str, items: list[Item], tmp_path: Path
) -> None:
    how = FORMATS["files"](tmp_path / "input", items)
    with pytest.raises(UsageError) as caught:
        segment.ImageSource(how["input"], **options)
    assert words in str(caught.value)


def test_decoded_labels_are_counted_as_a_job_counts_them(names: dict[str, str], tmp_path: Path) -> None:
    """CamVid's card has no void value, only an ignored class; a remap makes void pixels."""
    card = segment.load_card(names["model"])
    rng = np.random.default_rng(3)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        label = rng.choice(np.array([0, 5, 11, 77, 200], np.uint8), (40, 60))
        (tmp_path / "images" / f"{name}.png").write_bytes(encoded(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)))
        (tmp_path / "labels" / f"{name}.png").write_bytes(encoded(label))
    how: dict[str, Any] = {"input": tmp_path / "images", "labels": tmp_path / "labels"}
    f32: dict[str, Any] = {"precision": "f32"}  # of noise, bf16 may be too far from f32 for a job
    remap = {"77": "ignore", "200": 3, "5": 4, "3": 5}
    job = segment.Job(output=tmp_path / "out", engine="local", workers=1, label_remap=remap, **names, **how, **f32)
    expected = segment.run(job).total.confusion
    assert card.classes.ignore == (11,)
    assert expected.counts[-1].any()  # void pixels
    assert expected.counts[3].any()  # applied twice, the remap would make class 5 of class 3
    assert expected.counts[11].any()

    source = segment.ImageSource(**how, model=names["model"], label_remap=remap)
    rows = rows_of(source)
    assert {255, 11} <= set(np.unique(rows[0]["label"]))
    segmented = segment.Segmenter(**names, **f32)({key: [row[key] for row in rows] for key in rows[0]})
    assert segmented["error"] == ["", ""]
    np.testing.assert_array_equal(segmented["confusion"].sum(axis=0), expected.counts)


def test_max_pixels_is_a_jobs(items: list[Item], tmp_path: Path) -> None:
    how = FORMATS["files"](tmp_path / "input", items)
    sizes = [row["image"].size // 3 for row in rows_of(segment.ImageSource(how["input"]))]
    limited = rows_of(segment.ImageSource(how["input"], max_pixels=sizes[0]))
    for size, row in zip(sizes, limited, strict=True):
        if size:  # it could be decoded
            assert row["error"].startswith("too_many_pixels") == (size > sizes[0])
    assert len(set(sizes)) > 2


def test_paths_may_be_path_objects(items: list[Item], tmp_path: Path) -> None:
    how = FORMATS["files"](tmp_path / "input", items)
    source = segment.ImageSource(Path(how["input"]), labels=Path(how["labels"]), limit=2)
    assert source.images == 2
    assert "label" in rows_of(source)[0]


def test_remarks_are_logged_once_a_kind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A job counts and reports them; rows of a pipeline have no place for them."""
    pages = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    (tmp_path / "in").mkdir()
    for name in ("a.tif", "b.tif"):
        pages[0].save(tmp_path / "in" / name, save_all=True, append_images=pages[1:])
    source = segment.ImageSource(tmp_path / "in")
    with caplog.at_level(logging.WARNING):
        rows = rows_of(source, parallelism=1)
    assert [row["error"] for row in rows] == ["", ""]
    assert caplog.text.count("the file has several pages or frames; the first one is segmented") == 1
