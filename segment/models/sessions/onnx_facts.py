"""The facts of an ONNX file."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import ModelProto, NodeProto

from segment.models.sessions.graph_facts import GraphFacts, InputFacts, OutputFacts, Reader, with_arithmetic
from segment.models.sessions.onnx_quantised import input_scales
from segment.models.sessions.onnxfile import Wiring, declared_ports, inferred_ports, read_model
from segment.models.sessions.ports import Dims, Port

# Operators that keep an output's meaning.
_KEEPING = frozenset(
    """
    Identity Cast Transpose Reshape Flatten Squeeze Unsqueeze Resize Upsample QuantizeLinear DequantizeLinear Slice
    """.split()  # noqa: SIM905
)


def onnx_facts(data: bytes, entry: str | None = None, shape: Sequence[int] = ()) -> GraphFacts:
    """Read an ONNX file.

    Args:
        entry: name of an input; the shapes of the outputs are inferred for it.

    Raises:
        ModelError: the bytes are not a self-contained ONNX model.
    """
    model = read_model(data)
    inputs, outputs = declared_ports(model)
    inferred = inferred_ports(model, entry, shape) if entry else {}
    graph = _Walk(model, {name: port.dims for name, port in inferred.items() if port.dims})
    return GraphFacts(
        tuple(graph.entering(port) for port in inputs),
        tuple(OutputFacts(_with(port, inferred.get(port.name)), *graph.deciding(port.name)) for port in outputs),
        frozenset(node.op_type for node in model.graph.node),
        model.producer_name,
        {item.key: item.value for item in model.metadata_props},
    )


class _Walk:
    """Follows the values of a graph."""

    def __init__(self, model: ModelProto, inferred: Mapping[str, Dims]) -> None:
        self._model = model
        self._wiring = Wiring(model.graph)
        self._dims = {**_inferred(model), **inferred}

    def entering(self, port: Port) -> InputFacts:
        """Return the facts of an input."""
        facts = InputFacts(port, scales=input_scales(self._wiring, port.name))
        return with_arithmetic(facts, port.name, self._reading)

    def _reading(self, name: str) -> Iterator[Reader]:
        for node in self._wiring.readers[name]:
            is_first, others = node.input[0] == name, [other for other in node.input if other != name]
            if node.op_type == "Slice" and self._reverses(node):
                yield Reader("Gather", node.output[0], np.array([2, 1, 0]))
            elif others and (is_first or node.op_type in ("Add", "Mul")):
                yield Reader(node.op_type, node.output[0], self._array(others[0]))
            else:
                yield Reader(node.op_type, node.output[0])

    def _reverses(self, node: NodeProto) -> bool:
        """Whether a Slice goes backwards along one axis, from its end."""
        step = self._array(node.input[4]) if len(node.input) == 5 else None
        return step is not None and step.ravel().tolist() == [-1]

    def _array(self, name: str) -> np.ndarray | None:
        node = self._wiring.makers.get(name)
        if node is not None and node.op_type in ("Identity", "Cast") and node.input:
            name = node.input[0]
        return self._wiring.constant(name)

    def deciding(self, name: str) -> tuple[str, int | None, bool]:
        """Return the operator that decides an output's meaning, and the other facts of the output."""
        node, quantised = self._wiring.makers.get(name), False
        for _ in self._model.graph.node:  # no more: a damaged file may lead back
            quantised = quantised or (node is not None and node.op_type.startswith(("QuantizeLinear", "QLinear")))
            if node is None or node.op_type not in _KEEPING or not node.input:
                break
            name = node.input[0]
            node = self._wiring.makers.get(name)
        if node is None:
            return "", None, quantised
        if node.op_type == "ArgMax" or (node.op_type == "TopK" and name == node.output[-1]):
            return "ArgMax", self._chosen_from(node), quantised
        return node.op_type, None, quantised

    def _chosen_from(self, node: NodeProto) -> int | None:
        default = 0 if node.op_type == "ArgMax" else -1
        axis = next((item.i for item in node.attribute if item.name == "axis"), default)
        dims = self._dims.get(node.input[0])
        return dims[axis] if dims and -len(dims) <= axis < len(dims) else None


def _inferred(model: ModelProto) -> dict[str, Dims]:
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # onnx has its own types; operators unknown to it
        graph = model.graph
    values = [*graph.value_info, *graph.input, *graph.output]
    return {
        item.name: tuple(dim.dim_value if dim.dim_value > 0 else None for dim in item.type.tensor_type.shape.dim)
        for item in values
    }


def _with(port: Port, inferred: Port | None) -> Port:
    return Port(port.names, port.dtype, (inferred and inferred.dims) or port.dims)
