"""The order of channels: that of a BGR card, and permutations of a graph's own, on both runtimes.

openvino fuses the reversal of an image's channels into convolutions, and drops other permutations with it.
"""

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from segment.models.card import ModelCard
from segment.models.sessions import Extras, Runtime, open_session
from tests.graphs import as_weights
from tests.nets import net, node
from tests.serving import BOTH, OPENVINO, small

SIZE = (24, 32)
ORDER = np.array([2, 0, 1])
PERMUTATIONS = {
    "gather": [node("Gather", "scores order", "turned", axis=1)],
    "split": [node("Split", "scores", "a b c", axis=1), node("Concat", "c a b", "turned", axis=1)],
    "none": [node("Identity", "scores", "turned")],
}


def card_of(channels: str, classes: int = 3) -> ModelCard:
    card = small(
        input={"layout": "NCHW", "channels": channels, "maximum": 1, "height": SIZE[0], "width": SIZE[1]},
        output={"kind": "probabilities", "layout": "NCHW"},
    )
    names = {"names": tuple("abc"[:classes]), "palette": tuple((i, i, i) for i in range(classes)), "ignore": ()}
    return card.model_copy(update={"classes": card.classes.model_copy(update=names)})


def graph_of(tail: list[NodeProto], classes: int = 3) -> bytes:
    return net(
        classes=classes,
        tail=[*tail, node("Softmax", "turned", "y", axis=1)],
        constants={"order": ORDER},
        inputs={"x": [1, 3, *SIZE]},
        outputs={"y": [1, classes, *SIZE]},
    )


def image() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (1, *SIZE, 3), dtype=np.uint8)


def probabilities(card: ModelCard, graph: bytes) -> NDArray[np.float32]:
    """What the graph gives by itself, `[C, H, W]`."""
    pixels = image()[..., ::-1] if card.input.channels == "BGR" else image()
    given = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32) / 255
    return np.asarray(onnxruntime.InferenceSession(graph).run(None, {"x": given})[0][0])


@BOTH
@pytest.mark.parametrize("channels", ["RGB", "BGR"])
@pytest.mark.parametrize("permutation", PERMUTATIONS)
def test_a_graph_that_permutes_its_channels(permutation: str, channels: str, runtime: Runtime) -> None:
    card, graph = card_of(channels), graph_of(PERMUTATIONS[permutation])
    wanted = probabilities(card, graph).argmax(axis=0)
    found = open_session(card, as_weights(graph), runtime).predict(image())
    assert len(np.unique(wanted)) > 1
    assert np.array_equal(found.masks[0], wanted)


FIRST = {
    "gather": [node("Gather", "x order", "pixels", axis=1)],
    "negative axis": [node("Gather", "x order", "pixels", axis=-3)],
    "split": [node("Split", "x", "a b c", axis=1), node("Concat", "c a b", "pixels", axis=-3)],
    "twice": [node("Gather", "x order", "between", axis=1), node("Gather", "between order", "pixels", axis=1)],
}


@BOTH
@pytest.mark.parametrize("channels", ["RGB", "BGR"])
@pytest.mark.parametrize("first", FIRST)
def test_a_graph_that_permutes_the_image_first(first: str, channels: str, runtime: Runtime) -> None:
    card = card_of(channels)
    graph = net(
        classes=3,
        before=FIRST[first],
        tail=[*PERMUTATIONS["gather"], node("Softmax", "turned", "y", axis=1)],
        constants={"order": ORDER},
        inputs={"x": [1, 3, *SIZE]},
        outputs={"y": [1, 3, *SIZE]},
    )
    found = open_session(card, as_weights(graph), runtime).predict(image())
    assert np.array_equal(found.masks[0], probabilities(card, graph).argmax(axis=0))


MID = {
    "shuffle": [node("Gather", "a shuffle", "b", axis=1), node("Conv", "b kernels", "pixels", kernel_shape=[1, 1])],
    "some parts": [node("Split", "a", "b c d e f g", axis=1), node("Concat", "c b f d e g", "pixels", axis=1)],
    "fewer parts": [node("Split", "a", "b c d e f g", axis=1), node("Concat", "c b f c b f", "pixels", axis=1)],
}


@BOTH
@pytest.mark.parametrize("channels", ["RGB", "BGR"])
@pytest.mark.parametrize("mid", MID)
def test_a_graph_that_permutes_its_features(mid: str, channels: str, runtime: Runtime) -> None:
    """openvino fused a shuffle in the wrong direction, and did not load fewer channels than were split."""
    card, random = card_of(channels), np.random.default_rng(3)
    kernels = {"first": random.normal(size=(6, 3, 1, 1)), "kernels": random.normal(size=(6, 6, 1, 1))}
    graph = net(
        classes=3,
        depth=6,
        before=[node("Conv", "x first", "a", kernel_shape=[1, 1]), *MID[mid]],
        tail=[node("Softmax", "scores", "y", axis=1)],
        constants={"shuffle": np.array([3, 0, 5, 1, 2, 4]), **{k: v.astype(np.float32) for k, v in kernels.items()}},
        inputs={"x": [1, 3, *SIZE]},
        outputs={"y": [1, 3, *SIZE]},
    )
    found = open_session(card, as_weights(graph), runtime).predict(image())
    assert np.mean(found.masks[0] != probabilities(card, graph).argmax(axis=0)) < 0.01


@BOTH
def test_a_graph_that_permutes_within_a_branch(runtime: Runtime) -> None:
    """openvino fuses across the edge of a body."""
    kernels = np.random.default_rng(4).normal(size=(2, 3, 3, 1, 1)).astype(np.float32)
    made = {"o": ORDER, "k": kernels[0], "z": np.float32(0)}
    constants = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(made[name]), name))
        for name in "ok"
    ]
    shuffled = [*constants, node("Gather", "scores o", "g", axis=1), node("Conv", "g k", "then", kernel_shape=[1, 1])]
    branches = {
        f"{name}_branch": helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(name, 1, None)])
        for name, nodes in (("then", shuffled), ("else", [node("Identity", "scores", "else")]))
    }
    tail = [
        node("ReduceMax", "x", "most", keepdims=0), node("Less", "z most", "lit"), node("If", "lit", "a", **branches),
        node("Conv", "a last", "b", kernel_shape=[1, 1]), node("Softmax", "b", "y", axis=1),
    ]  # fmt: skip
    ports = {"inputs": {"x": [1, 3, *SIZE]}, "outputs": {"y": [1, 3, *SIZE]}}
    graph = net(classes=3, tail=tail, constants={"last": kernels[1], "z": made["z"]}, **ports)
    found = open_session(card_of("BGR"), as_weights(graph), runtime).predict(image())
    assert np.mean(found.masks[0] != probabilities(card_of("BGR"), graph).argmax(axis=0)) < 0.01


def test_permutations_of_any_batch() -> None:
    card, graph = card_of("BGR"), graph_of(PERMUTATIONS["split"])
    wanted = probabilities(card, graph).argmax(axis=0)
    found = open_session(card, as_weights(graph), OPENVINO, batch=3).predict(np.concatenate([image()] * 3))
    assert all(np.array_equal(mask, wanted) for mask in found.masks)


@BOTH
@pytest.mark.parametrize("chosen", [(1, 0), (2, 1, 0), (1, 2, 0), (2, 0)], ids=str)
@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_probabilities_in_any_order(channels: str, chosen: tuple[int, ...], runtime: Runtime) -> None:
    classes = 2 if chosen == (1, 0) else 3
    card, graph = card_of(channels, classes), graph_of(PERMUTATIONS["none"], classes)
    wanted = probabilities(card, graph)
    found = open_session(card, as_weights(graph), runtime, extras=Extras(None, chosen)).predict(image())
    assert found.probabilities is not None
    assert np.array_equal(found.masks[0], wanted.argmax(axis=0))
    assert np.abs(found.probabilities[0] - 255 * wanted[list(chosen)]).max() <= 0.51
