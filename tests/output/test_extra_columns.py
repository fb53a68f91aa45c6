"""Runs with `confidence` and `probabilities`: what they write beside masks, and that other runs stay as they were."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from segment.errors import UsageError
from segment.images.codec import decode_mask
from segment.images.resize import resize_image, restore_mask
from segment.models.card import parse_card
from segment.models.sessions import Extras, open_session
from segment.output.audit import audit_run
from segment.output.extra_checks import Beside, wrong_extra
from segment.output.ledger import Ledger
from segment.output.mask_columns import MASKS_SCHEMA, ExtraColumns
from segment.pipeline.certainty import mean_confidence
from segment.store.client import Store
from tests.graphs import as_weights
from tests.nets import net
from tests.runs import CARD, CARD_TOML, INDEX_CARD, Place, png
from tests.serving import ORT, message

UNSURE = {"confidence": "margin", "confidence_maps": True, "probabilities": ("Car", 0)}
SIZES = {"a.png": (24, 32), "b.png": (40, 30), "c.png": (12, 64)}


def graph() -> bytes:
    """A graph whose scores are small, so that it is sure of nothing."""
    return net(inputs={"x": ["N", 3, 24, 32]}, outputs={"y": ["N", 4, 24, 32]}, constants={
        "kernel": np.random.default_rng(3).normal(size=(4, 3, 1, 1)).astype(np.float32) / 200})  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path, graph())
    for seed, (name, size) in enumerate(SIZES.items()):
        place.write(name, png(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)))
    place.write("broken.png", b"no picture")
    return place


def pixels_of(seed: int, size: tuple[int, int]) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def test_a_run_writes_means_maps_and_probabilities(place: Place) -> None:
    outcome = place.run(**UNSURE)
    session = open_session(CARD, as_weights(graph()), ORT, extras=Extras("margin", (2, 0)))
    for seed, (name, size) in enumerate(SIZES.items()):
        row = outcome.rows[name]
        found = session.predict(resize_image(pixels_of(seed, size), CARD.input)[None])
        assert found.confidence is not None
        assert found.probabilities is not None
        assert np.array_equal(decode_mask(row["mask"]["bytes"]), restore_mask(found.masks[0], CARD.input, size))
        level = decode_mask(row["confidence"]["bytes"])
        assert np.array_equal(level, restore_mask(found.confidence[0], CARD.input, size))
        for number, label in enumerate(("Car", "Sky")):
            probability = decode_mask(row["probabilities"][label]["bytes"])
            assert np.array_equal(probability, restore_mask(found.probabilities[0, number], CARD.input, size))
        assert row["mean_confidence"] == pytest.approx(found.confidence.mean() / 255, abs=1e-12)
        for index, mean in enumerate(row["class_confidence"]):
            of_class = found.confidence[found.masks == index] / 255
            assert mean is None if not of_class.size else mean == pytest.approx(of_class.mean(), abs=1e-12)
    broken = outcome.rows["broken.png"]
    assert [broken[name] for name in ("mean_confidence", "class_confidence", "confidence", "probabilities")] == [
        None
    ] * 4
    assert not audit_run(Ledger(Store(), str(place.output)), deep=True).problems
    file = min(place.output.glob("masks/*/*.parquet"))
    written = file.read_bytes()
    file.unlink()
    assert place.run(**UNSURE).all_rows == outcome.all_rows
    assert file.read_bytes() == written
    said = message(lambda: place.run(confidence="margin", probabilities=("Car", 0)), UsageError)
    assert "confidence.maps: True there, False now" in said


def test_without_the_options_a_run_is_as_it_was(place: Place) -> None:
    outcome = place.run()
    file = next(place.output.glob("masks/*/*.parquet"))
    assert pq.read_schema(file).equals(MASKS_SCHEMA)
    run = outcome.report.run
    assert not {"confidence", "confidence_maps", "probabilities"} & run["contract"].keys()
    assert ExtraColumns.of_run(run, CARD) == ExtraColumns()
    said = message(lambda: place.run(**UNSURE), UsageError)
    assert "confidence: None there, {'measure': 'margin', 'maps': True} now" in said


def test_names_and_indices_are_the_same_run(place: Place) -> None:
    contract = place.run(probabilities=("Car,Sky",)).report.run["contract"]
    assert contract["probabilities"] == [2, 0]
    place.run(probabilities=(2, "sky"))


def test_what_cannot_be_given_is_refused_before_the_run(tmp_path: Path) -> None:
    place = Place(tmp_path, card=INDEX_CARD)
    place.add("a.png", 1)
    said = message(lambda: place.run(confidence="maximum"), UsageError)
    assert said.startswith(
        "confidence and probabilities need scores, but the graph of model card 'blocks' gives a class"
    )
    assert not place.output.exists()
    assert "confidence_maps needs a measure" in message(lambda: place.job(confidence_maps=True), UsageError)
    assert message(lambda: place.run(probabilities=("Cra",)), UsageError).endswith(
        "no class 'Cra'. Did you mean 'Car'?"
    )


def test_the_border_of_a_letterbox_does_not_count() -> None:
    card = parse_card(CARD_TOML.replace('channels = "RGB"', 'channels = "RGB"\nresize = { method = "letterbox" }'))
    mask = np.zeros((24, 32), np.uint8)
    levels = np.zeros((24, 32), np.uint8)
    mask[:, 8:16], levels[:, :8], levels[:, 8:16] = 2, 51, 255
    assert mean_confidence(mask, levels, card, (48, 32)) == (0.6, (0.2, None, 1.0, None))
    assert mean_confidence(mask, levels, CARD, (48, 32))[0] == pytest.approx(0.3)


def test_hugging_face_decodes_every_picture(place: Place, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = place.run(**UNSURE).rows
    files = [str(file) for file in sorted(place.output.glob("masks/*/*.parquet"))]
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    for row in loaded:
        wanted = rows[row["id"]]
        assert row["mean_confidence"] == wanted["mean_confidence"]
        assert row["class_confidence"] == wanted["class_confidence"]
        if wanted["mask"] is None:
            assert row["confidence"] is None
            continue
        assert np.array_equal(np.asarray(row["confidence"]), decode_mask(wanted["confidence"]["bytes"]))
        assert np.array_equal(
            np.asarray(row["probabilities"]["Car"]), decode_mask(wanted["probabilities"]["Car"]["bytes"])
        )


def test_what_a_run_up_to_format_4_measured_is_no_value_of_its_plan() -> None:
    """`--keep city --keep :brightness` of a list, whose plan holds the values of its columns alone."""
    extra = ExtraColumns.of_run({"contract": {"input": {"keep": ["city", ":brightness"]}}}, CARD)
    assert (extra.meta, extra.measured) == (("city", "brightness"), ("brightness",))
    row = {"meta": {"city": "Bern", "brightness": "99.5"}, "error": None}
    for planned, wrong in (("Bern", ""), ("Basel", "meta")):
        assert wrong_extra(Beside(row, (), False, None, (), (planned,)), extra, 4) == wrong
