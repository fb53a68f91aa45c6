"""Scale and zero point of 8-bit inputs and outputs of an ONNX graph."""

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from segment.models.card import ModelCard
from segment.models.sessions.onnxfile import Wiring
from segment.models.sessions.ports import Port
from segment.models.sessions.quantised import Quantised, Scales, common_scales, quantised_output

# Operators that keep levels as they are.
_REARRANGE = ("Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten")


def quantised_result(card: ModelCard, model: ModelProto, result: Port, *, numbers: bool = False) -> Quantised | None:
    """Return how the levels of an output become numbers; see `quantised_output`.

    Raises ModelError: as `quantised_output`.
    """
    wiring = Wiring(model.graph)
    node = wiring.makers.get(result.name)
    while node is not None and node.op_type in _REARRANGE:
        node = wiring.makers.get(node.input[0])
    if node is None or node.op_type != "QuantizeLinear":
        return quantised_output(card, result.dtype, None, numbers=numbers)
    scale = _stored(wiring, node.input[1])
    zero_point = _stored(wiring, node.input[2]) if len(node.input) > 2 else np.zeros(1)
    if scale is None or zero_point is None:
        return quantised_output(card, result.dtype, None, numbers=numbers)
    found = Quantised(float(scale.flat[0]), float(zero_point.flat[0]))
    return quantised_output(card, result.dtype, found, is_per_axis=scale.size > 1, numbers=numbers)


def input_scales(wiring: Wiring, name: str) -> Scales | None:
    """Return scale and zero point of an input: those of the nodes that read its levels; None if they differ.

    These are DequantizeLinear, and QLinearConv with its like, whose scale and zero point follow the input, too.
    """
    while len(readers := wiring.readers[name]) == 1 and readers[0].op_type in _REARRANGE:
        name = readers[0].output[0]
    return common_scales([_scales(wiring, node) if node.input[0] == name else None for node in readers])


def _scales(wiring: Wiring, node: NodeProto) -> Scales | None:
    if node.op_type != "DequantizeLinear" and not node.op_type.startswith("QLinear"):
        return None
    scale = _stored(wiring, node.input[1])
    zero_point = _stored(wiring, node.input[2] if len(node.input) > 2 else "")
    if scale is None or zero_point is None:
        return None
    scale, zero_point = np.broadcast_arrays(scale.ravel(), zero_point.ravel())
    return Scales(scale, zero_point)


def _stored(wiring: Wiring, name: str) -> NDArray[np.float64] | None:
    """Return a constant as `float64`, or None if the graph computes it."""
    found = wiring.constant(name) if name else np.zeros(1)  # an omitted zero point
    return None if found is None else found.astype(np.float64)
