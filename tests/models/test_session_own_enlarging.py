"""Graphs that enlarge their scores themselves: both runtimes make the mask without that node, and it is the same."""

from typing import Any

import numpy as np
import onnxruntime
import openvino
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from segment.models.card import ModelCard
from segment.models.sessions import Runtime
from segment.models.sessions.enlarging import CENTRES, bands_of, enlarging_of, line_weights
from segment.models.sessions.extras import Extras
from segment.models.sessions.onnx_enlarging import GraphScores
from segment.models.sessions.onnxfile import inferred_ports, read_model
from segment.models.sessions.openvino import cpu_capabilities, wrapped_model
from tests.graphs import as_weights
from tests.models.test_session_enlarging import noise, scores_of
from tests.serving import BOTH, OPENVINO, ORT, opened, small, tiny

SIZE, STRIDE, CLASSES = (33, 50), 8, 12
SMALL = (5, 7)
SCALES = (6.7, 7.2)  # 33.5 and 50.4 pixels
# Small whole numbers: bf16 holds the scores exactly. Each row sums to 0, or one class would be best in every pixel.
_TWO = np.random.default_rng(3).integers(-2, 3, (CLASSES, 3))[:, :2]
KERNEL = np.hstack([_TWO, -_TWO.sum(axis=1, keepdims=True)]).astype(np.float32)


def own(centres: str = "half_pixel", *end: str, scaled: bool = False, **resize: Any) -> bytes:
    """A graph: a mixture of every 8th pixel, a Resize, and the nodes of `end`."""
    stored = [numpy_helper.from_array(KERNEL[:, :, None, None], "kernel")]
    scales = np.array([1, 1, *SCALES], np.float32)
    stored.append(numpy_helper.from_array(scales, "scales"))
    stored.append(numpy_helper.from_array(np.array([1, CLASSES, *SIZE], np.int64), "sizes"))
    nodes = [helper.make_node("Conv", ["x", "kernel"], ["v0"], kernel_shape=[1, 1], strides=[STRIDE, STRIDE])]
    how = {"mode": "linear", "coordinate_transformation_mode": centres, **resize}
    nodes.append(helper.make_node("Resize", ["v0", "", "scales"] if scaled else ["v0", "", "", "sizes"], ["v1"], **how))
    made = {
        "Transpose": {"perm": [0, 2, 3, 1]},
        "Softmax": {"axis": -1 if "Transpose" in end else 1},
        "ArgMax": {"axis": 3 if "Transpose" in end else 1, "keepdims": 0},
        "Cast": {"to": TensorProto.FLOAT},
        "Neg": {},
    }
    for number, kind in enumerate(end, 1):
        nodes.append(helper.make_node(kind, [f"v{number}"], [f"v{number + 1}"], **made[kind]))
    shape: Any = (1, CLASSES, *SIZE)
    shape = (1, *SIZE) if "ArgMax" in end else (1, *SIZE, CLASSES) if "Transpose" in end else shape
    return tiny(nodes, [("x", (1, 3, *SIZE))], [(f"v{len(end) + 1}", shape)], stored)


def card_of(*end: str) -> ModelCard:
    kind = "index" if "ArgMax" in end else "probabilities" if "Softmax" in end else "logits"
    layout = "NHW" if "ArgMax" in end else "NHWC" if "Transpose" in end else "NCHW"
    given = {"channels": "RGB", "height": SIZE[0], "width": SIZE[1]}
    return small(input=given, output={"kind": kind, "layout": layout})


def enlarged(
    scores: NDArray[np.float64], centres: Any, scales: tuple[float | None, float | None] = (None, None)
) -> NDArray[np.float64]:
    lines = zip(SMALL, SIZE, scales, strict=True)
    rows, columns = (line_weights(a, b, centres, scale).astype(np.float64) for a, b, scale in lines)
    return np.asarray(rows @ scores @ columns.T)


def assert_best(masks: NDArray[np.uint8], scores: NDArray[np.float64]) -> None:
    """Assert that each pixel has the class of the best score, or of one that f32 cannot tell from it."""
    chosen = np.take_along_axis(scores, masks[:, None].astype(int), 1)[:, 0]
    assert (scores.max(axis=1) - chosen).max() < 1e-4
    assert (masks != scores.argmax(axis=1)).mean() < 0.01  # whole numbers have many ties


def finds(graph: bytes, card: ModelCard, runtime: Runtime) -> bool:
    """Whether a runtime replaces the graph's own enlarging."""
    if runtime == OPENVINO:
        model = wrapped_model(card, as_weights(graph), "f32")
        return not any(node.get_type_name() == "Interpolate" for node in model.get_ops())
    model = read_model(graph)
    ports = inferred_ports(model, "x", [1, 3, *SIZE])
    scores, result = GraphScores(model.graph, ports.get), model.graph.output[0].name
    if card.output.kind == "index":
        return scores.of_index(result, SIZE) is not None
    return scores.of_scores(result, card.output.layout) is not None


@pytest.mark.parametrize("centres", CENTRES)
def test_the_weights_of_a_line_are_those_of_openvino(centres: Any) -> None:
    for size, target in ((5, 33), (7, 50), (3, 3), (1, 9), (4, 5)):
        line = np.eye(size, dtype=np.float32)[
            None, :, None
        ]  # one channel a pixel: what each gives to the enlarged line
        ops, given = openvino.opset15, openvino.opset15.parameter(line.shape, np.float32)
        node = ops.interpolate(
            given,
            ops.constant(np.array([1, target])),
            "linear_onnx",
            "sizes",
            coordinate_transformation_mode=centres,
            axes=ops.constant(np.array([2, 3])),
        )
        exact = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.Core().compile_model(openvino.Model([node], [given]), "CPU", exact)
        wanted = compiled(line)[0][0, :, 0]
        assert np.allclose(line_weights(size, target, centres), wanted.T, atol=1e-5), (size, target)


def test_bands_are_the_whole() -> None:
    enlarging = enlarging_of((33, 40), (513, 600), "align_corners")
    assert enlarging
    scores = np.random.default_rng(1).standard_normal((1, 2, 33, 40)).astype(np.float32)
    wide = scores @ enlarging.columns.T
    bands = list(bands_of(enlarging, 21))
    assert len(bands) > 10
    assert max(band.stop - band.start for band in bands) < 5
    joined = np.concatenate([band.rows @ wide[:, :, band.start : band.stop] for band in bands], axis=2)
    assert np.allclose(joined, enlarging.rows @ wide, atol=1e-5)


def test_what_hardly_grows_or_shrinks_is_left_to_the_runtime() -> None:
    assert enlarging_of((65, 65), (65, 65), "half_pixel") is None
    assert enlarging_of((65, 65), (130, 130), "half_pixel") is None
    assert enlarging_of((65, 4), (33, 400), "half_pixel") is None


ENDS: list[tuple[str, ...]] = [
    (),
    ("Transpose",),
    ("Softmax",),
    ("Transpose", "Softmax"),
    ("ArgMax", "Cast"),
    ("Transpose", "ArgMax", "Cast"),
]


@BOTH
@pytest.mark.parametrize(
    ("centres", "end"), [*((each, ()) for each in CENTRES), *(("half_pixel", e) for e in ENDS[1:])]
)
def test_a_graphs_own_enlarging_is_replaced_and_the_mask_is_the_same(
    centres: str, end: tuple[str, ...], runtime: Runtime
) -> None:
    images, graph, card = noise(2, SIZE) // 8, own(centres, *end), card_of(*end)
    assert finds(graph, card, runtime)
    found = opened(card, graph, runtime).predict(images[:1])
    assert found.faults == {}
    assert_best(found.masks, enlarged(scores_of(images[:1], KERNEL, STRIDE), centres))


@BOTH
@pytest.mark.parametrize(
    ("end", "resize"),
    [
        ((), {"coordinate_transformation_mode": "tf_crop_and_resize"}),
        ((), {"mode": "cubic"}),
        ((), {"mode": "nearest"}),
        (("Neg",), {}),
        (("Neg", "ArgMax", "Cast"), {}),
    ],
)
def test_other_ends_of_a_graph_are_left_alone(end: tuple[str, ...], resize: dict[str, Any], runtime: Runtime) -> None:
    graph = own("half_pixel", *end)
    if resize:
        model = read_model(graph)
        model.graph.node[1].CopyFrom(read_model(own(**{"centres": "half_pixel", **resize})).graph.node[1])
        graph = model.SerializeToString()
    if resize.get("coordinate_transformation_mode") == "tf_crop_and_resize" and runtime == OPENVINO:
        pytest.skip("openvino does not read it")
    assert not finds(graph, card_of(*end), runtime)


FLOAT, HALF, BYTE, INT = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.INT64
BY_SIZES = ["", "", "sizes"]


def variant(
    resize: dict[str, Any], inputs: list[str], opset: int = 18, dtype: int = FLOAT, end: tuple[str, ...] = ()
) -> bytes:
    """As `own`, with a Resize of `dtype` of any attributes and inputs: scales, sizes, or those of height and width."""
    model = read_model(own())
    numbers = {"scales": np.array([1, 1, *SCALES], np.float32), "sizes": np.array([1, CLASSES, *SIZE], np.int64)}
    numbers |= {"swapped": numbers["scales"][:1:-1], "both": numbers["scales"][2:], "none": np.empty(0, np.float32)}
    stored = [model.graph.initializer[0], *(numpy_helper.from_array(numbers[name], name) for name in inputs if name)]
    nodes = [model.graph.node[0], helper.make_node("Cast", ["v0"], ["v1"], to=dtype)]
    nodes.append(helper.make_node("Resize", ["v1", *inputs], ["v2"], mode="linear", **resize))
    shape: Any = (1, *SIZE) if end else (1, CLASSES, *SIZE)
    if end:
        nodes.append(helper.make_node("ArgMax", ["v2"], ["v3"], axis=1, keepdims=0))
        nodes += [
            helper.make_node("Cast", [f"v{number}"], [f"v{number + 1}"], to=to)
            for number, to in enumerate([getattr(TensorProto, name) for name in end[1:]], 3)
        ]
    else:
        nodes.append(helper.make_node("Cast", ["v2"], ["v3"], to=FLOAT))
    return tiny(nodes, [("x", (1, 3, *SIZE))], [(nodes[-1].output[0], shape)], stored, opset)


@BOTH
@pytest.mark.parametrize(
    "graph",
    [
        pytest.param(variant({}, ["scales"], opset=10), id="opset-10"),
        pytest.param(variant({"axes": [3, 2]}, ["", "swapped"]), id="axes-swapped"),
        pytest.param(variant({}, BY_SIZES, dtype=HALF), id="f16"),
        pytest.param(variant({}, BY_SIZES, dtype=HALF, end=("ArgMax", "FLOAT")), id="f16-argmax"),
        pytest.param(variant({}, BY_SIZES, dtype=TensorProto.INT32), id="whole-numbers"),  # onnxruntime truncates
        pytest.param(variant({}, BY_SIZES, end=("ArgMax", "BOOL", "FLOAT")), id="index-as-truth-value"),
    ],
)
def test_masks_are_those_of_the_graph_whatever_its_resize_is(
    graph: bytes, runtime: Runtime, request: pytest.FixtureRequest
) -> None:
    """Of `onnxruntime` by itself: scales by axis, the opsets' defaults, and types that round."""
    images = noise(1, SIZE) // 8
    alone = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (result,) = alone.run(None, {"x": images.transpose(0, 3, 1, 2).astype(np.float32)})
    card = card_of("ArgMax") if result.ndim == 3 else card_of()
    masks = opened(card, graph, runtime).predict(images).masks
    if result.ndim == 3:
        assert (masks != result).mean() < 0.01
    elif "whole" not in request.node.name or runtime == ORT:  # openvino rounds
        chosen = np.take_along_axis(result, masks[:, None].astype(int), 1)[:, 0]
        assert (result.max(axis=1) - chosen).max() < 0.02  # f16
        assert (masks != result.argmax(axis=1)).mean() < 0.01


@BOTH
def test_stated_scales_are_those_of_the_graph(runtime: Runtime) -> None:
    graph, images = own("asymmetric", scaled=True), noise(1, SIZE) // 8
    assert finds(graph, card_of(), runtime)
    assert_best(
        opened(card_of(), graph, runtime).predict(images).masks,
        enlarged(scores_of(images, KERNEL, STRIDE), "asymmetric", SCALES),
    )


@BOTH
@pytest.mark.parametrize("end", [(), ("Softmax",)])
def test_confidence_is_of_the_enlarged_scores(end: tuple[str, ...], runtime: Runtime) -> None:
    from segment.models.sessions import open_session

    images, card = noise(1, SIZE) // 64, card_of(*end)
    extras = Extras("maximum", (2,))
    found = open_session(card, as_weights(own("half_pixel", *end)), runtime, extras=extras).predict(images)
    scores = enlarged(scores_of(images, KERNEL, STRIDE), "half_pixel")
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    wanted = 255 * odds / odds.sum(axis=1, keepdims=True)
    assert found.faults == {}
    assert found.confidence is not None
    assert found.probabilities is not None
    assert np.abs(found.confidence - wanted.max(axis=1)).max() < 0.51
    assert np.abs(found.probabilities[:, 0] - wanted[:, 2]).max() < 0.51


@pytest.mark.parametrize("stated", [False, True])
def test_scores_are_enlarged_in_f32_in_bf16(stated: bool) -> None:
    if "openvino:cpu:bf16" not in cpu_capabilities():
        pytest.skip("this CPU does not compute in bf16")
    images = noise(1, SIZE) // 8  # scores up to 98, which bf16 holds exactly; enlarged it could not
    graph = own()
    if stated:  # the card enlarges
        graph = tiny(
            list(read_model(graph).graph.node[:1]),
            [("x", (1, 3, *SIZE))],
            [("v0", (1, CLASSES, *SMALL))],
            list(read_model(graph).graph.initializer[:1]),
        )
    masks = opened(card_of(), graph, Runtime("openvino", "cpu", "bf16", "")).predict(images).masks
    exact = opened(card_of(), graph, OPENVINO).predict(images).masks
    assert np.array_equal(masks, exact)
    assert_best(masks, enlarged(scores_of(images, KERNEL, STRIDE), "half_pixel"))


def test_both_runtimes_serve_batches_of_it() -> None:
    images = noise(3, SIZE) // 8
    for runtime in (ORT, OPENVINO):
        session = opened(card_of(), own(), runtime)
        together = session.predict(images).masks
        assert all(np.array_equal(session.predict(images[i : i + 1]).masks[0], together[i]) for i in range(3))


def of_logarithms(kernel: NDArray[np.float32], centres: str = "half_pixel") -> bytes:
    """A graph of class indices whose scores are logarithms: minus infinity of 0, NaN of negative numbers."""
    model = read_model(own(centres, "ArgMax", "Cast"))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(kernel[:, :, None, None], "kernel"))
    model.graph.node[0].output[0] = "numbers"
    model.graph.node.insert(1, helper.make_node("Log", ["numbers"], ["v0"]))
    return bytes(model.SerializeToString())


@BOTH
def test_a_class_index_of_scores_that_are_not_finite(runtime: Runtime) -> None:
    """Minus infinity excludes a class, also the first and also from some pixels; a NaN is told, not spread unseen."""
    kernel = np.zeros((CLASSES, 3), np.float32)
    kernel[1:4] = np.eye(3)
    kernel[4] = 1, 0, -1
    images = np.clip(noise(2, SIZE), 1, 255)
    images[..., 2] = 0  # no class 3
    images[0, 16, 24] = 0  # nor any
    images[1, 16, 24] = 0, 0, 200
    found = opened(card_of("ArgMax"), of_logarithms(kernel), runtime).predict(images)
    assert found.faults == {1: "model_not_finite"}
    with np.errstate(divide="ignore"):
        scores = np.log(scores_of(images[:1], kernel, STRIDE)).clip(-1e30)
    wanted = enlarged(scores, "half_pixel").argmax(axis=1)
    assert set(np.unique(wanted)) >= {1, 2}
    assert (found.masks[0] != wanted[0]).mean() < 0.02  # of classes 1 and 4, which are nearly equal


def test_more_channels_than_bytes_have_numbers_are_told() -> None:
    kernel = np.zeros((300, 3), np.float32)
    kernel[256:300] = 1  # as bytes, these indices begin with 0
    model = read_model(own("half_pixel", "ArgMax", "Cast"))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(kernel[:, :, None, None], "kernel"))
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(np.array([1, 300, *SIZE], np.int64), "sizes"))
    session = opened(card_of("ArgMax"), model.SerializeToString(), ORT, sanity_check=False)
    assert session.predict(noise(1, SIZE)).faults == {0: "model_range"}


def test_probabilities_that_graph_and_card_enlarge_stay_probabilities() -> None:
    """The graph enlarges before its softmax, and the card what comes out: that is no logit."""
    from segment.models.sessions import open_session

    size = (17, 25)
    model = read_model(own("half_pixel", "Softmax"))
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(np.array([1, CLASSES, *size], np.int64), "sizes"))
    for dim, length in zip(model.graph.output[0].type.tensor_type.shape.dim[2:], size, strict=True):
        dim.dim_value = length
    weights, images = as_weights(model.SerializeToString()), noise(1, SIZE) // 64
    ours, theirs = (
        open_session(card_of("Softmax"), weights, runtime, extras=Extras("maximum", (2,))).predict(images)
        for runtime in (ORT, OPENVINO)
    )
    assert ours.confidence is not None
    assert theirs.confidence is not None
    assert np.ptp(theirs.confidence) > 50
    assert np.abs(ours.confidence.astype(int) - theirs.confidence).max() <= 1
