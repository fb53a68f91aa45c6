"""Scale and zero point of an 8-bit output of an ONNX graph."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from segment.models.card import ModelCard
from segment.models.sessions.ports import Port
from segment.models.sessions.quantised import Quantised, quantised_output

# Operators that keep levels as they are.
_REARRANGE = ("Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten")


def quantised_result(card: ModelCard, model: ModelProto, result: Port, *, numbers: bool = False) -> Quantised | None:
    """Return how the levels of an output become numbers; see `quantised_output`.

    Raises:
        ModelError: as `quantised_output`.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    node = makers.get(result.name)
    while node is not None and node.op_type in _REARRANGE:
        node = makers.get(node.input[0])
    if node is None or node.op_type != "QuantizeLinear":
        return quantised_output(card, result.dtype, None, numbers=numbers)
    scale = _stored(model, node.input[1])
    zero_point = _stored(model, node.input[2]) if len(node.input) > 2 else np.zeros(1)
    if scale is None or zero_point is None:
        return quantised_output(card, result.dtype, None, numbers=numbers)
    found = Quantised(float(scale.flat[0]), float(zero_point.flat[0]))
    return quantised_output(card, result.dtype, found, is_per_axis=scale.size > 1, numbers=numbers)


def _stored(model: ModelProto, name: str) -> NDArray[np.float64] | None:
    """Return a constant as `float64`, or None if the graph computes it."""
    if not name:
        return np.zeros(1)  # an omitted zero point
    for tensor in model.graph.initializer:
        if tensor.name == name:
            return np.asarray(numpy_helper.to_array(tensor), np.float64)
    for node in model.graph.node:
        if node.op_type == "Constant" and name in node.output and node.attribute[0].name == "value":
            return np.asarray(numpy_helper.to_array(node.attribute[0].t), np.float64)
    return None
