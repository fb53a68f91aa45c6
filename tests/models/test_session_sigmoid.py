"""Binary models with one sigmoid channel: a pixel above the threshold has the second class."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from PIL import Image

from segment.models.card import ModelCard
from segment.models.card_output import MULTILABEL
from segment.models.sessions import Runtime, open_session
from tests.graphs import as_weights, colour_classifier
from tests.models.test_session_enlarging import enlarged
from tests.serving import BOTH, OPENVINO, ORT, message, opened, shared, small, tiny

SIZE = (32, 48)
FIT = "model card 'unet-camvid-onnx-0001' and its graph do not match: "
LAYOUTS = ["NCHW", "NHWC", "NHW", "N1HW", "NHW1"]
PEOPLE = ["2007_001408", "2007_005304", "2007_006560", "2007_006698", "2007_007498", "2007_009654"]
SLOPE = 0.05


def card_of(layout: str = "NCHW", size: tuple[int, int] = SIZE, **output: Any) -> ModelCard:
    card = small(
        input={"channels": "RGB", "height": size[0], "width": size[1]},
        output={"kind": "sigmoid", "layout": layout, **output},
    )
    names, palette = ("ground", "person"), ((0, 0, 0), (255, 255, 255))
    return card.model_copy(update={"classes": card.classes.model_copy(update={"names": names, "palette": palette})})


def brightness(
    layout: str = "NCHW",
    *,
    last: str = "Sigmoid",
    stride: int = 1,
    size: tuple[int, int] = SIZE,
    opset: int = 17,
    poison: float | None = None,
) -> bytes:
    """Return a graph whose logit is 0.05 (mean of the channels - 127.5) at every `stride`-th pixel.

    `poison` replaces the number where the red channel is 255.
    """
    kernel = np.full((1, 3, 1, 1), SLOPE / 3, np.float32)
    stored = {"kernel": kernel, "bias": np.array([-127.5 * SLOPE], np.float32), "limit": np.float32(254)}
    nodes = [
        helper.make_node("Conv", ["x", "kernel", "bias"], ["logit"], kernel_shape=[1, 1], strides=[stride, stride]),
        helper.make_node(last, ["logit"], ["p"]),
    ]
    if poison is not None:
        stored |= {"poison": np.float32(poison), "red": np.array([1, 0, 0], np.float32).reshape(1, 3, 1, 1)}
        nodes += [
            helper.make_node("Conv", ["x", "red"], ["r"], kernel_shape=[1, 1], strides=[stride, stride]),
            helper.make_node("Greater", ["r", "limit"], ["is_red"]),
            helper.make_node("Where", ["is_red", "poison", "p"], ["q"]),
        ]
    nodes.append(_in_layout(nodes[-1].output[0], layout, opset))
    sizes: dict[str, Any] = {"N": "N", "C": 1, "1": 1, "H": -(-size[0] // stride), "W": -(-size[1] // stride)}
    arrays = [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()]
    if opset >= 13:
        arrays.append(numpy_helper.from_array(np.array([1], np.int64), "one"))
    return tiny(nodes, [("x", ("N", 3, *size))], [("y", tuple(sizes[axis] for axis in layout))], arrays, opset)


def _in_layout(value: str, layout: str, opset: int) -> Any:
    if layout == "NHW":
        return helper.make_node("Squeeze", [value, "one"], ["y"]) if opset >= 13 else helper.make_node(
            "Squeeze", [value], ["y"], axes=[1])  # fmt: skip
    perm = [0, 2, 3, 1] if layout in ("NHWC", "NHW1") else [0, 1, 2, 3]
    return helper.make_node("Transpose", [value], ["y"], perm=perm)


def noise(count: int, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 254, (count, *size, 3), dtype=np.uint8)


def logits(images: NDArray[np.uint8], stride: int = 1) -> NDArray[np.float64]:
    """Return `float64[N, h, w]`."""
    return SLOPE * (images[:, ::stride, ::stride].astype(np.float64).mean(axis=3) - 127.5)


def probabilities(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-numbers))


def assert_above(masks: NDArray[np.uint8], numbers: NDArray[np.float64], limit: float) -> None:
    """Assert that the masks are `numbers > limit`, within the precision of float32."""
    clear = np.abs(numbers - limit) > 1e-5
    assert clear.mean() > 0.99
    assert np.array_equal(masks[clear], (numbers > limit)[clear])
    assert set(np.unique(masks)) == {0, 1}


@BOTH
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_a_probability_above_the_threshold_is_the_second_class(threshold: float, layout: str, runtime: Runtime) -> None:
    images = noise(3)
    session = opened(card_of(layout, threshold=threshold), brightness(layout), runtime)
    found = session.predict(images)
    assert (session.batches, found.faults, found.remarks) == (True, {}, {})
    assert_above(found.masks, probabilities(logits(images)), threshold)
    assert all(np.array_equal(session.predict(images[i : i + 1]).masks[0], found.masks[i]) for i in range(3))


@BOTH
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_the_threshold_of_a_logit_is_a_probability_too(threshold: float, layout: str, runtime: Runtime) -> None:
    images = noise(2)
    card = card_of(layout, threshold=threshold, logit=True)
    found = opened(card, brightness(layout, last="Identity"), runtime).predict(images)
    assert found.faults == {}
    assert_above(found.masks, logits(images), np.log(threshold / (1 - threshold)))


@BOTH
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("logit", [False, True])
@pytest.mark.parametrize(("size", "stride"), [((32, 48), 4), ((33, 50), 7)])
def test_a_smaller_sigmoid_is_enlarged_bilinearly_before_the_threshold(
    size: tuple[int, int], stride: int, logit: bool, layout: str, runtime: Runtime
) -> None:
    images = noise(2, size)
    graph = brightness(layout, last="Identity" if logit else "Sigmoid", stride=stride, size=size)
    found = opened(card_of(layout, size, logit=logit), graph, runtime).predict(images)
    assert found.faults == {}
    numbers = logits(images, stride) if logit else probabilities(logits(images, stride))
    assert_above(found.masks, enlarged(numbers, size), 0.0 if logit else 0.5)


@BOTH
@pytest.mark.parametrize("layout", LAYOUTS)
def test_nearest_enlarges_the_mask(layout: str, runtime: Runtime) -> None:
    images = noise(2)
    masks = opened(card_of(layout, enlarge="nearest"), brightness(layout, stride=4), runtime).predict(images).masks
    assert_above(masks[:, ::4, ::4], probabilities(logits(images, 4)), 0.5)
    assert np.array_equal(masks, masks[:, ::4, ::4].repeat(4, 1).repeat(4, 2))


@pytest.mark.parametrize("opset", [7, 8, 9, 11, 13, 18, 21])
@pytest.mark.parametrize("layout", ["NHW", "NHWC"])
def test_every_opset(layout: str, opset: int) -> None:
    images = noise(2)
    masks = opened(card_of(layout), brightness(layout, opset=opset), ORT).predict(images).masks
    assert_above(masks, probabilities(logits(images)), 0.5)


# ---- checks by value


@BOTH
@pytest.mark.parametrize("logit", [False, True])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_faults_its_image_only(number: float, logit: bool, runtime: Runtime) -> None:
    images = noise(3)
    images[1, 5, 7, 0] = 255
    graph = brightness(last="Identity" if logit else "Sigmoid", poison=number)
    session = opened(card_of(logit=logit), graph, runtime)
    assert session.predict(images).faults == {1: "model_not_finite"}
    assert [session.predict(images[i : i + 1]).faults for i in range(3)] == [{}, {0: "model_not_finite"}, {}]


@BOTH
@pytest.mark.parametrize(("number", "faults"), [(1.5, {1: "model_range"}), (-0.5, {1: "model_range"}), (1.001, {})])
def test_a_probability_beyond_0_to_1_faults_its_image_only(
    number: float, faults: dict[int, str], runtime: Runtime
) -> None:
    images = noise(3)
    images[1, 5, 7, 0] = 255
    assert opened(card_of(), brightness(poison=number), runtime).predict(images).faults == faults


@BOTH
def test_a_logit_is_no_probability(runtime: Runtime) -> None:
    said = message(lambda: opened(card_of(), brightness(last="Identity"), runtime).predict(noise(1)))
    assert said.startswith(f"{FIT}the card says that the graph's output is a probability, but its values, from -")
    assert said.endswith(
        "are beyond 0 to 1, in the first image and in random images: output.logit = true, if the graph ends before "
        "its sigmoid?"
    )


@BOTH
def test_a_probability_is_no_logit(runtime: Runtime) -> None:
    said = message(lambda: opened(card_of(logit=True), brightness(), runtime).predict(noise(1)))
    assert said == (
        f"{FIT}the card says that the graph's output is a logit, but all its values are from 0 to 1, in the first "
        "image and in random images: it is a probability, remove output.logit"
    )


@BOTH
def test_a_sigmoid_that_is_the_same_for_all_pixels_ends_the_run(runtime: Runtime) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["m", "nought"], ["zero"]),
        helper.make_node("Sigmoid", ["zero"], ["y"]),
    ]
    stored = [numpy_helper.from_array(np.float32(0), "nought")]
    graph = tiny(nodes, [("x", ("N", 3, *SIZE))], [("y", ("N", 1, *SIZE))], stored)
    said = message(lambda: opened(card_of(), graph, runtime).predict(noise(1)))
    assert said.startswith(f"{FIT}the numbers of all pixels are equal, in the first image and in random images: ")


@BOTH
def test_images_of_one_class_are_remarked(runtime: Runtime) -> None:
    session = opened(card_of(threshold=0.999), brightness(), runtime)
    dark = [session.predict(noise(1) // divisor) for divisor in (2, 3)]
    assert [found.remarks for found in dark] == [{}, {0: "model_one_class"}]


# ---- graphs that contradict the card


@BOTH
def test_several_channels_are_refused(runtime: Runtime) -> None:
    graph = tiny([helper.make_node("Sigmoid", ["x"], ["y"])], [("x", ("N", 3, *SIZE))], [("y", ("N", 3, *SIZE))])
    assert message(lambda: opened(card_of(), graph, runtime)) == (
        f"{FIT}the card says sigmoid NCHW 1x32x48 (2 classes), the graph's output 'y' is float32 ?x3x32x48: 3 channels "
        f'are no single sigmoid: one score per class is output.kind = "probabilities" or "logits"; {MULTILABEL}'
    )


@BOTH
def test_another_layout_is_advised(runtime: Runtime) -> None:
    said = message(lambda: opened(card_of("NHWC"), brightness("NCHW"), runtime))
    assert said.endswith("the graph's output 'y' is float32 ?x1x32x48: output.layout = \"NCHW\"?")


@BOTH
def test_integers_are_a_class_index(runtime: Runtime) -> None:
    graph = colour_classifier(small(output={"kind": "index", "layout": "N1HW"}))
    assert message(lambda: opened(card_of("NCHW"), graph, runtime)) == (
        f"{FIT}the card says sigmoid, the graph's output is 'prediction' (int64 ?x1x32x48): output.kind = \"index\"?"
    )


# ---- a real model


@pytest.mark.shared
@pytest.mark.parametrize("threshold", [0.5, 0.9])
def test_prisma_equals_onnxruntime_itself(threshold: float) -> None:
    """Binary portrait segmentation: photos with people, `float32[N, 3, 256, 256]` RGB / 255."""
    import onnxruntime

    path = shared("models/strangers/prisma_nchw.onnx")
    photos = [Image.open(shared(f"voc/images/{name}.jpg")) for name in PEOPLE]
    images = np.stack([np.asarray(photo.convert("RGB").resize((256, 256))) for photo in photos])
    plain = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    (scores,) = plain.run(None, {"input_3": (images.transpose(0, 3, 1, 2) / np.float32(255)).astype(np.float32)})
    card = card_of(size=(256, 256), threshold=threshold)
    card = card.model_copy(update={"input": card.input.model_copy(update={"maximum": 1})})
    for runtime in (ORT, OPENVINO):
        found = open_session(card, as_weights(path.read_bytes()), runtime, threads=2).predict(images)
        assert (found.faults, found.remarks) == ({}, {})
        differing = (found.masks != (scores[:, 0] > threshold)).sum()
        assert differing <= (0 if runtime is ORT else 2)
    assert ((scores > threshold).mean(axis=(1, 2, 3)) > 0.05).all()
