"""Test-time augmentation: the views of an image in one graph, against numpy and OpenCV, in both runtimes."""

import functools
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from segment.errors import UsageError
from segment.models.buckets import scaled_size
from segment.models.card import ModelCard, parse_card
from segment.models.sessions import Runtime, footprint, open_session
from segment.models.sessions.averaging import merged_card
from segment.models.sessions.extras import Extras
from segment.models.sessions.onnx_averaging import merged_graph
from segment.models.sessions.openvino import wrapped_model
from segment.models.sessions.surgery import Surgeon
from segment.models.weights import Weights
from segment.report.cards import print_card
from tests.graphs import TRIGGER, as_weights, colour_classifier, nan_graph, painted
from tests.serving import BOTH, OPENVINO, ORT, message, opened, small, tiny

SIZE = (36, 52)
CLASSES = 12
VIEWS: list[tuple[Any, ...]] = [("flip",), (0.5,), (1.5,), ("flip", 0.75, 1.25)]


def card_of(tta: tuple[Any, ...] = (), size: tuple[int, int] = SIZE, **output: Any) -> ModelCard:
    card = small(
        input={"channels": "RGB", "height": size[0], "width": size[1], "maximum": 1, "tta": tta},
        output={"kind": "logits", **output},
    )
    if output.get("kind") != "sigmoid":
        return card
    classes = card.classes.model_copy(update={"names": ("ground", "person"), "palette": ((0, 0, 0), (9, 9, 9))})
    return card.model_copy(update={"classes": classes})


def lopsided(
    *,
    channels: int = CLASSES,
    depth: int = 3,
    last: str = "Identity",
    layout: str = "NCHW",
    stride: int = 1,
    sides: tuple[int | str, int | str] = ("h", "w"),
    batch: int | str = "N",
    seed: int = 0,
    opset: int = 17,
) -> bytes:
    """Return a convolution with random kernels of 5x5: what it says of a mirrored image is not its mirrored answer."""
    kernel = np.random.default_rng(seed).normal(size=(channels, depth, 5, 5)).astype(np.float32)
    kernel -= kernel.mean((1, 2, 3), keepdims=True)
    attributes = {"axis": 1} if last == "Softmax" else {}
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["s"], pads=[2, 2, 2, 2], strides=[stride, stride]),
        helper.make_node(last, ["s"], ["p"], **attributes),
        helper.make_node("Transpose", ["p"], ["y"], perm=[0, 1, 2, 3] if layout == "NCHW" else [0, 2, 3, 1]),
    ]
    sizes = {"N": batch, "C": channels, "H": "oh", "W": "ow"}
    stored = [numpy_helper.from_array(kernel, "kernel")]
    return tiny(nodes, [("x", (batch, depth, *sides))], [("y", tuple(sizes[axis] for axis in layout))], stored, opset)


def images_of(card: ModelCard, count: int = 3) -> NDArray[np.uint8]:
    """Smooth random pictures: their classes have margins."""
    generator = np.random.default_rng(count)
    coarse = generator.integers(0, 256, (count, 4, 6, 3), dtype=np.uint8)
    size = (card.input.width, card.input.height)
    return np.stack([cv2.resize(image, size, interpolation=cv2.INTER_CUBIC) for image in coarse])


def probabilities(card: ModelCard, graph: bytes, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the mean over views, `float32[C, H, W]`, at the size of the plain view's scores: numpy and OpenCV."""
    session = onnxruntime.InferenceSession(graph)
    plain = image.astype(np.float32) / 255
    found, size = [], None
    for scale in (1.0, *card.input.scales):
        height, width = scaled_size(*image.shape[:2], scale)
        view = plain if scale == 1 else cv2.resize(plain, (width, height), interpolation=cv2.INTER_LINEAR)
        for flip in (False, True) if card.input.flips else (False,):
            seen = view[:, ::-1] if flip else view
            (scores,) = session.run(None, {"x": np.ascontiguousarray(seen.transpose(2, 0, 1)[None])})
            pixels = scores[0] if card.output.layout == "NHWC" else scores[0].transpose(1, 2, 0)
            pixels = activated(card, pixels)
            pixels = pixels[:, ::-1] if flip else pixels
            size = size or pixels.shape[:2]
            resized = cv2.resize(np.ascontiguousarray(pixels), (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
            found.append(resized.reshape(*size, -1))
    return np.mean(found, axis=0).transpose(2, 0, 1)


def activated(card: ModelCard, scores: NDArray[np.float32]) -> NDArray[np.float32]:
    if card.output.kind == "logits":
        exponents = np.exp(scores - scores.max(-1, keepdims=True))
        return np.asarray(exponents / exponents.sum(-1, keepdims=True))
    return 1 / (1 + np.exp(-scores)) if card.output.logit else scores


def expected(
    card: ModelCard, graph: bytes, image: NDArray[np.uint8], margin: float = 1e-4
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the mask, and the pixels whose class is beyond rounding."""
    found = probabilities(card, graph, image).transpose(1, 2, 0)
    size = (card.input.width, card.input.height)
    found = cv2.resize(found, size, interpolation=cv2.INTER_LINEAR).reshape(card.input.height, card.input.width, -1)
    if card.output.kind == "sigmoid":
        return (found[..., 0] > 0.5).astype(np.uint8), abs(found[..., 0] - 0.5) > margin
    first, second = np.sort(found, axis=-1)[..., :-3:-1].transpose(2, 0, 1)
    return found.argmax(-1).astype(np.uint8), first - second > margin


def assert_as_expected(
    card: ModelCard, graph: bytes, runtime: Runtime, count: int = 3, reference: bytes | None = None
) -> None:
    """Compare masks one by one and together; `reference` is the graph without fixed sizes."""
    session, images = opened(card, graph, runtime), images_of(card, count)
    masks, faults, *_ = session.predict(images)
    alone = np.concatenate([session.predict(images[i : i + 1]).masks for i in range(count)])
    assert not faults
    for image, mask, single in zip(images, masks, alone, strict=True):
        wanted, sure = expected(card, reference or graph, image)
        assert sure.mean() > 0.9
        assert len(np.unique(wanted)) > 1
        assert np.array_equal(mask[sure], wanted[sure])
        assert np.array_equal(mask, single)


# ---- answers


@BOTH
@pytest.mark.parametrize("tta", VIEWS, ids=str)
def test_the_mean_of_the_views(runtime: Runtime, tta: tuple[Any, ...]) -> None:
    assert_as_expected(card_of(tta), lopsided(), runtime)


@pytest.mark.parametrize("tta", VIEWS, ids=str)
def test_the_merged_graph_gives_the_mean_probabilities(tta: tuple[Any, ...]) -> None:
    card, graph = card_of(tta), lopsided(stride=4)
    _, merged = merged_graph(card, as_weights(graph), [graph], trial)
    image = images_of(card, 1)[0]
    found = trial(Surgeon(merged_card(card), merged).raw(), image[None])[0]
    assert found.shape == (CLASSES, 9, 13)
    assert np.abs(found - probabilities(card, graph, image)).max() < 1e-5
    assert np.abs(found.sum(0) - 1).max() < 1e-5


def trial(model: bytes, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model)
    return np.asarray(session.run(None, {session.get_inputs()[0].name: images})[0])


@BOTH
@pytest.mark.parametrize(
    ("output", "graph"),
    [
        ({"kind": "probabilities"}, {"last": "Softmax"}),
        ({"layout": "NHWC"}, {"layout": "NHWC", "stride": 4}),
        ({"kind": "sigmoid"}, {"channels": 1, "last": "Sigmoid"}),
        ({"kind": "sigmoid", "logit": True}, {"channels": 1, "stride": 4}),
        ({}, {"batch": 1, "sides": SIZE}),
    ],
    ids=["probabilities", "channels last", "sigmoid", "logit", "fixed"],
)
def test_kinds_and_layouts(runtime: Runtime, output: dict[str, Any], graph: dict[str, Any]) -> None:
    free = lopsided(**{**graph, "batch": "N", "sides": ("h", "w")})
    assert_as_expected(card_of(("flip", 0.5), **output), lopsided(**graph), runtime, reference=free)


@BOTH
def test_confidence_is_that_of_the_mean(runtime: Runtime) -> None:
    card, graph = card_of(("flip", 0.5)), lopsided()
    extras = Extras(confidence="maximum", probabilities=(3,))
    images = images_of(card, 2)
    found = open_session(card, as_weights(graph), runtime, extras=extras).predict(images)
    assert found.confidence is not None
    assert found.probabilities is not None
    for at, image in enumerate(images):
        mean = probabilities(card, graph, image)
        assert np.abs(found.confidence[at] - 255 * mean.max(0)).max() < 0.51
        assert np.abs(found.probabilities[at, 0] - 255 * mean[3]).max() < 0.51


@BOTH
def test_views_of_bands(runtime: Runtime) -> None:
    card = card_of(("flip", 0.5))
    bands = {"channels": "BANDS", "bands": (1, 2, 3, 4), "mean": (0.0,) * 4, "std": (1.0,) * 4}
    card = card.model_copy(update={"input": card.input.model_copy(update=bands)})
    images = images_of(card, 2)
    images = np.concatenate([images, images[::-1, ..., :1]], axis=-1)
    graph = lopsided(depth=4)
    masks, faults, *_ = opened(card, graph, runtime).predict(images)
    assert not faults
    for image, mask in zip(images, masks, strict=True):
        wanted, sure = expected(card, graph, image)
        assert sure.mean() > 0.9
        assert np.array_equal(mask[sure], wanted[sure])


@BOTH
def test_mirrored_images_of_any_size(runtime: Runtime) -> None:
    card = card_of(("flip",))
    free = {"multiple_of": 4, "resize": card.input.resize.model_copy(update={"method": "none"})}
    card = card.model_copy(update={"input": card.input.model_copy(update=free)})
    session = open_session(card, as_weights(lopsided()), runtime)
    for size in (SIZE, (20, 64)):
        sized = card.at(size)
        (image,) = images_of(sized, 1)
        wanted, sure = expected(sized, lopsided(), image)
        assert np.array_equal(session.predict(image[None]).masks[0][sure], wanted[sure])


@BOTH
def test_a_flip_turns_back_to_the_pixel(runtime: Runtime) -> None:
    """Of a net whose scores depend on the place alone, left and right halves are averaged: column by column."""
    card = card_of(("flip",), kind="probabilities")
    ramp = np.full((1, CLASSES, *SIZE), 0.01, np.float32)
    ramp[0, 1] = np.linspace(0, 0.9, SIZE[1])  # with its mirror image: 0.45 everywhere
    ramp[0, 2] = np.where(np.arange(SIZE[1]) < 5, 0.96, 0)  # 0.48 in five columns of each side
    nodes = [
        helper.make_node("ReduceSum", ["x", "axis"], ["grey"], keepdims=1),
        helper.make_node("Mul", ["grey", "zero"], ["none"]),
        helper.make_node("Add", ["none", "ramp"], ["y"]),
    ]
    stored = {"axis": np.array([1]), "zero": np.float32(0), "ramp": ramp}
    arrays = [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()]
    graph = tiny(nodes, [("x", ("N", 3, *SIZE))], [("y", ("N", CLASSES, *SIZE))], arrays)
    row = np.full(SIZE[1], 1)
    row[:5] = row[-5:] = 2
    for count in (1, 2):
        masks, faults, *_ = opened(card, graph, runtime).predict(images_of(card, count))
        assert not faults
        assert np.array_equal(masks, np.broadcast_to(row, (count, *SIZE)))


@BOTH
@pytest.mark.parametrize("anchor", ["top-left", "centre"])
def test_a_border_does_not_shift_the_mask(runtime: Runtime, anchor: str) -> None:
    """The whole canvas is mirrored, border included, so a net that sees one pixel at a time says the same."""
    plain = card_of()
    image, mask = painted(plain, 1)
    image, mask = image.copy(), mask.copy()
    columns = slice(30, None) if anchor == "top-left" else np.r_[:9, 38:52]
    image[:, columns], mask[:, columns] = plain.classes.palette[3], 3
    graph = colour_classifier(plain)
    for card in (plain, card_of(("flip",))):
        assert np.array_equal(opened(card, graph, runtime).predict(image[None]).masks[0], mask)


@BOTH
def test_a_graph_of_bytes_sees_rounded_bytes(runtime: Runtime) -> None:
    given = {"channels": "RGB", "height": SIZE[0], "width": SIZE[1], "tta": ("flip", 0.5)}
    card = small(input=given, output={"kind": "logits"})
    graph = colour_classifier(card, input_dtype="uint8", dynamic=True)
    image, mask = painted(card, 2)
    found = opened(card, graph, runtime).predict(image[None]).masks[0]
    inner = np.zeros(SIZE, bool)  # beyond the reach of the blocks' edges
    inner[np.ix_(np.arange(SIZE[0]) % 16 // 4 % 3 > 0, np.arange(SIZE[1]) % 16 // 4 % 3 > 0)] = True
    assert np.array_equal(found[inner], mask[inner])


@BOTH
@pytest.mark.parametrize("tta", [("flip",), ("flip", 0.5)], ids=str)
def test_a_graph_of_levels_sees_rounded_levels(runtime: Runtime, tta: tuple[Any, ...]) -> None:
    """Levels of a resized image are a fraction of a pixel value from its numbers."""
    model = onnx.load_model_from_string(lopsided())
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("levels", onnx.TensorProto.INT8, ("N", 3, "h", "w")))
    stored = {"scale": np.float32(1 / 255), "zero_point": np.int8(-128)}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items())
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["levels", "scale", "zero_point"], ["x"]))
    card = card_of(tta)
    (image,) = images_of(card, 1)
    found = open_session(card, as_weights(model.SerializeToString()), runtime).predict(image[None])
    wanted, sure = expected(card, lopsided(), image, margin=1e-4 if tta == ("flip",) else 0.02)
    assert found.faults == {}
    assert sure.mean() > 0.8
    assert np.array_equal(found.masks[0][sure], wanted[sure])


def test_a_subgraph_sees_its_own_view() -> None:
    """An If whose branches read the image of the outer graph."""
    card, (height, width) = card_of(("flip",)), SIZE
    kernel = np.random.default_rng(1).normal(size=(CLASSES, 3, 5, 5)).astype(np.float32)
    branches = {
        f"{name}_branch": helper.make_graph(
            [
                helper.make_node("Conv", ["x", "kernel"], ["inner"], pads=[2, 2, 2, 2]),
                helper.make_node("Mul", ["inner", factor], [name]),
            ],
            name,
            [],
            [helper.make_tensor_value_info(name, 1, None)],
        )
        for name, factor in (("then", "one"), ("else", "two"))
    }
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "two"], ["is_bright"]),
        helper.make_node("If", ["is_bright"], ["y"], **branches),
    ]
    stored = {"kernel": kernel, "one": np.float32(1), "two": np.float32(2)}
    arrays = [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()]
    graph = tiny(nodes, [("x", ("N", 3, height, width))], [("y", ("N", CLASSES, height, width))], arrays)
    assert_as_expected(card, graph, ORT)


def test_functions_of_a_model_are_inlined() -> None:
    """Of one name in both members, with another body in each."""
    card, graphs = card_of(("flip",)), []
    for factor in (1.0, -0.5):
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
        constant = helper.make_node("Constant", [], ["factor"], value_float=factor)
        body = [constant, helper.make_node("Mul", ["a", "factor"], ["b"])]
        function = helper.make_function("mine", "Scale", ["a"], ["b"], body, opsets[:1])
        model = onnx.load_model_from_string(lopsided())
        model.graph.node[1].CopyFrom(helper.make_node("Scale", ["s"], ["p"], domain="mine"))
        del model.opset_import[:]
        model.opset_import.extend(opsets)
        model.functions.append(function)
        graphs.append(model.SerializeToString())
    image = images_of(card, 1)[0]
    weights = Weights("onnx", b"", b"", "", "tests", tuple(map(as_weights, graphs)))
    _, merged = merged_graph(card, weights, graphs, trial)
    found = trial(Surgeon(merged_card(card), merged).raw(), image[None])[0]
    assert np.abs(found - np.mean([probabilities(card, graph, image) for graph in graphs], axis=0)).max() < 1e-5


# ---- numbers that are none


@BOTH
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_a_nan_in_one_view_is_a_fault(runtime: Runtime, kind: str) -> None:
    plain = card_of(kind=kind)
    session = opened(card_of(("flip",), kind=kind), nan_graph(plain), runtime)
    image, mask = painted(plain, 3)
    poisoned = image.copy()
    poisoned[7, 9] = TRIGGER
    masks, faults, *_ = session.predict(np.stack([image, poisoned]))
    assert faults == {1: "model_not_finite"}
    assert np.array_equal(masks[0], mask)


@BOTH
def test_a_masked_class_never_wins_and_is_no_fault(runtime: Runtime) -> None:
    plain = card_of()
    session = opened(card_of(("flip",)), nan_graph(plain, number=0), runtime)
    image, mask = painted(plain, 3)
    assert np.array_equal(session.predict(image[None]).masks[0], mask)
    masked = helper.make_node("Add", ["s", "mask"], ["y"])
    kernel = np.random.default_rng(0).normal(size=(CLASSES, 3, 1, 1)).astype(np.float32)
    mask = np.zeros((1, CLASSES, 1, 1), np.float32)
    mask[0, 4] = -np.inf
    arrays = [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(mask, "mask")]
    nodes = [helper.make_node("Conv", ["x", "kernel"], ["s"]), masked]
    graph = tiny(nodes, [("x", ("N", 3, "h", "w"))], [("y", ("N", CLASSES, "h", "w"))], arrays)
    card = card_of(("flip", 0.5))
    masks, faults, *_ = opened(card, graph, runtime).predict(images_of(card, 2))
    assert not faults
    assert 4 not in masks
    assert len(np.unique(masks)) > 1


@BOTH
def test_logits_that_the_card_calls_probabilities_are_refused(runtime: Runtime) -> None:
    card = card_of(("flip",), kind="probabilities")
    text = message(lambda: opened(card, lopsided(), runtime).predict(images_of(card, 1)))
    assert 'output.kind = "logits"' in text


@BOTH
def test_a_logit_that_the_card_calls_a_probability_is_refused(runtime: Runtime) -> None:
    card = card_of(("flip",), kind="sigmoid")
    text = message(lambda: opened(card, lopsided(channels=1), runtime).predict(images_of(card, 1)))
    assert "output.logit = true" in text


# ---- refusals


@BOTH
def test_a_graph_of_one_size_refuses_another(runtime: Runtime) -> None:
    """A reshape to fixed sizes: onnxruntime and openvino name the view."""
    card = card_of(("flip", 0.5))
    kernel = np.random.default_rng(0).normal(size=(CLASSES, 3, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["pixels"]),
        helper.make_node("Reshape", ["pixels", "apart"], ["again"]),
        helper.make_node("Conv", ["again", "kernel"], ["y"]),
    ]
    stored = {"kernel": kernel, "flat": np.array([1, 3, -1]), "apart": np.array([1, 3, *SIZE])}
    arrays = [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()]
    graph = tiny(nodes, [("x", (1, 3, *SIZE))], [("y", (1, CLASSES, *SIZE))], arrays)
    text = message(lambda: opened(card, graph, runtime))
    assert "the graph fails on the view 0.5, an input of 16x24" in text
    assert "Export it with dynamic height and width, or remove 0.5 from input.tta" in text
    assert_as_expected(card_of(("flip",)), graph, runtime, 1)


@BOTH
def test_a_graph_that_makes_several_images_of_a_larger_one_is_refused(runtime: Runtime) -> None:
    """A reshape of fixed sizes and any batch: of an image of twice the sides it makes four; openvino mixed them."""
    card = card_of((2.0,))
    kernel = np.random.default_rng(0).normal(size=(CLASSES, 3, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["again"]),
        helper.make_node("Conv", ["again", "kernel"], ["y"]),
    ]
    arrays = [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(np.array([-1, 3, *SIZE]), "shape")]
    graph = tiny(nodes, [("x", ("N", 3, *SIZE))], [("y", ("N", CLASSES, *SIZE))], arrays)
    assert "the graph fails on the view 2, an input of 72x104" in message(lambda: opened(card, graph, runtime))


@BOTH
def test_a_window_over_the_whole_input_is_for_one_size(runtime: Runtime) -> None:
    """At a larger size it would cover a corner, and nothing would fail; a graph that names no size is believed."""
    nodes = [
        helper.make_node("AveragePool", ["x"], ["mean"], kernel_shape=SIZE, strides=SIZE),
        helper.make_node("Conv", ["x", "kernel"], ["s"]),
        helper.make_node("Conv", ["mean", "kernel"], ["context"]),
        helper.make_node("Add", ["s", "context"], ["y"]),
    ]
    kernel = np.random.default_rng(0).normal(size=(CLASSES, 3, 1, 1)).astype(np.float32)
    for sides, refused in ((SIZE, True), (("h", "w"), False)):
        outputs = [("y", ("N", CLASSES, *sides))]
        graph = tiny(nodes, [("x", ("N", 3, *sides))], outputs, [numpy_helper.from_array(kernel, "kernel")])
        card = card_of((1.5,))
        if refused:
            text = message(functools.partial(opened, card, graph, runtime))
            assert "the view 1.5, an input of 56x80 (it averages over a fixed window of 36x52, and is made for" in text
        else:
            assert opened(card, graph, runtime).predict(images_of(card, 1)).faults == {}


def test_an_old_opset_has_no_flip_in_onnxruntime() -> None:
    text = message(lambda: opened(card_of(("flip",)), lopsided(opset=9), ORT))
    assert "opset 9" in text
    assert "opset 10 or newer, or use --runtime openvino" in text
    assert_as_expected(card_of(("flip",)), lopsided(opset=9), OPENVINO, 1)


CARD = """
name = "mine"
[input]
layout = "NCHW"
height = 64
width = 96
channels = "RGB"
tta = {tta}
[output]
kind = "{kind}"
layout = "{layout}"
[classes]
names = ["a", "b"]
palette = [[0, 0, 0], [1, 1, 1]]
"""


@pytest.mark.parametrize(
    ("tta", "kind", "layout", "text"),
    [
        ('["flip"]', "index", "NHW", "input.tta averages probabilities, and a class index has none"),
        ("[0.75]", "logits", "NC(HW)", "the scales in input.tta need an output with height and width"),
        (
            "[1.0]",
            "logits",
            "NCHW",
            "in steps of 32 rows and 32 columns, the scale 1 is the same view as the plain view",
        ),
        ("[0.75, 0.8]", "logits", "NCHW", "the scale 0.8 is the same view as the scale 0.75: remove it"),
        ('["flip", "flip"]', "logits", "NCHW", "tta names 'flip' twice"),
        ('["flop"]', "logits", "NCHW", "'flip'"),
        ("[9]", "logits", "NCHW", "from 0.1 to 4"),
    ],
)
def test_cards_that_are_refused(tta: str, kind: str, layout: str, text: str) -> None:
    assert text in message(lambda: parse_card(CARD.format(tta=tta, kind=kind, layout=layout)), UsageError)


def test_sizes_keep_the_stride_of_the_input() -> None:
    assert scaled_size(368, 480, 0.75) == (272, 352)  # multiples of 16 and 32, as 368 and 480 are
    assert scaled_size(513, 513, 0.75) == (385, 385)
    assert scaled_size(64, 96, 0.1) == (32, 32)


def test_a_card_shows_its_views(capsys: pytest.CaptureFixture[str]) -> None:
    print_card(card_of(("flip", 0.5)))
    assert "36x52, 16x24, each plain and mirrored: 4 averaged" in capsys.readouterr().out


# ---- cost and identity


def enlarging() -> bytes:
    """Return a convolution of stride 8 whose scores the graph enlarges by itself."""
    kernel = np.random.default_rng(0).normal(size=(CLASSES, 3, 8, 8)).astype(np.float32)
    scales = numpy_helper.from_array(np.array([1, 1, 8, 8], np.float32), "scales")
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["s"], strides=[8, 8]),
        helper.make_node("Resize", ["s", "", "scales"], ["y"], mode="linear"),
    ]
    ports = [("x", ("N", 3, "h", "w"))], [("y", ("N", CLASSES, "oh", "ow"))]
    return tiny(nodes, *ports, [numpy_helper.from_array(kernel, "kernel"), scales])


def test_a_footprint_counts_shared_weights_once() -> None:
    graph = lopsided()
    one, six = (footprint(card_of(tta), as_weights(graph), OPENVINO, 1) for tta in ((), ("flip", 0.75, 1.25)))
    assert one is not None
    assert six is not None
    assert six.shared == one.shared
    assert one.per_stream < six.per_stream < 6 * one.per_stream


def test_a_footprint_counts_what_views_of_a_graph_that_enlarges_itself_keep_alive() -> None:
    """Three tensors at the softmax of the largest view, sums of each view to the end, and tables of what is resized."""
    card, side = card_of(("flip", 0.75, 1.25), (256, 256)), 256
    scores, resized = CLASSES * side**2 * 4, side**2 * (0.75**2 + 1.25**2 + 2)
    found = footprint(card, as_weights(enlarging()), OPENVINO, 1)
    assert found is not None
    assert found.per_stream == pytest.approx(scores * (3 + 4 * 1.25**2) + 32 * resized, rel=0.1)


def test_a_flip_is_no_slice_for_which_openvino_keeps_each_address() -> None:
    nodes = wrapped_model(card_of(("flip",)), as_weights(lopsided()), "f32").get_ops()
    assert not {"Slice", "StridedSlice"} & {node.get_type_name() for node in nodes}


def test_a_card_without_views_dumps_as_before() -> None:
    dumped = card_of().model_dump(mode="json")
    assert "tta" not in dumped["input"]
    assert "ensemble" not in dumped
    assert card_of(("flip", 0.5)).model_dump(mode="json")["input"]["tta"] == ["flip", 0.5]
