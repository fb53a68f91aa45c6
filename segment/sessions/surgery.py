"""ONNX graph surgery: a card's contract in front of and behind a model, as nodes of its own graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from segment.card import ModelCard
from segment.sessions.contract import choose_ports, is_identity, refuse
from segment.sessions.onnxfile import names_read, ports, read_model, stored_names, unused_prefix

OLDEST_OPSET = 9  # the first with comparisons of integers


class Surgeon:
    """One ONNX model and the card it must fit.

    Args:
        card: the contract.
        data: the ONNX file's bytes.

    Raises:
        ModelError: the bytes are no self-contained ONNX model, too old, or contradict the card.
    """

    def __init__(self, card: ModelCard, data: bytes) -> None:
        self.card = card
        self._model = read_model(data)
        self._opset = max(
            (item.version for item in self._model.opset_import if item.domain in ("", "ai.onnx")), default=1
        )
        if self._opset < OLDEST_OPSET:
            refuse(
                card,
                f"the graph is of ONNX opset {self._opset}: export it anew with opset {OLDEST_OPSET} or newer",
            )
        self._prefix = unused_prefix(data)
        inputs, outputs = ports(self._model)
        entry, result = choose_ports(card, inputs, outputs)
        self._entry, self._result = inputs[entry], outputs[result]
        self.fixed_batch = self._entry.dims is not None and self._entry.dims[0] == 1
        self._drop_what_is_not_needed()

    def compiled(self, batch: int | None) -> bytes:
        """Return the model as bytes: `uint8[N, H, W, 3]` RGB in; `uint8[N, Ho, Wo]` and `float32[N]` out.

        Args:
            batch: N; None for any. If it is not the graph's own, what the graph knew about intermediate shapes is
                dropped, because it would contradict N.
        """
        model = ModelProto()
        model.CopyFrom(self._model)
        graph = model.graph
        if batch != 1 and self.fixed_batch:
            del graph.value_info[:]
        nodes = [*self._front(), *graph.node, *self._back()]
        del graph.node[:]
        graph.node.extend(nodes)
        others = [item for item in graph.input if item.name != self._entry.name]
        del graph.input[:]
        number = batch or self._name("batch")
        height, width = self.card.input.height, self.card.input.width
        graph.input.append(_value(self._name("images"), TensorProto.UINT8, (number, height, width, 3)))
        graph.input.extend(others)
        del graph.output[:]
        # Height and width of the mask are left to the runtime's own shape inference: `predict` checks them.
        graph.output.append(_value(self._name("masks"), TensorProto.UINT8, (number, None, None)))
        graph.output.append(_value(self._name("check"), TensorProto.FLOAT, (number,)))
        return bytes(model.SerializeToString())

    def _name(self, stem: str) -> str:
        return f"{self._prefix}{stem}"

    def _drop_what_is_not_needed(self) -> None:
        """Drop other outputs and all that only they need: auxiliary heads would be computed for nothing."""
        graph = self._model.graph
        needed = {self._result.name}
        kept = []
        for node in reversed(graph.node):
            if needed.intersection(node.output):
                kept.append(node)
                needed.update(name for name in names_read(node) if name)
        if len(kept) < len(graph.node):
            kept.reverse()
            kept = [_copied(node) for node in kept]
            del graph.node[:]
            graph.node.extend(kept)
        stored = stored_names(graph)
        for item in list(graph.input):
            if item.name == self._entry.name or item.name in stored:
                continue
            if item.name in needed:
                refuse(
                    self.card,
                    f"the graph also needs the input '{item.name}'; a session feeds one picture tensor",
                )
            graph.input.remove(item)
        for tensor in [tensor for tensor in graph.initializer if tensor.name == self._entry.name]:
            graph.initializer.remove(tensor)  # a default value of the picture input

    def _front(self) -> list[NodeProto]:
        """Bytes of RGB pixels to what the graph's input wants. Moves bytes around before they become floats."""
        chain = _Chain(self._name("in"), self._name("images"))
        channels_axis = 3
        if self.card.input.layout == "NCHW":
            chain.add("Transpose", perm=[0, 3, 1, 2])
            channels_axis = 1
        if self.card.input.channels == "BGR":
            chain.add("Gather", np.array([2, 1, 0], np.int64), axis=channels_axis)
        if not is_identity(self.card):
            chain.add("Cast", to=TensorProto.FLOAT)
            self._normalise(chain, (3, 1, 1) if channels_axis == 1 else (3,))
        wanted = helper.np_dtype_to_tensor_dtype(np.dtype(self._entry.dtype))
        chain.add("Cast", to=wanted)
        chain.finish(self._entry.name)
        return chain.nodes

    def _normalise(self, chain: _Chain, shape: tuple[int, ...]) -> None:
        declared = self.card.input
        if declared.maximum != 255:
            chain.add("Div", np.array(255 / declared.maximum, np.float32))
        if any(declared.mean):
            chain.add("Sub", np.array(declared.mean, np.float32).reshape(shape))
        if set(declared.std) != {1.0}:
            chain.add("Div", np.array(declared.std, np.float32).reshape(shape))

    def _back(self) -> list[NodeProto]:
        """The graph's output to a mask and one number per image that tells whether the mask can be trusted."""
        if self.card.output.kind == "index":
            return self._back_of_index()
        chain = _Chain(self._name("out"), self._result.name)
        if self._result.dtype != "float32":
            chain.add("Cast", to=TensorProto.FLOAT)
        scores = chain.tip
        chain.add("ArgMax", axis=self.card.output.layout.index("C"), keepdims=0)
        chain.add("Cast", to=TensorProto.UINT8)
        chain.finish(self._name("masks"))
        # The mean and not the sum: a sum of many finite scores could itself overflow.
        check = _Chain(self._name("check_"), scores)
        self._over_axes(check, "ReduceMean", [1, 2, 3], since=18, keepdims=0)
        check.finish(self._name("check"))
        return [*chain.nodes, *check.nodes]

    def _back_of_index(self) -> list[NodeProto]:
        chain = _Chain(self._name("out"), self._result.name)
        if "1" in self.card.output.layout:
            self._over_axes(chain, "Squeeze", [self.card.output.layout.index("1")], since=13)
        dtype = _comparable(self._result.dtype)
        chain.add("Cast", to=helper.np_dtype_to_tensor_dtype(dtype))
        index = chain.tip
        chain.add("Cast", to=TensorProto.UINT8)
        chain.finish(self._name("masks"))
        # 'not below C' and not 'C or above': a NaN is neither.
        negative = _Chain(self._name("negative"), index)
        negative.add("Less", np.array(0, dtype))
        check = _Chain(self._name("check_"), index)
        check.add("Less", np.array(len(self.card.classes), dtype))
        check.add("Not")
        check.add("Or", negative.tip)
        check.add("Cast", to=TensorProto.FLOAT)
        self._over_axes(check, "ReduceSum", [1, 2], since=13, keepdims=0)
        check.finish(self._name("check"))
        return [*chain.nodes, *negative.nodes, *check.nodes]

    def _over_axes(self, chain: _Chain, op: str, axes: list[int], *, since: int, **attributes: Any) -> None:
        """Add an operation whose axes moved from attribute to input in opset `since`."""
        if self._opset >= since:
            chain.add(op, np.array(axes, np.int64), **attributes)
        else:
            chain.add(op, axes=axes, **attributes)


class _Chain:
    """Nodes that each take the one before; a constant second operand becomes a node, not an initialiser.

    Models of IR version 3 want every initialiser listed as an input as well; a Constant node is right in all.
    """

    def __init__(self, prefix: str, source: str) -> None:
        self.nodes: list[NodeProto] = []
        self.tip = source
        self._prefix = prefix

    def add(self, op: str, operand: NDArray[Any] | str | None = None, **attributes: Any) -> None:
        inputs = [self.tip]
        if isinstance(operand, str):
            inputs.append(operand)
        elif operand is not None:
            inputs.append(f"{self._prefix}{len(self.nodes)}_constant")
            value = numpy_helper.from_array(operand)
            self.nodes.append(helper.make_node("Constant", [], [inputs[1]], name=inputs[1], value=value))
        self.tip = f"{self._prefix}{len(self.nodes)}"
        node = helper.make_node(op, inputs, [self.tip], name=self.tip)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)

    def finish(self, name: str) -> None:
        """Give the last value the name the rest of the graph knows."""
        self.nodes[-1].output[0] = name
        self.tip = name


def _comparable(dtype: str) -> np.dtype[np.generic]:
    """The type in which indices are compared: onnxruntime compares these only."""
    if "float" in dtype:
        return np.dtype(np.float32)
    return np.dtype(np.int64) if dtype in ("int64", "uint64", "uint32") else np.dtype(np.int32)


def _value(name: str, elem_type: int, shape: Sequence[str | int | None]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, elem_type, shape)


def _copied(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy
