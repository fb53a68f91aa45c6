"""A drafted card gives the masks that a direct call of onnxruntime gives."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from segment.drafts.drafting import DraftedCard, draft_card
from segment.errors import ModelError
from segment.models.sessions import Extras, open_session
from segment.models.sessions.sanity_check import random_images
from tests.graphs import as_weights
from tests.nets import net, node
from tests.serving import OPENVINO, ORT, opened

IMAGE = random_images(1, 24, 32)
IMAGENET = (IMAGE / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
ONE: dict[str, Any] = {"classes": 1, "outputs": {"y": [1, 1, 24, 32]}}

Mask = Callable[[NDArray[Any]], NDArray[Any]]


def drafted(
    folder: Path,
    graph: bytes,
    pixels: NDArray[Any],
    mask: Mask,
    number: int = 0,
    classes: int | None = None,
    fmt: str = "onnx",
) -> DraftedCard:
    """Draft a card, and compare its masks on both runtimes with those of an output of the graph by itself."""
    (folder / "net.onnx").write_bytes(graph)
    if fmt == "ir":
        openvino.save_model(openvino.Core().read_model(graph), folder / "net.xml", compress_to_fp16=False)
    found = draft_card(str(folder / f"net.{'xml' if fmt == 'ir' else fmt}"), classes=classes)
    session = onnxruntime.InferenceSession(graph)
    wanted = mask(session.run(None, {"x": pixels.transpose(0, 3, 1, 2).astype(np.float32)})[number])
    assert len(np.unique(wanted)) > 1
    for runtime in (ORT, OPENVINO):
        masks = opened(found.card, graph, runtime).predict(IMAGE).masks
        assert np.array_equal(masks, wanted.reshape(1, 24, 32)), runtime.name
    return found


def test_outputs_of_one_node(tmp_path: Path) -> None:
    """A node of openvino has one name for all of its outputs: that of the last."""
    outputs = {"aux": [1, 4, 24, 32], "y": [1, 4, 24, 32]}
    halves = net(classes=8, tail=[node("Split", "scores", "aux y", axis=1)], outputs=outputs)
    assert drafted(tmp_path, halves, IMAGENET, lambda y: y.argmax(1), 1).card.output.name == "y"

    best = {"confidence": [1, 1, 24, 32], "best": [1, 1, 24, 32]}
    tail = [node("Softmax", "scores", "soft", axis=1), node("TopK", "soft k", "confidence best", axis=1)]
    graph = net(tail=tail, constants={"k": np.array([1])}, outputs=best, types={"best": TensorProto.INT64})
    assert drafted(tmp_path, graph, IMAGENET, np.asarray, 1).card.output.name == "best"


@pytest.mark.parametrize("dtype", [TensorProto.BOOL, TensorProto.UINT8, TensorProto.FLOAT])
def test_truth_is_an_index_of_two_classes(dtype: int, tmp_path: Path) -> None:
    tail = [node("Greater", "scores zero", "above"), node("Cast", "above", "y", to=dtype)]
    graph = net(tail=tail, constants={"zero": np.float32(0)}, types={"y": dtype}, **ONE)

    assert drafted(tmp_path, graph, IMAGENET, np.asarray).card.output.kind == "index"


def test_truth_of_several_classes_is_refused(tmp_path: Path) -> None:
    graph = net(
        tail=[node("Greater", "scores zero", "y")],
        constants={"zero": np.float32(0)},
        types={"y": TensorProto.BOOL},
    )
    (tmp_path / "net.onnx").write_bytes(graph)
    with pytest.raises(ModelError, match="ends in a comparison of each of 4 channels"):
        draft_card(str(tmp_path / "net.onnx"))


@pytest.mark.parametrize("tail", [[node("HardSigmoid", "scores", "y")], [node("Identity", "scores", "y")]])
def test_one_channel_from_0_to_1_is_a_probability(tail: list[Any], tmp_path: Path) -> None:
    is_logit = tail[0].op_type == "Identity"

    found = drafted(tmp_path, net(tail=tail, **ONE), IMAGENET, lambda y: y > (0 if is_logit else 0.5))

    assert found.card.output.logit == is_logit
    assert any("it may be a logit" in remark for remark in found.remarks) == is_logit


def test_one_channel_of_a_softmax_may_be_that_of_the_background(tmp_path: Path) -> None:
    tail = [node("Softmax", "scores", "soft", axis=1), node("Gather", "soft one", "y", axis=1)]
    graph = net(classes=2, tail=tail, constants={"one": np.int64(1)}, outputs={"y": [1, 24, 32]})
    drafted(tmp_path, graph, IMAGENET, lambda y: y > 0.5)

    cut = [tail[0], node("Slice", "soft one two one", "y")]
    graph = net(tail=cut, constants={"one": np.array([1]), "two": np.array([2])}, **{**ONE, "classes": 2})
    found = drafted(tmp_path, graph, IMAGENET, lambda y: y > 0.5)
    assert not found.card.output.logit
    assert "that of the background: name the classes in the other order" in found.text.replace("\n# ", " ")


@pytest.mark.parametrize(
    ("tail", "dtype", "classes"),
    [
        ([node("Sigmoid", "scores", "p"), node("Mul", "p most", "y")], TensorProto.FLOAT, None),
        ([node("Greater", "scores zero", "b"), node("Where", "b white black", "y")], TensorProto.UINT8, 2),
    ],
)
def test_masks_of_0_to_255(tail: list[Any], dtype: int, classes: int | None, tmp_path: Path) -> None:
    constants = {"most": np.float32(255), "zero": np.float32(0), "white": np.uint8(255), "black": np.uint8(0)}
    graph = net(tail=tail, constants=constants, types={"y": dtype}, **ONE)

    found = drafted(tmp_path, graph, IMAGENET, lambda y: y > 127.5, classes=classes)

    assert (found.card.output.kind, found.card.output.maximum) == ("sigmoid", 255)
    wanted = onnxruntime.InferenceSession(graph).run(None, {"x": IMAGENET.transpose(0, 3, 1, 2).astype(np.float32)})
    extras = Extras("maximum", (1,))
    for runtime in (ORT, OPENVINO):
        levels = open_session(found.card, as_weights(graph), runtime, extras=extras).predict(IMAGE).probabilities
        assert levels is not None
        assert np.abs(levels - np.asarray(wanted[0], np.float64)).max() <= 0.51


def test_of_several_outputs_the_one_with_as_many_classes_as_are_named(tmp_path: Path) -> None:
    tail = [node("Concat", "scores scores", "features", axis=1), node("Neg", "scores", "y")]
    outputs = {"features": [1, 8, 24, 32], "y": [1, 4, 24, 32]}
    graph = net(tail=tail, outputs=outputs, metadata={"names": "['a', 'b', 'c', 'd']"})
    assert drafted(tmp_path, graph, IMAGENET, lambda y: y.argmax(1), 1).card.output.name == "y"
    assert drafted(tmp_path, net(tail=tail, outputs=outputs), IMAGENET, lambda y: y.argmax(1), 1, 4)


MEAN = np.array([123.675, 116.28, 103.53], np.float32).reshape(1, 3, 1, 1)
NORMALISED = [node("Sub", "a mean", "c"), node("Div", "c std", "pixels")]


@pytest.mark.parametrize("fmt", ["onnx", "ir"])
@pytest.mark.parametrize(
    ("first", "pixels"),
    [
        ([node("Resize", "x  scales", "a", mode="linear")], IMAGE),
        ([node("Clip", "x zero white", "a")], IMAGE),
        ([node("Identity", "x", "a"), node("Shape", "x", "shape")], IMAGE),
        ([node("Gather", "x order", "a", axis=1)], IMAGE[..., ::-1]),
        ([node("Add", "x one", "b"), node("Mul", "b half", "a")], IMAGE / 127.5 - 1),
    ],
    ids=["resize", "clip", "shape", "reversed", "signed"],
)
def test_a_normalisation_that_is_not_the_first_operator(
    first: list[Any], pixels: NDArray[Any], fmt: str, tmp_path: Path
) -> None:
    """It is not done twice; and a mean of ImageNet tells the order of channels."""
    first = [helper.make_node("Resize", ["x", "", "scales"], ["a"], mode="linear")] if "Resize" in str(first) else first
    constants = {
        "mean": MEAN, "std": np.float32(58), "scales": np.ones(4, np.float32), "zero": np.float32(0),
        "white": np.float32(255), "order": np.array([2, 1, 0]), "one": np.float32(1), "half": np.float32(127.5),
    }  # fmt: skip
    graph = net(before=[*first, *NORMALISED], constants=constants)
    drafted(tmp_path, graph, pixels, lambda y: y.argmax(1), fmt=fmt)


def test_numbers_of_constants_of_any_form(tmp_path: Path) -> None:
    by = helper.make_node("Constant", [], ["by"], value_float=255.0)

    found = drafted(tmp_path, net(before=[by, node("Div", "x by", "pixels")]), IMAGE, lambda y: y.argmax(1))

    assert found.card.input.maximum == 255


@pytest.mark.parametrize(
    ("processor", "pixels"),
    [
        ({"image_mean": 0.5, "image_std": 0.5}, IMAGE / 127.5 - 1),
        (
            {"do_flip_channel_order": True, "do_center_crop": True, "size": {"shortest_edge": 30}},
            IMAGE[..., ::-1] / 255,
        ),
    ],
)
def test_forms_of_hugging_face(processor: dict[str, Any], pixels: NDArray[Any], tmp_path: Path) -> None:
    """MobileViT's images are BGR, and are cropped; a mean may be one number."""
    processor = {"crop_size": {"height": 24, "width": 32}, "size": {"height": 24, "width": 32}, **processor}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    free = net(inputs={"x": [1, 3, "h", "w"]}, outputs={"y": [1, 4, "h", "w"]})

    found = drafted(tmp_path, free, pixels, lambda y: y.argmax(1))

    crops = any("keeps the shape of images, and crops them" in remark for remark in found.remarks)
    assert crops == ("do_center_crop" in processor)


def test_what_is_doubted(tmp_path: Path) -> None:
    cut = [node("Slice", "scores one end axes", "depth")]
    constants = {"one": np.array([3, 3]), "end": np.array([21, 29]), "axes": np.array([2, 3])}
    (tmp_path / "net.onnx").write_bytes(
        net(classes=1, tail=cut, constants=constants, outputs={"depth": [1, 1, 18, 26]})
    )

    remarks = " ".join(draft_card(str(tmp_path / "net.onnx")).remarks)

    assert "these sizes fit no stride: does the network crop its input?" in remarks
    assert "is it a network of depth" in remarks


def test_boxes_already_chosen_are_refused(tmp_path: Path) -> None:
    shape = {"to": np.array([1, -1, 12]), "zero": np.float32(0)}
    tail = [node("Reshape", "scores to", "boxes"), node("Add", "scores zero", "prototypes")]
    outputs = {"boxes": [1, 384, 12], "prototypes": [1, 6, 24, 32]}
    (tmp_path / "net.onnx").write_bytes(net(classes=6, tail=tail, constants=shape, outputs=outputs))
    with pytest.raises(ModelError, match="it gives boxes, and perhaps masks of single objects"):
        draft_card(str(tmp_path / "net.onnx"))


def test_a_semantic_model_of_ultralytics_in_openvinos_format(tmp_path: Path) -> None:
    model = openvino.Core().read_model(net())
    said = {"model_type": "YOLO", "scale_values": "255.0", "reverse_input_channels": "True", "pad_value": "114"}
    for key, value in {**said, "resize_type": "fit_to_window_letterbox"}.items():
        model.set_rt_info(value, ["model_info", key])
    openvino.save_model(model, tmp_path / "net.xml", compress_to_fp16=False)

    entry = draft_card(str(tmp_path / "net.xml")).card.input

    assert (entry.channels, entry.std[0], entry.resize.anchor, entry.resize.pad) == ("RGB", 255, "centre", (114,) * 3)
