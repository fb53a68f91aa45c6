"""Outputs in 8 bits: their levels are compared as the numbers that they mean."""

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from segment.models.sessions import Runtime, open_session
from tests.graphs import as_weights
from tests.models.test_session_enlarging import CLASSES, enlarged
from tests.models.test_session_enlarging import card_of as card_of_classes
from tests.models.test_session_ensemble import ensemble
from tests.models.test_session_sigmoid import FIT, SIZE, SLOPE, card_of, logits, noise, probabilities
from tests.serving import BOTH, ON_TFLITE, message, opened
from tests.tflites import Node, Tensor, tflite

# dtype, scale, zero point
PROBABILITY = [("uint8", 1 / 256, 0), ("int8", 1 / 256, -128), ("uint8", 0.005, 20)]
EACH = pytest.mark.parametrize(("dtype", "scale", "zero_point"), PROBABILITY)


def quantised(
    dtype: str,
    scale: float | list[float],
    zero_point: int,
    *,
    last: str = "Sigmoid",
    stride: int = 1,
    channels: int = 1,
    how: str = "QuantizeLinear",
) -> bytes:
    """Return a graph of `brightness` (or of random mixtures of the colours) whose output, NHWC, is in 8 bits."""
    kernel = np.full((1, 3, 1, 1), SLOPE / 3, np.float32) if channels == 1 else mixtures(channels)[:, :, None, None]
    bias = np.array([-127.5 * SLOPE] if channels == 1 else [0] * channels, np.float32)
    zero_points = np.full(np.shape(scale), zero_point, dtype)
    stored = {"kernel": kernel, "bias": bias, "scale": np.asarray(scale, np.float32), "zero_point": zero_points}
    elem_type = int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    write = helper.make_node("QuantizeLinear", ["p", "scale", "zero_point"], ["q"], axis=1)
    nodes = [
        helper.make_node("Conv", ["x", "kernel", "bias"], ["logit"], kernel_shape=[1, 1], strides=[stride, stride]),
        helper.make_node(last, ["logit"], ["p"]),
        write if how == "QuantizeLinear" else helper.make_node("Cast", ["p"], ["q"], to=elem_type),
        helper.make_node("Transpose", ["q"], ["y"], perm=[0, 2, 3, 1]),
    ]
    arrays = [numpy_helper.from_array(value, name) for name, value in stored.items()]
    shape = ("N", -(-SIZE[0] // stride), -(-SIZE[1] // stride), channels)
    outputs = [helper.make_tensor_value_info("y", elem_type, shape)]
    inputs = [helper.make_tensor_value_info("x", 1, ("N", 3, *SIZE))]
    graph = helper.make_graph(nodes, "quantised", inputs, outputs, arrays)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def mixtures(channels: int) -> NDArray[np.float32]:
    return np.random.default_rng(2).standard_normal((channels, 3)).astype(np.float32)


def rounded(numbers: NDArray[np.float64], dtype: str, scale: float, zero_point: int) -> NDArray[np.float64]:
    """Return the numbers as the graph stores them."""
    limits = np.iinfo(dtype)
    return (np.clip(np.round(numbers / scale) + zero_point, limits.min, limits.max) - zero_point) * scale


def assert_above(masks: NDArray[np.uint8], numbers: NDArray[np.float64], limit: float, step: float) -> None:
    """Assert that the masks are `numbers > limit`; beside the limit a level is rounded up or down."""
    clear = np.abs(numbers - limit) > step
    assert clear.mean() > 0.9
    assert np.array_equal(masks[clear], (numbers > limit)[clear])
    assert set(np.unique(masks)) == {0, 1}


@BOTH
@EACH
@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_levels_become_probabilities(
    threshold: float, dtype: str, scale: float, zero_point: int, runtime: Runtime
) -> None:
    images = noise(2)
    card = card_of("NHWC", threshold=threshold)
    found = opened(card, quantised(dtype, scale, zero_point), runtime).predict(images)
    assert (found.faults, found.remarks) == ({}, {})
    assert_above(found.masks, rounded(probabilities(logits(images)), dtype, scale, zero_point), threshold, scale * 0.6)


@BOTH
@EACH
def test_levels_are_enlarged_as_probabilities(dtype: str, scale: float, zero_point: int, runtime: Runtime) -> None:
    images = noise(2)
    graph = quantised(dtype, scale, zero_point, stride=4)
    masks = opened(card_of("NHWC"), graph, runtime).predict(images).masks
    numbers = rounded(probabilities(logits(images, 4)), dtype, scale, zero_point)
    assert_above(masks, enlarged(numbers, SIZE), 0.5, scale)


@BOTH
@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_levels_become_logits(threshold: float, runtime: Runtime) -> None:
    images = noise(2)
    card = card_of("NHWC", threshold=threshold, logit=True)
    masks = opened(card, quantised("int8", 0.06, 5, last="Identity"), runtime).predict(images).masks
    limit = np.log(threshold / (1 - threshold))
    assert_above(masks, rounded(logits(images), "int8", 0.06, 5), limit, 0.04)


@BOTH
def test_the_sanity_check_sees_numbers(runtime: Runtime) -> None:
    said = message(lambda: opened(card_of("NHWC"), quantised("int8", 0.06, 5, last="Identity"), runtime).predict(
        noise(1)))  # fmt: skip
    assert said.startswith(f"{FIT}the card says that the graph's output is a probability, but its values, from -")
    said = message(lambda: opened(card_of("NHWC", logit=True), quantised("uint8", 1 / 256, 0), runtime).predict(
        noise(1) // 2 + 127))  # fmt: skip
    assert said.startswith(f"{FIT}the card says that the graph's output is a logit, but all its values are from 0 to 1")


@BOTH
def test_levels_without_a_scale_are_refused(runtime: Runtime) -> None:
    assert message(lambda: opened(card_of("NHWC"), quantised("uint8", 1, 0, how="Cast"), runtime)) == (
        f"{FIT}the graph's output is uint8, and no QuantizeLinear at its end says the scale and zero point: export it "
        "with a floating-point output"
    )


@BOTH
@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize(("dtype", "scale", "zero_point"), [("uint8", 5.0, 130), ("int8", 5.0, 10)])
def test_a_zero_point_does_not_change_the_best_class(
    dtype: str, scale: float, zero_point: int, stride: int, runtime: Runtime
) -> None:
    images = noise(2)
    graph = quantised(dtype, scale, zero_point, last="Identity", stride=stride, channels=CLASSES)
    found = opened(card_of_classes(SIZE, "NHWC"), graph, runtime).predict(images)
    assert found.faults == {}
    mixed = np.einsum("nhwc,kc->nkhw", images[:, ::stride, ::stride].astype(float), mixtures(CLASSES).astype(float))
    numbers = enlarged(rounded(mixed, dtype, scale, zero_point), SIZE)
    chosen = np.take_along_axis(numbers, found.masks[:, None].astype(int), 1)[:, 0]
    assert (numbers.max(axis=1) - chosen).max() <= scale * 1.01  # a level may be rounded up or down
    assert np.mean(numbers.max(axis=1) - chosen < 1e-3) > 0.99


@BOTH
def test_an_ensemble_averages_the_numbers_that_levels_mean(runtime: Runtime) -> None:
    """Two codings of one net: neither's levels, nor their differences, are those of the other."""
    images, coding = noise(2) // 24, [("uint8", 0.3, 100), ("int8", 0.8, -3)]
    graphs = [quantised(*each, last="Identity", channels=CLASSES) for each in coding]
    found = open_session(card_of_classes(SIZE, "NHWC"), ensemble(*graphs), runtime).predict(images)
    mixed = np.einsum("nhwc,kc->nkhw", images.astype(float), mixtures(CLASSES).astype(float))
    powers = [np.exp(rounded(mixed, *each)) for each in coding]
    mean = np.mean([power / power.sum(axis=1, keepdims=True) for power in powers], axis=0)
    chosen = np.take_along_axis(mean, found.masks[:, None].astype(int), 1)[:, 0]
    assert found.faults == {}
    assert np.mean(mean.max(axis=1) - chosen < 1e-4) > 0.99  # a level may be rounded up or down
    assert len(np.unique(found.masks)) > 4


@BOTH
def test_scores_without_a_scale_are_not_averaged(runtime: Runtime) -> None:
    graph = quantised("uint8", 1, 0, last="Identity", channels=CLASSES, how="Cast")
    card = card_of_classes(SIZE, "NHWC")
    views = card.model_copy(update={"input": card.input.model_copy(update={"tta": ("flip",)})})
    assert "no QuantizeLinear at its end says the scale" in message(lambda: opened(views, graph, runtime))


@BOTH
def test_scores_with_a_scale_per_class_are_refused(runtime: Runtime) -> None:
    scales = [1.0 + number for number in range(CLASSES)]
    graph = quantised("int8", scales, 0, last="Identity", channels=CLASSES)
    assert "is int8 with several scales, so its levels cannot be compared" in message(
        lambda: opened(card_of_classes(SIZE, "NHWC"), graph, runtime)
    )


@ON_TFLITE
@pytest.mark.parametrize(("dtype", "scale", "zero_point"), [("int8", 1 / 256, -128), ("int8", 1 / 128, -100)])
def test_a_tflite_says_its_scale(dtype: str, scale: float, zero_point: int, runtime: Runtime) -> None:
    shape, one = (1, *SIZE, 3), (1, *SIZE, 1)
    tensors = [
        Tensor("x", shape),
        Tensor("axis", (1,), "int32", np.array([3], np.int32)),
        Tensor("m", one),
        Tensor("p", one),
        Tensor("q", one, dtype, quantised=(scale, zero_point)),
    ]
    nodes = [Node("MEAN", [0, 1], [2]), Node("LOGISTIC", [2], [3]), Node("QUANTIZE", [3], [4])]
    card = card_of("NHWC", threshold=0.4)
    spec = {"layout": "NHWC", "mean": (127.5,) * 3, "std": (1 / SLOPE,) * 3}
    card = card.model_copy(update={"input": card.input.model_copy(update=spec)})
    images = noise(2)
    found = open_session(card, as_weights(tflite(tensors, nodes, [0], [4]), "tflite"), runtime).predict(images)
    assert found.faults == {}
    assert_above(found.masks, rounded(probabilities(logits(images)), dtype, scale, zero_point), 0.4, scale * 0.6)
