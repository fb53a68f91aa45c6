"""Graphs that take 8 bits: every pixel value becomes the level that its normalised number has, in both runtimes."""

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from segment.models.card import ModelCard
from segment.models.sessions import Runtime, cpu, onnxruntime, open_session
from tests.calls import ROOT
from tests.graphs import as_weights
from tests.models.test_session_grey import card_of as grey_card
from tests.models.test_session_grey import luma
from tests.models.test_session_sigmoid import PEOPLE
from tests.models.test_session_sigmoid import card_of as sigmoid_card
from tests.serving import BOTH, ON_TFLITE, OPENVINO, ORT, message, opened, plain_openvino, shared
from tests.tflites import Node, Tensor, tflite

SIZE = (16, 20)
IMAGENET = {"maximum": 1, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
SYMMETRIC = {"mean": (127.5,) * 3, "std": (127.5,) * 3}
HELD = {"int8": (0.019, -16), "uint8": (0.019, 112)}  # -2.13 to 2.72
FIT = "model card 'unet-camvid-onnx-0001' and its graph do not match: "


def card_of(layout: str = "NCHW", **entry: Any) -> ModelCard:
    """A card of 255 classes, one a level."""
    values = {"channels": "RGB", "mean": (0.0,) * 3, "std": (1.0,) * 3, "height": SIZE[0], "width": SIZE[1]}
    return grey_card(layout, **{**values, **entry})


def reading(
    dtype: str,
    scale: Any,
    zero_point: int,
    *,
    channel: int = 0,
    layout: str = "NCHW",
    channels: int = 3,
    dequantised: bool = True,
) -> bytes:
    """Return a graph whose class index is the level of one channel, counted from the lowest."""
    axis, shape = (1, (1, channels, *SIZE)) if layout == "NCHW" else (3, (1, *SIZE, channels))
    scales = np.asarray(scale, np.float32)
    stored = {"scale": scales, "zero_point": np.full(scales.shape, zero_point, dtype)}
    stored |= {"channel": np.array([channel]), "step": scales.reshape(-1)[-1 if scales.size == 1 else channel]}
    stored |= {"lowest": np.float32(np.iinfo(dtype).min - zero_point - 0.5)}
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "scale", "zero_point"], ["f"], axis=axis)
        if dequantised
        else helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["f", "channel"], ["one"], axis=axis),
        helper.make_node("Div", ["one", "step"], ["level"]),
        helper.make_node("Sub", ["level", "lowest"], ["moved"]),
        helper.make_node("Floor", ["moved"], ["y"]),
    ]
    arrays = [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()]
    one = tuple(1 if at == axis else side for at, side in enumerate(shape))
    elem_type = int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    inputs = [helper.make_tensor_value_info("x", elem_type, shape)]
    graph = helper.make_graph(nodes, "reading", inputs, [helper.make_tensor_value_info("y", 1, one)], arrays)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def noise(count: int = 3, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(6).integers(0, 255, (count, *size, 3), dtype=np.uint8)


def wanted(card: ModelCard, pixels: NDArray[np.uint8], channel: int, dtype: str, scale: float, zero: int) -> Any:
    """Return the levels, counted from the lowest, by the formula of ONNX' QuantizeLinear."""
    spec, limits = card.input, np.iinfo(dtype)
    numbers = (pixels / 255 * spec.maximum - spec.mean[channel]) / spec.std[channel]
    return (np.round(numbers / np.float32(scale)) + zero).clip(limits.min, limits.max) - limits.min


@BOTH
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize(("channel", "order", "layout"), [(0, "RGB", "NCHW"), (2, "RGB", "NHWC"), (0, "BGR", "NHWC")])
def test_levels_are_those_of_the_normalised_pixels(
    channel: int, order: str, layout: str, dtype: str, runtime: Runtime
) -> None:
    images = noise()
    card = card_of(layout, channels=order, **IMAGENET)
    session = opened(card, reading(dtype, *HELD[dtype], channel=channel, layout=layout), runtime)
    found = session.predict(images)
    pixels = images[..., channel if order == "RGB" else 2 - channel]
    assert (found.faults, found.remarks) == ({}, {})
    assert np.array_equal(found.masks, wanted(card, pixels, channel, dtype, *HELD[dtype]))
    assert np.array_equal(session.predict(images[1:2]).masks, found.masks[1:2])


@BOTH
def test_each_channel_has_its_scale(runtime: Runtime) -> None:
    images, scales = noise(), (1.0, 1.25, 1.5)
    card = card_of(mean=(128.0,) * 3)
    for channel, scale in enumerate(scales):
        found = opened(card, reading("int8", scales, 0, channel=channel), runtime).predict(images).masks
        assert np.array_equal(found, wanted(card, images[..., channel], channel, "int8", scale, 0))


@BOTH
def test_without_a_scale_levels_are_numbers(runtime: Runtime) -> None:
    images, graph = noise(), reading("int8", 1, 0, channel=1, dequantised=False)
    found = opened(card_of(mean=(128.0,) * 3), graph, runtime).predict(images)
    assert np.array_equal(found.masks, images[..., 1])


@BOTH
def test_luma_is_quantised(runtime: Runtime) -> None:
    images = noise()
    card = card_of(channels="GREY", maximum=1, mean=(0.0,), std=(1.0,))
    found = opened(card, reading("int8", 1 / 255, -128, channels=1), runtime).predict(images)
    assert np.array_equal(found.masks, luma(images))


@BOTH
@pytest.mark.parametrize(
    ("entry", "scale", "zero_point", "said"),
    [
        ({}, 1 / 255, -128, "pixels become 0 to 255 by the card's maximum, mean and std, but the graph's input 'x' "
         "(int8) holds 0 to 1: correct input.maximum, input.mean and input.std"),
        ({"maximum": 1}, 1, -128, "pixels become 0 to 1 by the card's maximum, mean and std, but the graph's input 'x' "
         "(int8) holds 0 to 255: correct input.maximum, input.mean and input.std"),
        (SYMMETRIC, 1 / 255, -128, "pixels become -1 to 1 by the card's maximum, mean and std, "
         "but the graph's input 'x' (int8) holds 0 to 1: correct input.maximum, input.mean and input.std"),
    ],
)  # fmt: skip
def test_a_card_of_another_range_is_refused(
    entry: dict[str, Any], scale: Any, zero_point: int, said: str, runtime: Runtime
) -> None:
    graph = reading("int8", scale, zero_point)
    assert message(lambda: opened(card_of(**entry), graph, runtime)) == FIT + said


def test_scales_of_other_channels_are_refused() -> None:
    graph = reading("int8", (1.0, 1.0), -128)
    assert message(lambda: opened(card_of(), graph, ORT)) == f"{FIT}the graph's input 'x' has 2 scales for 3 channels"


@ON_TFLITE
@pytest.mark.parametrize(
    ("quantised", "entry"),
    [
        ((1 / 255, -128), {"maximum": 1}),
        ((1.0, -128), {}),
        ((1 / 127.5, 0), {"mean": (127.5,) * 3, "std": (127.5,) * 3}),
    ],
)
def test_a_tflite_of_int8(quantised: tuple[float, int], entry: dict[str, Any], runtime: Runtime) -> None:
    """Scores are the absolute levels of the three channels."""
    shape = (1, *SIZE, 3)
    tensors = [Tensor("x", shape, "int8", None, quantised), Tensor("y", shape, "int8", None, quantised)]
    weights = as_weights(tflite(tensors, [Node("ABS", [0], [1])], [0], [1]), "tflite")
    card = sigmoid_card("NHWC", size=SIZE)
    card = card.model_copy(
        update={
            "input": card_of("NHWC", **entry).input,
            "output": card.output.model_copy(update={"kind": "logits"}),
            "classes": card.classes.model_copy(update={"names": tuple("rgb"), "palette": ((0, 0, 0),) * 3}),
        }
    )
    images = noise()
    found = open_session(card, weights, runtime).predict(images).masks
    numbers = (np.arange(256) / 255 * card.input.maximum - card.input.mean[0]) / card.input.std[0]
    table = np.abs((np.round(numbers / np.float32(quantised[0])) + quantised[1]).clip(-128, 127) - quantised[1])
    assert np.array_equal(found, table[images].argmax(axis=3))


# ---- a real model


@pytest.mark.shared
def test_prisma_equals_openvino_itself() -> None:
    """Binary portrait segmentation of photos with people: pixel - 128 in, a sigmoid of int8 out."""
    path = shared("models/strangers/prisma_quant.tflite")
    photos = [Image.open(shared(f"voc/images/{name}.jpg")) for name in PEOPLE[:3]]
    images = np.stack([np.asarray(photo.convert("RGB").resize((256, 256))) for photo in photos])
    plain = plain_openvino(path)
    levels = np.stack([plain((image[np.newaxis].astype(np.int16) - 128).astype(np.int8))[0][0] for image in images])

    card = sigmoid_card("NHW1", size=(256, 256))
    card = card.model_copy(update={"input": card.input.model_copy(update={"layout": "NHWC", "maximum": 1})})
    found = open_session(card, as_weights(path.read_bytes(), "tflite"), OPENVINO, threads=2).predict(images)

    assert (found.faults, found.remarks) == ({}, {})
    assert (found.masks != (levels[..., 0] > 0)).sum() == 0
    assert ((levels > 0).mean(axis=(1, 2, 3)) > 0.02).all()


def test_onnxruntime_and_openvino_agree_on_ties() -> None:
    """Half a level: rounded to even."""
    card = card_of(mean=(127.0,) * 3)
    images = np.arange(SIZE[0] * SIZE[1] * 3, dtype=np.uint8).reshape(1, *SIZE, 3)
    graph = reading("int8", 2.0, 0)
    for runtime in (ORT, OPENVINO):
        found = opened(card, graph, runtime).predict(images).masks
        assert np.array_equal(found, wanted(card, images[..., 0], 0, "int8", 2.0, 0))


def adding_bytes() -> bytes:
    """Return an INT8 graph: class 0 where (red + green) * 127 is 45,000, which 16 bits do not hold, or more; else 1."""
    weights = np.array([[127, 127, 0], [0, 0, 0]], np.int8).reshape(2, 3, 1, 1)
    stored = {"one": np.float32(1), "low": np.uint8(0), "zero": np.int8(0), "weights": weights}
    stored |= {"bias": np.array([0, 45_000], np.int32), "none": np.int32(0), "scale": np.float32(300)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "low"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "one", "low"], ["a"]),
        helper.make_node("DequantizeLinear", ["weights", "one", "zero"], ["w"]),
        helper.make_node("DequantizeLinear", ["bias", "one", "none"], ["b"]),
        helper.make_node("Conv", ["a", "w", "b"], ["sums"]),
        helper.make_node("QuantizeLinear", ["sums", "scale", "low"], ["p"]),
        helper.make_node("DequantizeLinear", ["p", "scale", "low"], ["y"]),
    ]
    arrays = [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()]
    ports = [helper.make_tensor_value_info(name, 1, (1, depth, *SIZE)) for name, depth in (("x", 3), ("y", 2))]
    graph = helper.make_graph(nodes, "adding", ports[:1], ports[1:], arrays)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def adding_card() -> ModelCard:
    card = card_of()
    classes = card.classes.model_copy(update={"names": ("more", "less"), "palette": card.classes.palette[:2]})
    output = card.output.model_copy(update={"kind": "logits", "layout": "NCHW"})
    return card.model_copy(update={"classes": classes, "output": output})


@pytest.mark.parametrize(
    ("flags", "option"), [({"avx2"}, "1"), (set(), None), ({"avx512_vnni"}, None), ({"avx2", "avx_vnni"}, None)]
)
def test_sums_of_int8_are_exact_without_vnni(
    flags: set[str], option: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a CPU has VNNI, only the option shows what would happen without."""
    card, images = adding_card(), noise()
    expected = np.round(images[..., :2].sum(axis=3, dtype=np.int64) * 127 / 300) < 150
    assert 0.1 < expected.mean() < 0.9
    assert np.array_equal(opened(card, adding_bytes(), ORT).predict(images).masks, expected)
    monkeypatch.setattr(cpu, "cpu_flags", lambda: frozenset(flags))
    if option:
        assert np.array_equal(opened(card, adding_bytes(), ORT).predict(images).masks, expected)
        assert onnxruntime._options(1).get_session_config_entry("session.x64quantprecision") == option
    else:
        with pytest.raises(RuntimeError, match="x64quantprecision"):
            onnxruntime._options(1).get_session_config_entry("session.x64quantprecision")


def test_openvino_is_exact_without_vnni() -> None:
    """In a process whose openvino uses no VNNI; a float layer comes first, as no first layer has such sums."""
    code = """
import numpy as np
from onnx import helper, numpy_helper, load_model_from_string
from segment.models.sessions import cpu
from tests.models.test_session_int8 import OPENVINO, adding_bytes, adding_card, noise, opened
model = load_model_from_string(adding_bytes())
graph = model.graph
graph.node[0].input[0], graph.node[0].input[1], graph.node[1].input[1] = "x2", "two", "two"
for node in graph.node:
    if node.op_type == "DequantizeLinear" and node.input[0] == "bias":
        node.input[1] = "two"
    if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.input[1] == "scale":
        node.input[1] = "scale2"
double = 2 * np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
new = {"two": np.float32(2), "scale2": np.float32(600), "k": double}
graph.initializer.extend([numpy_helper.from_array(np.asarray(value), name) for name, value in new.items()])
graph.node.insert(0, helper.make_node("Conv", ["x", "k"], ["x2"]))
for flags in ({"avx2"}, {"avx512_vnni"}):
    cpu.cpu_flags = lambda: frozenset(flags)
    found = opened(adding_card(), model.SerializeToString(), OPENVINO).predict(noise()).masks
    expected = np.round(noise()[..., :2].sum(axis=3, dtype=np.int64) * 127 / 300) < 150
    print(np.count_nonzero(found != expected))
"""
    env = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, timeout=300
    )
    exact, saturated = map(int, ended.stdout.split())
    assert exact == 0
    assert saturated > 50 or "avx2" not in cpu.cpu_flags()  # so that the first figure means something
