"""Sessions with the real models in ../shared."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segment.images.resize import resize_image
from segment.models.card import load_card
from segment.models.sessions import open_session
from tests.graphs import as_weights, painted
from tests.serving import OPENVINO, ORT, message, plain_openvino, shared


@pytest.mark.shared
@pytest.mark.parametrize("file", ["deeplabv3_mnv2_pascal_quant", "deeplabv3_mnv2_dm05_pascal_quant"])
def test_tflite_is_as_openvino_itself(file: str, tmp_path: Path) -> None:
    path = shared(f"models/{file}.tflite")
    photos = [Image.open(shared(f"images/{name}")) for name in ("stray_cat.jpg", "bird_segmentation.bmp")]
    images = np.stack([np.asarray(photo.convert("RGB").resize((513, 513))) for photo in photos])
    reference = plain_openvino(path)
    wanted = np.concatenate([reference(images[i : i + 1])[0] for i in range(2)])
    card = load_card("deeplabv3-mobilenetv2-int8")
    session = open_session(card, as_weights(path.read_bytes(), "tflite"), OPENVINO)
    result = session.predict(images)
    assert result.faults == {}
    assert np.mean(result.masks == wanted) > 0.9999  # both round to 8 bits, where a tie may go either way
    cat, bird = (np.bincount(mask.ravel(), minlength=21) for mask in result.masks)
    assert [int(counts[1:].argmax()) + 1 for counts in (cat, bird)] == [8, 3]
    assert cat[8] > 0.15 * cat.sum()


@pytest.mark.shared
def test_tflite_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data = shared("models/deeplabv3_mnv2_dm05_pascal_quant.tflite").read_bytes()
    open_session(load_card("deeplabv3-mobilenetv2-int8"), as_weights(data, "tflite"), OPENVINO)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.shared
@pytest.mark.parametrize(
    ("fmt", "file"), [("tflite", "deeplabv3_mnv2_pascal_quant.tflite"), ("ir", "unet-camvid-onnx-0001.xml")]
)
def test_truncated_files_are_refused(fmt: Any, file: str) -> None:
    weights = as_weights(shared(f"models/{file}").read_bytes()[:50_000], fmt, b"0" * 1000)
    said = message(lambda: open_session(load_card("unet-camvid-onnx-0001"), weights, OPENVINO))
    assert said.startswith(f"openvino cannot read the {fmt} weights: ")
    assert "/tmp" not in said


@pytest.mark.shared
def test_published_ir_with_random_weights() -> None:
    graph = shared("models/unet-camvid-onnx-0001.xml").read_bytes()
    values = np.random.default_rng(0).standard_normal(62_064_926 // 2, dtype=np.float32) * 0.02
    card = load_card("unet-camvid-onnx-0001")
    weights = as_weights(graph, "ir", values.astype(np.float16).tobytes())
    result = open_session(card, weights, OPENVINO, threads=2).predict(painted(card, 0)[0][None])
    assert result.faults == {}
    assert len(np.unique(result.masks)) > 1


@pytest.mark.shared
def test_unet_equals_onnxruntime_and_numpy() -> None:
    import onnxruntime

    path = shared("models/unet32-camvid.onnx")
    with Image.open(next(iter(sorted(shared("camvid/images/0016E5_07959.png").parent.glob("*.png"))))) as photo:
        image = np.asarray(photo.convert("RGB").resize((480, 368), Image.Resampling.BILINEAR))[None]
    plain = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    scores = plain.run(None, {"input": image[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)})[0]
    card = load_card("unet-camvid-onnx-0001")
    first, second = (
        open_session(card, as_weights(path.read_bytes()), runtime, threads=2).predict(image).masks
        for runtime in (ORT, OPENVINO)
    )
    assert np.array_equal(first, scores.argmax(axis=1))
    assert np.mean(first != second) < 1e-4
    assert len(np.unique(first)) > 4


@pytest.mark.shared
def test_threads_that_share_a_session_get_the_masks_of_one() -> None:
    """With several streams of one compiled openvino model, all masks were wrong in about half of the loads."""
    weights = as_weights(shared("models/strangers/lite-model_mobilenetv2-coco_dr_1.tflite").read_bytes(), "tflite")
    card = load_card("deeplabv3-mobilenetv2")
    with Image.open(shared("images/stray_cat.jpg")) as photo:
        image = resize_image(np.asarray(photo.convert("RGB")), card.input)[None]
    wanted = open_session(card, weights, OPENVINO).predict(image).masks
    assert (wanted == 8).mean() > 0.05
    for _ in range(4):
        session = open_session(card, weights, OPENVINO, streams=2)
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda _, session=session: session.predict(image).masks, range(2)))
        assert all(np.array_equal(masks, wanted) for masks in found)
