"""The demo's trained model: its file, its contract, and its score on scenes outside its training data."""

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest

import segment
from jobs.streets import scenes

MODEL = Path(segment.__file__).parent / "models" / "cards" / "demo-streets.onnx"
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
UNLABELED = 11


@pytest.fixture(scope="module")
def session() -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(MODEL.read_bytes(), options, providers=["CPUExecutionProvider"])


def _blob(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the model's input `float32[3, 192, 256]` for a JPEG of a scene, and the labels `uint8[192, 256]`."""
    image, label = scenes.scene(seed)
    jpeg = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    decoded = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[:, :, ::-1]
    return ((decoded.astype(np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1), label


def _iou(counts: np.ndarray) -> np.ndarray:
    """Return the IoU of each class but Unlabeled, from counts `int64[12, 12]` (label, prediction)."""
    kept = counts[:UNLABELED, :UNLABELED]
    hits = np.diag(kept)
    return hits / (kept.sum(axis=0) + kept.sum(axis=1) - hits)


def test_the_contract_is_what_the_card_declares(session: ort.InferenceSession) -> None:
    (image,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape[1:]) == ("image", "tensor(float)", [3, 192, 256])
    assert (logits.name, logits.type, logits.shape[1:]) == ("logits", "tensor(float)", [12, 192, 256])
    assert isinstance(image.shape[0], str)
    assert image.shape[0] == logits.shape[0]


def test_the_file_is_small_and_names_no_machine() -> None:
    content = MODEL.read_bytes()
    assert len(content) <= 3_000_000
    model = onnx.load_model_from_string(content)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert not model.metadata_props
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    assert not any(trace in content for trace in (b"/home", b"/root", b"/work", b"/tmp", b".py"))


def test_a_batch_equals_its_images_one_by_one(session: ort.InferenceSession) -> None:
    batch = np.stack([_blob(seed)[0] for seed in (1, 2, 3)])
    (together,) = session.run(["logits"], {"image": batch})
    apart = [session.run(["logits"], {"image": image[None]})[0][0] for image in batch]
    np.testing.assert_allclose(together, np.stack(apart), atol=1e-3)


def test_it_segments_scenes_outside_its_training_data(session: ort.InferenceSession) -> None:
    counts = np.zeros((12, 12), np.int64)
    for seed in range(5000, 5024):
        image, label = _blob(seed)
        (logits,) = session.run(["logits"], {"image": image[None]})
        np.add.at(counts, (label.ravel(), logits[0].argmax(axis=0).ravel()), 1)
    iou = _iou(counts)
    assert np.nanmean(iou) >= 0.80, dict(zip(scenes.CLASSES, iou.round(3), strict=False))


def test_the_other_channel_order_scores_lower(session: ort.InferenceSession) -> None:
    """The card declares the channel order of the training: the other order scores lower."""
    right, wrong = np.zeros((12, 12), np.int64), np.zeros((12, 12), np.int64)
    for seed in range(5000, 5006):
        image, label = _blob(seed)
        swapped = ((image * STD[:, None, None] + MEAN[:, None, None])[::-1] - MEAN[:, None, None]) / STD[:, None, None]
        for counts, blob in ((right, image), (wrong, swapped)):
            (logits,) = session.run(["logits"], {"image": blob[None].astype(np.float32)})
            np.add.at(counts, (label.ravel(), logits[0].argmax(axis=0).ravel()), 1)
    assert np.nanmean(_iou(right)) > np.nanmean(_iou(wrong)) + 0.01
