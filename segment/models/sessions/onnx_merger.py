"""Builds one ONNX graph of the views and members of a card; see `averaging`.

Every view and member has nodes of its own. Initialisers, and nodes that do not depend on the image, are shared by the
views of a model.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto, helper

from segment.models.card import ModelCard
from segment.models.sessions.averaging import View, activation, penalty
from segment.models.sessions.onnx_nodes import Nodes
from segment.models.sessions.onnx_postprocess import Postprocessing, resized
from segment.models.sessions.onnx_quantised import quantised_result
from segment.models.sessions.onnxfile import names_read
from segment.models.sessions.surgery import Surgeon

Rename = Callable[[str], str]


class Merger:
    """Builds the merged graph.

    Args:
        members: the surgeon of each view, of each member.
    """

    def __init__(self, card: ModelCard, views: Sequence[View], members: Sequence[Sequence[Surgeon]], prefix: str):
        self._card = card
        self._views = views
        self._members = members
        self._prefix = prefix
        self._first = members[0][0]
        self._nodes = Nodes(f"{prefix}_", self._first.opset)

    def model(self) -> bytes:
        """Return the bytes of the merged graph."""
        graph, nodes = GraphProto(name="averaged"), self._nodes
        images = [self._images(view) for view in self._views]
        totals: list[list[str]] = [[] for _ in self._views]
        for number, surgeons in enumerate(self._members):
            self._add_constants(graph, number)
            for at, (view, surgeon) in enumerate(zip(self._views, surgeons, strict=True)):
                for mirrored, image in enumerate(images[at]):
                    found = self._probabilities(number, view, surgeon, image)
                    totals[at].append(self._flipped(found, 3) if mirrored else found)
        total = self._sum([self._at_plain_size(self._sum(found), at) for at, found in enumerate(totals)])
        result = nodes.add("Mul", total, np.array(1 / sum(map(len, totals)), np.float32))
        graph.node.extend(nodes.all)
        graph.input.append(self._entry())
        height, width = self._first.size or (None, None)
        channels = 1 if self._card.output.kind == "sigmoid" else len(self._card.classes)
        dims = ("segment_batch", channels, height, width)
        graph.output.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, dims))
        return self._file(graph)

    def _images(self, view: View) -> list[str]:
        """Add a view of the image, and the same mirrored; return their names."""
        image = self._first.entry.name
        if view.scale is not None:
            image = self._resized_image(image, view)
        axis = view.card.input.layout.index("W")
        return [image, self._flipped(image, axis)] if self._card.input.flips else [image]

    def _resized_image(self, image: str, view: View) -> str:
        nodes, dtype, last = self._nodes, np.dtype(self._first.entry.dtype), view.card.input.layout == "NHWC"
        if last:
            image = nodes.add("Transpose", image, perm=[0, 3, 1, 2])
        image = resized(nodes, nodes.cast(image, TensorProto.FLOAT), view.size)
        if dtype.kind in "iu":
            image = nodes.add("Round", image)
        image = nodes.cast(image, helper.np_dtype_to_tensor_dtype(dtype))
        return nodes.add("Transpose", image, perm=[0, 2, 3, 1]) if last else image

    def _add_constants(self, graph: GraphProto, number: int) -> None:
        """Add a member's initialisers, and its nodes that do not depend on the image."""
        own = self._members[number][0]
        moving = {name for node in dependent_nodes(own.model.graph, own.entry.name) for name in node.output}
        still = [node for node in own.model.graph.node if not moving.intersection(node.output)]
        self._nodes.all += copies(still, lambda name: self._named(number, name))
        for tensor in own.model.graph.initializer:
            graph.initializer.add().CopyFrom(tensor)
            graph.initializer[-1].name = self._named(number, tensor.name)
        for sparse in own.model.graph.sparse_initializer:
            graph.sparse_initializer.add().CopyFrom(sparse)
            graph.sparse_initializer[-1].values.name = self._named(number, sparse.values.name)

    def _probabilities(self, number: int, view: View, surgeon: Surgeon, image: str) -> str:
        """Add the model for an image, and the nodes from its output to `float32[N, C, H, W]`."""
        nodes = dependent_nodes(surgeon.model.graph, surgeon.entry.name)
        moving = {name for node in nodes for name in node.output}
        copy = f"{self._nodes.new_name()}_"

        def rename(name: str) -> str:
            if name == surgeon.entry.name:
                return image
            return f"{copy}{name}" if name in moving else self._named(number, name)

        self._nodes.all += copies(nodes, rename)
        result = replace(surgeon.result, names=(rename(surgeon.result.name),))
        quantised = quantised_result(view.card, surgeon.model, surgeon.result, numbers=True)
        post = Postprocessing(view.card, result, surgeon.size, quantised, self._nodes)
        scores = post.numbers()
        wrong = self._check(post, scores)
        return self._nodes.add("Add", self._activated(scores), self._penalty(wrong))

    def _check(self, post: Postprocessing, scores: str) -> str:
        """Add a check value per image, 0 if all its numbers are what the card says."""
        if self._card.output.kind == "logits":
            return post.check_of_masked(scores, 1)
        if self._card.output.logit:
            return self._nodes.add("Mul", post.check(scores), np.array(0, np.float32))
        return post.check_of_probability(scores)

    def _penalty(self, wrong: str) -> str:
        """Add the penalty of each image, `float32[N, 1, 1, 1]`."""
        valid = self._nodes.add("Less", wrong, np.array(0.5, np.float32))  # false for NaN
        value = np.array(penalty(self._card), np.float32)
        added = self._nodes.add("Where", valid, np.array(0, np.float32), value)
        return self._nodes.add("Reshape", added, np.array([-1, 1, 1, 1], np.int64))

    def _activated(self, scores: str) -> str:
        name = activation(self._card)
        if not name:
            return scores
        if name == "sigmoid":
            return self._nodes.add("Sigmoid", scores)
        # Before opset 13 a softmax is over this dimension and all that follow, so let it be the last.
        last = self._nodes.add("Transpose", scores, perm=[0, 2, 3, 1])
        return self._nodes.add("Transpose", self._nodes.add("Softmax", last, axis=3), perm=[0, 3, 1, 2])

    def _at_plain_size(self, total: str, at: int) -> str:
        if at == 0 or self._first.size is None:
            return total
        return resized(self._nodes, total, self._first.size)

    def _flipped(self, value: str, axis: int) -> str:
        first, beyond, step = (np.array([number], np.int64) for number in (-1, np.iinfo(np.int32).min, -1))
        return self._nodes.add("Slice", value, first, beyond, np.array([axis], np.int64), step)

    def _sum(self, values: Sequence[str]) -> str:
        return functools.reduce(lambda total, value: self._nodes.add("Add", total, value), values)

    def _entry(self) -> ValueInfoProto:
        """Return the input: that of the first member, with a fixed batch if any member has one."""
        entry = self._first.entry
        fixed = any(surgeons[0].fixed_batch for surgeons in self._members)
        dims = ["segment_batch" if size == -1 else size for size in self._card.input.shape(1 if fixed else -1)]
        return helper.make_tensor_value_info(entry.name, helper.np_dtype_to_tensor_dtype(np.dtype(entry.dtype)), dims)

    def _file(self, graph: GraphProto) -> bytes:
        models = [surgeons[0].model for surgeons in self._members]
        opsets = {item.domain: item for model in models for item in model.opset_import}
        model = helper.make_model(graph, opset_imports=list(opsets.values()))
        model.ir_version = max(4, *(each.ir_version for each in models))  # before 4 initialisers are inputs, too
        return bytes(model.SerializeToString())

    def _named(self, number: int, name: str) -> str:
        return f"{self._prefix}member{number}_{name}" if number else name


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
