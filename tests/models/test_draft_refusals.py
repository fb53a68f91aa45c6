"""Graphs that no card can serve: each is refused with the reason in words."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from segment.drafts.drafting import draft_card
from segment.errors import ModelError
from tests.nets import net, node


def refusal(folder: Path, options: dict[str, Any] | None = None, **graph: Any) -> str:
    """Return the message for a graph of `net`."""
    path = folder / "net.onnx"
    path.write_bytes(net(**graph))
    with pytest.raises(ModelError) as caught:
        draft_card(str(path), **(options or {}))
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_several_images(tmp_path: Path) -> None:
    inputs = {"before": [1, 3, 24, 32], "after": [1, 3, 24, 32]}
    text = refusal(
        tmp_path,
        inputs=inputs,
        tail=[
            node("Add", "scores more", "y"),
        ],
        before=[node("Sub", "before after", "pixels")],
        constants={"more": np.float32(0)},
    )
    assert "it takes 2 images at once ('before' (float32 1x3x24x32), 'after' (float32 1x3x24x32))" in text


def test_another_input_beside_the_image(tmp_path: Path) -> None:
    text = refusal(tmp_path, inputs={"x": [1, 3, 24, 32], "gain": [1]}, tail=[node("Mul", "scores gain", "y")])
    assert "the graph also needs the input 'gain'" in text


def test_four_channels(tmp_path: Path) -> None:
    text = refusal(tmp_path, inputs={"x": [1, 4, 24, 32]}, depth=4)
    assert "takes 4 channels, and an image has three (colour) or one (grey)" in text


def test_volumes(tmp_path: Path) -> None:
    assert "five dimensions" in refusal(tmp_path, inputs={"x": [1, 3, 8, 24, 32]})


def test_no_image(tmp_path: Path) -> None:
    assert "none takes an image: 'tokens' (float32 1x77)" in refusal(tmp_path, inputs={"tokens": [1, 77]})


def test_numbers_of_another_type(tmp_path: Path) -> None:
    cast = [node("Cast", "x", "pixels", to=TensorProto.FLOAT)]
    text = refusal(tmp_path, before=cast, types={"x": TensorProto.INT32})
    assert "takes int32; served are float32, float16, uint8, int8 and int16" in text


def test_a_fixed_batch(tmp_path: Path) -> None:
    assert "a fixed batch of 8" in refusal(tmp_path, inputs={"x": [8, 3, 24, 32]}, outputs={"y": [8, 4, 24, 32]})


def test_a_classifier(tmp_path: Path) -> None:
    tail = [node("GlobalAveragePool", "scores", "pooled"), node("Flatten", "pooled", "y")]
    assert "it is a classifier" in refusal(tmp_path, tail=tail, outputs={"y": [1, 4]})
    assert "it is a classifier" in refusal(
        tmp_path, tail=[*tail[:1], node("Identity", "pooled", "y")], outputs={"y": [1, 4, 1, 1]}
    )


def test_a_detector(tmp_path: Path) -> None:
    shape = {"to": np.array([1, 9, -1])}
    rows = [1, 9, 512]
    tail = [node("Reshape", "scores to", "rows")]
    text = refusal(tmp_path, tail=tail, constants=shape, classes=6, outputs={"rows": rows})
    assert "it looks like a detector or an encoder: no output has a class for every pixel ('rows' (float" in text
    tail.append(node("Identity", "rows", "num_detections"))
    outputs = {"num_detections": rows}
    assert "it is a detector" in refusal(tmp_path, tail=tail, constants=shape, classes=6, outputs=outputs)


def test_instances(tmp_path: Path) -> None:
    """YOLO's boxes and prototypes of masks, from a file without metadata."""
    shape = {"to": np.array([1, 9, -1]), "zero": np.float32(0)}
    tail = [node("Reshape", "scores to", "output0"), node("Add", "scores zero", "output1")]
    outputs = {"output0": [1, 9, 512], "output1": [1, 6, 24, 32]}
    text = refusal(tmp_path, tail=tail, constants=shape, classes=6, outputs=outputs)
    assert "it gives boxes, and perhaps masks of single objects" in text


def test_no_batch(tmp_path: Path) -> None:
    tail = [node("Squeeze", "scores axis", "y")]
    text = refusal(tmp_path, tail=tail, constants={"axis": np.array([0])}, outputs={"y": [4, 24, 32]})
    assert "has no dimension for the batch" in text


@pytest.mark.parametrize("task", ["detect", "obb", "pose", "classify", "segment"])
def test_other_tasks_of_ultralytics(task: str, tmp_path: Path) -> None:
    text = refusal(tmp_path, metadata={"task": task, "stride": "32"})
    assert f"its metadata says task '{task}'" in text


def test_a_classifier_of_hugging_face(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["ViTForImageClassification"]}))
    assert "describes a classifier" in refusal(tmp_path)


def test_classified_masks(tmp_path: Path) -> None:
    assert "it classifies masks" in refusal(tmp_path, outputs={"masks_queries_logits": [1, 4, 24, 32]})


def test_more_classes_than_a_mask_holds(tmp_path: Path) -> None:
    assert "has 300 classes, and a mask holds 255" in refusal(tmp_path, classes=300)


def test_an_index_of_unknown_classes(tmp_path: Path) -> None:
    tail = [node("ReduceMax", "scores", "y_", axes=[1], keepdims=0), node("Cast", "y_", "y", to=TensorProto.INT64)]
    index = {"tail": tail, "outputs": {"y": [1, 24, 32]}, "types": {"y": TensorProto.INT64}}
    assert "say it, for example --classes 19" in refusal(tmp_path, **index)


def test_contradictions_of_the_options(tmp_path: Path) -> None:
    assert "the graph is of 24x32 alone" in refusal(tmp_path, {"size": (48, 64)})
    assert "--classes 3: the graph has 4" in refusal(tmp_path, {"classes": 3})


def test_a_size_that_the_graph_does_not_take(tmp_path: Path) -> None:
    free = {"inputs": {"x": [1, 3, "h", "w"]}, "outputs": {"y": [1, 4, 24, 32]}}
    fixed = [node("Reshape", "scores to", "y")]
    text = refusal(tmp_path, {"size": (48, 65)}, tail=fixed, constants={"to": np.array([1, 4, 24, 32])}, **free)
    assert "the drafted card does not run: openvino cannot load the graph" in text
    assert text.endswith("Many networks need a --size of multiples of 32")


def test_scores_that_say_nothing(tmp_path: Path) -> None:
    tail = [node("Mul", "scores zero", "y")]
    text = refusal(tmp_path, tail=tail, constants={"zero": np.float32(0)})
    assert "all scores of a pixel are equal" in text


def test_scores_that_are_no_numbers(tmp_path: Path) -> None:
    tail = [node("Mul", "scores nan", "y")]
    text = refusal(tmp_path, tail=tail, constants={"nan": np.float32("nan")})
    assert "not finite" in text


def test_an_operator_that_no_runtime_has(tmp_path: Path) -> None:
    tail = [node("Convolution2DTransposeBias", "scores", "y", domain="of.others")]
    assert "Convolution2DTransposeBias" in refusal(tmp_path, tail=tail)
