"""Drafts of real models: those of the built-in cards, and strangers'."""

import functools
from pathlib import Path

import numpy as np
import pytest

from segment.drafts.drafting import DraftedCard, draft_card
from segment.errors import ModelError
from segment.models.card import ModelCard, load_card
from segment.models.sessions.tflite_graph import tflite_metadata
from tests.serving import NEEDS_LITERT

pytestmark = pytest.mark.shared
CARDS = Path(__file__).parents[2] / "segment" / "models" / "cards"

# Layout and size of the input, kind and layout of the output, classes.
SERVED = {
    "SINet.onnx": ("NCHW", 320, 320, "logits", "NCHW", 2),
    "aiseg_deeplab_dm05_nchw.onnx": ("NCHW", 513, 513, "logits", "NCHW", 2),
    "deeplab_aiseg_quant513.tflite": ("NHWC", 513, 513, "index", "NHW", 2),
    "deeplabv3_257_mv_gpu.tflite": ("NHWC", 257, 257, "logits", "NHWC", 21),
    "lite-model_mobilenetv2-coco_dr_1.tflite": ("NHWC", 513, 513, "logits", "NHWC", 21),
    "prisma_nchw.onnx": ("NCHW", 256, 256, "sigmoid", "N1HW", 2),
    "prisma_quant.tflite": ("NHWC", 256, 256, "sigmoid", "NHW1", 2),
    "road-segmentation-adas-0001.xml": ("NCHW", 512, 896, "probabilities", "NCHW", 4),
}
BIRDS = ["deeplabv3_257_mv_gpu.tflite", "lite-model_mobilenetv2-coco_dr_1.tflite"]
REFUSED = {
    "portrait_video_quant.tflite": "takes 4 channels, and an image has three .colour. or one",
    "selfie_segmentation.tflite": "Convolution2DTransposeBias node. LiteRT may have this operator: pip install",
}


def contract(card: ModelCard) -> tuple[object, ...]:
    """What a graph tells of a contract."""
    entry, output = card.input, card.output
    return entry.layout, entry.height, entry.width, output.kind, output.layout, len(card.classes)


@functools.cache
def drafted(shared: Path, name: str) -> DraftedCard:
    """A draft, with the photo of a bird for models that know birds."""
    image = str(shared / "images" / "bird_segmentation.bmp") if name in BIRDS else None
    return draft_card(str(shared / "models" / "strangers" / name), image)


@pytest.mark.parametrize("name", SERVED)
def test_strangers_are_drafted(name: str, shared: Path) -> None:
    assert contract(drafted(shared, name).card) == SERVED[name]


@pytest.mark.parametrize("name", BIRDS)
def test_metadata_of_tflite_files(name: str, shared: Path) -> None:
    data = (shared / "models" / "strangers" / name).read_bytes()

    found = drafted(shared, name)
    assert (found.card.input.mean, found.card.input.std) == ((127.5,) * 3, (127.5,) * 3)
    assert found.card.classes.names[20] == "tv"
    assert found.card.classes.palette == load_card("deeplabv3-mobilenetv2").classes.palette
    assert "guessed, check them: resize" in found.remarks  # the metadata says RGB

    assert tflite_metadata(data)["mean"] == "127.5"
    for end in (0, 4, 100, 1000, 2000, len(data) // 2):  # a damaged file says nothing, and breaks nothing
        assert tflite_metadata(data[:end]).get("labels") is None
    noise = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(data[:4096])
        for place in noise.integers(0, 1200, 20):
            damaged[place] = noise.integers(256)
        tflite_metadata(bytes(damaged))


@NEEDS_LITERT
def test_a_stranger_that_only_litert_reads(shared: Path) -> None:
    found = drafted(shared, "selfie_segmentation.tflite")
    assert contract(found.card) == ("NHWC", 256, 256, "sigmoid", "NHW1", 2)
    assert "the card runs (litert, f32): 2 generated images" in found.remarks


@pytest.mark.parametrize("name", REFUSED)
def test_strangers_are_refused_in_words(name: str, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # without LiteRT
    with pytest.raises(ModelError, match=REFUSED[name]):
        draft_card(str(shared / "models" / "strangers" / name))


@pytest.mark.parametrize("name", BIRDS)
def test_guesses_find_the_bird(name: str, shared: Path) -> None:
    found = drafted(shared, name)

    (share,) = (remark for remark in found.remarks if remark.startswith("bird_segmentation.bmp: "))
    assert share.removeprefix("bird_segmentation.bmp: ") in ("background 79 %, bird 21 %", "background 80 %, bird 20 %")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("deeplabv3_mnv2_pascal_quant.tflite", "deeplabv3-mobilenetv2-int8"),
        ("deeplabv3_mnv2_dm05_pascal_quant.tflite", "deeplabv3-mobilenetv2-dm05-int8"),
        ("unet32-camvid.onnx", "unet-camvid-onnx-0001"),
        ("demo-streets.onnx", "demo-streets"),
    ],
)
def test_known_models_get_their_own_card(file: str, name: str, shared: Path) -> None:
    """All but the resize, which no graph tells: DeepLab's is `pad`."""
    path = CARDS / file if (CARDS / file).exists() else shared / "models" / file
    found, card = draft_card(str(path)).card, load_card(name)

    assert contract(found) == contract(card)
    assert found.classes == card.classes
    assert (found.input.channels, found.input.maximum) == (card.input.channels, card.input.maximum)
    assert (found.input.mean, found.input.std) == (card.input.mean, card.input.std)


def test_the_published_ir_gets_its_own_card(shared: Path, tmp_path: Path) -> None:
    """Its weights are not here: any of this size load."""
    graph = "unet-camvid-onnx-0001.xml"
    (tmp_path / graph).write_bytes((shared / "models" / graph).read_bytes())
    numbers = np.resize(np.random.default_rng(0).normal(0, 0.02, 1 << 20).astype(np.float16), 62_064_926 // 2)
    (tmp_path / graph).with_suffix(".bin").write_bytes(numbers.tobytes())

    found, card = draft_card(str(tmp_path / graph)), load_card("unet-camvid-onnx-0001")

    assert contract(found.card) == contract(card)
    assert (found.card.input, found.card.classes) == (card.input, card.classes)
    assert "Known: conversion_parameters in the IR's rt_info: channels were reversed" in found.text
