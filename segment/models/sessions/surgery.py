"""ONNX graph surgery: adds a card's pre- and postprocessing to a model as nodes of its graph."""

from collections.abc import Sequence

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from segment.models.card import ModelCard
from segment.models.sessions.enlarging import SmallScores, is_smaller
from segment.models.sessions.extras import NOTHING, Extras
from segment.models.sessions.onnx_enlarging import GraphScores
from segment.models.sessions.onnx_nodes import Nodes
from segment.models.sessions.onnx_operators import check_repeatable
from segment.models.sessions.onnx_postprocess import Postprocessing, dequantised
from segment.models.sessions.onnx_preprocess import Preprocessing
from segment.models.sessions.onnx_quantised import quantised_result
from segment.models.sessions.onnxfile import (
    declared_ports,
    inferred_ports,
    needed_nodes,
    read_model,
    stored_names,
    unused_prefix,
)
from segment.models.sessions.ports import Dims, Port, check_output, choose_ports, refuse, with_dims

OLDEST_OPSET = 9  # the first that compares integers and finds NaN
SOFTMAX_OPSET = 13  # the first whose Softmax is over one axis
OLDEST_OPSET_OF_SIGMOID = 7  # the first that broadcasts as numpy does; a sigmoid only compares floats


class Surgeon:
    """Adds a card's pre- and postprocessing to one ONNX model.

    Args:
        before: its preprocessing; the default follows from the graph.

    Attributes:
        model: the model, without what its output does not need; `opset` is its ONNX opset.
        entry, result: its input and output.
        size: (height, width) of the output; None if unknown.

    Raises:
        ModelError: the bytes are not a self-contained ONNX model, its opset is too old, or it contradicts the card.
    """

    def __init__(self, card: ModelCard, data: bytes, before: Preprocessing | None = None) -> None:
        self.card = card
        self.model = read_model(data)
        self.opset = max(
            (item.version for item in self.model.opset_import if item.domain in ("", "ai.onnx")), default=1
        )
        oldest = OLDEST_OPSET_OF_SIGMOID if card.output.kind == "sigmoid" else OLDEST_OPSET
        if self.opset < oldest:
            refuse(card, f"the graph is of ONNX opset {self.opset}: export it again with opset {oldest} or newer")
        self._prefix = unused_prefix(data)
        inputs, outputs = declared_ports(self.model)
        entry, result = choose_ports(card, inputs, outputs)
        self.entry, self.result = inputs[entry], outputs[result]
        self.fixed_batch = self.entry.dims is not None and self.entry.dims[0] == 1
        self._remove_unused()
        check_repeatable(self.model, [self.result.name])
        self._inferred: dict[str, Port] | None = None
        self.before = before or Preprocessing(card, self.model, self.entry)
        found = None if self.output_is_known else self._port(self.result.name)
        self.set_output_dims((found and found.dims) or self.result.dims)

    @property
    def output_is_known(self) -> bool:
        """Whether every size of the output is known, except for its batch."""
        return self.result.dims is not None and None not in self.result.dims[1:]

    def set_output_dims(self, dims: Dims | None) -> None:
        """Set the shape that the output has for one image of the card's input size.

        Raises ModelError: it contradicts the card.
        """
        self.result = with_dims(self.result, dims)
        self.size = check_output(self.card, self.result)
        self._quantised = quantised_result(self.card, self.model, self.result)

    def _port(self, name: str) -> Port | None:
        """Return type and shape of a value for one image of the card's input size; None if unknown."""
        if self._inferred is None:
            self._inferred = inferred_ports(self.model, self.entry.name, self.card.input.shape(1))
        return self._inferred.get(name)

    def _small_scores(self, extras: Extras) -> SmallScores | None:
        """Return the scores that the graph enlarges by itself to the size of the output; None if it does not."""
        graph = GraphScores(self.model.graph, self._port)
        if self.card.output.kind == "index":
            return graph.of_index(self.result.name, self.size)
        output = self.card.output
        enlarges = is_smaller(self.card, self.size) and output.enlarging == "bilinear"
        if not output.is_per_class or "P" in output.axes or enlarges:
            return None
        found = graph.of_scores(self.result.name, self.card.output.pixel_layout)
        # A Softmax of before opset 13 may be one over several axes.
        return None if found and found.softmax and extras and self.opset < SOFTMAX_OPSET else found

    def raw(self) -> bytes:
        """Return the bytes of a model from `uint8[1, H, W, 3]` RGB to the graph's own output as float32."""
        nodes = self._nodes("raw")
        nodes.rename(
            dequantised(nodes, nodes.cast(self.result.name, TensorProto.FLOAT), self._quantised), self._name("result")
        )
        return self._wrapped(1, nodes, [_value(self._name("result"), TensorProto.FLOAT, None)])

    def compiled(
        self, batch: int | None, *, masked: bool = False, extras: Extras = NOTHING, in_bands: bool = False
    ) -> bytes:
        """Return the bytes of a model from `uint8[N, H, W, 3]` RGB to `uint8[N, Ho, Wo]`, `float32[N]` and the extras.

        Args:
            batch: N; None for any. If it differs from the graph's own, the graph's intermediate shapes are removed,
                as they contradict N.
            masked: see `predict.Load`; for the outputs see `predict.Run`.
            in_bands: scores are enlarged as in `enlarging`, which suits CPUs; else by Resize.
        """
        number = batch or self._name("batch")
        # The runtime infers height and width of the masks; `predict` checks them.
        shapes = {"masks": (number, None, None), "check": (number,), "confidence": (number, None, None)}
        shapes["probabilities"] = (number, len(extras.probabilities), None, None)
        outputs = [
            _value(self._name(name), TensorProto.FLOAT if name == "check" else TensorProto.UINT8, shapes[name])
            for name in ("masks", "check", *extras.outputs)
        ]
        levels = quantised_result(self.card, self.model, self.result, numbers=bool(extras))
        small = self._small_scores(extras) if in_bands and not masked else None
        nodes = self._nodes("out")
        post = Postprocessing(self.card, self.result, self.size, levels, nodes, extras, in_bands, small)
        for name, value in post.outputs(masked).items():
            nodes.rename(value, self._name(name))
        return self._wrapped(batch, nodes, outputs)

    def _nodes(self, stem: str) -> Nodes:
        return Nodes(self._name(stem), self.opset)

    def _wrapped(self, batch: int | None, post: Nodes, outputs: Sequence[ValueInfoProto]) -> bytes:
        """Return the bytes of the model with preprocessing nodes, and with `post` after its own nodes."""
        model = ModelProto()
        model.CopyFrom(self.model)
        graph = model.graph
        if batch != 1 and self.fixed_batch:
            del graph.value_info[:]
        before = self._nodes("in")
        before.rename(self.before.added(before, self._name("images")), self.entry.name)
        # Of a graph whose own enlarging is replaced, onnxruntime would run the last nodes all the same.
        nodes, _ = needed_nodes([*before.all, *graph.node, *post.all], [item.name for item in outputs])
        del graph.node[:]
        graph.node.extend(nodes)
        others = [item for item in graph.input if item.name != self.entry.name]
        del graph.input[:]
        number = batch or self._name("batch")
        spec = self.card.input
        shape = (number, spec.height, spec.width, spec.planes)
        graph.input.append(_value(self._name("images"), TensorProto.UINT8, shape))
        graph.input.extend(others)
        del graph.output[:]
        graph.output.extend(outputs)
        return bytes(model.SerializeToString())

    def _name(self, stem: str) -> str:
        return f"{self._prefix}{stem}"

    def _remove_unused(self) -> None:
        """Remove the other outputs and the nodes that only they need, such as auxiliary heads."""
        graph = self.model.graph
        kept, needed = needed_nodes(graph.node, [self.result.name])
        if len(kept) < len(graph.node):
            kept = [_copied(node) for node in kept]
            del graph.node[:]
            graph.node.extend(kept)
        stored = stored_names(graph)
        for item in list(graph.input):
            if item.name == self.entry.name or item.name in stored:
                continue
            if item.name in needed:
                refuse(
                    self.card,
                    f"the graph also needs the input '{item.name}'; a session has only one input: the image",
                )
            graph.input.remove(item)
        for tensor in [tensor for tensor in graph.initializer if tensor.name == self.entry.name]:
            graph.initializer.remove(tensor)  # a default value of the image input


def _value(name: str, elem_type: int, shape: Sequence[str | int | None] | None) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, elem_type, shape)


def _copied(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy
