"""What quantisation is made of: the images as the network sees them, and a card that keeps what its source says."""

import tomllib
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segment.inputs.discover import discover
from segment.inputs.reads import read_part
from segment.models.card import ModelCard, load_card, parse_card
from segment.models.sessions import Runtime
from segment.models.sessions.ports import Port
from segment.models.weights import load_weights
from segment.pipeline.stages import Task, decode
from segment.quantization import quantizing
from segment.quantization.asked import Asked
from segment.quantization.calibration import TILES, Calibration, places_of
from segment.quantization.network_input import NetworkInputs
from segment.quantization.quantised_folder import quantised_card, text_of
from segment.store.client import Store
from tests.runs import Place, jpeg, png, scene


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Eight images, a card and its weights."""
    place = Place(tmp_path_factory.mktemp("calibration"))
    for seed in range(8):
        place.add(f"{seed}.png", seed, label=False)
    return place


@pytest.mark.parametrize("exactness", ["exact", "fast"])
def test_images_are_decoded_as_by_a_run(tmp_path: Path, exactness: str) -> None:
    place, arrays = Place(tmp_path), tmp_path / "arrays"
    arrays.mkdir()
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (96, 128, 3), np.uint8)
        place.write(f"{number}.jpg", jpeg(pixels))
    job, card = place.job(decode=exactness), load_card(str(place.card_path))
    calibration = Calibration(places_of(job.input, job, Store()), job, card, Store(), arrays)
    parts = discover(job.input, job.input_options, Store()).parts
    samples = [sample for part in parts for sample in read_part(part, job.input_options, Store())]
    runtime = Runtime("onnxruntime", "cpu", "f32", "")
    frames = decode(samples, Task(card, runtime, "", job.settings, Store(), 1, ""))
    assert len(frames.pixels) == 8
    for number, pixels in enumerate(frames.pixels):
        np.testing.assert_array_equal(calibration[number][0], pixels)


def test_the_options_of_labels_are_those_of_the_evaluated_images(tmp_path: Path, folder: Place) -> None:
    """Images that calibrate have no labels, so that a column of labels need not be there."""
    images = [png(scene(seed)[0]) for seed in range(8)]
    pq.write_table(pa.table({"image": images, "truth": images}), tmp_path / "evaluated.parquet")
    pq.write_table(pa.table({"image": images}), tmp_path / "calibrating.parquet")
    job = folder.job(input=str(tmp_path / "evaluated.parquet"), label_column="truth")
    chosen = quantizing._choose(job, Asked(calibrate=str(tmp_path / "calibrating.parquet")), Store())
    (tmp_path / "arrays").mkdir()
    card = load_card(str(folder.card_path))
    calibration = Calibration(chosen.calibrating, chosen.reading, card, Store(), tmp_path / "arrays")
    assert calibration.images == 8
    assert calibration.count_same(chosen.evaluated, job, Store()) == 8  # though in another file
    assert calibration.count_same(places_of(job.input, job, Store())[:3], job, Store()) == 3


FANCY: list[dict[str, Any]] = [
    {"input": {"tiles": {}}},
    {"input": {"tiles": {"overlap": 0.5, "shrink": 2, "pad": "constant"}, "resize": {"pad": [1, 2, 3]}}},
    {"input": {"tta": ["flip", 1.5]}},
    {"input": {"channels": "BANDS", "bands": [4, 1], "band_range": [0, 3000], "mean": [0.1, 1e-5]}},
    {"input": {"height": "image", "width": "image", "multiple_of": 8,
               "resize": {"method": "short_side", "short_side": 9}}},
    {"input": {"channels": "GREY", "mean": [0.5], "maximum": 1, "resize": {"method": "letterbox", "anchor": "centre"}}},
    {"description": 'two\nlines, "quoted"', "gflops": 1.5, "mparams": 2.0, "licence": "MIT", "source": "a\\b"},
    {"metric": {"convention": "image-mean", "resolution": "model", "label_resampler": "opencv", "note": "x"}},
    {"output": {"kind": "sigmoid", "layout": "NHW", "threshold": 0.3},
     "classes": {"names": ["a", "b"], "palette": [[0, 0, 0], [1, 2, 3]], "void_colours": [[9, 9, 9]]}},
]  # fmt: skip


@pytest.mark.parametrize("changes", FANCY)
def test_the_new_card_keeps_all_that_the_source_card_says(folder: Place, changes: dict[str, dict[str, Any]]) -> None:
    text = tomllib.loads(folder.card_path.read_text())
    text = {**text, **{k: {**text.get(k, {}), **v} if isinstance(v, dict) else v for k, v in changes.items()}}
    card = ModelCard.model_validate(text)
    source = load_weights(card, str(folder.weights_path))
    calibration = SimpleNamespace(images=8, sha384="0" * 96)
    new = quantised_card(card, source, {"w.onnx": b"w"}, calibration, "onnxruntime", "s", 0)  # type: ignore[arg-type]
    read = parse_card(text_of(new))
    assert read == new
    for name in set(ModelCard.model_fields) - {"name", "description", "metric", "weights", "quantisation"}:
        assert getattr(read, name) == getattr(card, name)
    assert read.metric == card.metric.model_copy(update={"published": None})


def test_the_network_is_calibrated_with_what_a_session_gives_it(tmp_path: Path, folder: Place) -> None:
    plain = load_card(str(folder.card_path))
    changes = {"channels": "BGR", "maximum": 1, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
    card = plain.model_copy(update={"input": plain.input.model_copy(update=changes)})
    asked = folder.job()
    calibration = Calibration(places_of(asked.input, asked, Store()), asked, card, Store(), tmp_path)
    inputs = NetworkInputs(card, Port(("image",), "float32", None), calibration, nullcontext)
    images = calibration[0][..., ::-1].astype(np.float64) / 255  # RGB, as the image is
    expected = (images - card.input.mean) / card.input.std
    if card.input.layout == "NCHW":
        expected = expected.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(inputs[0], expected, atol=1e-5)


def with_tiles(card: ModelCard) -> ModelCard:
    values = card.model_dump(mode="json", exclude_defaults=True)
    values["input"].pop("resize", None)
    return ModelCard.model_validate(values | {"input": values["input"] | {"tiles": {}}})


def test_a_card_with_tiles_is_calibrated_with_tiles(tmp_path: Path) -> None:
    place = Place(tmp_path)
    card = with_tiles(load_card(str(place.card_path)))
    large = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    for number in range(8):
        place.write(f"{number}.png", png(large))
    asked, folder = place.job(), tmp_path / "arrays"
    folder.mkdir()
    calibration = Calibration(places_of(asked.input, asked, Store()), asked, card, Store(), folder)
    assert (calibration.images, len(calibration)) == (8, 8 * TILES)
    tile = calibration[0][0]
    assert tile.shape == (card.input.height, card.input.width, 3)
    np.testing.assert_array_equal(tile, large[: tile.shape[0], : tile.shape[1]])
