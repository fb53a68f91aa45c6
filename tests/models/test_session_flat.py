"""Outputs with all pixels in one dimension are spread to height and width within the graph."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from segment.models.card import ModelCard
from segment.models.sessions import Runtime, open_session
from tests.graphs import as_weights, colour_classifier
from tests.models.test_session_sigmoid import SIZE, brightness, logits, noise, probabilities
from tests.models.test_session_sigmoid import card_of as sigmoid_card
from tests.serving import BOTH, ON_TFLITE, message, opened, pictures, small
from tests.tflites import Node, Tensor, tflite

# flat layout, layout of the same output with height and width apart
SCORES = [("NC(HW)", "NCHW"), ("N(HW)C", "NHWC")]
SIGMOIDS = [("N(HW)", "NHW"), ("NC(HW)", "NCHW"), ("N(HW)C", "NHWC")]


def flattened(graph: bytes, layout: str, *, batch: int | None = None, undeclared: bool = False) -> bytes:
    """Return a graph whose output, in a layout with height and width apart, is reshaped to a flat layout."""
    model = onnx.load_from_string(graph)
    output = model.graph.output[0]
    model.graph.node[-1].output[0] = "spread"
    sizes = [dim.dim_value for dim in output.type.tensor_type.shape.dim]
    first = 0 if batch is None else batch
    shape, pixels = {
        "N(HW)": ([first, -1], sizes[-2:]),
        "NC(HW)": ([first, 0, -1], sizes[2:]),
        "N(HW)C": ([first, -1, sizes[-1]], sizes[1:3]),
    }[layout]
    model.graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), "flat"))
    model.graph.node.append(helper.make_node("Reshape", ["spread", "flat"], [output.name]))
    counts: list[Any] = [batch or "N", *shape[1:]]
    counts = [int(np.prod(pixels)) if size == -1 else sizes[1] if size == 0 else size for size in counts]
    if undeclared:
        counts = [f"d{place}" for place in range(len(counts))]
    elem_type = output.type.tensor_type.elem_type
    output.CopyFrom(helper.make_tensor_value_info(output.name, elem_type, counts))
    return bytes(model.SerializeToString())


def scores_card(layout: str, **output: Any) -> ModelCard:
    return small(output={"kind": "logits", "layout": layout, **output})


@BOTH
@pytest.mark.parametrize("batch", [1, None])
@pytest.mark.parametrize("undeclared", [False, True])
@pytest.mark.parametrize(("flat", "spread"), SCORES)
def test_flat_scores(flat: str, spread: str, undeclared: bool, batch: int | None, runtime: Runtime) -> None:
    graph = colour_classifier(scores_card(spread), batch=batch or "N")
    images, masks = pictures(small(), 3)
    session = opened(scores_card(flat), flattened(graph, flat, batch=batch, undeclared=undeclared), runtime)
    found = session.predict(images)
    assert session.batches is (batch is None)
    assert found.faults == {}
    assert np.array_equal(found.masks, masks)


@BOTH
@pytest.mark.parametrize("enlarge", ["bilinear", "nearest"])
@pytest.mark.parametrize(("flat", "spread"), SCORES)
def test_flat_scores_are_enlarged(flat: str, spread: str, enlarge: str, runtime: Runtime) -> None:
    graph = colour_classifier(scores_card(spread), stride=4)
    images, _ = pictures(small(), 2)
    wanted = opened(scores_card(spread, enlarge=enlarge), graph, runtime).predict(images).masks
    card = scores_card(flat, enlarge=enlarge, height=8, width=12)
    assert np.array_equal(opened(card, flattened(graph, flat), runtime).predict(images).masks, wanted)


@BOTH
@pytest.mark.parametrize("stride", [1, 4])
def test_a_flat_class_index(stride: int, runtime: Runtime) -> None:
    card = small(output={"kind": "index", "layout": "N(HW)", "height": 32 // stride, "width": 48 // stride})
    graph = colour_classifier(small(output={"kind": "index", "layout": "NHW"}), stride=stride)
    images, masks = pictures(card, 2)
    found = opened(card, flattened(graph, "N(HW)"), runtime).predict(images)
    assert found.faults == {}
    assert np.array_equal(found.masks, masks[:, ::stride, ::stride].repeat(stride, 1).repeat(stride, 2))


@BOTH
@pytest.mark.parametrize(("flat", "spread"), SIGMOIDS)
def test_a_flat_sigmoid(flat: str, spread: str, runtime: Runtime) -> None:
    images = noise(2)
    graph = flattened(brightness(spread), flat)
    found = opened(sigmoid_card(flat), graph, runtime).predict(images)
    numbers = probabilities(logits(images))
    assert found.faults == {}
    clear = np.abs(numbers - 0.5) > 1e-5
    assert np.array_equal(found.masks[clear], (numbers > 0.5)[clear])
    small_card = sigmoid_card(flat, height=8, width=12)
    enlarged = opened(small_card, flattened(brightness(spread, stride=4), flat), runtime).predict(images).masks
    assert np.array_equal(
        enlarged, opened(sigmoid_card(spread), brightness(spread, stride=4), runtime).predict(images).masks
    )


@ON_TFLITE
def test_a_flat_tflite(runtime: Runtime) -> None:
    """`[1, H * W]` in int8, as portrait_video_quant.tflite has it."""
    number = SIZE[0] * SIZE[1]
    tensors = [
        Tensor("x", (1, *SIZE, 3)),
        Tensor("axis", (1,), "int32", np.array([3], np.int32)),
        Tensor("m", (1, *SIZE, 1)),
        Tensor("shape", (2,), "int32", np.array([1, number], np.int32)),
        Tensor("flat", (1, number)),
        Tensor("p", (1, number)),
        Tensor("q", (1, number), "int8", quantised=(1 / 256, -128)),
    ]
    nodes = [
        Node("MEAN", [0, 1], [2]),
        Node("RESHAPE", [2, 3], [4]),
        Node("LOGISTIC", [4], [5]),
        Node("QUANTIZE", [5], [6]),
    ]
    card = sigmoid_card("N(HW)")
    spec = {"layout": "NHWC", "mean": (127.5,) * 3, "std": (20.0,) * 3}
    card = card.model_copy(update={"input": card.input.model_copy(update=spec)})
    images = noise(2)
    found = open_session(card, as_weights(tflite(tensors, nodes, [0], [6]), "tflite"), runtime).predict(images)
    numbers = probabilities(logits(images))
    clear = np.abs(numbers - 0.5) > 1 / 256
    assert found.faults == {}
    assert np.array_equal(found.masks[clear], (numbers > 0.5)[clear])


@BOTH
@pytest.mark.parametrize(("flat", "spread"), SCORES)
def test_scores_that_are_all_equal_are_seen(flat: str, spread: str, runtime: Runtime) -> None:
    graph = onnx.load_from_string(flattened(colour_classifier(scores_card(spread)), flat))
    for tensor in graph.graph.initializer:
        if len(tensor.dims) in (1, 4) and tensor.data_type == 1:
            tensor.CopyFrom(numpy_helper.from_array(np.zeros(tuple(tensor.dims), np.float32), tensor.name))
    said = message(lambda: opened(scores_card(flat), graph.SerializeToString(), runtime).predict(noise(1)))
    assert "all scores of a pixel are equal" in said


@BOTH
def test_a_wrong_number_of_pixels_is_refused(runtime: Runtime) -> None:
    graph = flattened(colour_classifier(scores_card("NHWC"), stride=4), "N(HW)C")
    assert message(lambda: opened(scores_card("N(HW)C"), graph, runtime)).endswith(
        "the card says logits N(HW)C 1536x12 (12 classes), the graph's output 'prediction' is float32 ?x96x12: "
        "96 pixels are not 32x48: set output.height and output.width"
    )


@BOTH
@pytest.mark.parametrize(("flat", "spread"), SCORES)
def test_a_flat_layout_is_advised(flat: str, spread: str, runtime: Runtime) -> None:
    plain = colour_classifier(scores_card(spread))
    said = message(lambda: opened(scores_card(spread), flattened(plain, flat), runtime))
    assert said.endswith(f': output.layout = "{flat}"?')
    said = message(lambda: opened(scores_card(flat), plain, runtime))
    assert said.endswith(f': output.layout = "{spread}"?')
