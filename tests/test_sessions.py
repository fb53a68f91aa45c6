"""Sessions on real graphs: known masks, batches, threads, faults, the contract, real models."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from segment.card import ModelCard, built_in_cards, load_card
from segment.errors import ModelError, UsageError
from segment.sessions import Runtime, capabilities, open_session, resolve
from segment.sessions.predict import GraphSession
from segment.weights import Weights
from tests.graphs import TRIGGER, as_weights, colour_classifier, nan_graph, out_of_range_graph, painted

ORT = Runtime("onnxruntime", "cpu", "f32", "")
OPENVINO = Runtime("openvino", "cpu", "f32", "")
BOTH = pytest.mark.parametrize("runtime", [ORT, OPENVINO], ids=lambda runtime: runtime.name)
CARDS = pytest.mark.parametrize("name", built_in_cards())
SHARED = Path(os.environ.get("SEGMENT_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def shared(path: str) -> Path:
    """A real file, or a skip that says what is missing."""
    if not (SHARED / path).is_file():
        pytest.skip(f"REAL FILE MISSING: {SHARED / path} (set SEGMENT_SHARED)")
    return SHARED / path


def small(name: str = "unet-camvid-onnx-0001", **changes: dict[str, Any]) -> ModelCard:
    """A built-in card at 32x48 pixels, with changes by table: `small(input={"channels": "RGB"})`."""
    card = load_card(name)
    tables: dict[str, Any] = {"input": {"height": 32, "width": 48}, "output": {}}
    for table, values in changes.items():
        tables[table] = {**tables[table], **values}
    return card.model_copy(
        update={table: getattr(card, table).model_copy(update=values) for table, values in tables.items()}
    )


def opened(card: ModelCard, graph: bytes, runtime: Runtime, **settings: int) -> GraphSession:
    session = open_session(card, as_weights(graph), runtime, **settings)
    assert isinstance(session, GraphSession)
    return session


def pictures(card: ModelCard, count: int) -> tuple[Any, Any]:
    pairs = [painted(card, seed) for seed in range(count)]
    return np.stack([image for image, _ in pairs]), np.stack([mask for _, mask in pairs])


def message(call: Callable[[], object], kind: type[Exception] = ModelError) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


# ---------------------------------------------------------------- masks


def test_importing_sessions_loads_no_runtime() -> None:
    code = "import sys, segment.sessions; print({'onnx', 'onnxruntime', 'openvino'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@BOTH
@CARDS
def test_known_answers_of_every_card(name: str, runtime: Runtime) -> None:
    card = load_card(name)
    image, mask = painted(card, seed=1)
    result = opened(card, colour_classifier(card), runtime).predict(image[None])
    assert result.masks.dtype == np.uint8
    assert np.array_equal(result.masks[0], mask)
    assert result.faults == {}


@BOTH
@pytest.mark.parametrize("input_dtype", ["float32", "float16", "uint8"])
def test_input_dtypes(input_dtype: Any, runtime: Runtime) -> None:
    card = small("deeplabv3-mobilenetv2-int8", output={"layout": "N1HW"})
    images, masks = pictures(card, 1)
    session = opened(card, colour_classifier(card, input_dtype=input_dtype), runtime)
    assert np.array_equal(session.predict(images).masks, masks)


@BOTH
@pytest.mark.parametrize("layout", ["NHW", "N1HW", "NHW1"])
@pytest.mark.parametrize("output_dtype", ["int64", "int32", "uint8", "float32"])
def test_index_dtypes_and_layouts(layout: str, output_dtype: str, runtime: Runtime) -> None:
    card = small("deeplabv3-mobilenetv2-int8", output={"layout": layout})
    images, masks = pictures(card, 2)
    session = opened(card, colour_classifier(card, output_dtype=output_dtype), runtime)
    assert np.array_equal(session.predict(images).masks, masks)


@BOTH
@pytest.mark.parametrize("output_dtype", ["float16", "float64"])
def test_score_dtypes(output_dtype: str, runtime: Runtime) -> None:
    card = small(output={"kind": "logits"})
    images, masks = pictures(card, 1)
    session = opened(card, colour_classifier(card, output_dtype=output_dtype), runtime)
    assert np.array_equal(session.predict(images).masks, masks)


@BOTH
@pytest.mark.parametrize(("opset", "ir_version"), [(9, 3), (9, 4), (11, 6), (13, 7), (18, 8), (21, 10)])
@pytest.mark.parametrize("kind", ["logits", "index"])
def test_opsets_and_ir_versions(kind: str, opset: int, ir_version: int, runtime: Runtime) -> None:
    layout = "NHW" if kind == "index" else "NCHW"
    card = small(input={"mean": (10.0, 20.0, 30.0)}, output={"kind": kind, "layout": layout})
    images, masks = pictures(card, 1)
    session = opened(card, colour_classifier(card, opset=opset, ir_version=ir_version), runtime)
    assert np.array_equal(session.predict(images).masks, masks)


@BOTH
def test_normalisation_is_what_the_card_says(runtime: Runtime) -> None:
    """A graph that gives its own input back as scores shows what it was fed."""
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    card = small(input={"channels": "BGR", "maximum": 1, "mean": mean, "std": std}, output={"kind": "logits"})
    values = np.arange(0, 256, dtype=np.uint8)
    rgb = np.zeros((1, 32, 48, 3), np.uint8)
    rgb.reshape(-1, 3)[:256] = np.stack([values, values[::-1], values // 2], axis=1)
    wanted = ((rgb[..., ::-1] / 255 - np.array(mean)) / np.array(std)).argmax(axis=-1)
    nodes = [helper.make_node("Concat", ["x"] * 4, ["y"], axis=1)]
    graph = tiny(nodes, [("x", (1, 3, 32, 48))], [("y", (1, 12, 32, 48))])
    assert np.array_equal(opened(card, graph, runtime).predict(rgb).masks, wanted)


@BOTH
def test_wrong_channel_order_gives_other_masks(runtime: Runtime) -> None:
    card = small()
    graph = colour_classifier(small(input={"channels": "RGB"}))
    images, masks = pictures(card, 1)
    assert np.mean(opened(card, graph, runtime).predict(images).masks != masks) > 0.2


@BOTH
def test_ties_go_to_the_first_class(runtime: Runtime) -> None:
    card = small(output={"kind": "logits"})
    colours = [card.classes.palette[index // 3] for index in range(12)]  # 0 0 0 1 1 1 ...
    image, mask = painted(card, 0, colours)
    masks = opened(card, colour_classifier(card, colours), runtime).predict(image[None]).masks[0]
    assert np.array_equal(masks, mask // 3 * 3)


def test_runtimes_agree_on_any_pixels() -> None:
    card = load_card("unet-camvid-onnx-0001")
    graph = colour_classifier(card)
    image = np.random.default_rng(0).integers(0, 256, (1, 368, 480, 3), dtype=np.uint8)
    first, second = (opened(card, graph, runtime).predict(image).masks for runtime in (ORT, OPENVINO))
    assert np.mean(first != second) < 1e-4  # a handful of pixels lie between two colours


@pytest.mark.skipif("openvino:cpu:bf16" not in capabilities(), reason="this CPU does not compute in bf16")
def test_bf16_is_served() -> None:
    card = load_card("unet-camvid-onnx-0001")
    image, mask = painted(card, seed=2)
    session = opened(card, colour_classifier(card), Runtime("openvino", "cpu", "bf16", ""))
    assert np.array_equal(session.predict(image[None]).masks[0], mask)


# ---------------------------------------------------------------- batches and threads


@BOTH
@pytest.mark.parametrize("batch", [1, "N"])
def test_batch_of_four_equals_four(batch: int | str, runtime: Runtime) -> None:
    card = small()
    images, masks = pictures(card, 4)
    session = opened(card, colour_classifier(card, batch=batch), runtime)
    together = session.predict(images)
    assert session.batches is True
    assert np.array_equal(together.masks, masks)
    assert all(np.array_equal(session.predict(images[i : i + 1]).masks[0], masks[i]) for i in range(4))


@BOTH
@pytest.mark.parametrize("batching", ["raises", "mixes"])
def test_graph_that_breaks_with_batches_is_looped_over(
    batching: Any, runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    card = small()
    images, masks = pictures(card, 4)
    session = opened(card, colour_classifier(card, batch=1, batching=batching), runtime)
    assert np.array_equal(session.predict(images).masks, masks)
    assert session.batches is False
    assert np.array_equal(session.predict(images).masks, masks)
    warnings = [record.getMessage() for record in caplog.records if record.name.startswith("segment.")]
    assert len(warnings) == 1
    assert warnings[0].startswith("model 'unet-camvid-onnx-0001' cannot take batches, images run one by one: ")
    assert batching == "raises" or warnings[0].endswith("masks differ from those of single images")


@BOTH
def test_single_images_never_pay_for_batches(runtime: Runtime) -> None:
    card = small()
    session = opened(card, colour_classifier(card, batch=1, batching="mixes"), runtime)
    for image in pictures(card, 3)[0]:
        session.predict(image[None])
    assert session.batches is None


@BOTH
def test_empty_batch(runtime: Runtime) -> None:
    card = small()
    result = opened(card, colour_classifier(card), runtime).predict(np.empty((0, 32, 48, 3), np.uint8))
    assert (result.masks.shape, result.faults) == ((0, 32, 48), {})


@BOTH
def test_two_threads_on_one_session(runtime: Runtime) -> None:
    card = small()
    images, masks = pictures(card, 40)
    session = opened(card, colour_classifier(card), runtime, threads=1, streams=2)
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda i: session.predict(images[i : i + 1]).masks[0], range(40)))
    assert np.array_equal(np.stack(results), masks)


@BOTH
def test_results_outlive_the_next_call(runtime: Runtime) -> None:
    card = small()
    images, masks = pictures(card, 2)
    images.setflags(write=False)
    session = opened(card, colour_classifier(card), runtime)
    first = session.predict(images[:1]).masks
    session.predict(images[1:])
    assert np.array_equal(first[0], masks[0])


@BOTH
def test_views_are_taken_and_wrong_shapes_refused(runtime: Runtime) -> None:
    card = small()
    images, masks = pictures(card, 2)
    session = opened(card, colour_classifier(card), runtime)
    assert np.array_equal(session.predict(images[::-1][:1, :, ::-1]).masks[0], masks[1][:, ::-1])
    said = message(lambda: session.predict(images[0]), ValueError)
    assert said == "uint8 images of shape N x (32, 48, 3) are needed, not uint8 (32, 48, 3)"


# ---------------------------------------------------------------- faults


@BOTH
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_scores_that_are_not_finite_fault_their_image_only(kind: str, runtime: Runtime) -> None:
    card = small(output={"kind": kind})
    images, masks = pictures(card, 4)
    images[2, 5, 7] = TRIGGER
    session = opened(card, nan_graph(card), runtime)
    result = session.predict(images)
    assert session.batches is True
    assert result.faults == {2: "model_not_finite"}
    assert np.array_equal(result.masks[[0, 1, 3]], masks[[0, 1, 3]])
    assert session.predict(images[2:3]).faults == {0: "model_not_finite"}
    assert session.predict(images[3:4]).faults == {}


@BOTH
@pytest.mark.parametrize(("shift", "dtype"), [(None, "int64"), (-100, "int32"), (256, "int64"), (None, "uint8")])
def test_index_out_of_range_faults_its_image_only(shift: int | None, dtype: str, runtime: Runtime) -> None:
    card = small("icnet-camvid-ava-sparse-60-0001")
    images, masks = pictures(card, 3)
    images[1, 5, 7] = TRIGGER
    result = opened(card, out_of_range_graph(card, shift=shift, output_dtype=dtype), runtime).predict(images)
    assert result.faults == {1: "model_range"}
    assert np.array_equal(result.masks[[0, 2]], masks[[0, 2]])


@BOTH
def test_index_that_is_no_number_is_out_of_range(runtime: Runtime) -> None:
    card = small("icnet-camvid-ava-sparse-60-0001")
    images, _ = pictures(card, 2)
    images[1, 5, 7] = TRIGGER
    assert opened(card, nan_graph(card), runtime).predict(images).faults == {1: "model_range"}


@BOTH
def test_more_scores_than_classes_where_their_number_is_unknown_beforehand(runtime: Runtime) -> None:
    """15 scores for 12 classes, behind a shape that depends on the pixels; bright ones get class 12."""
    least = [
        helper.make_node("ReduceMin", ["x"], ["least"], keepdims=0),
        helper.make_node("Min", ["least", "nought"], ["zero"]),
        helper.make_node("Cast", ["zero"], ["integer"], to=TensorProto.INT64),
        helper.make_node("Add", ["integer", "sizes"], ["shape"]),
    ]
    scores = [
        helper.make_node("Mul", ["x", "three"], ["triple"]),
        helper.make_node("Sub", ["triple", "limit"], ["bright"]),
        helper.make_node("Concat", ["x", "x", "x", "x", "bright"], ["all"], axis=1),
        helper.make_node("Reshape", ["all", "shape"], ["y"]),
    ]
    constants = {"nought": np.float32(0), "three": np.float32(3), "limit": np.float32(300)}
    stored = [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()]
    stored.append(numpy_helper.from_array(np.array([-1, 15, 32, 48], np.int64), "sizes"))
    graph = tiny(least + scores, [("x", ("N", 3, 32, 48))], [("y", ("N", "C", 32, 48))], stored)
    images = np.full((2, 32, 48, 3), 100, np.uint8)
    images[1, 5, 7] = 200
    result = opened(small(), graph, runtime).predict(images)
    assert result.faults == {1: "model_range"}
    assert not result.masks[0].any()


# ---------------------------------------------------------------- the contract


@BOTH
def test_dynamic_graphs_are_taken_and_their_masks_measured(runtime: Runtime) -> None:
    card = small()
    images, masks = pictures(card, 2)
    assert np.array_equal(opened(card, colour_classifier(card, dynamic=True), runtime).predict(images).masks, masks)
    session = opened(card, colour_classifier(card, dynamic=True, stride=2), runtime)
    assert message(lambda: session.predict(images[:1])) == (
        "model card 'unet-camvid-onnx-0001' and its graph do not fit: the card says masks of 32x48, "
        "the graph gave 16x24: output.height = 16 and output.width = 24?"
    )


@BOTH
def test_masks_of_another_size_than_the_input(runtime: Runtime) -> None:
    card = small(output={"height": 16, "width": 24})
    images, masks = pictures(card, 1)
    session = opened(card, colour_classifier(card, stride=2), runtime)
    assert np.array_equal(session.predict(images).masks, masks[:, ::2, ::2])


NCHW, INDEX = small(), small("icnet-camvid-ava-sparse-60-0001")
FIT = "model card '{}' and its graph do not fit: "
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
        "the card says NCHW 3x32x48, the graph's input 'picture' is 8x3x32x48: a fixed batch of 8 cannot be served: "
        "export it with a batch of 1 or a symbolic one",
    ),
    "input dtype": (NCHW, NCHW, {"input_dtype": "int64"}, "the graph's input 'picture' takes int64; "
                    "float32, float16 and uint8 can be fed"),
    "bytes and normalisation": (
        small(input={"mean": (1.0, 1.0, 1.0)}),
        NCHW,
        {"input_dtype": "uint8"},
        "the graph's input 'picture' takes uint8, so pixels go in as they are, but the card declares a normalisation: "
        "remove input.maximum, input.mean and input.std",
    ),
    "input name": (
        small(input={"name": "pictures"}),
        NCHW,
        {},
        "the card's input.name is 'pictures', but the graph's inputs are: 'picture'. Did you mean 'picture'?",
    ),
    "output name": (
        small(output={"name": "masks"}),
        NCHW,
        {},
        "the card's output.name is 'masks', but the graph's outputs are: 'prediction'.",
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
        NCHW,
        NCHW,
        {"stride": 4},
        "the card says probabilities NCHW 12x32x48 (12 classes), the graph's output 'prediction' is float32 "
        "?x12x8x12: output.height = 8 and output.width = 12?",
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
        'output.kind = "index" and output.layout = "NHW"?',
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
        "the card says probabilities, the graph's output 'prediction' is int64: output.kind = \"index\"?",
    ),
}  # fmt: skip


@BOTH
@pytest.mark.parametrize("case", MISFITS)
def test_a_graph_that_breaks_the_contract_is_refused_in_words(case: str, runtime: Runtime) -> None:
    card, built_for, options, expected = MISFITS[case]
    graph = colour_classifier(built_for, **options)  # type: ignore[arg-type]
    assert message(lambda: opened(card, graph, runtime)) == FIT.format(card.name) + expected


def tiny(
    nodes: list[Any],
    inputs: list[tuple[str, Any]],
    outputs: list[tuple[str, Any]],
    initialisers: Any = (),
    opset: int = 17,
    **model: Any,
) -> bytes:
    """A model of these nodes, all float32."""
    entries, results = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ports]
        for ports in (inputs, outputs)
    )
    graph = helper.make_graph(nodes, "tiny", entries, results, initialisers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, **model)
    return bytes(made.SerializeToString())


PICTURE, SCORES = (1, 3, 32, 48), (1, 12, 32, 48)


@BOTH
def test_several_outputs_need_a_name_and_the_rest_is_cut_off(runtime: Runtime) -> None:
    """The second head reads a second input: cut off, it is not missed."""
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
        f"{fit}the graph also needs the input 'other'; a session feeds one picture tensor"
    )


@BOTH
def test_names_do_not_collide_and_subgraphs_stay(runtime: Runtime) -> None:
    """The graph uses the names that would be ours, reads its input in a branch, and is its own output."""
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
    from segment.sessions.surgery import Surgeon

    body = [helper.make_node("Concat", ["a"] * 4, ["b"], axis=1)]
    function = helper.make_function("own", "Fourfold", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    nodes = [helper.make_node("Fourfold", ["x"], ["y"], domain="own")]
    graph = onnx.load_from_string(tiny(nodes, [("x", PICTURE)], [("y", SCORES)], functions=[function]))
    graph.opset_import.append(helper.make_opsetid("own", 1))
    helper.set_model_props(graph, {"author": "somebody"})
    data = graph.SerializeToString()
    compiled = onnx.load_from_string(Surgeon(small(), data).compiled(symbolic_batch=True))
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
    """Both runtimes would take it from the working directory, although the model comes from memory."""
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
        "the ONNX model keeps tensor 'outside' in another file, which is not read at load: save it as one file "
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
        "the graph is of ONNX opset 8: export it anew with opset 9 or newer"
    )


@BOTH
@pytest.mark.parametrize("data", [b"", b"\x00" * 100, b"<html>not found</html>"])
def test_bytes_that_are_no_model(data: bytes, runtime: Runtime) -> None:
    assert message(lambda: opened(small(), data, runtime)).startswith("the weights are not an ONNX model")


@pytest.mark.parametrize("fmt", ["ir", "tflite"])
def test_ir_and_tflite_that_are_none(fmt: Any) -> None:
    weights = Weights(fmt, b"<html>not found</html>", b"", "", "a test")
    said = message(lambda: open_session(small(), weights, OPENVINO))
    assert said == f"the weights are not a model in {fmt} format: a wrong or damaged file"
    assert message(lambda: open_session(small(), weights, ORT)) == (
        "onnxruntime serves .onnx only; openvino serves .xml and .tflite: use --runtime openvino"
    )


def test_graph_the_runtime_cannot_load() -> None:
    graph = tiny([helper.make_node("NoSuchOperator", ["x"], ["y"])], [("x", PICTURE)], [("y", SCORES)])
    assert message(lambda: opened(small(), graph, ORT)).startswith("onnxruntime cannot load the graph: ")
    assert message(lambda: opened(small(), graph, OPENVINO)).startswith(
        "openvino cannot read the onnx weights: -- No conversion rule found for operations: NoSuchOperator-17"
    )


# ---------------------------------------------------------------- which runtime

CPU = frozenset({"onnxruntime:cpu", "openvino:cpu"})
BF16 = CPU | {"openvino:cpu:bf16"}
GPU = CPU | {"gpu", "onnxruntime:cuda", "onnxruntime:tensorrt"}


@pytest.mark.parametrize(
    ("asked", "nodes", "decided"),
    [
        ({}, [CPU], ("openvino", "cpu", "f32")),
        ({}, [BF16, BF16], ("openvino", "cpu", "bf16")),
        ({}, [BF16, CPU], ("openvino", "cpu", "f32")),
        ({"precision": "f32"}, [BF16], ("openvino", "cpu", "f32")),
        ({"precision": "bf16"}, [BF16], ("openvino", "cpu", "bf16")),
        ({}, [frozenset({"onnxruntime:cpu"})], ("onnxruntime", "cpu", "f32")),
        ({}, [GPU, GPU], ("onnxruntime", "cuda", "f32")),
        ({}, [GPU, CPU], ("openvino", "cpu", "f32")),
        ({"device": "cuda"}, [GPU, CPU], ("onnxruntime", "cuda", "f32")),
        ({"device": "cpu"}, [GPU], ("openvino", "cpu", "f32")),
        ({"device": "tensorrt", "precision": "f16"}, [GPU], ("onnxruntime", "tensorrt", "f16")),
        ({"runtime": "onnxruntime"}, [BF16], ("onnxruntime", "cpu", "f32")),
        ({"runtime": "openvino"}, [GPU], ("openvino", "cpu", "f32")),
        ({"weights_format": "tflite"}, [GPU], ("openvino", "cpu", "f32")),
        ({"weights_format": "ir"}, [BF16], ("openvino", "cpu", "bf16")),
    ],
)
def test_resolve(asked: dict[str, Any], nodes: list[frozenset[str]], decided: tuple[str, str, str]) -> None:
    runtime = resolve(**{"weights_format": "onnx", **asked}, nodes=nodes)
    assert (runtime.name, runtime.device, runtime.precision) == decided
    assert runtime.version[0].isdigit()


INSTALL = "uv pip install --override jobs/cuda-overrides.txt . onnxruntime-gpu"


@pytest.mark.parametrize(
    ("asked", "nodes", "said"),
    [
        ({"runtime": "openvin"}, [CPU], "--runtime openvin: use one of auto, onnxruntime, openvino"),
        ({"device": "gpu"}, [CPU], "--device gpu: use one of auto, cpu, cuda, tensorrt"),
        ({"precision": "fp32"}, [CPU], "--precision fp32: use one of auto, f32, bf16, f16"),
        ({"weights_format": "tflite", "runtime": "onnxruntime"}, [CPU],
         "onnxruntime serves .onnx only; openvino serves .xml and .tflite: use --runtime openvino"),
        ({"weights_format": "ir", "device": "cuda"}, [GPU],
         "--device cuda needs .onnx weights; openvino serves .xml and .tflite, on the CPU: use --device cpu"),
        ({"runtime": "openvino", "device": "cuda"}, [GPU],
         "openvino runs on the CPU here: use --runtime onnxruntime for --device cuda"),
        ({"device": "cuda"}, [CPU], "--device cuda: the CPU build of onnxruntime is installed. "
         f"Replace it: {INSTALL}. No node has an NVIDIA GPU: --device cpu is what can be had."),
        ({"device": "cuda"}, [CPU | {"gpu"}],
         f"--device cuda: the CPU build of onnxruntime is installed. Replace it: {INSTALL}."),
        ({"device": "cuda"}, [GPU, CPU | {"gpu"}],
         f"--device cuda cannot be had. onnxruntime on 1 of 2 nodes with a GPU lacks it: {INSTALL}"),
        ({"device": "cuda"}, [GPU | {"onnxruntime:both-builds"}],
         "onnxruntime and onnxruntime-gpu are both installed and have overwritten each other's files: "
         f"uv pip uninstall onnxruntime onnxruntime-gpu && {INSTALL}"),
        ({"precision": "bf16"}, [BF16, CPU], "the CPUs of 1 of 2 nodes do not compute in bf16: use --precision f32"),
        ({"precision": "bf16", "runtime": "onnxruntime"}, [BF16],
         "onnxruntime computes in f32 on cpu, not in bf16: use --precision f32, or --runtime openvino where the "
         "CPUs have bf16"),
        ({"runtime": "openvino"}, [frozenset({"onnxruntime:cpu"})],
         "openvino is not installed on every node: pip install openvino"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_an_error(asked: dict[str, Any], nodes: list[frozenset[str]], said: str) -> None:
    assert message(lambda: resolve(**{"weights_format": "onnx", **asked}, nodes=nodes), UsageError) == said


def test_this_machine_can_what_it_says() -> None:
    found = capabilities()
    assert {"onnxruntime:cpu", "openvino:cpu"} <= found
    assert resolve("onnx", nodes=[found]).name == "openvino" or "onnxruntime:cuda" in found


@pytest.mark.skipif("onnxruntime:cuda" in capabilities(), reason="there is a GPU here")
def test_no_silent_fallback_from_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    cuda = Runtime("onnxruntime", "cuda", "f32", "")
    said = message(lambda: opened(small(), colour_classifier(small()), cuda))
    assert said == f"the onnxruntime installed on this machine has no cuda: {INSTALL}"
    # A GPU build whose libraries do not load: it lists the provider, warns, and goes on without.
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        said = message(lambda: opened(small(), colour_classifier(small()), cuda))
    assert said == (
        "device cuda was asked for, but onnxruntime fell back to ['CPUExecutionProvider']: its CUDA libraries "
        "(or TensorRT's) do not load here. Mend the installation, or use --device cpu"
    )


def test_both_builds_of_onnxruntime_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    import segment.sessions.runtimes as module

    assert "onnxruntime:both-builds" not in capabilities()
    monkeypatch.setattr(module, "_installed_version", lambda name: "1.31.1")
    assert "onnxruntime:both-builds" in capabilities()


def test_unknown_runtime() -> None:
    said = message(lambda: opened(small(), b"", Runtime("torch", "cpu", "f32", "")), UsageError)
    assert said == "no runtime named 'torch': use onnxruntime or openvino"


def test_precision_the_cpu_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import segment.sessions.openvino as module

    monkeypatch.setitem(module.CAPABILITY, "bf16", "A_PRECISION_NO_CPU_HAS")
    said = message(lambda: opened(small(), colour_classifier(small()), Runtime("openvino", "cpu", "bf16", "")))
    assert said == "this machine's CPU does not compute in bf16: run the job with --precision f32"


# ---------------------------------------------------------------- real models


@pytest.mark.shared
@pytest.mark.parametrize("file", ["deeplabv3_mnv2_pascal_quant", "deeplabv3_mnv2_dm05_pascal_quant"])
def test_tflite_equals_openvino_itself(file: str, tmp_path: Path) -> None:
    import openvino

    path = shared(f"models/{file}.tflite")
    photos = [Image.open(shared(f"images/{name}")) for name in ("stray_cat.jpg", "bird_segmentation.bmp")]
    images = np.stack([np.asarray(photo.convert("RGB").resize((513, 513))) for photo in photos])
    core = openvino.Core()
    reference = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    wanted = np.concatenate([reference(images[i : i + 1])[0] for i in range(2)])
    card = load_card("deeplabv3-mobilenetv2-int8")
    session = open_session(card, as_weights(path.read_bytes(), "tflite"), OPENVINO)
    result = session.predict(images)
    assert result.faults == {}
    assert np.array_equal(result.masks, wanted)
    cat, bird = (np.bincount(mask.ravel(), minlength=21) for mask in result.masks)
    assert [int(counts[1:].argmax()) + 1 for counts in (cat, bird)] == [8, 3]
    assert cat[8] > 0.15 * cat.sum()


@pytest.mark.shared
def test_tflite_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data = shared("models/deeplabv3_mnv2_dm05_pascal_quant.tflite").read_bytes()
    open_session(load_card("deeplabv3-mobilenetv2-int8"), as_weights(data, "tflite"), OPENVINO)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.shared
@pytest.mark.parametrize(
    ("fmt", "file"), [("tflite", "deeplabv3_mnv2_pascal_quant.tflite"), ("ir", "unet-camvid-onnx-0001.xml")]
)
def test_truncated_files_are_refused(fmt: Any, file: str) -> None:
    weights = as_weights(shared(f"models/{file}").read_bytes()[:50_000], fmt, b"0" * 1000)
    said = message(lambda: open_session(load_card("unet-camvid-onnx-0001"), weights, OPENVINO))
    assert said.startswith(f"openvino cannot read the {fmt} weights: ")
    assert "/tmp" not in said


@pytest.mark.shared
def test_published_ir_with_random_weights() -> None:
    graph = shared("models/unet-camvid-onnx-0001.xml").read_bytes()
    values = np.random.default_rng(0).standard_normal(62_064_926 // 2, dtype=np.float32) * 0.02
    card = load_card("unet-camvid-onnx-0001")
    weights = as_weights(graph, "ir", values.astype(np.float16).tobytes())
    result = open_session(card, weights, OPENVINO, threads=2).predict(painted(card, 0)[0][None])
    assert result.faults == {}
    assert len(np.unique(result.masks)) > 1


@pytest.mark.shared
def test_unet_equals_onnxruntime_and_numpy() -> None:
    import onnxruntime

    path = shared("models/unet32-camvid.onnx")
    with Image.open(next(iter(sorted(shared("camvid/images/0016E5_07959.png").parent.glob("*.png"))))) as photo:
        image = np.asarray(photo.convert("RGB").resize((480, 368), Image.Resampling.BILINEAR))[None]
    plain = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    scores = plain.run(None, {"input": image[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)})[0]
    card = load_card("unet-camvid-onnx-0001")
    first, second = (
        open_session(card, as_weights(path.read_bytes()), runtime, threads=2).predict(image).masks
        for runtime in (ORT, OPENVINO)
    )
    assert np.array_equal(first, scores.argmax(axis=1))
    assert np.mean(first != second) < 1e-4
    assert len(np.unique(first)) > 4
