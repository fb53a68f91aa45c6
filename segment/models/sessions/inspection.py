"""Reads what a graph says of itself, before there is a card."""

import importlib.util
from collections.abc import Sequence
from dataclasses import replace

from segment.errors import ModelError
from segment.models.sessions.base import graph_in_words
from segment.models.sessions.graph_facts import GraphFacts, OutputFacts
from segment.models.sessions.ports import Port
from segment.models.weights import Weights


def inspect_graph(weights: Weights, entry: str | None = None, shape: Sequence[int] = ()) -> GraphFacts:
    """Return the facts of a graph.

    Args:
        weights: ONNX, IR or TFLite bytes.
        entry: name of an input; the shapes of the outputs are inferred for it.

    Raises:
        ModelError: no runtime reads the graph.
    """
    with graph_in_words(weights):
        return _inspected(weights, entry, shape)


def _inspected(weights: Weights, entry: str | None, shape: Sequence[int]) -> GraphFacts:
    if weights.format != "onnx":
        from segment.models.sessions.openvino_facts import openvino_facts

        try:
            return openvino_facts(weights, entry, shape)
        except ModelError:
            if weights.format != "tflite" or importlib.util.find_spec("ai_edge_litert") is None:
                raise
            return _facts_for_litert(weights, entry, shape)
    from segment.models.sessions.onnx_facts import onnx_facts

    facts = onnx_facts(weights.graph, entry, shape)
    if entry and any(_is_open(output.port) for output in facts.outputs):
        return _with_shapes_of_openvino(facts, weights, entry, shape)
    return facts


def _facts_for_litert(weights: Weights, entry: str | None, shape: Sequence[int]) -> GraphFacts:
    """Read the file by itself: LiteRT may serve what openvino does not read."""
    from segment.models.sessions.tflite_facts import tflite_facts

    return tflite_facts(weights.graph, entry, shape)


def _is_open(port: Port) -> bool:
    return port.dims is None or None in port.dims[1:]


def _with_shapes_of_openvino(facts: GraphFacts, weights: Weights, entry: str, shape: Sequence[int]) -> GraphFacts:
    """Complete shapes that onnx cannot infer; unchanged where openvino cannot either."""
    from segment.models.sessions.openvino_facts import openvino_facts

    try:
        other = openvino_facts(weights, entry, shape).outputs
    except ModelError:
        return facts
    by_name = {name: output for output in other for name in output.port.names}
    outputs = tuple(_completed(output, by_name.get(output.port.name)) for output in facts.outputs)
    return replace(facts, outputs=outputs)


def _completed(output: OutputFacts, other: OutputFacts | None) -> OutputFacts:
    if other is None or not _is_open(output.port):
        return output
    port = Port(output.port.names, output.port.dtype, other.port.dims)
    return replace(output, port=port, scored=output.scored or other.scored)
