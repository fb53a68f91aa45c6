"""A small writer of ONNX graphs with seeded weights, layer by layer; numpy and onnx only."""

from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 18, 10


class Value(NamedTuple):
    """A tensor of the graph, NCHW: its name, and its channels, height and width."""

    name: str
    channels: int
    height: int
    width: int


class Layers:
    """Writes a graph. Every method adds a layer and returns its output.

    Random deep networks saturate, or turn rounding into noise. Here channels come in pairs, of which one mirrors the
    other through every ReLU ('looks linear', Balduzzi et al., arXiv 1702.08591, section 4), so that scores follow the
    picture; and filters blur over their window, so that masks are as smooth as real ones. Neither makes a runtime
    faster or slower: weights are dense, and as many as published.

    Args:
        seed: of all weights.
        zeros: share of each convolution's weights, the smallest, that is 0.
    """

    def __init__(self, seed: int, zeros: float = 0.0) -> None:
        self._generator = np.random.default_rng(seed)
        self._zeros = zeros
        self.nodes: list[NodeProto] = []
        self.stored: list[TensorProto] = []

    def conv(
        self,
        x: Value,
        channels: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        dilation: int = 1,
        depthwise: bool = False,
        act: str | None = "Relu",
        gain: float = 1.0,
    ) -> Value:
        """Convolution with 'same' padding and bias, and an activation: `Relu`, `Relu6` or None."""
        groups = channels if depthwise else 1
        weights = self._weights(channels, x.channels // groups, kernel, gain)
        pad = dilation * (kernel - 1) // 2
        name = self._add(
            "Conv",
            x.name,
            self._store(weights),
            self._store(self._bias(channels)),
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            dilations=[dilation] * 2,
            pads=[pad] * 4,
            group=groups,
        )
        made = Value(name, channels, -(-x.height // stride), -(-x.width // stride))
        return made if act is None else self.act(made, act)

    def transposed(self, x: Value, channels: int) -> Value:
        """Transposed convolution 2x2 with stride 2 and bias: twice the height and width."""
        weights = self._weights(channels, x.channels, 1, gain=1.0)
        taps = np.repeat(np.repeat(weights, 2, axis=2), 2, axis=3).transpose(1, 0, 2, 3)
        stored = self._store(np.ascontiguousarray(taps)), self._store(self._bias(channels))
        name = self._add("ConvTranspose", x.name, *stored, kernel_shape=[2, 2], strides=[2, 2])
        return Value(name, channels, x.height * 2, x.width * 2)

    def act(self, x: Value, kind: str = "Relu") -> Value:
        """Activation."""
        if kind == "Relu6":
            bounds = [self._store(np.array(bound, np.float32)) for bound in (0, 6)]
            return x._replace(name=self._add("Clip", x.name, *bounds))
        return x._replace(name=self._add(kind, x.name))

    def add(self, x: Value, y: Value) -> Value:
        """Sum."""
        return x._replace(name=self._add("Add", x.name, y.name))

    def concat(self, *values: Value) -> Value:
        """Channels one after the other."""
        name = self._add("Concat", *(value.name for value in values), axis=1)
        return values[0]._replace(name=name, channels=sum(value.channels for value in values))

    def max_pool(self, x: Value, kernel: int, stride: int, pad: int = 0) -> Value:
        """Maximum over windows."""
        name = self._add("MaxPool", x.name, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4)
        size = [(edge + 2 * pad - kernel) // stride + 1 for edge in (x.height, x.width)]
        return Value(name, x.channels, *size)

    def mean_pool(self, x: Value, bins: int) -> Value:
        """Mean over `bins` x `bins` windows that cover the picture."""
        strides = [edge // bins for edge in (x.height, x.width)]
        kernel = [edge - (bins - 1) * stride for edge, stride in zip((x.height, x.width), strides, strict=True)]
        name = self._add("AveragePool", x.name, kernel_shape=kernel, strides=strides)
        return Value(name, x.channels, bins, bins)

    def resize(self, x: Value, height: int, width: int, corners: bool = False) -> Value:
        """Bilinear, pixel centres (or, as TensorFlow 1 had it, corners) aligned."""
        if (x.height, x.width) == (height, width):
            return x
        # all four sizes, which fixes the batch at 1: onnxruntime 1.31 loses `axes` when it optimises quantised graphs
        sizes = self._store(np.array([1, x.channels, height, width], np.int64))
        how = "align_corners" if corners else "half_pixel"
        name = self._add("Resize", x.name, "", "", sizes, mode="linear", coordinate_transformation_mode=how)
        return Value(name, x.channels, height, width)

    def less(self, x: Value, means: tuple[float, ...]) -> Value:
        """Subtract a mean from each channel."""
        stored = self._store(np.array(means, np.float32).reshape(-1, 1, 1))
        return x._replace(name=self._add("Sub", x.name, stored))

    def op(self, kind: str, x: Value, **attributes: Any) -> Value:
        """Any other operation of one input; the caller knows its shape."""
        return x._replace(name=self._add(kind, x.name, **attributes))

    def model(self, given: tuple[str, list[int]], x: Value, made: tuple[str, int, list[int]]) -> ModelProto:
        """Finish: `given` is the input's name and shape, `made` the output's name, type and shape."""
        name, dtype, shape = made
        self.nodes[-1].output[0] = name
        assert x.name in (name, self._name(len(self.nodes) - 1)), "the last layer is the output"
        graph = helper.make_graph(
            self.nodes,
            "reference",
            [helper.make_tensor_value_info(given[0], TensorProto.FLOAT, given[1])],
            [helper.make_tensor_value_info(name, dtype, shape)],
            self.stored,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        return model

    def _weights(self, channels: int, given: int, kernel: int, gain: float) -> NDArray[np.float32]:
        """`float32[channels, given, kernel, kernel]`; `given` is 1 for a depthwise convolution."""
        rows, columns = -(-channels // 2), max(1, given // 2) if given % 2 == 0 else given
        mix = self._generator.standard_normal((rows, columns, 1, 1), dtype=np.float32)
        weights = (np.ones_like(mix) if given == 1 else mix) * _blur(kernel)
        weights *= self._generator.uniform(0.5, 1.5, weights.shape).astype(np.float32)
        if self._zeros:
            weights[np.abs(weights) < np.quantile(np.abs(weights), self._zeros)] = 0
        # what channels that are even over the window add up to
        norms = np.sqrt((weights.sum(axis=(2, 3), keepdims=True) ** 2).sum(axis=1, keepdims=True))
        weights *= gain / np.maximum(norms, 1e-6)
        if given == 1:
            return np.repeat(weights, 2, axis=0)[:channels]
        if given % 2 == 0:
            weights = np.stack([weights, -weights], axis=2).reshape(rows, given, kernel, kernel)
        return np.stack([weights, -weights], axis=1).reshape(2 * rows, given, kernel, kernel)[:channels]

    def _bias(self, channels: int) -> NDArray[np.float32]:
        bias = 0.1 * self._generator.standard_normal(-(-channels // 2), dtype=np.float32)
        return np.stack([bias, -bias], axis=1).ravel()[:channels]

    def _name(self, number: int) -> str:
        return f"v{number}"

    def _store(self, array: NDArray[Any]) -> str:
        name = f"w{len(self.stored)}"
        self.stored.append(numpy_helper.from_array(array, name))
        return name

    def _add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = self._name(len(self.nodes))
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=f"{kind}_{len(self.nodes)}", **attributes))
        return name


def _blur(kernel: int) -> NDArray[np.float32]:
    line = np.array({1: [1], 3: [1, 2, 1]}[kernel], np.float32)
    return np.outer(line, line)


class Cost(NamedTuple):
    """What a graph costs.

    Attributes:
        parameters: stored numbers that are not shapes, scales or zero points: weights and biases.
        flops: 2 x multiply-adds of convolutions, of one picture.
        zeros: share of convolution weights that are 0.
    """

    parameters: int
    flops: int
    zeros: float


def cost(model: ModelProto) -> Cost:
    """Count parameters and operations of a floating-point graph, by shape inference.

    A multiply-add is two operations, and only convolutions count. Open Model Zoo's tool counts additions, pooling and
    softmax as well: of `unet-camvid-onnx-0001` 260.1 against 259.9 GFLOPs by this count of its published IR.
    """
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    shapes = {
        item.name: [dim.dim_value for dim in item.type.tensor_type.shape.dim]
        for item in (*graph.input, *graph.value_info, *graph.output)
    }
    stored = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    flops = zeros = weights = 0
    for node in graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            taps = stored[node.input[1]]
            places = shapes[node.output[0] if node.op_type == "Conv" else node.input[0]]
            flops += 2 * taps.size * places[2] * places[3]
            weights += taps.size
            zeros += int((taps == 0).sum())
    parameters = sum(array.size for array in stored.values() if array.dtype == np.float32 and array.ndim in (1, 4))
    return Cost(parameters, flops, zeros / weights)
