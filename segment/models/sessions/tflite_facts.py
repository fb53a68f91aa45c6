"""The facts of a TFLite file that openvino does not read."""

from collections.abc import Iterator, Sequence

import numpy as np

from segment.errors import ModelError
from segment.models.sessions.graph_facts import GraphFacts, InputFacts, OutputFacts, Reader, with_arithmetic
from segment.models.sessions.ports import Port
from segment.models.sessions.quantised import Scales
from segment.models.sessions.tflite_graph import Tensor, TfliteGraph, damage_in_words, read_tflite, tflite_metadata

_KEEPING = frozenset(
    """
    CAST TRANSPOSE RESHAPE SQUEEZE EXPAND_DIMS RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR QUANTIZE DEQUANTIZE SLICE
    STRIDED_SLICE
    """.split()  # noqa: SIM905
)
_READING = {
    "SUB": "Sub", "ADD": "Add", "MUL": "Mul", "DIV": "Div", "CAST": "Cast", "TRANSPOSE": "Transpose",
    "DEQUANTIZE": "Cast", "RESHAPE": "Reshape", "RESIZE_BILINEAR": "Resize", "RESIZE_NEAREST_NEIGHBOR": "Resize",
    "PAD": "Pad", "SHAPE": "Shape",
}  # fmt: skip
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
    return with_arithmetic(InputFacts(_port(tensor), scales=scales), place, lambda place: _readers(graph, place))


def _readers(graph: TfliteGraph, place: int) -> Iterator[Reader]:
    for node in graph.readers.get(place, ()):
        others = [other for other in node.inputs if other not in (place, -1)]
        is_operand = others and (node.inputs[0] == place or node.name in ("ADD", "MUL"))
        constant = graph.tensors[others[0]].numbers() if is_operand else None
        yield Reader(_READING.get(node.name, node.name), node.outputs[0], constant)


def _leaving(graph: TfliteGraph, place: int) -> OutputFacts:
    port, quantised = _port(graph.tensors[place]), bool(graph.tensors[place].scale)
    node = graph.producers.get(place)
    for _ in graph.nodes:
        if node is None or node.name not in _KEEPING:
            break
        node = graph.producers.get(node.inputs[0])
    if node is None:
        return OutputFacts(port, is_quantised=quantised)
    dims = graph.tensors[node.inputs[0]].dims
    scored = dims[-1] if node.name == "ARG_MAX" and dims else None
    return OutputFacts(port, _NAMES.get(node.name, node.name), scored, quantised)
