"""ONNX graph surgery: a card's contract in front of and behind a model, as nodes of its own graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from segment.models.card import ModelCard
from segment.models.sessions.chain import Chain
from segment.models.sessions.onnx_back import Back
from segment.models.sessions.onnxfile import inferred_dims, names_read, ports, read_model, stored_names, unused_prefix
from segment.models.sessions.ports import Dims, check_output, choose_ports, found_port, is_identity, refuse

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
        sizes = {"N": 1, "C": 3, "H": card.input.height, "W": card.input.width}
        shape = [sizes[axis] for axis in card.input.layout]
        dims = None if self.knows_output else inferred_dims(self._model, self._entry.name, shape, self._result.name)
        self.learn(dims or self._result.dims)

    @property
    def knows_output(self) -> bool:
        """Whether every size of the output is known, but for its batch."""
        return self._result.dims is not None and None not in self._result.dims[1:]

    def learn(self, dims: Dims | None) -> None:
        """Take the shape that the output has for one picture of the card's input size.

        Raises:
            ModelError: it contradicts the card.
        """
        self._result = found_port(self._result, dims)
        self._size = check_output(self.card, self._result)

    def raw(self) -> bytes:
        """Return the model as bytes: `uint8[1, H, W, 3]` RGB in, the graph's own output as float32 out."""
        chain = self._chain("raw_", self._result.name)
        chain.add("Cast", to=TensorProto.FLOAT)
        chain.finish(self._name("raw"))
        return self._around(1, chain.nodes, [_value(self._name("raw"), TensorProto.FLOAT, None)])

    def compiled(self, batch: int | None, *, masked: bool = False) -> bytes:
        """Return the model as bytes: `uint8[N, H, W, 3]` RGB in; `uint8[N, Ho, Wo]` and `float32[N]` out.

        Args:
            batch: N; None for any. If it is not the graph's own, what the graph knew about intermediate shapes is
                dropped, because it would contradict N.
            masked: scores may be minus infinity, which says that a pixel is not of this class.
        """
        number = batch or self._name("batch")
        # Height and width of the mask are left to the runtime's own shape inference: `predict` checks them.
        outputs = [
            _value(self._name("masks"), TensorProto.UINT8, (number, None, None)),
            _value(self._name("check"), TensorProto.FLOAT, (number,)),
        ]
        chains = Back(self.card, self._result, self._size, self._chain, self._opset).chains(masked)
        for chain, output in zip((chains[0], chains[-1]), outputs, strict=True):
            chain.finish(output.name)
        return self._around(batch, [node for chain in chains for node in chain.nodes], outputs)

    def _chain(self, stem: str, source: str) -> Chain:
        return Chain(self._name(stem), source, self._opset)

    def _around(self, batch: int | None, back: Sequence[NodeProto], outputs: Sequence[ValueInfoProto]) -> bytes:
        """The model with the contract's nodes in front of it, and others behind it."""
        model = ModelProto()
        model.CopyFrom(self._model)
        graph = model.graph
        if batch != 1 and self.fixed_batch:
            del graph.value_info[:]
        nodes = [*self._front(), *graph.node, *back]
        del graph.node[:]
        graph.node.extend(nodes)
        others = [item for item in graph.input if item.name != self._entry.name]
        del graph.input[:]
        number = batch or self._name("batch")
        height, width = self.card.input.height, self.card.input.width
        graph.input.append(_value(self._name("images"), TensorProto.UINT8, (number, height, width, 3)))
        graph.input.extend(others)
        del graph.output[:]
        graph.output.extend(outputs)
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
        chain = self._chain("in", self._name("images"))
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

    def _normalise(self, chain: Chain, shape: tuple[int, ...]) -> None:
        declared = self.card.input
        if declared.maximum != 255:
            chain.add("Div", np.array(255 / declared.maximum, np.float32))
        if any(declared.mean):
            chain.add("Sub", np.array(declared.mean, np.float32).reshape(shape))
        if set(declared.std) != {1.0}:
            chain.add("Div", np.array(declared.std, np.float32).reshape(shape))


def _value(name: str, elem_type: int, shape: Sequence[str | int | None] | None) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, elem_type, shape)


def _copied(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy
