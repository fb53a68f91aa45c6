"""LiteRT: its masks are those of a plain interpreter, and what it cannot do is refused in words."""

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from segment.errors import ModelError, UsageError
from segment.models.card import ModelCard
from segment.models.sessions import (
    Extras,
    Runtime,
    footprint,
    open_session,
    requirement_of,
    resolve_runtime,
    runtime_for,
)
from segment.models.sessions.contest import contest
from segment.models.sessions.litert_tail import cut_tail
from segment.models.sessions.tflite_facts import tflite_facts
from segment.models.sessions.tflite_graph import read_tflite
from segment.models.weights import Weights
from tests.graphs import as_weights
from tests.serving import LITERT, NEEDS_LITERT, OPENVINO, message, small
from tests.tflites import Node, Tensor, tflite

pytestmark = NEEDS_LITERT
SIZE = (32, 48)
FIT = "model card 'unet-camvid-onnx-0001' and its graph do not match: "
NODE = frozenset({"onnxruntime:cpu", "openvino:cpu", "litert:cpu"})


def card_of(kind: str, layout: str, **entry: Any) -> ModelCard:
    """A card of three classes, the colours, at 32x48."""
    spec = {"layout": "NHWC", "channels": "RGB", "mean": (0.0,) * 3, "std": (1.0,) * 3}
    card = small(input={**spec, **entry}, output={"kind": kind, "layout": layout})
    names, palette = ("red", "green", "blue"), ((255, 0, 0), (0, 255, 0), (0, 0, 255))
    return card.model_copy(
        update={"classes": card.classes.model_copy(update={"names": names, "palette": palette, "ignore": ()})}
    )


def noise(count: int) -> NDArray[np.uint8]:
    """Smooth images, so that few scores are equal."""
    coarse = np.random.default_rng(3).integers(0, 256, (count, 4, 6, 3)).astype(np.float32)
    fine = np.random.default_rng(4).integers(-9, 10, (count, *SIZE, 3))
    return (coarse.repeat(8, 1).repeat(8, 2) * 0.9 + 12 + fine).clip(0, 255).astype(np.uint8)


def constant(name: str, *values: int) -> Tensor:
    return Tensor(name, (len(values),), "int32", np.array(values, np.int32))


def enlarging(dtype: str = "uint8", *, argmax: bool = True) -> bytes:
    """Return DeepLab's end: small scores, here every fourth pixel, enlarged by the graph; then their argmax."""
    quantised = {"uint8": (1.0, 0), "int8": (1.0, -128)}.get(dtype)
    steps = [("x", SIZE), ("q", SIZE), ("small", (8, 12)), ("large", SIZE)]
    tensors = [Tensor(name, (1, *size, 3), dtype, quantised=quantised) for name, size in steps]
    tensors += [
        Tensor("best", (1, *SIZE), "int64"),
        constant("begin", 0, 0, 0, 0), constant("end", 1, *SIZE, 3), constant("strides", 1, 4, 4, 1),
        constant("size", *SIZE), constant("axis", 3),
    ]  # fmt: skip
    first = Node("ABS", [0], [1]) if dtype == "float32" else Node("QUANTIZE", [0], [1])
    nodes = [first, Node("STRIDED_SLICE", [1, 5, 6, 7], [2]), Node("RESIZE_BILINEAR", [2, 8], [3])]
    if argmax:
        nodes.append(Node("ARG_MAX", [3, 9], [4]))
    return tflite(tensors, nodes, [0], [4 if argmax else 3])


def plain(graph: bytes, images: NDArray[np.uint8]) -> NDArray[Any]:
    """Return what LiteRT gives for each image, without this project."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=graph, num_threads=1)
    interpreter.allocate_tensors()
    (entry,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for image in images:
        levels = image.astype(np.int16) + int(entry["quantization"][1])
        interpreter.set_tensor(entry["index"], levels[np.newaxis].astype(entry["dtype"]))
        interpreter.invoke()
        found.append(interpreter.get_tensor(result["index"])[0])
    return np.stack(found)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "float32"])
@pytest.mark.parametrize("argmax", [True, False])
def test_masks_are_those_of_a_plain_interpreter(dtype: str, argmax: bool) -> None:
    graph, images = enlarging(dtype, argmax=argmax), noise(3)
    card = card_of("index", "NHW") if argmax else card_of("logits", "NHWC")
    session = open_session(card, as_weights(graph, "tflite"), LITERT)
    found = session.predict(images)
    wanted = plain(graph, images)
    if not argmax:
        wanted = wanted.argmax(axis=-1)
    assert found.faults == {}
    assert len(np.unique(found.masks)) == 3
    differ = np.count_nonzero(found.masks != wanted)  # of scores between two levels
    assert differ <= (0.002 * wanted.size if dtype != "float32" else 2), differ


def test_masks_do_not_depend_on_batches_threads_or_streams() -> None:
    weights, images = as_weights(enlarging(), "tflite"), noise(6)
    card = card_of("index", "NHW")
    together = open_session(card, weights, LITERT, threads=2, streams=3)
    masks = together.predict(images).masks
    alone = open_session(card, weights, LITERT)
    assert np.array_equal(masks, np.concatenate([alone.predict(images[i : i + 1]).masks for i in range(6)]))
    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(lambda _: together.predict(images).masks, range(6)):
            assert np.array_equal(found, masks)


def test_probabilities_and_confidence_are_those_of_openvino() -> None:
    card, images = card_of("logits", "NHWC", mean=(127.5,) * 3, std=(30.0,) * 3), noise(2)
    weights = as_weights(enlarging("float32", argmax=False), "tflite")
    here, there = (
        open_session(card, weights, runtime, extras=Extras("margin", (0, 2))).predict(images)
        for runtime in (LITERT, OPENVINO)
    )
    for ours, theirs in ((here.confidence, there.confidence), (here.probabilities, there.probabilities)):
        assert ours is not None
        assert theirs is not None
        assert np.abs(ours.astype(int) - theirs).max() <= 1
        assert ours.max() > 150


def test_a_nan_is_a_fault_of_its_image() -> None:
    """The logarithm of a negative number."""
    shape = (1, *SIZE, 3)
    graph = tflite([Tensor("x", shape), Tensor("y", shape)], [Node("LOG", [0], [1])], [0], [1])
    images = noise(2).clip(60, 255)
    images[1, 5, 7] = 3
    session = open_session(card_of("logits", "NHWC", mean=(50.0,) * 3), as_weights(graph, "tflite"), LITERT)
    found = session.predict(images)
    assert found.faults == {1: "model_not_finite"}
    assert np.array_equal(found.masks[0], images[0].argmax(axis=2))


def test_levels_of_16_bits() -> None:
    shape = (1, *SIZE, 3)
    levels = (1 / 64, 0)
    tensors = [Tensor(name, shape, "int16", quantised=levels) for name in "xy"]
    graph = tflite(tensors, [Node("ABS", [0], [1])], [0], [1])
    images = noise(2)
    card = card_of("logits", "NHWC", mean=(100.0,) * 3)
    found = open_session(card, as_weights(graph, "tflite"), LITERT).predict(images)
    assert np.array_equal(found.masks, np.abs(images.astype(int) - 100).argmax(axis=3))


def test_a_size_that_the_graph_leaves_free() -> None:
    shape = (1, -1, -1, 3)
    tensors = [Tensor("x", (1, 1, 1, 3), signature=shape), Tensor("y", (1, 1, 1, 3), signature=shape)]
    graph = tflite(tensors, [Node("ABS", [0], [1])], [0], [1])
    images = noise(1)
    found = open_session(card_of("logits", "NHWC"), as_weights(graph, "tflite"), LITERT).predict(images)
    assert np.array_equal(found.masks, images.argmax(axis=3))


def identity(*nodes: Node, inputs: int = 1) -> Weights:
    tensors = [Tensor(name, (1, *SIZE, 3)) for name in ("x", "y", "z")]
    tensors.append(constant("shape", 1, *SIZE, 3))
    graph = tflite(tensors, nodes or [Node("ABS", [0], [1])], [0, 2][:inputs], [1])
    return as_weights(graph, "tflite")


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (as_weights(b"TFL3 but no table", "tflite"), "weights a test: this is not a model in tflite format: a wrong or "
         "damaged file"),
        (as_weights(b"", "onnx"), "litert serves .tflite only: use --runtime openvino"),
        (identity(inputs=2), f"{FIT}the graph has 2 inputs: 'x' (float32 1x32x48x3), 'z' (float32 1x32x48x3). "
         'Say which: input.name = "x"'),
        (identity(Node("CUSTOM", [0], [1])),
         "litert cannot load the graph: Encountered unresolved custom op: Foreign."),
        (identity(Node("RANDOM_UNIFORM", [3], [1])), "litert would give an image another mask each time: the graph has "
         "RANDOM_UNIFORM"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_refused(weights: Weights, said: str) -> None:
    assert message(lambda: open_session(card_of("logits", "NHWC"), weights, LITERT)).startswith(said)


def test_other_inputs_views_and_ensembles_are_refused() -> None:
    card = card_of("logits", "NHWC", name="x")
    assert message(lambda: open_session(card, identity(inputs=2), LITERT)).endswith(
        "the graph also needs the input 'z'; a session of litert has only one input: the image"
    )
    said = "averages views (input.tta) or an ensemble, which litert does not: use --runtime openvino"
    assert said in message(lambda: open_session(card_of("logits", "NHWC", tta=("flip",)), identity(), LITERT))
    both = replace(identity(), graph=b"", members=(identity(), identity()))
    assert said in message(lambda: open_session(card_of("logits", "NHWC"), both, LITERT))


def test_damaged_files_are_refused() -> None:
    """By reading them before LiteRT does; what crashes LiteRT all the same ends a process of its own (`contest`)."""
    graph, random = enlarging(), np.random.default_rng(0)
    for length in (0, 4, 9, len(graph) // 2):
        with pytest.raises(ModelError, match="a wrong or damaged file"):
            read_tflite(graph[:length])
    for _ in range(300):
        damaged = bytearray(graph)
        for place in random.integers(0, len(graph), 8):
            damaged[place] = random.integers(256)
        with suppress(ModelError):  # any other error fails the test
            tflite_facts(bytes(damaged))
            cut_tail(bytes(damaged), read_tflite(bytes(damaged)))


def test_a_normalisation_behind_a_border_is_found() -> None:
    """Also where the shape of the input is read."""
    mean = Tensor("mean", (3,), content=np.array([123, 116, 103], np.float32))
    tensors = [Tensor("x", (1, 8, 8, 3)), constant("border", *[0] * 8), Tensor("padded", (1, 8, 8, 3)), mean]
    tensors += [Tensor("y", (1, 8, 8, 3)), Tensor("sizes", (4,), "int32")]
    nodes = [Node("SHAPE", [0], [5]), Node("PAD", [0, 1], [2]), Node("SUB", [2, 3], [4])]
    assert tflite_facts(tflite(tensors, nodes, [0], [4])).inputs[0].subtracted == (123, 116, 103)


@pytest.mark.parametrize(
    ("asked", "nodes", "said"),
    [
        ({}, [NODE, NODE - {"litert:cpu"}], "litert is not installed on every node: pip install 'segment-job[litert]'"),
        ({"precision": "bf16"}, [NODE], "litert computes in f32 on cpu, not in bf16: use --precision f32, or --runtime "
         "openvino where the CPUs have bf16"),
    ],
)  # fmt: skip
def test_unavailable(asked: dict[str, Any], nodes: list[frozenset[str]], said: str) -> None:
    assert message(lambda: resolve_runtime("tflite", "litert", **asked, nodes=nodes), UsageError) == said


def test_the_version_is_that_of_both_libraries() -> None:
    found = resolve_runtime("tflite", "litert", nodes=[NODE])
    assert re.fullmatch(r"[\d.]+ \+ openvino [\d.]+", found.version)
    known = replace(found, version="2.3.0 + openvino 2026.4.1")
    assert requirement_of(known) == "ai-edge-litert==2.3.0 openvino==2026.4.1"


def test_the_choice_between_openvino_and_litert(caplog: pytest.LogCaptureFixture) -> None:
    card, weights = card_of("index", "NHW"), as_weights(enlarging(), "tflite")
    for nodes in ([NODE, NODE - {"litert:cpu"}], [NODE, NODE | {"cpu:amx"}]):
        assert runtime_for(card, weights, nodes=nodes).name == "openvino"
    assert not caplog.records
    told: list[str] = []
    chosen = runtime_for(card, weights, nodes=[NODE], note=told.append)
    (line,) = told
    found = re.fullmatch(r"openvino: ([\d.]+) ms of CPU an image; litert: ([\d.]+) ms of CPU an image", line)
    assert found
    openvino, litert = map(float, found.groups())
    if abs(openvino - 1.1 * litert) > 0.2:  # the line rounds
        assert chosen.name == ("litert" if 1.1 * litert < openvino else "openvino")


def test_a_runtime_that_takes_its_process_along_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from segment.models.sessions import apart_process

    killed = "import os, sys; sys.stdin.buffer.read(); print('{{\"begun\": 1}}', flush=True); os.kill(os.getpid(), 11)"
    monkeypatch.setattr(apart_process, "_CODE", killed)
    card, weights = card_of("index", "NHW"), as_weights(b"", "tflite")
    said = "litert cannot run the graph: the process that tried it ended by SIGSEGV; is the file damaged?"
    assert contest(card, weights, [OPENVINO, LITERT]) == [(None, ""), (None, said)]
    assert runtime_for(card, weights, nodes=[NODE]).name == "openvino"
    monkeypatch.setattr(apart_process, "_CODE", killed.replace("1}", "0}"))
    assert message(lambda: runtime_for(card, weights, "litert", nodes=[NODE])) == said


def test_memory_is_predicted() -> None:
    card, weights = card_of("index", "NHW"), as_weights(enlarging(), "tflite")
    found = footprint(card, weights, Runtime("litert", "cpu", "f32", ""), 1)
    assert found is not None
    assert found.shared > 80 << 20
