"""Reads and checks the views and members of a card, and merges them into one ONNX graph; see `averaging`."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from onnx.inliner import inline_local_functions

from segment.errors import ModelError
from segment.models.card import ModelCard
from segment.models.sessions.averaging import (
    View,
    black,
    check_members,
    check_windows,
    member_in_errors,
    refuse_view,
    views_of,
)
from segment.models.sessions.base import first_line
from segment.models.sessions.onnx_merger import Merger
from segment.models.sessions.onnx_postprocess import HALF_PIXEL_OPSET
from segment.models.sessions.onnxfile import read_model, unused_prefix
from segment.models.sessions.ports import refuse
from segment.models.sessions.sanity_check import output_shape_by_run
from segment.models.sessions.surgery import Surgeon
from segment.models.weights import Weights

_SLICE_OPSET = 10  # the first that reverses an axis

# Runs the bytes of a model on `uint8[1, H, W, 3]`.
Trial = Callable[[bytes, NDArray[np.uint8]], NDArray[np.float32]]


def merged_graph(card: ModelCard, weights: Weights, graphs: Sequence[bytes], trial: Trial) -> tuple[Surgeon, bytes]:
    """Merge the views and members of a card into one graph.

    Args:
        graphs: bytes of each ONNX model.
        trial: see `Trial`; runs each model once for each size of its input.

    Returns:
        The first model alone, and the bytes of the merged graph; its contract is `merged_card(card)`.

    Raises:
        ModelError: a model contradicts the card, does not take a view, or differs from the other members.
    """
    views = views_of(card)
    members = []
    for number, graph in enumerate(graphs):
        with member_in_errors(weights, number):
            members.append(_surgeons(card, views, _inlined(graph), trial))
    first = [by_view[0] for by_view in members]
    entries, levels = [item.entry for item in first], [item.before.levels for item in first]
    check_members(card, weights, entries, levels, [item.size for item in first])
    _check_opsets(card, weights, [item.model for item in first])
    prefix = unused_prefix(b"".join(graphs))
    return first[0], Merger(card, views, members, prefix).model()


def _surgeons(card: ModelCard, views: Sequence[View], data: bytes, trial: Trial) -> list[Surgeon]:
    """Return the surgeon of each size of the input."""
    plain = Surgeon(views[0].card, data)
    if not plain.output_is_known:
        plain.set_output_dims(output_shape_by_run(views[0].card, lambda images: trial(plain.raw(), images)))
    needed = HALF_PIXEL_OPSET if card.input.scales else _SLICE_OPSET
    if card.input.tta and plain.opset < needed:
        refuse(
            card,
            f"the graph is of ONNX opset {plain.opset}, which lacks operators that the views in input.tta need: "
            f"export it again with opset {needed} or newer, or use --runtime openvino",
        )
    return [plain, *(_sized(card, view, data, plain, trial) for view in views[1:])]


def _sized(card: ModelCard, view: View, data: bytes, plain: Surgeon, trial: Trial) -> Surgeon:
    """Return the surgeon for a view of another size, after a trial."""
    if plain.entry.dims and None not in plain.entry.dims[1:]:
        check_windows(card, view, _windows(plain.model))
    try:
        surgeon = Surgeon(view.card, _with_size(data, plain.entry.name, view))
    except ModelError:
        refuse_view(card, view, "its output would not be of that shape")
    try:
        shape = trial(surgeon.raw(), black(view)).shape
    except Exception as error:  # each runtime has its own types
        refuse_view(card, view, first_line(error))
    surgeon.set_output_dims(shape)
    return surgeon


def _windows(model: ModelProto) -> list[list[int]]:
    """Return the windows of average pooling."""
    pools = [node for node in model.graph.node if node.op_type == "AveragePool"]
    return [list(item.ints) for node in pools for item in node.attribute if item.name == "kernel_shape"]


def _with_size(data: bytes, entry: str, view: View) -> bytes:
    """Return a model that declares another size of its input."""
    model = read_model(data)
    sizes = dict(zip("HW", view.size, strict=True))
    (item,) = (item for item in model.graph.input if item.name == entry)
    for axis, dim in zip(view.card.input.layout, item.type.tensor_type.shape.dim, strict=False):
        if axis in sizes:
            dim.dim_value = sizes[axis]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    return bytes(model.SerializeToString())


def _inlined(data: bytes) -> bytes:
    """Return a model without functions, whose names could collide."""
    model = read_model(data)
    if not model.functions:
        return data
    return bytes(inline_local_functions(model).SerializeToString())


def _check_opsets(card: ModelCard, weights: Weights, models: Sequence[ModelProto]) -> None:
    known: dict[str, int] = {}
    for number, model in enumerate(models):
        for item in model.opset_import:
            domain = item.domain or "ai.onnx"
            if known.setdefault(domain, item.version) != item.version:
                refuse(
                    card,
                    f"member {number + 1} of the ensemble ({weights.models[number].origin}) needs version "
                    f"{item.version} of the operators of {domain}, an earlier member version {known[domain]}, and one "
                    "graph has one version: export all with the same opset, or use --runtime openvino",
                )
