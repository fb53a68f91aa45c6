"""Grey input: one channel of luma, computed within the graph, equal to Pillow's."""

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from PIL import Image

from segment.errors import UsageError
from segment.models.card import ModelCard, parse_card
from segment.models.sessions import Runtime, open_session
from segment.models.sessions.runtimes import capabilities
from tests.graphs import as_weights
from tests.models.test_card import CARD, changed
from tests.serving import BOTH, ON_TFLITE, ORT, message, opened, small, tiny
from tests.tflites import Node, Tensor, tflite

SIZE = (64, 96)


def card_of(layout: str = "NCHW", **entry: Any) -> ModelCard:
    """A card of 256 grey values as an index, but 255 of them at most."""
    given = {"channels": "GREY", "mean": (0.0,), "std": (1.0,), "layout": layout, "height": SIZE[0], "width": SIZE[1]}
    card = small(input={**given, **entry}, output={"kind": "index", "layout": "N1HW" if layout == "NCHW" else "NHW1"})
    names = tuple(map(str, range(255)))
    palette = tuple((n, n, n) for n in range(255))
    return card.model_copy(
        update={"classes": card.classes.model_copy(update={"names": names, "palette": palette, "ignore": ()})}
    )


def identity(layout: str = "NCHW", scale: float = 1, offset: float = 0, opset: int = 17, channels: int = 1) -> bytes:
    """Return a graph whose class index is round(its input * scale + offset)."""
    shape = ("N", channels, *SIZE) if layout == "NCHW" else ("N", *SIZE, channels)
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["moved"]),
        helper.make_node("Floor", ["moved"], ["y"]),
    ]
    stored = {"scale": scale, "offset": offset + 0.5}
    arrays = [numpy_helper.from_array(np.float32(value), name) for name, value in stored.items()]
    return tiny(nodes, [("x", shape)], [("y", shape)], arrays, opset)


def noise(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(6).integers(0, 255, (count, *SIZE, 3), dtype=np.uint8)


def luma(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in images])


@BOTH
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_luma_is_pillows(layout: str, runtime: Runtime) -> None:
    images = noise(3)
    session = opened(card_of(layout), identity(layout), runtime)
    found = session.predict(images)
    assert (session.batches, found.faults) == (True, {})
    assert np.array_equal(found.masks, luma(images))
    assert np.array_equal(session.predict(images[:1]).masks, found.masks[:1])


@BOTH
def test_grey_pixels_keep_their_value(runtime: Runtime) -> None:
    images = (np.arange(SIZE[0] * SIZE[1]) % 255).astype(np.uint8).reshape(1, *SIZE, 1).repeat(3, axis=3)
    assert np.array_equal(opened(card_of(), identity(), runtime).predict(images).masks, images[..., 0])


@BOTH
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_mean_and_std_of_one_value(layout: str, runtime: Runtime) -> None:
    """The graph undoes the normalisation."""
    images = noise(2)
    card = card_of(layout, maximum=1, mean=(0.25,), std=(0.5,))
    found = opened(card, identity(layout, 0.5 * 255, 0.25 * 255), runtime).predict(images)
    assert np.array_equal(found.masks, luma(images))


@pytest.mark.parametrize("opset", [9, 11, 13, 18, 21])
def test_every_opset(opset: int) -> None:
    images = noise(2)
    assert np.array_equal(opened(card_of(), identity(opset=opset), ORT).predict(images).masks, luma(images))


def test_luma_is_exact_in_bf16() -> None:
    if "openvino:cpu:bf16" not in capabilities():
        pytest.skip("this CPU does not compute in bf16")
    images, runtime = noise(2), Runtime("openvino", "cpu", "bf16", "")
    kernel = numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "kernel")
    shape = ("N", 1, *SIZE)
    graph = tiny([helper.make_node("Conv", ["x", "kernel"], ["y"])], [("x", shape)], [("y", shape)], [kernel])
    for made in (identity(), graph):
        assert np.array_equal(opened(card_of(), made, runtime).predict(images).masks, luma(images))


@BOTH
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float16"])
def test_a_graph_that_takes_integers_or_half_floats(dtype: str, runtime: Runtime) -> None:
    model = onnx.load_from_string(identity())
    elem_type = int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    model.graph.input[0].type.tensor_type.elem_type = elem_type
    model.graph.node[0].input[0] = "xf"
    model.graph.node.insert(0, helper.make_node("Cast", ["x"], ["xf"], to=1))
    images = noise(2)
    assert np.array_equal(opened(card_of(), model.SerializeToString(), runtime).predict(images).masks, luma(images))


@ON_TFLITE
def test_a_grey_tflite(runtime: Runtime) -> None:
    shape = (1, *SIZE, 1)
    tensors = [Tensor("x", shape), Tensor("y", shape)]
    weights = as_weights(tflite(tensors, [Node("ABS", [0], [1])], [0], [1]), "tflite")
    images = noise(2)
    assert np.array_equal(open_session(card_of("NHWC"), weights, runtime).predict(images).masks, luma(images))


@BOTH
def test_a_graph_of_other_channels_is_refused_with_advice(runtime: Runtime) -> None:
    said = message(lambda: opened(card_of(), identity(channels=3), runtime))
    assert said.endswith('the graph takes 3 channels: input.channels = "RGB" or "BGR"?')
    colour = card_of(channels="RGB", mean=(0.0,) * 3, std=(1.0,) * 3)
    assert message(lambda: opened(colour, identity(), runtime)).endswith(
        'the graph takes 1 channel: input.channels = "GREY", with one value in input.mean and input.std?'
    )


def test_the_card_of_a_grey_model() -> None:
    grey = changed('channels = "RGB"', 'channels = "GREY"')
    assert (parse_card(grey).input.mean, parse_card(grey).input.std) == ((0.0,), (1.0,))
    given = parse_card(grey.replace('"GREY"', '"GREY"\nmean = [0.5]\nstd = [0.2]', 1)).input
    assert (given.mean, given.std, given.depth) == ((0.5,), (0.2,), 1)
    with pytest.raises(UsageError, match="input: mean has 3 values, but channels = 'GREY' needs 1"):
        parse_card(grey.replace('"GREY"', '"GREY"\nmean = [0.5, 0.5, 0.5]', 1))
    with pytest.raises(UsageError, match="input: std has 1 value, but channels = 'RGB' needs 3"):
        parse_card(CARD.replace('"RGB"', '"RGB"\nstd = [0.2]', 1))
