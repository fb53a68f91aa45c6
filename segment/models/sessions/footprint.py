"""Memory of a session on the CPU, predicted from the weights and the shapes of the tensors."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from segment.models.buckets import USUAL
from segment.models.card import ModelCard
from segment.models.sessions.averaging import is_averaged, views_of
from segment.models.sessions.base import Runtime
from segment.models.sessions.extras import NOTHING, Extras
from segment.models.sessions.predict import TRIED
from segment.models.weights import Weights
from segment.store.background import Background

_MIB = 1 << 20
_SECONDS = 60.0  # after which a graph is not waited for: its session may be given up, too
# Resident memory, measured in a process of its own (openvino 2026.4, onnxruntime 1.31, LiteRT 2.3): the library after
# loading any model, and the ratio of working memory to the largest set of tensors that are alive together.
_LIBRARY = {"openvino": 78 * _MIB, "onnxruntime": 40 * _MIB, "litert": 88 * _MIB}  # that of openvino included
# onnxruntime unfolds convolutions, and rounds its arena up (3.0 with AMX, 3.5 with AVX2 alone); LiteRT and XNNPACK
# have one each.
_WORKING = {"openvino": 1.05, "onnxruntime": 3.5, "litert": 2.0}
# With views or members onnxruntime keeps the tensors of one for equal ones of the next (U-Net with a flip).
_KEPT = 2.0
# With views of other sizes openvino keeps so many bytes of each pixel that it resizes: four neighbours, their weights.
_TABLE = 32
# Copies of an ONNX file while it is loaded, beside the one that is given: the file, parsed, rewritten, read, compiled.
# Of 76 and of 288 MB onnxruntime took 8.3 and 7.7, openvino 4.2 (AVX2 alone).
_LOADING = {"openvino": 4, "onnxruntime": 8}
# Of each image of a batch, where the batch is left open: openvino then keeps bands of enlarged scores, and more, apart.
# Measured 1.2 without such bands, 2.1 and 2.6 with them.
_BATCHED = {"openvino": 2.6, "onnxruntime": 1.0}


class Footprint(NamedTuple):
    """Memory of a session, in bytes.

    Attributes:
        shared: once per process: the library and the weights as read.
        per_stream: per concurrent call: tensors, and, except with onnxruntime, the weights in its own layout.
        load: the peak while the model is loaded, with the weights that are given; without tensors.
    """

    shared: int
    per_stream: int
    load: int


def footprint(
    card: ModelCard, weights: Weights, runtime: Runtime, batch: int, extras: Extras = NOTHING
) -> Footprint | None:
    """Predict the memory of a session on the CPU; None on a GPU, or if openvino cannot read the graph, or not soon.

    Weights count twice: as read, and in the runtime's layout and precision; with openvino once more for each further
    size of the input, which may have another layout. A tensor is alive from the node that produces it to the last one
    that reads it; a call needs the largest sum of tensors alive together. A model that runs at the size of each image
    is predicted for images of 1024x2048. Batches are tried on four images first, and in openvino their graph stands
    beside that for single images.
    """
    card = card.at(USUAL)
    if runtime.device != "cpu":
        return None
    try:
        with Background("footprint") as thread:
            constants, alive, alone = thread.submit(_measured, card, weights, extras, runtime).result(_SECONDS)
    except Exception:  # the session reports the error, or can load what openvino cannot
        return None
    if runtime.name == "onnxruntime":
        alive = max(alive, _KEPT * alone)
    one, factor = _WORKING[runtime.name] * alive, _BATCHED.get(runtime.name)  # LiteRT runs images one by one
    many = factor * one * max(batch, TRIED) if factor and batch > 1 else 0.0
    shared = _LIBRARY[runtime.name] + weights.size
    is_onnx = weights.format == "onnx"
    load = shared + (_LOADING[runtime.name] * weights.size if is_onnx else weights.size + constants)
    if runtime.name == "onnxruntime":  # one graph, weights and arena for all
        return Footprint(shared + constants, round(max(one, many)), load)
    graphs = 1 + (many > 0)
    plain, *scaled = (view.size for view in views_of(card))
    kept = constants * (1 + len(scaled)) + _TABLE * sum(math.prod(size) + math.prod(plain) for size in scaled)
    return Footprint(shared, round(one + many) + graphs * kept, load)


def _measured(card: ModelCard, weights: Weights, extras: Extras, runtime: Runtime) -> tuple[int, float, float]:
    """Return the two numbers of `_tensors`, and the second one of a model alone, at its largest view."""
    from segment.models.sessions.openvino import wrapped_model  # reads every format

    width = 2 if runtime.precision in ("bf16", "f16") else 4
    # onnxruntime enlarges class by class, as openvino does where it is not in f32.
    layout = "bf16" if runtime.name == "onnxruntime" else runtime.precision
    constants, alive = _tensors(wrapped_model(card, weights, layout, extras), width)
    if not is_averaged(card, len(weights.models)):
        return constants, alive, 0.0
    largest = max(views_of(card), key=lambda view: math.prod(view.size))
    return constants, alive, _tensors(wrapped_model(largest.card, weights.models[0], layout), width)[1]


def _tensors(model: Any, width: int) -> tuple[int, float]:
    """Return the bytes of all constants, shared ones once, and the maximum of the bytes of tensors alive together."""
    nodes = model.get_ordered_ops()
    ran = _run_at(nodes)
    last: dict[tuple[str, int], int] = {}
    for node in nodes:
        for value in node.input_values():
            last[_key(value)] = max(last.get(_key(value), 0), ran[node.get_name()])
    constant: dict[str, bool] = {}
    places: set[int] = set()  # addresses of constants: clones share them
    constants = most = now = 0
    ends: dict[int, int] = {}  # bytes released after a node
    for at, node in enumerate(nodes):
        before = [value.get_node().get_name() for value in node.input_values()]
        is_weight = node.get_type_name() == "Constant"
        constant[node.get_name()] = is_weight or (bool(before) and all(constant[name] for name in before))
        sizes = {_key(output): _bytes(output, width) for output in node.outputs()}
        if is_weight and (place := node.data.__array_interface__["data"][0]) not in places:
            places.add(place)
            constants += sum(sizes.values())
        if constant[node.get_name()] or ran[node.get_name()] > at:
            continue
        for key, size in sizes.items():
            now += size
            end = last.get(key, at)
            ends[end] = ends.get(end, 0) + size
        copied = sum(sizes.values()) if node.get_type_name() == "Softmax" else 0  # what it reads, to another layout
        most = max(most, now + copied)
        now -= ends.pop(at, 0)
    return constants, most


def _run_at(nodes: Sequence[Any]) -> dict[str, int]:
    """Return when each node runs: a chain of sums, which openvino makes one node, at its end."""
    at = {node.get_name(): number for number, node in enumerate(nodes)}
    for node in reversed(nodes):
        readers = [item.get_node() for output in node.outputs() for item in output.get_target_inputs()]
        if node.get_type_name() == "Add" and len(readers) == 1 and readers[0].get_type_name() in ("Add", "Multiply"):
            at[node.get_name()] = at[readers[0].get_name()]
    return at


def _key(value: Any) -> tuple[str, int]:
    return value.get_node().get_name(), value.get_index()


def _bytes(output: Any, width: int) -> int:
    dtype = output.get_element_type()
    sizes = (dim.get_length() if dim.is_static else 1 for dim in output.get_partial_shape())
    return math.prod(sizes) * (width if dtype.is_real() else dtype.size)
