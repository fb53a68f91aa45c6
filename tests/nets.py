"""Small real ONNX graphs as strangers export them: any ports, any last operator, any metadata, no card."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

Sides = Sequence[int | str]


def net(
    *,
    inputs: Mapping[str, Sides] | None = None,
    outputs: Mapping[str, Sides] | None = None,
    classes: int = 4,
    tail: Sequence[NodeProto] = (),
    before: Sequence[NodeProto] = (),
    constants: Mapping[str, Any] | None = None,
    types: Mapping[str, int] | None = None,
    metadata: Mapping[str, str] | None = None,
    stride: int = 1,
    depth: int = 3,
    producer: str = "pytorch",
) -> bytes:
    """Return an ONNX model: a convolution from `x`, [1, 3, 24, 32], to scores of random weights, `y`.

    Args:
        inputs: shape by name; the first, or what `before` makes of it as `pixels`, goes into the convolution.
        outputs: shape by name; the first is the convolution's unless `tail` makes it from `scores`.
        classes: channels of the convolution.
        tail: nodes behind the convolution, which then gives `scores`.
        before: nodes before it, which give `pixels`.
        constants: arrays that the nodes read, by name.
        types: element types of ports; the others are float32.
        metadata: of the file.
        stride: of the convolution.
        depth: channels that it takes.
        producer: of the file.
    """
    inputs = inputs or {"x": [1, 3, 24, 32]}
    outputs = outputs or {"y": [1, classes, 24 // stride, 32 // stride]}
    types = types or {}
    first = "pixels" if before else next(iter(inputs))
    weights = np.random.default_rng(0).normal(size=(classes, depth, 1, 1)).astype(np.float32)
    last = "scores" if tail else next(iter(outputs))
    convolution = helper.make_node("Conv", [first, "kernel"], [last], kernel_shape=[1, 1], strides=[stride, stride])
    graph = helper.make_graph(
        [*before, convolution, *tail],
        "net",
        [
            helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), dims)
            for name, dims in inputs.items()
        ],
        [
            helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), dims)
            for name, dims in outputs.items()
        ],
        [
            numpy_helper.from_array(np.asarray(array), name)
            for name, array in {"kernel": weights, **(constants or {})}.items()
        ],
    )
    domains = {"", *(item.domain for item in [*before, *tail])}
    opsets = [helper.make_opsetid(domain, 17 if domain == "" else 1) for domain in sorted(domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name=producer)
    helper.set_model_props(model, dict(metadata or {}))
    return bytes(model.SerializeToString())


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    """Return a node; names of inputs and outputs are parted by blanks."""
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)
