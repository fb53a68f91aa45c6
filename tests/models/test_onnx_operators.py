"""Operators that depend on chance are refused, and those that openvino computes otherwise than onnxruntime."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import pytest
from onnx import ModelProto
from openvino import opset15 as ops

from segment.models.sessions import Runtime, open_session
from segment.models.sessions.sanity_check import random_images
from segment.models.weights import load_weights
from tests.nets import net, node
from tests.serving import BOTH, OPENVINO, ORT, message, opened, small

INPUT = {"height": 24, "width": 32, "name": None}
CARD = small(input=INPUT, output={"kind": "logits", "name": None})
WEIGHTS = np.random.default_rng(1).normal(size=(12, 12, 3, 3)).astype(np.float32)
CONSTANTS = {
    "w": WEIGHTS, "none": np.empty(0, np.float32), "full": np.array([1, 12, 24, 32]), "small": np.array([1, 12, 6, 8]),
    "half": np.float32(0.5), "yes": np.bool_(True), "no": np.bool_(False), "one": np.ones(12, np.float32),
}  # fmt: skip
HALF = "scores half yes"
ROW: dict[str, Any] = {"kernel_shape": [3, 3], "strides": [2, 2]}
ODD: dict[str, Any] = {**ROW, "auto_pad": "SAME_UPPER", "output_shape": [24, 32]}
BORDERS: dict[str, Any] = {**ROW, "pads": [1] * 4, "ceil_mode": 1}


def graph(operator: str, inputs: str, size: tuple[int, int], stride: int = 1, **said: Any) -> bytes:
    """Return a network that ends in an operator, of opset 18."""
    tail = [node(operator, inputs, "y", **said)]
    data = net(classes=12, stride=stride, tail=tail, outputs={"y": [1, 12, *size]}, constants=CONSTANTS)
    model = ModelProto.FromString(data)
    model.opset_import[0].version = 18
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (graph("Resize", "scores none none small", (6, 8), mode="linear", antialias=1), "antialias"),
        (graph("Resize", "scores none none full", (24, 32), 4, mode="linear", antialias=1), ""),
        (graph("Resize", "scores none none full", (24, 32), 4, mode="cubic", exclude_outside=1), "exclude_outside"),
        (graph("Resize", "scores none none full", (24, 32), 4, mode="cubic"), ""),
        (graph("ConvTranspose", "scores w", (24, 32), 2, **ODD), "output_shape and auto_pad"),
        (graph("ConvTranspose", "scores w", (23, 31), 2, **{**ODD, "output_shape": [23, 31]}), ""),
        (graph("AveragePool", "scores", (13, 17), **BORDERS, count_include_pad=1), "ceil_mode and count_include_pad"),
        (graph("AveragePool", "scores", (13, 17), **BORDERS), ""),
        (graph("MaxPool", "scores", (9, 11), **{**BORDERS, "strides": [3, 3]}), "ceil_mode and such strides"),
        (graph("MaxPool", "scores", (13, 17), **BORDERS), ""),
        (graph("Dropout", "scores half no", (24, 32)), ""),
    ],
)
def test_what_openvino_computes_otherwise_is_refused(data: bytes, said: str) -> None:
    image = random_images(1, 24, 32)
    fed = image[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)
    scores = onnxruntime.InferenceSession(data).run(None, {"x": fed})[0]
    card = small(input=INPUT, output={"kind": "logits", "name": None, "enlarge": "nearest"})
    rows, columns = ((np.arange(n) + 0.5) * side / n for n, side in zip((24, 32), scores.shape[2:], strict=True))
    wanted = scores.argmax(1)[:, rows.astype(int)[:, None], columns.astype(int)]

    assert np.array_equal(opened(card, data, ORT).predict(image).masks, wanted)
    if said:
        text = message(lambda: opened(card, data, OPENVINO))
        assert f"with {said} otherwise than ONNX says: use --runtime onnxruntime" in text
        plain = openvino.compile_model(openvino.Core().read_model(data), "CPU")(fed)[0]
        assert plain.shape != scores.shape or np.abs(plain - scores).max() > 0.1  # else the refusal is out of date
    else:
        assert np.array_equal(opened(card, data, OPENVINO).predict(image).masks, wanted)


@BOTH
def test_masks_by_chance_are_refused(runtime: Runtime) -> None:
    noise = [node("RandomNormalLike", "scores", "noise"), node("Add", "scores noise", "y")]
    noisy = net(classes=12, tail=noise, outputs={"y": [1, 12, 24, 32]})
    training = graph("BatchNormalization", "scores one one one one", (24, 32), training_mode=1)
    said = "an image would get another mask each time: the graph has "
    assert message(lambda: opened(CARD, noisy, runtime)).startswith(f"{said}RandomNormalLike. Export it")
    assert message(lambda: opened(CARD, training, runtime)).startswith(f"{said}BatchNormalization. Export it")


def test_dropout_that_drops_is_refused() -> None:
    assert "the graph has Dropout. Export" in message(lambda: opened(CARD, graph("Dropout", HALF, (24, 32)), ORT))


def test_an_ir_by_chance_is_refused(tmp_path: Path) -> None:
    image = ops.parameter([1, 3, 24, 32], openvino.Type.f32)
    kernel = ops.constant(np.ones((12, 3, 1, 1), np.float32))
    scores = ops.convolution(image, kernel, [1, 1], [0, 0], [0, 0], [1, 1])
    ends = [ops.constant(np.float32(end)) for end in (0, 9)]
    noise = ops.random_uniform(ops.constant(np.array([1, 12, 24, 32])), *ends, "f32")
    openvino.save_model(openvino.Model([ops.result(ops.add(scores, noise))], [image], "net"), tmp_path / "net.xml")
    weights = load_weights(CARD, str(tmp_path / "net.xml"))
    assert message(lambda: open_session(CARD, weights, OPENVINO)).endswith("the graph has RandomUniform")
