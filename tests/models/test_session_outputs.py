"""Graphs with several outputs: one is chosen by name, in every format."""

from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from numpy.typing import NDArray
from onnx import helper

from segment.models.card import ModelCard, load_card
from segment.models.sessions import Runtime, open_session
from segment.models.weights import Weights
from tests.graphs import as_weights
from tests.serving import LITERT, NEEDS_LITERT, OPENVINO, ORT, message, small, tiny
from tests.tflites import Node, Tensor, tflite

HEIGHT, WIDTH = 32, 48
SHAPE = (1, HEIGHT, WIDTH, 3)
FORMATS = [
    ("onnx", ORT), ("onnx", OPENVINO), ("ir", OPENVINO), ("tflite", OPENVINO),
    pytest.param("tflite", LITERT, marks=NEEDS_LITERT),
]  # fmt: skip
EACH = pytest.mark.parametrize(("fmt", "runtime"), FORMATS, ids=lambda value: getattr(value, "name", value))


def card_of(name: str | None) -> ModelCard:
    card = small(input={"layout": "NHWC", "channels": "RGB"}, output={"layout": "NHWC", "kind": "logits", "name": name})
    names, palette = ("red", "green", "blue"), ((255, 0, 0), (0, 255, 0), (0, 0, 255))
    classes = card.classes.model_copy(update={"names": names, "palette": palette, "ignore": ()})
    return card.model_copy(update={"classes": classes})


def two_outputs(fmt: str, folder: Path) -> Weights:
    """Return a model whose output `main` is its input, and whose output `aux` is its negative."""
    if fmt == "tflite":
        tensors = [Tensor(name, SHAPE) for name in ("x", "aux", "main")]
        return as_weights(tflite(tensors, [Node("NEG", [0], [1]), Node("ABS", [0], [2])], [0], [1, 2]), "tflite")
    nodes = [helper.make_node("Neg", ["x"], ["aux"]), helper.make_node("Abs", ["x"], ["main"])]
    graph = tiny(nodes, [("x", SHAPE)], [("aux", SHAPE), ("main", SHAPE)])
    if fmt == "onnx":
        return as_weights(graph)
    openvino.save_model(openvino.Core().read_model(graph), folder / "model.xml", compress_to_fp16=False)
    return as_weights((folder / "model.xml").read_bytes(), "ir", (folder / "model.bin").read_bytes())


def noise(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)


@EACH
def test_the_named_output_is_read(fmt: Any, runtime: Runtime, tmp_path: Path) -> None:
    weights, images = two_outputs(fmt, tmp_path), noise(2)
    for name, best in (("main", np.argmax), ("aux", np.argmin)):
        found = open_session(card_of(name), weights, runtime).predict(images)
        assert found.faults == {}
        assert np.array_equal(found.masks, best(images, axis=3))


@EACH
def test_a_missing_name_lists_the_outputs_with_their_shapes(fmt: Any, runtime: Runtime, tmp_path: Path) -> None:
    weights = two_outputs(fmt, tmp_path)
    fit = "model card 'unet-camvid-onnx-0001' and its graph do not match: "
    listed = "'aux' (float32 1x32x48x3), 'main' (float32 1x32x48x3)"
    assert message(lambda: open_session(card_of("mian"), weights, runtime)) == (
        f"{fit}the card's output.name is 'mian', but the graph's outputs are: {listed}. Did you mean 'main'?"
    )
    assert message(lambda: open_session(card_of(None), weights, runtime)) == (
        f'{fit}the graph has 2 outputs: {listed}. Say which: output.name = "aux"'
    )


def test_weights_of_another_model_than_a_built_in_card_s_are_told_as_such() -> None:
    advice = " Or are the weights of another model? `segment models draft` drafts its card"
    card = load_card("demo-streets")
    graph = as_weights(tiny([helper.make_node("Relu", ["x"], ["y"])], [("x", (1, 3, 8, 8))], [("y", (1, 3, 8, 8))]))
    said = message(lambda: open_session(card, graph, ORT))
    assert said.endswith(f": input.height = 8 and input.width = 8?{advice}")
    own = card.model_copy(update={"description": "mine"})
    assert message(lambda: open_session(own, graph, ORT)) == said.removesuffix(advice)


def test_scores_that_are_no_numbers_are_not_blamed_on_another_model() -> None:
    card = load_card("demo-streets")
    height, width, classes = card.input.height, card.input.width, len(card.classes)
    nodes = [
        helper.make_node("ReduceMin", ["x"], ["least"], axes=[1]),
        helper.make_node("Concat", ["least"] * classes, ["all"], axis=1),
        helper.make_node("Sub", ["all", "all"], ["zeros"]),
        helper.make_node("Div", ["zeros", "zeros"], ["y"]),
    ]
    graph = tiny(nodes, [("x", (1, 3, height, width))], [("y", (1, classes, height, width))])
    said = message(
        lambda: open_session(card, as_weights(graph), ORT).predict(np.zeros((1, height, width, 3), np.uint8))
    )
    assert "do not match" in said
    assert "another model" not in said
