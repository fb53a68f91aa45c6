"""What exporters leave beside a graph or in it, in the forms that they write."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest

from segment.drafts.drafting import draft_card
from segment.drafts.exporters import read_hints
from segment.drafts.pipelines import hints_of_paddle, hints_of_pipeline
from segment.errors import ModelError
from segment.models.sessions.graph_facts import GraphFacts
from segment.models.sessions.inspection import inspect_graph
from segment.store.client import Store
from tests.graphs import as_weights
from tests.nets import net, node

# As mmdeploy 1.3 writes them for a network of mmseg.
STEPS = [
    {"type": "LoadImageFromFile"},
    {"type": "Resize", "keep_ratio": False, "size": [32, 24]},
    {"type": "Normalize", "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "to_rgb": True},
    {"type": "ImageToTensor", "keys": ["img"]},
    {"type": "Collect", "keys": ["img"], "meta_keys": ["img_shape", "pad_shape", "ori_shape", "scale_factor"]},
]
PIPELINE = {
    "pipeline": {
        "input": ["img"],
        "output": ["post_output"],
        "tasks": [
            {"type": "Task", "module": "Transform", "name": "Preprocess", "input": ["img"], "transforms": STEPS},
            {"name": "fcn", "type": "Task", "module": "Net", "is_batched": False, "input_map": {"img": "input"}},
            {"type": "Task", "module": "mmseg", "name": "postprocess", "component": "ResizeMask"},
        ],
    }
}
DEPLOY = {
    "version": "1.3.1",
    "task": "Segmentor",
    "models": [{"name": "fcn", "net": "end2end.onnx", "weights": "", "backend": "onnxruntime", "precision": "FP32"}],
    "customs": [],
}
DETAIL = {
    "version": "1.3.1",
    "codebase": {"task": "Segmentation", "codebase": "mmseg", "version": "1.2.2", "pth": "fcn.pth", "config": "f.py"},
    "codebase_config": {"type": "mmseg", "task": "Segmentation", "with_argmax": True},
    "onnx_config": {"type": "onnx", "save_file": "end2end.onnx", "input_shape": [32, 24], "input_names": ["input"]},
    "backend_config": {"type": "onnxruntime"},
    "calib_config": {},
}


def a_model(folder: Path, graph: bytes | None = None, **beside: Any) -> str:
    """Write a graph of any size, and JSON files beside it."""
    free = net(inputs={"x": [1, 3, "h", "w"]}, outputs={"y": [1, 4, "h", "w"]})
    (folder / "end2end.onnx").write_bytes(free if graph is None else graph)
    for name, content in beside.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return str(folder / "end2end.onnx")


def test_mmdeploy(tmp_path: Path) -> None:
    found = draft_card(a_model(tmp_path, pipeline=PIPELINE, deploy=DEPLOY, detail=DETAIL))

    entry = found.card.input
    assert (entry.height, entry.width, entry.channels, entry.mean) == (24, 32, "RGB", (123.675, 116.28, 103.53))
    assert "Known: onnx_config.input_shape in detail.json; the graph leaves it free" in found.text
    assert "channels" not in next(remark for remark in found.remarks if remark.startswith("guessed"))


def test_a_kept_ratio_of_mmdeploy_is_told(tmp_path: Path) -> None:
    steps = [{**STEPS[1], "keep_ratio": True, "interpolation": "bicubic"}]
    found = draft_card(a_model(tmp_path, pipeline={"pipeline": {"tasks": [{"transforms": steps}]}}))

    assert (found.card.input.resize.method, found.card.input.resize.interpolation) == ("letterbox", "bicubic")
    assert any("keeps the shape of images without a border to one size" in remark for remark in found.remarks)


def test_borders_of_mmdeploy(tmp_path: Path) -> None:
    """Behind the normalisation a border of 0 is the mean."""
    resize, pad = {**STEPS[1], "keep_ratio": True}, {"type": "Pad", "size": [24, 32], "pad_val": {"img": [114] * 3}}
    for steps, border in (
        ([resize, pad, STEPS[2]], (114,) * 3),
        ([resize, STEPS[2], {**pad, "pad_val": 0}], (124, 116, 104)),
        ([resize, {"type": "Pad", "pad_to_square": True}], (0, 0, 0)),
    ):
        found = draft_card(a_model(tmp_path, pipeline={"pipeline": {"tasks": [{"transforms": steps}]}}))
        entry = found.card.input
        assert (entry.height, entry.width, entry.resize.method, entry.resize.pad) == (24, 32, "letterbox", border)
        assert not any("without a border" in remark for remark in found.remarks)


def test_paddleseg(tmp_path: Path) -> None:
    """`tools/export.py` writes the steps of the configuration; their defaults are PaddleSeg's."""
    model = a_model(tmp_path)
    steps = "Deploy:\n  transforms:\n  - {type: Resize, target_size: [32, 24], interp: CUBIC}\n  - type: Normalize\n"
    (tmp_path / "deploy.yaml").write_text(steps)
    entry = draft_card(model).card.input
    assert (entry.height, entry.width, entry.channels, entry.maximum) == (24, 32, "RGB", 1)
    assert (entry.mean, entry.std, entry.resize.interpolation) == ((0.5,) * 3, (0.5,) * 3, "bicubic")

    steps = "Deploy: {transforms: [{type: ResizeByLong, long_size: 32}, {type: Padding, target_size: [32, 24]}]}"
    (tmp_path / "deploy.yaml").write_text(steps)
    entry = draft_card(model).card.input
    assert (entry.mean, entry.maximum, entry.resize.method, entry.resize.pad) == (
        (0,) * 3,
        255,
        "letterbox",
        (128,) * 3,
    )

    (tmp_path / "deploy.yaml").write_text("a: [" * 200)
    with pytest.raises(ModelError, match="leaves height or width free"):
        draft_card(model)


def test_a_border_to_another_size_is_told() -> None:
    """The network gets the size with the border; no card resizes to one size and pads to another."""
    steps = [STEPS[1], {"type": "Pad", "size": [48, 40]}]
    mmdeploy = hints_of_pipeline({"pipeline": {"tasks": [{"transforms": steps}]}})
    padding = {"type": "Padding", "target_size": [40, 48]}
    paddle = hints_of_paddle({"Deploy": {"transforms": [{"type": "Resize", "target_size": [32, 24]}, padding]}})
    for found in (mmdeploy, paddle):
        assert getattr(found.size, "value", None) == (48, 40)
        assert "resizes images to 24x32 and adds a border to 48x40" in found.remarks[0]


BOMB = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n}\n  <<: [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))


@pytest.mark.parametrize("text", ["a: !!bool maybe", "a: !!timestamp x", "a: !!int ''", f"# {'x' * 70_000}", BOMB])
def test_yaml_of_another_form_is_told(text: str, tmp_path: Path) -> None:
    """PyYAML raises many types of errors, takes its time, and builds a table twice as large with each line of BOMB."""
    (tmp_path / "deploy.yaml").write_text(text)
    found = read_hints((tmp_path / "m.onnx").as_uri(), GraphFacts((), (), frozenset(), ""), Store())
    assert found.remarks == ("deploy.yaml beside the model has a form that is not known here, and is not used",)


def test_other_places_of_the_same_words(tmp_path: Path) -> None:
    """An image processor within `processor_config.json`; Model API's tables in the metadata of an ONNX file."""
    processor = {"image_mean": [0.1] * 3, "image_std": [0.2] * 3, "size": [32, 24]}
    found = draft_card(a_model(tmp_path, processor_config={"image_processor": processor})).card.input
    assert (found.height, found.width, found.mean, found.maximum) == (24, 32, (0.1,) * 3, 1)

    (tmp_path / "processor_config.json").unlink()
    said = {"model_info labels": "a b c d", "model_info mean_values": "1 2 3", "model_info scale_values": "4 5 6"}
    card = draft_card(a_model(tmp_path, net(metadata=said))).card
    assert (card.classes.names, card.input.mean, card.input.std) == (("a", "b", "c", "d"), (1, 2, 3), (4, 5, 6))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("deploy", {**DEPLOY, "task": "Detector"}, "deploy.json beside it says task 'Detector'"),
        ("detail", {"codebase": {"task": "InstanceSegmentation"}}, "detail.json beside it says task 'InstanceSeg"),
        ("config", {"architectures": ["DetrForObjectDetection"]}, "a detector: it gives boxes.*DetrForObjectDetection"),
        ("config", {"architectures": ["DPTForDepthEstimation"]}, "a network of depth"),
    ],
)
def test_other_tasks_are_refused(name: str, content: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=said):
        draft_card(a_model(tmp_path, **{name: content}))


def test_files_of_other_programs_say_nothing(tmp_path: Path) -> None:
    model = a_model(tmp_path, net(), deploy={"task": "rollout"}, detail={"codebase": "mono"})

    assert not any(".json" in remark for remark in draft_card(model).remarks)


def test_numbers_that_cannot_be_are_not_taken(tmp_path: Path) -> None:
    model = a_model(tmp_path, net(), preprocessor_config={"image_mean": [0.5] * 3, "image_std": [0, 0, 0]})
    assert any("has a form that is not known here" in remark for remark in draft_card(model).remarks)

    model = a_model(tmp_path, preprocessor_config={"size": {"height": -24, "width": 32}})
    with pytest.raises(ModelError, match="leaves height or width free, and a draft needs one size"):
        draft_card(model)


def test_reduced_labels_of_hugging_face(tmp_path: Path) -> None:
    names = {str(number): name for number, name in enumerate(["wall", "building", "sky", "floor\ud800"])}
    model = a_model(tmp_path, net(), config={"id2label": names}, preprocessor_config={"do_reduce_labels": True})

    found = draft_card(model)

    assert found.card.classes.names == ("wall", "building", "sky", "floor?")
    assert any("(do_reduce_labels), so such labels need a remap: 0=ignore, 1=0" in remark for remark in found.remarks)
    assert found.text.encode()


def test_names_by_number_as_text(tmp_path: Path) -> None:
    names = {str(number): f"n{number}" for number in range(12)}
    graph = net(classes=12, outputs={"y": [1, 12, 24, 32]}, metadata={"names": str(names)})

    assert draft_card(a_model(tmp_path, graph)).card.classes.names == tuple(names.values())


@pytest.mark.parametrize(
    ("names", "wanted", "comment"),
    [
        (["a", "a", "a (1)", "b"], ("a", "a (2)", "a (1)", "b"), "Known: metadata 'names' of the file"),
        ({0: "a", 2: "b", 5: "c", 30: "d"}, ("class-0", "class-1", "class-2", "class-3"), "and nothing names them"),
        (["a", "b"], ("class-0", "class-1", "class-2", "class-3"), "though metadata 'names' of the file has 2"),
    ],
)
def test_names_that_repeat_or_do_not_fit(names: Any, wanted: tuple[str, ...], comment: str, tmp_path: Path) -> None:
    model = a_model(tmp_path, net(metadata={"names": str(names)}))
    Path(model).with_name("config.json").write_text("[" * 100_000)

    found = draft_card(model)

    assert found.card.classes.names == wanted
    assert comment in " ".join(found.text.replace("\n#", "").split())


def test_several_sigmoids_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"ends in a sigmoid of each of 4 channels: several independent sigmoids give"):
        draft_card(a_model(tmp_path, net(tail=[node("Sigmoid", "scores", "y")])))

    both = {"y": [1, 4, 24, 32], "z": [1, 4, 24, 32]}
    tail = [node("Sigmoid", "scores", "y"), node("Softmax", "scores", "z", axis=1)]
    found = draft_card(a_model(tmp_path, net(outputs=both, tail=tail))).card
    assert (found.output.name, found.output.kind) == ("z", "probabilities")


def test_processing_within_a_graph_of_openvino(tmp_path: Path) -> None:
    """Model API's `save` builds mean, scale and the order of channels into the graph, and says so."""
    read = openvino.Core().read_model(net())
    said = {
        "embedded_processing": "True",
        "mean_values": "1 2 3",
        "reverse_input_channels": "True",
        "labels": "a b c d",
    }
    for key, value in said.items():
        read.set_rt_info(value, ["model_info", key])
    openvino.save_model(read, tmp_path / "net.xml", compress_to_fp16=False)

    found = draft_card(str(tmp_path / "net.xml")).card

    assert (found.input.channels, found.input.mean, found.classes.names) == ("BGR", (0.0,) * 3, ("a", "b", "c", "d"))


@pytest.mark.parametrize("fmt", ["onnx", "ir"])
def test_a_product_with_zero_is_no_normalisation(fmt: str, tmp_path: Path) -> None:
    graph = net(
        before=[node("Mul", "x scale", "scaled"), node("Sub", "scaled mean", "pixels")],
        constants={
            "scale": np.array([0, 1, 1], np.float32).reshape(1, 3, 1, 1),
            "mean": np.full((1, 3, 1, 1), 0.5, np.float32),
        },
    )
    weights = as_weights(graph)
    if fmt == "ir":
        openvino.save_model(openvino.Core().read_model(graph), tmp_path / "net.xml", compress_to_fp16=False)
        weights = as_weights((tmp_path / "net.xml").read_bytes(), "ir", (tmp_path / "net.bin").read_bytes())

    assert not inspect_graph(weights).inputs[0].is_normalised_inside


@pytest.mark.parametrize(
    ("processor", "said"),
    [
        ({"size": {"shortest_edge": 24}, "do_center_crop": True, "crop_size": {"height": 24, "width": 32}},
         "keeps the shape of images, and crops them; the card stretches them"),
        ({"size": {"longest_edge": 32}, "do_pad": True}, "keeps the shape of images, and adds a border to them"),
        ({"size": {"height": 24, "width": 32}, "keep_aspect_ratio": True}, "keeps the shape of images; the card"),
        ({"size": {"height": 24, "width": 32}, "do_pad": False}, ""),
    ],
)  # fmt: skip
def test_a_shape_that_is_kept_makes_the_resize_a_guess(processor: dict[str, Any], said: str, tmp_path: Path) -> None:
    """Resampler and filter are known, the method is not."""
    found = draft_card(a_model(tmp_path, net(), preprocessor_config={"resample": 3, **processor}))
    assert found.card.input.resize.interpolation == "bicubic"
    assert any(said in remark for remark in found.remarks if said) is bool(said)
    assert any("check them" in remark and "resize" in remark for remark in found.remarks) is bool(said)
