"""`load_model` gives the masks of a job, and refuses what is no image in words."""

import io
import logging
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import segment
from segment.errors import SampleError, UsageError
from segment.models.card import load_card
from segment.pipeline.resources import available_cpus
from tests.datasets import encoded, mask_of, read_rows
from tests.graphs import TRIGGER, nan_graph
from tests.jobs import model as small_model
from tests.scenes import MODEL, Scenes
from tests.serving import shared


@pytest.fixture(scope="module")
def model() -> segment.Model:
    return segment.load_model(MODEL)


def test_the_mask_of_encoded_bytes_is_the_jobs(model: segment.Model, scenes: Scenes) -> None:
    for name, photo in scenes.photos.items():
        np.testing.assert_array_equal(model.predict(photo), scenes.masks[name])


def test_arrays_and_pil_images_give_the_mask_of_their_pixels(model: segment.Model, scenes: Scenes) -> None:
    with Image.open(io.BytesIO(scenes.photos["0.jpg"])) as opened:
        pixels = np.asarray(opened)
        expected = model.predict(encoded(pixels))  # a PNG: no decoder changes its pixels
        assert expected.dtype == np.uint8
        np.testing.assert_array_equal(model.predict(opened), expected)
    np.testing.assert_array_equal(model.predict(pixels), expected)
    np.testing.assert_array_equal(model.predict(np.asfortranarray(pixels)), expected)


def test_a_batch_of_different_sizes_is_segmented_as_its_images_are(scenes: Scenes) -> None:
    single, batched = segment.load_model(MODEL, threads=1), segment.load_model(MODEL, batch_size=4)
    images = [np.asarray(Image.open(io.BytesIO(photo)).resize((200 + 9 * i, 150 + i)))
              for i, photo in enumerate(scenes.photos.values())]  # fmt: skip
    found = batched.predict_batch(images)
    assert [mask.shape for mask in found] == [image.shape[:2] for image in images]
    for mask, image in zip(found, images, strict=True):
        np.testing.assert_array_equal(mask, single.predict(image))
    assert batched.predict_batch([]) == []


def test_threads_share_a_model(model: segment.Model, scenes: Scenes) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(model.predict, [*scenes.photos.values()] * 3))
    for mask, name in zip(found, [*scenes.photos] * 3, strict=True):
        np.testing.assert_array_equal(mask, scenes.masks[name])


def test_a_forked_process_is_refused(model: segment.Model, scenes: Scenes) -> None:
    child = os.fork()
    if child == 0:
        ended = 1
        try:
            model.predict(scenes.photos["0.jpg"])
        except UsageError:
            ended = 0
        finally:
            os._exit(ended)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.shared
def test_camvid_masks_are_byte_equal_to_those_of_a_job(tmp_path: Path) -> None:
    folder, weights = shared("camvid/images/0016E5_07959.png").parent, str(shared("models/unet32-camvid.onnx"))
    card = "unet-camvid-onnx-0001"
    job = segment.Job(input=folder, output=tmp_path, model=card, weights=weights, limit=3, engine="local", workers=1)
    segment.run(job)
    rows = {row["id"]: row for row in read_rows(tmp_path)}
    assert len(rows) == 3
    every_cpu, single = segment.load_model(card, weights), segment.load_model(card, weights, threads=1)
    for name, row in rows.items():
        pixels = np.asarray(Image.open(folder / name).convert("RGB"))
        np.testing.assert_array_equal(every_cpu.predict(pixels), mask_of(row))
        np.testing.assert_array_equal(single.predict((folder / name).read_bytes()), mask_of(row))


@pytest.mark.parametrize(
    ("image", "kind", "words"),
    [
        (np.zeros((8, 9, 3)), ValueError, "not float64 (8, 9, 3): values are bytes from 0 to 255"),
        (np.zeros((8, 9), np.uint8), ValueError, "convert grey"),
        (np.zeros((8, 9, 4), np.uint8), ValueError, "convert grey and transparent images to RGB"),
        (np.zeros((3, 8, 9), np.uint8), ValueError, "move the channels to the end"),
        (np.zeros((2, 8, 9, 3), np.uint8), ValueError, "predict_batch"),
        (np.zeros((0, 9, 3), np.uint8), ValueError, "uint8[H, W, 3]"),
        (Image.new("F", (9, 8)), SampleError, "pixel_format: "),
        (Image.new("RGB", (0, 8)), SampleError, "empty: "),
        (
            {"bytes": None, "path": "a.jpg"},
            SampleError,
            "missing: the image is listed but does not exist: a path without",
        ),
        ("a.jpg", TypeError, "of type str"),
        (None, TypeError, "of type NoneType"),
        (b"", SampleError, "empty: "),
        (b"<html>", SampleError, "not_an_image: "),
    ],
)
def test_what_is_no_image_is_refused_in_words(
    model: segment.Model, image: object, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind) as caught:
        model.predict(image)  # type: ignore[arg-type]
    assert words in str(caught.value)


@pytest.mark.parametrize("resolution", ["model", "source"])
def test_confusion_is_the_jobs_at_every_size(resolution: str, tmp_path: Path) -> None:
    """The model's output is 32 x 48; counts of a card that is scored at that size have its number of pixels."""
    names = small_model(tmp_path)
    text = Path(names["model"]).read_text(encoding="utf-8")
    changed = re.sub(r'(?m)^resolution = "\w+"$', f'resolution = "{resolution}"', text)
    Path(names["model"]).write_text(changed, encoding="utf-8")
    rng = np.random.default_rng(4)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for name, size in (("a", (32, 48)), ("b", (61, 45)), ("c", (20, 97))):
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        (tmp_path / "images" / f"{name}.png").write_bytes(encoded(pixels))
        (tmp_path / "labels" / f"{name}.png").write_bytes(encoded(rng.integers(0, 13, size, dtype=np.uint8)))
    how: dict[str, Any] = {"label_remap": {"12": "ignore"}}
    folders = {"input": tmp_path / "images", "labels": tmp_path / "labels", "output": tmp_path / "out"}
    f32: dict[str, Any] = {"precision": "f32"}  # of noise, bf16 may be too far from f32 for a job
    segment.run(segment.Job(**folders, engine="local", workers=1, **names, **how, **f32))
    model = segment.load_model(names["model"], names["weights"], **f32)
    segmenter = segment.Segmenter(**names, **how, **f32)
    for row in read_rows(tmp_path / "out"):
        image, label = (tmp_path / folder / row["id"] for folder in ("images", "labels"))
        cells, counts = row["confusion"]["cell"], row["confusion"]["count"]
        expected = segment.Confusion.from_cells(cells, counts, 12)
        assert model.confusion(image.read_bytes(), label.read_bytes(), **how) == expected
        assert model.confusion(Image.open(image), Image.open(label), **how) == expected
        arrays = [np.asarray(Image.open(path)) for path in (image, label)]
        assert model.confusion(arrays[0], arrays[1], **how) == expected
        assert (segmenter.segment(*arrays)["confusion"] == expected.counts).all()
        assert expected.counts[-1].any()
        assert expected.counts.sum() == (arrays[1].size if resolution == "source" else 32 * 48)


def test_confusion_refuses_what_a_job_refuses(model: segment.Model, scenes: Scenes) -> None:
    photo, label = scenes.photos["0.jpg"], scenes.labels["0.jpg"]
    assert model.confusion(photo, None).predicted_pixels.sum() == model.confusion(photo, label).counts.sum()
    assert sum(
        model.confusion(scenes.photos[name], scenes.labels[name]) for name in scenes.photos
    ) == segment.Confusion(scenes.counts)
    with pytest.raises(SampleError, match=r"^label_size: "):
        model.confusion(photo, np.zeros((4, 5), np.uint8))
    with pytest.raises(SampleError, match=r"^label_lossy: "):
        model.confusion(photo, photo)
    with pytest.raises(SampleError, match=r"^undecodable: "):
        model.confusion(photo[:500], label)
    with pytest.raises(UsageError, match=r"label_encoding: 'rgb' is none of"):
        model.confusion(photo, label, label_encoding="rgb")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="label_remap: remap to 'Motorway'"):
        model.confusion(photo, label, label_remap={"1": "Motorway"})


def test_an_error_of_a_batch_says_of_which_image(model: segment.Model, scenes: Scenes, tmp_path: Path) -> None:
    sound = scenes.photos["0.jpg"]
    with pytest.raises(SampleError, match=r"^not_an_image: .*: images\[2\]$"):
        model.predict_batch([sound, sound, b"<html>", b""])
    with pytest.raises(SampleError, match=r"^pixel_format: .*: a PIL image of mode F, images\[1\]$"):
        model.predict_batch([sound, Image.new("F", (9, 8))])
    with pytest.raises(TypeError, match="of type str") as caught:
        model.predict_batch([sound, "a.jpg"])  # type: ignore[list-item]
    assert caught.value.__notes__ == ["It is images[1]."]
    with pytest.raises(SampleError) as single:
        model.predict(b"<html>")
    assert "images[" not in str(single.value)
    card = load_card("unet-camvid-onnx-0001")
    (tmp_path / "nan.onnx").write_bytes(nan_graph(card))
    grey = np.random.default_rng(0).integers(0, 200, (40, 50, 3), dtype=np.uint8)
    with pytest.raises(SampleError, match=r"^model_not_finite: .*: images\[1\]$"):
        segment.load_model(card, tmp_path / "nan.onnx").predict_batch([grey, np.full((40, 50, 3), TRIGGER, np.uint8)])


def test_max_pixels_limits_every_form_of_an_image(scenes: Scenes) -> None:
    photo = scenes.photos["0.jpg"]
    pixels = np.asarray(Image.open(io.BytesIO(photo)))
    size = pixels.shape[0] * pixels.shape[1]
    enough, fewer = segment.load_model(MODEL, max_pixels=size), segment.load_model(MODEL, max_pixels=size - 1)
    for image in (photo, pixels, Image.open(io.BytesIO(photo)), Image.fromarray(pixels)):
        assert enough.predict(image).size == size
        with pytest.raises(SampleError, match="too_many_pixels"):
            fewer.predict(image)
    with pytest.raises(ValueError, match="max_pixels = 0"):
        segment.load_model(MODEL, max_pixels=0)


def test_scores_that_are_no_numbers_are_an_error(tmp_path: Path) -> None:
    card = load_card("unet-camvid-onnx-0001")
    (tmp_path / "nan.onnx").write_bytes(nan_graph(card))
    model = segment.load_model(card, tmp_path / "nan.onnx")
    grey = np.random.default_rng(0).integers(0, 200, (40, 50, 3), dtype=np.uint8)
    assert model.predict(grey).shape == (40, 50)
    with pytest.raises(SampleError, match="model_not_finite"):
        model.predict(np.full((40, 50, 3), TRIGGER, np.uint8))


def test_what_is_asked_for_and_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'demo-streets'"):
        segment.load_model("demo-street")
    with pytest.raises(UsageError, match="there is no such file"):
        segment.load_model(MODEL, tmp_path / "none.onnx")
    with pytest.raises(UsageError, match="precision half"):
        segment.load_model(MODEL, precision="half")
    with pytest.raises(ValueError, match="batch_size = 0"):
        segment.load_model(MODEL, batch_size=0)


def test_it_says_what_computes(model: segment.Model) -> None:
    assert (model.card.name, model.runtime.device) == (MODEL, "cpu")
    assert repr(model).startswith(f"Model({MODEL}: {model.runtime.name} ")
    assert len(model.weights_sha384) == 96
    assert available_cpus() >= 1


def test_remarks_of_encoded_images_are_logged_once_a_kind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loaded, pages = segment.load_model("demo-streets"), [Image.new("RGB", (40, 30), name) for name in ("red", "blue")]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    with caplog.at_level(logging.WARNING):
        masks = [loaded.predict((tmp_path / "pages.tif").read_bytes()) for _ in range(2)]
    assert masks[0].shape == (30, 40)
    assert caplog.text.count("the file has several pages or frames; the first one is segmented") == 1


def test_confidence_is_told_beside_the_mask(model: segment.Model, scenes: Scenes) -> None:
    photo = scenes.photos["0.jpg"]
    mask, levels, mean = segment.load_model(MODEL, confidence="maximum").predict_with_confidence(photo)
    np.testing.assert_array_equal(mask, model.predict(photo))
    assert (levels.dtype, levels.shape) == (np.uint8, mask.shape)
    assert abs(levels.mean() / 255 - mean) < 0.01  # of the model's pixels, not of the photo's
    with pytest.raises(UsageError, match="loaded without confidence: load_model"):
        model.predict_with_confidence(photo)
