"""The facts of a TFLite file that openvino does not read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from segment.errors import ModelError
from segment.models.sessions.graph_facts import GraphFacts, InputFacts, OutputFacts, with_arithmetic
from segment.models.sessions.ports import Port
from segment.models.sessions.quantised_input import Scales
from segment.models.sessions.tflite_graph import (
    Operator,
    Tensor,
    TfliteGraph,
    damage_in_words,
    read_tflite,
    tflite_metadata,
)

_KEEPING = frozenset(
    """
    CAST TRANSPOSE RESHAPE SQUEEZE EXPAND_DIMS RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR QUANTIZE DEQUANTIZE SLICE
    STRIDED_SLICE
    """.split()  # noqa: SIM905
)
_ARITHMETIC = {"SUB": "Sub", "ADD": "Add", "MUL": "Mul", "DIV": "Div"}
_NAMES = {"LOGISTIC": "Sigmoid", "SOFTMAX": "Softmax", "ARG_MAX": "ArgMax"}


@damage_in_words()
def tflite_facts(data: bytes, entry: str | None = None, shape: Sequence[int] = ()) -> GraphFacts:
    """Read a file; the shapes of the outputs are those that it declares.

    Args:
        entry: name of an input.

    Raises:
        ModelError: the file is damaged, or its shapes are for another input than `shape`.
    """
    graph = read_tflite(data)
    inputs = [graph.tensors[place] for place in graph.inputs]
    for tensor in inputs:
        if tensor.name == entry and tensor.dims != tuple(shape):
            raise ModelError(f"the input '{entry}' of the graph does not have the shape {list(shape)}")
    return GraphFacts(
        tuple(_entering(graph, place) for place in graph.inputs),
        tuple(_leaving(graph, place) for place in graph.outputs),
        graph.operators,
        "",
        {f"tflite.{key}": value for key, value in tflite_metadata(data).items()},
    )


def _port(tensor: Tensor) -> Port:
    return Port((tensor.name,), tensor.dtype, tensor.dims)


def _entering(graph: TfliteGraph, place: int) -> InputFacts:
    tensor = graph.tensors[place]
    scales = Scales(np.array(tensor.scale), np.array(tensor.zero_point, np.float64)) if tensor.scale else None
    return with_arithmetic(InputFacts(_port(tensor), scales=scales), _arithmetic(graph, place))


def _arithmetic(graph: TfliteGraph, place: int) -> Iterator[tuple[str, NDArray[np.float64] | None]]:
    """Follow a tensor as long as one operator reads it, and only converts it or does arithmetic."""
    for _ in graph.nodes:  # no more: a damaged file may lead back
        readers = [node for node in graph.nodes if place in node.inputs]
        if len(readers) != 1:
            return
        node = readers[0]
        if node.name in _ARITHMETIC:
            yield _ARITHMETIC[node.name], _operand(graph, node, place)
        elif node.name not in ("CAST", "TRANSPOSE", "DEQUANTIZE"):
            return
        place = node.outputs[0]


def _operand(graph: TfliteGraph, node: Operator, entry: int) -> NDArray[np.float64] | None:
    if node.name in ("SUB", "DIV") and node.inputs[0] != entry:
        return None
    return graph.tensors[next((place for place in node.inputs if place != entry), entry)].numbers()


def _leaving(graph: TfliteGraph, place: int) -> OutputFacts:
    port, quantised = _port(graph.tensors[place]), bool(graph.tensors[place].scale)
    node = graph.producer(place)
    for _ in graph.nodes:
        if node is None or node.name not in _KEEPING:
            break
        node = graph.producer(node.inputs[0])
    if node is None:
        return OutputFacts(port, is_quantised=quantised)
    dims = graph.tensors[node.inputs[0]].dims
    scored = dims[-1] if node.name == "ARG_MAX" and dims else None
    return OutputFacts(port, _NAMES.get(node.name, node.name), scored, quantised)
