"""Copies of ONNX nodes under other names."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from onnx import AttributeProto, GraphProto, NodeProto

from segment.models.sessions.onnxfile import names_read

Rename = Callable[[str], str]


def dependent_nodes(graph: GraphProto, source: str) -> list[NodeProto]:
    """Return the nodes that depend on a value, in order."""
    known, found = {source}, []
    for node in graph.node:
        if known.intersection(names_read(node)):
            found.append(node)
            known.update(name for name in node.output if name)
    return found


def copies(nodes: Iterable[NodeProto], rename: Rename) -> list[NodeProto]:
    """Return copies of nodes, their subgraphs included, with other names of values; empty names stay empty."""
    found = []
    for node in nodes:
        copy = NodeProto()
        copy.CopyFrom(node)
        _rename(copy, rename)
        found.append(copy)
    return found


def _rename(node: NodeProto, rename: Rename) -> None:
    node.name = ""  # names of nodes must differ, and no name is one
    for names in (node.input, node.output):
        names[:] = [rename(name) if name else "" for name in names]
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            _rename_graph(attribute.g, rename)
        for graph in attribute.graphs:
            _rename_graph(graph, rename)


def _rename_graph(graph: GraphProto, rename: Rename) -> None:
    del graph.value_info[:]
    for node in graph.node:
        _rename(node, rename)
    for item in (*graph.input, *graph.output, *graph.initializer):
        item.name = rename(item.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = rename(sparse.values.name)
