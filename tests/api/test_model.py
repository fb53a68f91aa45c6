"""`load_model` gives the masks of a job, and refuses what is no image in words."""

from __future__ import annotations

import io
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segment
from segment.errors import SampleError, UsageError
from segment.models.card import load_card
from segment.pipeline.resources import available_cpus
from tests.datasets import encoded, mask_of, read_rows
from tests.graphs import TRIGGER, nan_graph
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
        (Image.new("I;16", (9, 8)), ValueError, "mode I;16"),
        ({"bytes": None, "path": "a.jpg"}, ValueError, "a path without bytes (a.jpg)"),
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
