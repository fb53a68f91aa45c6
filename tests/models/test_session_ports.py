"""A graph that contradicts its card is refused with advice; unusual but valid graphs are served."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from segment.models.card_output import ONE_CHANNEL
from segment.models.sessions import Runtime, open_session
from segment.models.weights import Weights
from tests.graphs import colour_classifier
from tests.serving import BOTH, OPENVINO, ORT, PICTURE, SCORES, message, opened, pictures, small, tiny


@BOTH
def test_dynamic_graphs_are_taken_and_their_masks_measured(runtime: Runtime) -> None:
    card = small()
    images, masks = pictures(card, 2)
    assert np.array_equal(opened(card, colour_classifier(card, dynamic=True), runtime).predict(images).masks, masks)


@BOTH
def test_masks_larger_than_the_input_stay_as_they_are(runtime: Runtime) -> None:
    card = small(output={"height": 64, "width": 96, "kind": "logits"})
    images, masks = pictures(card, 2)
    doubled = onnx.load_from_string(colour_classifier(card))
    doubled.graph.node[-1].output[0] = "small"
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    doubled.graph.initializer.append(scales)
    doubled.graph.node.append(helper.make_node("Resize", ["small", "", "scales"], ["prediction"], mode="nearest"))
    del doubled.graph.output[0].type.tensor_type.shape.dim[2:]
    for size in (64, 96):
        doubled.graph.output[0].type.tensor_type.shape.dim.add(dim_value=size)
    graph = doubled.SerializeToString()
    assert np.array_equal(opened(card, graph, runtime).predict(images).masks, masks.repeat(2, 1).repeat(2, 2))
    said = message(lambda: opened(small(output={"kind": "logits"}), graph, runtime))
    assert said.endswith("float32 ?x12x64x96: output.height = 64 and output.width = 96?")


NCHW, INDEX = small(), small("icnet-camvid-ava-sparse-60-0001")
FIT = "model card '{}' and its graph do not match: "
MISFITS = {
    "layout": (
        NCHW,
        small(input={"layout": "NHWC"}),
        {"batch": 1},
        "the card says NCHW 3x32x48, the graph's input 'picture' is 1x32x48x3: input.layout = \"NHWC\"?",
    ),
    "layout and size": (
        NCHW,
        small(input={"layout": "NHWC", "height": 64}),
        {},
        "the card says NCHW 3x32x48, the graph's input 'picture' is ?x64x48x3: "
        'input.layout = "NHWC" and input.height = 64?',
    ),
    "size": (
        NCHW,
        small(input={"height": 64}),
        {},
        "the card says NCHW 3x32x48, the graph's input 'picture' is ?x3x64x48: input.height = 64?",
    ),
    "both sizes": (
        NCHW,
        small(input={"height": 48, "width": 32}),
        {},
        "the card says NCHW 3x32x48, the graph's input 'picture' is ?x3x48x32: input.height = 48 and input.width = 32?",
    ),
    "batch": (
        NCHW,
        NCHW,
        {"batch": 8},
        "the card says NCHW 3x32x48, the graph's input 'picture' is 8x3x32x48: a fixed batch of 8 is not supported: "
        "export it with a batch of 1 or a symbolic one",
    ),
    "input dtype": (NCHW, NCHW, {"input_dtype": "int64"}, "the graph's input 'picture' takes int64; "
                    "supported are float32, float16, uint8, int8 and int16"),
    "bytes and normalisation": (
        small(input={"mean": (1.0, 1.0, 1.0)}),
        NCHW,
        {"input_dtype": "uint8"},
        "the graph's input 'picture' takes uint8, that is unchanged pixels, but the card declares a normalisation: "
        "remove input.maximum, input.mean and input.std",
    ),
    "input name": (
        small(input={"name": "pictures"}),
        NCHW,
        {},
        "the card's input.name is 'pictures', but the graph's inputs are: 'picture' (float32 ?x3x32x48). "
        "Did you mean 'picture'?",
    ),
    "output name": (
        small(output={"name": "masks"}),
        NCHW,
        {},
        "the card's output.name is 'masks', but the graph's outputs are: 'prediction' (float32 ?x12x32x48).",
    ),
    "classes": (
        NCHW,
        NCHW,
        {"colours": NCHW.classes.palette[:7]},
        "the card says probabilities NCHW 12x32x48 (12 classes), the graph's output 'prediction' is float32 ?x7x32x48: "
        "the graph scores 7 classes, the card names 12: check the class names, output.layout and the weights",
    ),
    "output layout": (
        NCHW,
        small(output={"layout": "NHWC"}),
        {},
        "the card says probabilities NCHW 12x32x48 (12 classes), the graph's output 'prediction' is float32 "
        '?x32x48x12: output.layout = "NHWC"?',
    ),
    "output size": (
        small(output={"height": 16, "width": 24}),
        NCHW,
        {"stride": 4},
        "the card says probabilities NCHW 12x16x24 (12 classes), the graph's output 'prediction' is float32 ?x12x8x12: "
        "output.height = 8 and output.width = 12? An output smaller than the input is enlarged to it (output.enlarge)",
    ),
    "one channel": (
        NCHW,
        NCHW,
        {"colours": NCHW.classes.palette[:1]},
        "the card says probabilities NCHW 12x32x48 (12 classes), the graph's output 'prediction' is float32 ?x1x32x48: "
        + ONE_CHANNEL,
    ),
    "one channel last": (
        small(output={"layout": "NHWC"}),
        small(output={"layout": "NHWC"}),
        {"colours": NCHW.classes.palette[:1]},
        "the card says probabilities NHWC 32x48x12 (12 classes), the graph's output 'prediction' is float32 ?x32x48x1: "
        + ONE_CHANNEL,
    ),
    "one channel, smaller": (
        NCHW,
        NCHW,
        {"colours": NCHW.classes.palette[:1], "stride": 4},
        "the card says probabilities NCHW 12x32x48 (12 classes), the graph's output 'prediction' is float32 ?x1x8x12: "
        + ONE_CHANNEL,
    ),
    "one channel without its axis": (
        NCHW,
        small(output={"kind": "index", "layout": "NHW"}),
        {"output_dtype": "float32"},
        "the card says probabilities NCHW 12x32x48 (12 classes), the graph's output 'prediction' is float32 ?x32x48: "
        + ONE_CHANNEL,
    ),
    "scores for an index": (
        INDEX,
        small("icnet-camvid-ava-sparse-60-0001", output={"kind": "logits", "layout": "NCHW"}),
        {},
        "the card says index NHW 32x48 (12 classes), the graph's output 'prediction' is float32 ?x12x32x48: "
        'output.kind = "logits" and output.layout = "NCHW"?',
    ),
    "index for scores": (
        NCHW,
        small(output={"kind": "index", "layout": "NHW"}),
        {"output_dtype": "uint8"},
        "the card says probabilities NCHW 12x32x48 (12 classes), the graph's output 'prediction' is uint8 ?x32x48: "
        f'output.kind = "index" and output.layout = "NHW", if it is a class index. {ONE_CHANNEL}',
    ),
    "int64 index for scores": (
        NCHW,
        small(output={"kind": "index", "layout": "N1HW"}),
        {},
        "the card says probabilities, the graph's output is 'prediction' (int64 ?x1x32x48): "
        'output.kind = "index" and output.layout = "N1HW"?',
    ),
    "index layout": (
        INDEX,
        small("icnet-camvid-ava-sparse-60-0001", output={"layout": "NHW1"}),
        {},
        "the card says index NHW 32x48 (12 classes), the graph's output 'prediction' is int64 ?x32x48x1: "
        'output.layout = "NHW1"?',
    ),
    "output dtype": (
        NCHW,
        NCHW,
        {"output_dtype": "int64"},
        "the card says probabilities, the graph's output is 'prediction' (int64 ?x12x32x48): "
        "scores are floating-point or 8-bit numbers",
    ),
}  # fmt: skip


@BOTH
@pytest.mark.parametrize("case", MISFITS)
def test_a_graph_that_contradicts_its_card_is_refused(case: str, runtime: Runtime) -> None:
    card, built_for, options, expected = MISFITS[case]
    graph = colour_classifier(built_for, **options)  # type: ignore[arg-type]
    assert message(lambda: opened(card, graph, runtime)) == FIT.format(card.name) + expected


@BOTH
def test_a_smaller_output_of_another_shape_than_the_input_is_refused(runtime: Runtime) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["small"], kernel_shape=[1, 1], strides=[4, 4]),
        helper.make_node("Transpose", ["small"], ["y"], perm=[0, 1, 3, 2]),
    ]
    kernel = numpy_helper.from_array(np.ones((12, 3, 1, 1), np.float32), "kernel")
    graph = tiny(nodes, [("x", PICTURE)], [("y", (1, 12, 12, 8))], [kernel])
    assert message(lambda: opened(small(), graph, runtime)).endswith(
        "is float32 1x12x12x8: that is not 32x48 on a smaller scale: check output.layout; if it is intended, "
        "set output.height = 12 and output.width = 8"
    )


@BOTH
def test_several_outputs_need_a_name_and_the_rest_is_cut_off(runtime: Runtime) -> None:
    """The second head reads a second input, which is not needed once the head is removed."""
    nodes = [
        helper.make_node("Concat", ["x"] * 4, ["main"], axis=1),
        helper.make_node("Concat", ["other"] * 4, ["aux"], axis=1),
    ]
    outputs = [("main", SCORES), ("aux", SCORES)]
    graph = tiny(nodes, [("x", PICTURE), ("other", PICTURE)], outputs)
    fit = FIT.format("unet-camvid-onnx-0001")
    assert message(lambda: opened(small(), graph, runtime)) == (
        f"{fit}the graph has 2 inputs: 'x' (float32 1x3x32x48), 'other' (float32 1x3x32x48). "
        'Say which: input.name = "x"'
    )
    assert message(lambda: opened(small(input={"name": "x"}), graph, runtime)) == (
        f"{fit}the graph has 2 outputs: 'main' (float32 1x12x32x48), 'aux' (float32 1x12x32x48). "
        'Say which: output.name = "main"'
    )
    session = opened(small(input={"name": "x"}, output={"name": "main"}), graph, runtime)
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 48, 3), dtype=np.uint8)
    assert np.array_equal(session.predict(image).masks[0], image[0, :, :, ::-1].argmax(axis=-1))
    crossed = small(input={"name": "x"}, output={"name": "aux"})
    assert message(lambda: opened(crossed, graph, runtime)) == (
        f"{fit}the graph also needs the input 'other'; a session has only one input: the image"
    )


@BOTH
def test_names_do_not_collide_and_subgraphs_stay(runtime: Runtime) -> None:
    """The graph uses the prefix of added names, reads its input in a branch, and its output is an input."""
    branch = [
        helper.make_graph(
            [helper.make_node("Concat", [source] * 4, [f"segment0_{name}"], axis=1)],
            name,
            [],
            [helper.make_tensor_value_info(f"segment0_{name}", TensorProto.FLOAT, SCORES)],
        )
        for name, source in (("then", "segment0_images"), ("else", "segment0_in0"))
    ]
    nodes = [
        helper.make_node("Neg", ["segment0_images"], ["segment0_in0"]),
        helper.make_node("If", ["yes"], ["segment0_masks"], then_branch=branch[0], else_branch=branch[1]),
    ]
    yes = numpy_helper.from_array(np.array(True), "yes")
    graph = tiny(nodes, [("segment0_images", PICTURE)], [("segment0_masks", SCORES)], [yes])
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 48, 3), dtype=np.uint8)
    masks = opened(small(), graph, runtime).predict(image).masks
    assert np.array_equal(masks[0], image[0, :, :, ::-1].argmax(axis=-1))


def test_functions_and_metadata_are_kept() -> None:
    from segment.models.sessions.surgery import Surgeon

    body = [helper.make_node("Concat", ["a"] * 4, ["b"], axis=1)]
    function = helper.make_function("own", "Fourfold", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    nodes = [helper.make_node("Fourfold", ["x"], ["y"], domain="own")]
    graph = onnx.load_from_string(tiny(nodes, [("x", PICTURE)], [("y", SCORES)], functions=[function]))
    graph.opset_import.append(helper.make_opsetid("own", 1))
    helper.set_model_props(graph, {"author": "somebody"})
    data = graph.SerializeToString()
    compiled = onnx.load_from_string(Surgeon(small(), data).compiled(None))
    assert [item.name for item in compiled.functions] == ["Fourfold"]
    assert [(item.key, item.value) for item in compiled.metadata_props] == [("author", "somebody")]
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 48, 3), dtype=np.uint8)
    masks = opened(small(), data, ORT).predict(image).masks
    assert np.array_equal(masks[0], image[0, :, :, ::-1].argmax(axis=-1))


@BOTH
@pytest.mark.parametrize("place", ["initialiser", "branch"])
def test_external_data_is_never_read(
    place: str, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both runtimes would read it from the working directory, even if the model comes from memory."""
    np.ones(SCORES, np.float32).tofile(tmp_path / "weights.bin")
    monkeypatch.chdir(tmp_path)
    outside = TensorProto(name="outside", data_type=TensorProto.FLOAT, dims=SCORES)
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="weights.bin")
    wide = helper.make_node("Concat", ["x"] * 4, ["wide"], axis=1)
    if place == "initialiser":
        nodes, stored = [wide, helper.make_node("Add", ["wide", "outside"], ["y"])], [outside]
    else:
        inside = helper.make_node("Constant", [], ["c"], value=outside)
        value = helper.make_tensor_value_info("c", TensorProto.FLOAT, SCORES)
        branch = helper.make_graph([inside], "branch", [], [value])
        yes = numpy_helper.from_array(np.array(True), "yes")
        choice = helper.make_node("If", ["yes"], ["z"], then_branch=branch, else_branch=branch)
        nodes, stored = [wide, choice, helper.make_node("Add", ["wide", "z"], ["y"])], [yes]
    graph = tiny(nodes, [("x", PICTURE)], [("y", SCORES)], stored)
    assert message(lambda: opened(small(), graph, runtime)) == (
        "the ONNX model stores tensor 'outside' in another file, which is not read at load: save it as one file "
        "(onnx.save_model(onnx.load(path), path, save_as_external_data=False))"
    )


@BOTH
def test_rank_and_scalars(runtime: Runtime) -> None:
    graph = tiny([helper.make_node("Relu", ["x"], ["y"])], [("x", (3, 32, 48))], [("y", (3, 32, 48))])
    assert message(lambda: opened(small(), graph, runtime)).endswith(
        "the card says NCHW 3x32x48, the graph's input 'x' is 3x32x48: 4 dimensions are needed, the graph has 3"
    )


def test_old_opset_is_refused() -> None:
    graph = tiny([helper.make_node("Concat", ["x"] * 4, ["y"], axis=1)], [("x", PICTURE)], [("y", SCORES)], opset=8)
    assert message(lambda: opened(small(), graph, ORT)).endswith(
        "the graph is of ONNX opset 8: export it again with opset 9 or newer"
    )


@BOTH
@pytest.mark.parametrize("data", [b"", b"\x00" * 100, b"<html>not found</html>"])
def test_bytes_that_are_no_model(data: bytes, runtime: Runtime) -> None:
    assert message(lambda: opened(small(), data, runtime)).startswith("weights a test: this is not an ONNX model")


@pytest.mark.parametrize("fmt", ["ir", "tflite"])
def test_ir_and_tflite_that_are_none(fmt: Any) -> None:
    weights = Weights(fmt, b"<html>not found</html>", b"", "", "a test")
    said = message(lambda: open_session(small(), weights, OPENVINO))
    assert said == f"weights a test: this is not a model in {fmt} format: a wrong or damaged file"
    assert message(lambda: open_session(small(), weights, ORT)) == (
        "onnxruntime serves .onnx only; openvino serves .xml and .tflite: use --runtime openvino"
    )


def test_graph_the_runtime_cannot_load() -> None:
    graph = tiny([helper.make_node("NoSuchOperator", ["x"], ["y"])], [("x", PICTURE)], [("y", SCORES)])
    assert message(lambda: opened(small(), graph, ORT)).startswith("onnxruntime cannot load the graph: ")
    assert message(lambda: opened(small(), graph, OPENVINO)).startswith(
        "openvino cannot read the onnx weights: -- No conversion rule found for operations: NoSuchOperator-17"
    )
