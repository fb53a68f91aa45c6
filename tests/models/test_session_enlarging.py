"""Scores smaller than the input are enlarged before the argmax: both runtimes against numpy."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from PIL import Image

from segment.models.card import ModelCard
from segment.models.sessions import Runtime
from segment.models.sessions.enlarging import nearest_positions
from segment.models.sessions.openvino_postprocess import beyond, lowest
from segment.models.sessions.predict import GraphSession
from tests.graphs import colour_classifier
from tests.serving import BOTH, OPENVINO, ORT, message, opened, pictures, small, tiny

CLASSES = 12
# input (height, width), stride of the scores
SIZES = [((32, 48), 4), ((33, 50), 7), ((31, 47), 8), ((32, 48), 32), ((65, 33), 2)]


def at_one_pixel(
    size: tuple[int, int],
    stride: int,
    layout: str,
    batch: int | str = "N",
    masked: int | None = None,
    opset: int = 17,
    symbolic: bool = False,
) -> tuple[bytes, NDArray[np.float32]]:
    """Return a graph whose scores are random mixtures of every `stride`-th pixel, and the mixtures, `float32[C, 3]`."""
    height, width = size
    kernel = np.random.default_rng(stride).standard_normal((CLASSES, 3)).astype(np.float32)
    stored = [numpy_helper.from_array(kernel[:, :, None, None], "kernel")]
    nodes = [helper.make_node("Conv", ["x", "kernel"], ["scores"], kernel_shape=[1, 1], strides=[stride, stride])]
    last = "scores"
    if masked is not None:
        mask = np.zeros((1, CLASSES, 1, 1), np.float32)
        mask[0, masked] = -np.inf
        stored.append(numpy_helper.from_array(mask, "mask"))
        nodes.append(helper.make_node("Add", [last, "mask"], ["masked"]))
        last = "masked"
    perm = [0, 1, 2, 3] if layout == "NCHW" else [0, 2, 3, 1]
    nodes.append(helper.make_node("Transpose", [last], ["y"], perm=perm))
    axes: dict[str, Any] = {"N": batch, "C": CLASSES, "H": -(-height // stride), "W": -(-width // stride)}
    entry: tuple[Any, ...] = (batch, 3, height, width)
    if symbolic:
        axes, entry = {**axes, "H": "h", "W": "w"}, (batch, 3, "ih", "iw")
    outputs = [("y", tuple(axes[axis] for axis in layout))]
    return tiny(nodes, [("x", entry)], outputs, stored, opset=opset), kernel


def card_of(size: tuple[int, int], layout: str = "NCHW", **output: Any) -> ModelCard:
    given = {"channels": "RGB", "height": size[0], "width": size[1]}
    return small(input=given, output={"kind": "logits", "layout": layout, **output})


def enlarged(scores: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Enlarge `float64[..., h, w]` to `float64[..., height, width]`: bilinear, half-pixel centres, edges repeated."""
    for axis, target in ((-2, size[0]), (-1, size[1])):
        length = scores.shape[axis]
        place = np.clip((np.arange(target) + 0.5) * length / target - 0.5, 0, length - 1)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, length - 1)
        shape = (target, 1) if axis == -2 else (target,)
        part = (place - low).reshape(shape)
        scores = np.take(scores, low, axis) * (1 - part) + np.take(scores, high, axis) * part
    return scores


def noise(count: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def scores_of(images: NDArray[np.uint8], kernel: NDArray[np.float32], stride: int) -> NDArray[np.float64]:
    """Return `float64[N, C, h, w]`."""
    return np.einsum("nhwc,kc->nkhw", images[:, ::stride, ::stride].astype(np.float64), kernel.astype(np.float64))


def assert_best(masks: NDArray[np.uint8], scores: NDArray[np.float64]) -> None:
    """Assert that each pixel has the class of the best score, within the precision of float32."""
    chosen = np.take_along_axis(scores, masks[:, None].astype(int), 1)[:, 0]
    assert (scores.max(axis=1) - chosen).max() < 1e-3  # scores are of the order of 100
    assert (masks != scores.argmax(axis=1)).mean() < 1e-3


@BOTH
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(("size", "stride"), SIZES)
def test_scores_are_enlarged_bilinearly_before_the_argmax(
    size: tuple[int, int], stride: int, layout: str, runtime: Runtime
) -> None:
    graph, kernel = at_one_pixel(size, stride, layout)
    images = noise(3, size)
    session = opened(card_of(size, layout), graph, runtime)
    found = session.predict(images)
    assert session.batches is True
    assert found.faults == {}
    assert_best(found.masks, enlarged(scores_of(images, kernel, stride), size))
    assert all(np.array_equal(session.predict(images[i : i + 1]).masks[0], found.masks[i]) for i in range(3))


@BOTH
@pytest.mark.parametrize("stated", [False, True])
@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("batch", [1, "N"])
def test_the_size_of_the_scores_follows_from_the_graph_or_is_stated(
    batch: int | str, symbolic: bool, stated: bool, runtime: Runtime
) -> None:
    size = (33, 50)
    graph, kernel = at_one_pixel(size, 7, "NCHW", batch, symbolic=symbolic)
    images = noise(2, size)
    card = card_of(size, **({"height": 5, "width": 8} if stated else {}))
    assert (card.output_height, card.output_width) == size
    assert_best(opened(card, graph, runtime).predict(images).masks, enlarged(scores_of(images, kernel, 7), size))


def test_runtimes_give_the_same_masks() -> None:
    graph, _ = at_one_pixel((129, 129), 8, "NHWC")
    images = noise(1, (129, 129))
    first, second = (opened(card_of((129, 129), "NHWC"), graph, r).predict(images).masks for r in (ORT, OPENVINO))
    assert (first != second).mean() < 1e-3


@BOTH
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(("size", "stride"), SIZES)
def test_nearest_is_pillows_of_the_small_argmax(
    size: tuple[int, int], stride: int, layout: str, runtime: Runtime
) -> None:
    graph, kernel = at_one_pixel(size, stride, layout, opset=9)
    images = noise(2, size)
    masks = opened(card_of(size, layout, enlarge="nearest"), graph, runtime).predict(images).masks
    for mask, scores in zip(masks, scores_of(images, kernel, stride), strict=True):
        best = Image.fromarray(scores.argmax(axis=0).astype(np.uint8))
        assert np.array_equal(mask, np.asarray(best.resize(size[::-1], Image.Resampling.NEAREST)))


@BOTH
@pytest.mark.parametrize("layout", ["NHW", "N1HW", "NHW1"])
@pytest.mark.parametrize("dtype", ["int64", "uint8", "float32"])
def test_a_smaller_class_index_is_enlarged_by_nearest(layout: str, dtype: str, runtime: Runtime) -> None:
    card = small(output={"kind": "index", "layout": layout})
    images, masks = pictures(card, 2)
    found = opened(card, colour_classifier(card, stride=4, output_dtype=dtype), runtime).predict(images).masks
    assert np.array_equal(found, masks[:, ::4, ::4].repeat(4, 1).repeat(4, 2))


@pytest.mark.parametrize(("size", "target"), [(1, 9), (3, 7), (7, 7), (65, 513), (100, 101), (8, 3)])
def test_nearest_positions_are_pillows(size: int, target: int) -> None:
    line = np.arange(size, dtype=np.uint8)[None]
    wanted = np.asarray(Image.fromarray(line).resize((target, 1), Image.Resampling.NEAREST))[0]
    assert nearest_positions(size, target).tolist() == wanted.tolist()


@BOTH
@pytest.mark.parametrize("dtype", ["float16", "uint8", "int8"])
def test_quantised_scores_are_enlarged_as_they_are(dtype: str, runtime: Runtime) -> None:
    """A common scale and zero point do not change the argmax, before or after enlarging."""
    card = card_of((32, 48))
    values = np.random.default_rng(0).integers(-60, 60, (1, CLASSES, 8, 12))
    offset = 60 if dtype == "uint8" else 0
    stored = [numpy_helper.from_array((values + offset).astype(np.float32), "values")]
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2, 3]),
        helper.make_node("Sub", ["mean", "mean"], ["nothing"]),
        helper.make_node("Add", ["values", "nothing"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["y"], to=int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))),
    ]
    inputs = [helper.make_tensor_value_info("x", 1, (1, 3, 32, 48))]
    given = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    outputs = [helper.make_tensor_value_info("y", given, (1, CLASSES, 8, 12))]
    graph = helper.make_graph(nodes, "quantised", inputs, outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    masks = opened(card, bytes(model.SerializeToString()), runtime).predict(noise(1, (32, 48))).masks
    assert_best(masks, enlarged(values.astype(np.float64), (32, 48)))


@pytest.mark.parametrize("opset", [11, 13, 18, 21])
def test_every_opset_whose_resize_knows_half_pixels(opset: int) -> None:
    graph, kernel = at_one_pixel((33, 50), 7, "NHWC", opset=opset)
    images = noise(1, (33, 50))
    masks = opened(card_of((33, 50), "NHWC"), graph, ORT).predict(images).masks
    assert_best(masks, enlarged(scores_of(images, kernel, 7), (33, 50)))


@pytest.mark.parametrize("opset", [9, 10])
def test_older_opsets_are_refused_by_onnxruntime_and_served_by_openvino(opset: int) -> None:
    graph, kernel = at_one_pixel((33, 50), 7, "NCHW", opset=opset)
    card = card_of((33, 50))
    assert message(lambda: opened(card, graph, ORT)).endswith(
        f"the graph is of ONNX opset {opset}, which cannot enlarge scores from half-pixel centres: export it again "
        "with opset 11 or newer, or use --runtime openvino"
    )
    images = noise(1, (33, 50))
    assert_best(opened(card, graph, OPENVINO).predict(images).masks, enlarged(scores_of(images, kernel, 7), (33, 50)))


# ---- scores that are not finite


@BOTH
@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_class_masked_by_minus_infinity_is_never_chosen_and_no_fault(
    layout: str, stride: int, runtime: Runtime
) -> None:
    size = (32, 48)
    plain, kernel = at_one_pixel(size, stride, layout)
    images = noise(3, size)
    wanted = enlarged(scores_of(images, kernel, stride), size)
    most = int(np.bincount(wanted.argmax(axis=1).ravel()).argmax())
    graph, _ = at_one_pixel(size, stride, layout, masked=most)
    session = opened(card_of(size, layout), graph, runtime)
    first, batch = session.predict(images[:1]), session.predict(images)
    assert session.batches is True
    assert (first.faults, batch.faults) == ({}, {})
    assert np.array_equal(first.masks[0], batch.masks[0])
    wanted[:, most] = -1e9
    assert_best(batch.masks, wanted)
    assert_best(opened(card_of(size, layout), plain, runtime).predict(images).masks, enlarged(
        scores_of(images, kernel, stride), size))  # fmt: skip


@BOTH
@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_beside_a_masked_class_faults_are_still_seen(number: float, stride: int, runtime: Runtime) -> None:
    """Image 1 has a pixel with one NaN or infinite score, or with all scores minus infinity."""
    size, stored = (32, 48), {}
    kernel = np.random.default_rng(0).standard_normal((CLASSES, 3, 1, 1)).astype(np.float32) / 100
    mask, bad = np.zeros((2, 1, CLASSES, 1, 1), np.float32)
    mask[0, 4] = -np.inf
    bad[0, 2 if number != -np.inf else slice(None)] = number
    stored = {"kernel": kernel, "mask": mask, "bad": bad, "limit": np.float32(254), "nought": np.float32(0)}
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["scores"], kernel_shape=[1, 1], strides=[stride, stride]),
        helper.make_node("Add", ["scores", "mask"], ["masked"]),
        helper.make_node("ReduceMin", ["x"], ["least"], axes=[1], keepdims=1),
        helper.make_node("MaxPool", ["least"], ["kept"], kernel_shape=[1, 1], strides=[stride, stride]),
        helper.make_node("Greater", ["kept", "limit"], ["white"]),
        helper.make_node("Where", ["white", "bad", "nought"], ["poison"]),
        helper.make_node("Add", ["masked", "poison"], ["y"]),
    ]
    outputs = [("y", ("N", CLASSES, size[0] // stride, size[1] // stride))]
    arrays = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in stored.items()]
    graph = tiny(nodes, [("x", ("N", 3, *size))], outputs, arrays)
    images = noise(3, size) // 2
    images[1, 4, 8] = 255
    session = opened(card_of(size), graph, runtime)
    assert session.predict(images).faults == {1: "model_not_finite"}
    assert [session.predict(images[i : i + 1]).faults for i in range(3)] == [{}, {0: "model_not_finite"}, {}]


def masked_where_white(size: tuple[int, int]) -> bytes:
    """One class is masked by minus infinity at white pixels only."""
    mask = np.zeros((1, CLASSES, 1, 1), np.float32)
    mask[0, 4] = -np.inf
    kernel = np.random.default_rng(0).standard_normal((CLASSES, 3, 1, 1)).astype(np.float32) / 100
    stored = {"kernel": kernel, "mask": mask, "limit": np.float32(254), "nought": np.float32(0)}
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["scores"], kernel_shape=[1, 1]),
        helper.make_node("ReduceMin", ["x"], ["least"], axes=[1], keepdims=1),
        helper.make_node("Greater", ["least", "limit"], ["white"]),
        helper.make_node("Where", ["white", "mask", "nought"], ["masks"]),
        helper.make_node("Add", ["scores", "masks"], ["y"]),
    ]
    arrays = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in stored.items()]
    return tiny(nodes, [("x", ("N", 3, *size))], [("y", ("N", CLASSES, *size))], arrays)


def faults_until(ended: threading.Event, session: GraphSession, images: NDArray[np.uint8]) -> list[dict[int, str]]:
    return [faults for _ in iter(ended.is_set, True) if (faults := session.predict(images).faults)]


@BOTH
@pytest.mark.parametrize("number", [1, 2])
def test_an_image_is_judged_by_the_graph_it_went_to_while_another_thread_meets_a_mask(
    number: int, runtime: Runtime
) -> None:
    size = (64, 96)
    images = noise(number, size) // 2
    white = images.copy()
    white[0, 4, 8] = 255
    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):  # the session replaces the graph once
            session = opened(card_of(size), masked_where_white(size), runtime, streams=2)
            assert session.predict(images).faults == {}
            meets = threading.Event()
            others = pool.submit(faults_until, meets, session, images)
            assert session.predict(white).faults == {}
            meets.set()
            assert others.result() == []


@BOTH
def test_large_finite_scores_are_no_fault(runtime: Runtime) -> None:
    """The sum of the scores overflows, the scores are finite."""
    size = (32, 48)
    kernel = numpy_helper.from_array(np.full((CLASSES, 3, 1, 1), 1e34, np.float32), "kernel")
    nodes = [helper.make_node("Conv", ["x", "kernel"], ["y"], kernel_shape=[1, 1])]
    graph = tiny(nodes, [("x", ("N", 3, *size))], [("y", ("N", CLASSES, *size))], [kernel])
    session = opened(card_of(size), graph, runtime)
    assert session._sanity_check is not None
    session._sanity_check.done = True  # all scores are equal, which it would refuse
    assert session.predict(noise(2, size)).faults == {}


def test_the_constants_of_half_precision_are_finite_in_it() -> None:
    with np.errstate(over="ignore"):
        halves = np.array([lowest("f16"), beyond("f16")], np.float16)
    assert np.isfinite(halves).all()
    assert -halves[1] < halves[0] < -1e4  # the lowest number exceeds the limit of finite scores
