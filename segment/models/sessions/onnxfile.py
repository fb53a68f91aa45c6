"""Reads an ONNX file: refuses one that is not self-contained; returns its inputs, outputs and names."""

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from segment.errors import ModelError, NotAModel
from segment.models.external_data import parse_model, stored_tensors
from segment.models.sessions.ports import Dims, Port

_MOST_NODES = 200_000  # large networks have some ten thousand; the time of what reads them grows with their number


def read_model(data: bytes) -> ModelProto:
    """Parse a self-contained ONNX file.

    Raises ModelError: the bytes are not an ONNX model, or its nodes read each other, for which openvino never ends; or
    the model has external data: both runtimes read that from the working directory, unverified, even if the model comes
    from memory.
    """
    model = parse_model(data)
    if not model.graph.node:
        raise NotAModel("this is not an ONNX model: the graph has no nodes")
    if len(model.graph.node) > _MOST_NODES:
        raise ModelError(f"the graph has {len(model.graph.node):,} nodes, and at most {_MOST_NODES:,} are read")
    makers = {name: number for number, node in enumerate(model.graph.node) for name in node.output if name}
    before = {n: {makers[i] for i in node.input if i in makers} for n, node in enumerate(model.graph.node)}
    try:
        TopologicalSorter(before).prepare()
    except CycleError:
        raise NotAModel("this is not an ONNX model: nodes of the graph read each other's results") from None
    external = next((tensor.name for tensor in stored_tensors(model) if tensor.data_location == tensor.EXTERNAL), None)
    if external is not None:
        raise ModelError(
            f"the ONNX model stores tensor '{external}' in another file, which is not read at load: save it as one "
            f"file (onnx.save_model(onnx.load(path), path, save_as_external_data=False))"
        )
    return model


def declared_ports(model: ModelProto) -> tuple[list[Port], list[Port]]:
    """Return inputs and outputs, as the file declares them."""
    stored = stored_names(model.graph)
    # IR version 3 lists every initialiser as an input, too.
    inputs = [_port(item) for item in model.graph.input if item.name not in stored]
    inputs = inputs or [_port(item) for item in model.graph.input]
    return inputs, [_port(item) for item in model.graph.output]


def inferred_ports(model: ModelProto, entry: str, shape: Sequence[int]) -> dict[str, Port]:
    """Return types and shapes of values by name, for a given shape of the input; those that onnx can infer."""
    copy = ModelProto()
    copy.CopyFrom(model)
    for item in copy.graph.input:
        if item.name == entry:
            item.CopyFrom(helper.make_tensor_value_info(entry, item.type.tensor_type.elem_type, shape))
    for item in copy.graph.output:
        item.type.tensor_type.ClearField("shape")  # symbolic sizes would stay
    del copy.graph.value_info[:]
    # The inference fails for a model that is too large or has operators unknown to onnx.
    with contextlib.suppress(Exception):
        inferred = onnx.shape_inference.infer_shapes(copy, data_prop=True).graph
        return {item.name: _port(item) for item in (*inferred.value_info, *inferred.output)}
    return {}


def _port(item: ValueInfoProto) -> Port:
    tensor = item.type.tensor_type
    dims: Dims | None = None
    if tensor.HasField("shape"):
        dims = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim)
    return Port((item.name,), _dtype_name(tensor.elem_type), dims)


def _dtype_name(elem_type: int) -> str:
    if elem_type == TensorProto.UNDEFINED:
        return "no tensor"
    return str(helper.tensor_dtype_to_np_dtype(elem_type).name)


def constant_of(node: NodeProto | None) -> NDArray[Any] | None:
    """Return the numbers of a Constant; None of another operator, of text, and of a sparse tensor."""
    if node is None or node.op_type != "Constant" or not node.attribute:
        return None
    value = helper.get_attribute_value(node.attribute[0])
    if isinstance(value, TensorProto):
        return numbers_of(value)
    return np.asarray(value) if node.attribute[0].name.startswith(("value_float", "value_int")) else None


class Wiring:
    """Which nodes make and read the values of a graph, by their names, and what is stored."""

    def __init__(self, graph: GraphProto) -> None:
        self.makers = {name: node for node in graph.node for name in node.output if name}
        self.readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self.readers[name].append(node)
        self._stored = {tensor.name: tensor for tensor in graph.initializer}

    def constant(self, name: str) -> NDArray[Any] | None:
        """Return a value that is stored, or made by a Constant; None of any other."""
        if name in self._stored:
            return numbers_of(self._stored[name])
        return constant_of(self.makers.get(name))


def numbers_of(tensor: TensorProto) -> NDArray[Any]:
    """Return the numbers of a tensor. Raises ValueError: its type, sizes and content contradict each other."""
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except (TypeError, KeyError) as error:
        raise ValueError(f"{tensor.name}: {error}") from None


def unused_prefix(data: bytes) -> str:
    """Return a prefix that occurs nowhere in the file: names with it do not collide with the graph's."""
    number = 0
    while f"segment{number}_".encode() in data:
        number += 1
    return f"segment{number}_"


def stored_names(graph: GraphProto) -> set[str]:
    """Return the names of a graph's initialisers."""
    return {tensor.name for tensor in graph.initializer} | {item.values.name for item in graph.sparse_initializer}


def names_read(node: NodeProto) -> Iterator[str]:
    """Yield the names of the values that a node and its subgraphs read."""
    yield from node.input
    for graph in _subgraphs(node):
        for inner in graph.node:
            yield from names_read(inner)
        for output in graph.output:
            yield output.name


def needed_nodes(nodes: Sequence[NodeProto], names: Iterable[str]) -> tuple[list[NodeProto], set[str]]:
    """Return the nodes, in order, that some values need, and the names of all values that these nodes read."""
    needed, kept = set(names), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(name for name in names_read(node) if name)
    return kept[::-1], needed


def all_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Yield nodes and those of their subgraphs."""
    for node in nodes:
        yield node
        for graph in _subgraphs(node):
            yield from all_nodes(graph.node)


def _subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs
