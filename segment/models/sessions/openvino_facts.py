"""The facts of a graph that openvino reads: IR, TFLite, and ONNX."""

from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np
import openvino

from segment.errors import ModelError
from segment.models.sessions.graph_facts import GraphFacts, InputFacts, OutputFacts, Reader, with_arithmetic
from segment.models.sessions.openvino import read_graph
from segment.models.sessions.openvino_ports import to_port
from segment.models.sessions.openvino_preprocess import input_scales
from segment.models.sessions.tflite_graph import tflite_metadata
from segment.models.weights import Weights

_KEEPING = frozenset(
    "Convert Transpose Reshape Squeeze Unsqueeze Interpolate FakeQuantize StridedSlice Slice Result".split()  # noqa: SIM905
)
_NAMES = {"SoftMax": "Softmax", "GreaterEqual": "GreaterOrEqual", "LessEqual": "LessOrEqual"}  # as ONNX has them
_READING = {
    "Subtract": "Sub", "Multiply": "Mul", "Divide": "Div", "Convert": "Cast", "Interpolate": "Resize", "Clamp": "Clip",
    "Maximum": "Clip", "Minimum": "Clip", "ShapeOf": "Shape",
}  # fmt: skip


def openvino_facts(weights: Weights, entry: str | None = None, shape: Sequence[int] = ()) -> GraphFacts:
    """Read a graph; the shapes of the outputs are for `shape` of the input `entry`, if it is given.

    Raises ModelError: openvino cannot read the graph, or not reshape it.
    """
    model = read_graph(openvino.Core(), weights)
    inputs = tuple(
        with_arithmetic(InputFacts(to_port(port), scales=input_scales(port)), port.get_node().output(0), _readers)
        for port in model.inputs
    )
    if entry is not None:
        try:
            model.reshape({entry: openvino.PartialShape(list(shape))})
        except RuntimeError:
            raise ModelError(f"openvino cannot give the input '{entry}' the shape {list(shape)}") from None
    return GraphFacts(
        inputs,
        tuple(_leaving(port) for port in model.outputs),
        frozenset(node.get_type_name() for node in model.get_ops()),
        "",
        _metadata(weights),
    )


def _metadata(weights: Weights) -> dict[str, str]:
    if weights.format == "ir":
        return _runtime_information(weights)
    found = tflite_metadata(weights.graph) if weights.format == "tflite" else {}
    return {f"tflite.{key}": value for key, value in found.items()}


def _readers(value: Any) -> Iterator[Reader]:
    for reader in value.get_target_inputs():
        node, position = reader.get_node(), reader.get_index()
        operator = _READING.get(node.get_type_name(), node.get_type_name())
        constant = None
        if node.get_input_size() > 1 and (position == 0 or operator in ("Add", "Mul")):
            constant = _constant(node.input_value(1 - min(position, 1)))
        if operator == "Slice" and node.get_input_size() == 5:  # backwards along one axis, from its end
            step = _constant(node.input_value(3))
            if step is not None and step.ravel().tolist() == [-1]:
                operator, constant = "Gather", np.array([2, 1, 0])
        yield Reader(operator, node.output(0), constant)


def _constant(value: Any) -> Any:
    node = value.get_node()
    while node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return node.get_data() if node.get_type_name() == "Constant" else None


def _leaving(port: Any) -> OutputFacts:
    found = to_port(port)
    node, quantised = port.get_node(), False
    while node.get_type_name() in _KEEPING and node.get_input_size():
        quantised = quantised or node.get_type_name() == "FakeQuantize"
        node = node.input_value(0).get_node()
    if node.get_type_name() != "TopK":
        name = _NAMES.get(node.get_type_name(), node.get_type_name())
        return OutputFacts(found, name, is_quantised=quantised)
    dims, axis = node.get_input_partial_shape(0), node.get_axis()
    scored = dims[axis].get_length() if dims.rank.is_static and dims[axis].is_static else None
    return OutputFacts(found, "ArgMax", scored)


def _runtime_information(weights: Weights) -> dict[str, str]:
    """Return the `rt_info` of an IR, which its converter left there."""
    try:
        root = ElementTree.fromstring(weights.graph)
    except ElementTree.ParseError:  # openvino is more lenient
        return {}
    table = root.find("rt_info")
    if table is None:
        table = root.find("meta_data")  # before 2022
    found = [] if table is None else _leaves(table, "")
    return {name.replace("cli_parameters.", "conversion_parameters."): value for name, value in found}


def _leaves(table: ElementTree.Element, prefix: str) -> list[tuple[str, str]]:
    found = []
    for item in table:
        name = f"{prefix}{item.tag}"
        if "value" in item.attrib:
            found.append((name, item.attrib["value"]))
        found += _leaves(item, f"{name}.")
    return found
