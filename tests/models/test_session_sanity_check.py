"""The sanity check of the first masks: a fault of the model ends the run with a message."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from segment.models.card import ModelCard
from segment.models.card_output import ONE_CHANNEL
from segment.models.sessions import Runtime, find_batch
from tests.graphs import TRIGGER, as_weights, colour_classifier, nan_graph, out_of_range_graph, painted
from tests.serving import BOTH, message, opened, pictures, small, tiny

SIZE = (32, 48)
FIT = "model card 'unet-camvid-onnx-0001' and its graph do not match: "


def index_card(layout: str = "N1HW") -> ModelCard:
    return small(output={"kind": "index", "layout": layout})


def one_number_a_pixel(last: list[Any], dtype: int = TensorProto.FLOAT, **constants: Any) -> bytes:
    """Return a graph whose output `y`, `[N, 1, H, W]`, is computed from the mean `m` of the channels, 0 to 255."""
    nodes = [helper.make_node("ReduceMean", ["x"], ["m"], axes=[1], keepdims=1), *last]
    stored = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 3, *SIZE))]
    outputs = [helper.make_tensor_value_info("y", dtype, ("N", 1, *SIZE))]
    graph = helper.make_graph(nodes, "one", inputs, outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def sigmoid() -> bytes:
    nodes = [
        helper.make_node("Sub", ["m", "middle"], ["centred"]),
        helper.make_node("Mul", ["centred", "slope"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["y"]),
    ]
    return one_number_a_pixel(nodes, middle=127.5, slope=0.01)


def quantised(dtype: type) -> bytes:
    """A sigmoid in 8 bits: 0 to 255, or -128 to 127."""
    least = 0 if dtype is np.uint8 else 128
    nodes = [
        helper.make_node("Sub", ["m", "least"], ["moved"]),
        helper.make_node("Cast", ["moved"], ["y"], to=int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))),
    ]
    return one_number_a_pixel(nodes, int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype))), least=least)


def noise(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)


@BOTH
def test_a_sigmoid_is_no_class_index(runtime: Runtime) -> None:
    said = message(lambda: opened(index_card(), sigmoid(), runtime).predict(noise(1)))
    assert said.startswith(f"{FIT}the card says that the graph's output is a class index, but its values, from 0.2")
    assert said.endswith(
        f"are not whole numbers, in the first image and in random images: it is a score. {ONE_CHANNEL}"
    )


@BOTH
@pytest.mark.parametrize(("dtype", "values"), [(np.uint8, "from 0 to 255"), (np.int8, "from -128 to 127")])
def test_a_quantised_sigmoid_is_no_class_index(dtype: type, values: str, runtime: Runtime) -> None:
    images = noise(2)
    images[:, 0, :2] = [[0, 0, 0], [255, 255, 255]]
    said = message(lambda: opened(index_card(), quantised(dtype), runtime).predict(images))
    assert said == (
        f"{FIT}the graph's class index goes {values}, in the first image and in random images; the card has 12 "
        "classes, 0 to 11: check the class names and the weights, and whether the output is a class index at all"
    )


@BOTH
def test_whole_numbers_in_floating_point_are_an_index(runtime: Runtime) -> None:
    nodes = [
        helper.make_node("Div", ["m", "step"], ["part"]),
        helper.make_node("Floor", ["part"], ["y"]),
    ]
    images = noise(2)
    found = opened(index_card(), one_number_a_pixel(nodes, step=32), runtime).predict(images)
    assert found.faults == {}
    assert np.array_equal(found.masks, images.astype(np.float32).mean(axis=3).astype(np.float32) // 32)


@BOTH
def test_an_index_that_is_no_whole_number_now_and_then_faults_its_image_only(runtime: Runtime) -> None:
    card = small("icnet-camvid-ava-sparse-60-0001")
    images, masks = pictures(card, 3)
    images[1, 5, 7] = TRIGGER
    session = opened(card, nan_graph(card, number=0.25), runtime)
    found = session.predict(images)
    assert found.faults == {1: "model_not_whole"}
    assert np.array_equal(found.masks[[0, 2]], masks[[0, 2]])
    first = opened(card, nan_graph(card, number=0.25), runtime)
    assert [first.predict(images[i : i + 1]).faults for i in (1, 0)] == [{0: "model_not_whole"}, {}]


@BOTH
@pytest.mark.parametrize("graph", ["nan", "range"])
def test_a_first_image_that_fails_alone_is_an_error_row(graph: str, runtime: Runtime) -> None:
    """Random images have no fault, so it is the fault of the image."""
    name = "icnet-camvid-ava-sparse-60-0001" if graph == "range" else "unet-camvid-onnx-0001"
    card = small(name)
    images, masks = pictures(card, 2)
    images[0, 5, 7] = TRIGGER
    session = opened(card, (out_of_range_graph if graph == "range" else nan_graph)(card), runtime)
    assert session.predict(images[:1]).faults == {0: "model_range" if graph == "range" else "model_not_finite"}
    assert np.array_equal(session.predict(images[1:]).masks, masks[1:])


@BOTH
def test_scores_that_are_never_finite_end_the_run(runtime: Runtime) -> None:
    nodes = [
        helper.make_node("Concat", ["x"] * 4, ["all"], axis=1),
        helper.make_node("Mul", ["all", "nan"], ["y"]),
    ]
    stored = [numpy_helper.from_array(np.float32(np.nan), "nan")]
    graph = tiny(nodes, [("x", ("N", 3, *SIZE))], [("y", ("N", 12, *SIZE))], stored)
    said = message(lambda: opened(small(), graph, runtime).predict(noise(2)))
    assert said.startswith(f"{FIT}the scores are not finite numbers, in the first image and in random images: ")


@BOTH
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_scores_that_are_all_equal_end_the_run(layout: str, runtime: Runtime) -> None:
    """An untrained head: all scores of a pixel are equal."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[1], keepdims=1),
        helper.make_node("Concat", ["m"] * 12, ["all"], axis=1),
        helper.make_node("Transpose", ["all"], ["y"], perm=[0, 1, 2, 3] if layout == "NCHW" else [0, 2, 3, 1]),
    ]
    shape = ("N", 12, *SIZE) if layout == "NCHW" else ("N", *SIZE, 12)
    graph = tiny(nodes, [("x", ("N", 3, *SIZE))], [("y", shape)])
    said = message(lambda: opened(small(output={"layout": layout}), graph, runtime).predict(noise(1)))
    assert said.startswith(f"{FIT}all scores of a pixel are equal, in the first image and in random images: ")


def constant(kind: str, chosen: int) -> tuple[ModelCard, bytes]:
    """A graph that always returns one class: from varying scores, or as a constant index."""
    if kind == "index":
        nodes = [
            helper.make_node("Mul", ["m", "nought"], ["zero"]),
            helper.make_node("Add", ["zero", "class"], ["y"]),
        ]
        return index_card(), one_number_a_pixel(nodes, **{"nought": 0, "class": chosen})
    high = np.zeros((1, 12, 1, 1), np.float32)
    high[0, chosen] = 1000
    nodes = [helper.make_node("Concat", ["x"] * 4, ["all"], axis=1), helper.make_node("Add", ["all", "high"], ["y"])]
    graph = tiny(nodes, [("x", ("N", 3, *SIZE))], [("y", ("N", 12, *SIZE))], [numpy_helper.from_array(high, "high")])
    return small(), graph


@BOTH
@pytest.mark.parametrize("kind", ["scores", "index"])
def test_one_class_for_every_pixel_of_several_images_is_remarked_once(kind: str, runtime: Runtime) -> None:
    session = opened(*constant(kind, 5), runtime)
    images = noise(6)
    for _ in range(3):
        found = session.predict(images[:1])
        assert (found.faults, found.remarks) == ({}, {})  # a repeated image does not count
    assert session.predict(images[1:3]).remarks == {0: "model_one_class"}
    assert session.predict(images[2:]).remarks == {}


@BOTH
def test_images_that_are_of_one_class_are_no_fault_of_a_model_that_knows_others(runtime: Runtime) -> None:
    card = small()
    session = opened(card, colour_classifier(card), runtime)
    sky = np.full((1, *SIZE, 3), card.classes.palette[0], np.uint8)
    road = np.full((1, *SIZE, 3), card.classes.palette[3], np.uint8)
    found = session.predict(sky), session.predict(road)
    assert [(one.faults, one.remarks) for one in found] == [({}, {})] * 2
    assert session._sanity_check is not None
    assert session._sanity_check.done


@BOTH
def test_more_images_of_one_class_are_needed_where_random_pictures_are_not(runtime: Runtime) -> None:
    """Almost black images, as with a wrong normalisation."""
    card = small()
    session = opened(card, colour_classifier(card), runtime)
    remarks = [session.predict(np.full((1, *SIZE, 3), value, np.uint8)).remarks for value in range(4)]
    assert remarks == [{}, {}, {0: "model_one_class"}, {}]


@BOTH
@pytest.mark.parametrize("kind", ["equal", "not finite"])
def test_the_batch_probe_has_no_sanity_check(kind: str, runtime: Runtime) -> None:
    """The probe's images are random, so there is no sanity check."""
    factor = numpy_helper.from_array(np.float32(0 if kind == "equal" else np.nan), "factor")
    nodes = [helper.make_node("Concat", ["x"] * 4, ["all"], axis=1), helper.make_node("Mul", ["all", "factor"], ["y"])]
    graph = tiny(nodes, [("x", ("N", 3, *SIZE))], [("y", ("N", 12, *SIZE))], [factor])
    assert 1 in find_batch(small(), as_weights(graph), runtime, largest=1).rates
    message(lambda: opened(small(), graph, runtime).predict(noise(1)))


@BOTH
def test_a_correct_model_passes_at_its_first_image(runtime: Runtime) -> None:
    card = small()
    session = opened(card, colour_classifier(card), runtime)
    assert session._sanity_check is not None
    assert not session._sanity_check.done
    session.predict(painted(card, 0)[0][None])
    assert session._sanity_check.done
