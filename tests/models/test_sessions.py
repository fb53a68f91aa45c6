"""Sessions on small real graphs with known masks: every card, batches, threads, faults."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from segment.models.card import built_in_cards, load_card
from segment.models.sessions import Runtime, capabilities, open_session
from tests.graphs import TRIGGER, as_weights, colour_classifier, nan_graph, out_of_range_graph, painted
from tests.serving import BOTH, OPENVINO, ORT, message, opened, pictures, small, tiny

CARDS = pytest.mark.parametrize("name", built_in_cards())


def test_importing_sessions_loads_no_runtime() -> None:
    code = "import sys, segment.models.sessions; print({'onnx', 'onnxruntime', 'openvino'} & set(sys.modules))"
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
    """A graph that returns its input as scores shows the preprocessing."""
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
    assert np.mean(first != second) < 1e-4  # a few pixels are between two colours


@pytest.mark.parametrize("name", ["unet-camvid-onnx-0001", "icnet-camvid-ava-sparse-60-0001"])
def test_known_answers_of_openvino_ir(name: str, tmp_path: Path) -> None:
    import openvino

    card = small(name)
    images, masks = pictures(card, 2)
    model = openvino.Core().read_model(colour_classifier(card, batch=1))
    openvino.save_model(model, tmp_path / "model.xml", compress_to_fp16=False)
    data = (tmp_path / "model.bin").read_bytes()
    weights = as_weights((tmp_path / "model.xml").read_bytes(), "ir", data)
    assert np.array_equal(open_session(card, weights, OPENVINO).predict(images).masks, masks)


@pytest.mark.skipif("openvino:cpu:bf16" not in capabilities(), reason="this CPU does not compute in bf16")
def test_bf16_is_served() -> None:
    card = load_card("unet-camvid-onnx-0001")
    image, mask = painted(card, seed=2)
    session = opened(card, colour_classifier(card), Runtime("openvino", "cpu", "bf16", ""))
    assert np.array_equal(session.predict(image[None]).masks[0], mask)


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
    assert said == "expected uint8 images of shape N x (32, 48, 3), not uint8 (32, 48, 3)"


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
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("pixel", [(0, 0), (12, 44), (28, 44)])
def test_one_pixel_before_enlarging_that_is_not_finite_faults_its_image(
    pixel: tuple[int, int], number: float, layout: str, runtime: Runtime
) -> None:
    card = small(output={"kind": "logits", "layout": layout})
    images, _ = pictures(card, 3)
    images[1][pixel] = TRIGGER
    session = opened(card, nan_graph(card, number=number, enlarged=True), runtime)
    assert session.predict(images).faults == {1: "model_not_finite"}
    assert [session.predict(images[i : i + 1]).faults for i in range(3)] == [{}, {0: "model_not_finite"}, {}]


@BOTH
def test_index_of_more_scores_than_classes_is_out_of_range(runtime: Runtime) -> None:
    card = small("icnet-camvid-ava-sparse-60-0001")
    images, _ = pictures(card, 2)
    images[1, 5, 7] = TRIGGER
    graph = colour_classifier(card, [*card.classes.palette, TRIGGER])
    assert opened(card, graph, runtime).predict(images).faults == {1: "model_range"}


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
@pytest.mark.parametrize("classes", [15, 9, 3])
def test_other_numbers_of_scores_than_classes_where_they_depend_on_the_pixels(classes: int, runtime: Runtime) -> None:
    """The shape is known after a run of the graph, before any image is read."""
    least = [
        helper.make_node("ReduceMin", ["x"], ["least"], keepdims=0),
        helper.make_node("Min", ["least", "nought"], ["zero"]),
        helper.make_node("Cast", ["zero"], ["integer"], to=TensorProto.INT64),
        helper.make_node("Add", ["integer", "sizes"], ["shape"]),
    ]
    scores = [
        helper.make_node("Concat", ["x"] * (classes // 3), ["all"], axis=1),
        helper.make_node("Reshape", ["all", "shape"], ["y"]),
    ]
    stored = [numpy_helper.from_array(np.float32(0), "nought")]
    stored.append(numpy_helper.from_array(np.array([-1, classes, 32, 48], np.int64), "sizes"))
    graph = tiny(least + scores, [("x", ("N", 3, 32, 48))], [("y", ("N", "C", 32, 48))], stored)
    assert message(lambda: opened(small(), graph, runtime)).endswith(
        f"the graph scores {classes} classes, the card names 12: check the class names, output.layout and the weights"
    )
