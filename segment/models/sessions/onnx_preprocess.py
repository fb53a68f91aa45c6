"""Preprocessing nodes of an ONNX graph: from bytes to its input."""

import numpy as np
from onnx import ModelProto, TensorProto, helper

from segment.models.card import ModelCard
from segment.models.sessions.luma import HALF, UNIT, WEIGHTS
from segment.models.sessions.onnx_nodes import Nodes
from segment.models.sessions.onnx_quantised import input_scales
from segment.models.sessions.onnxfile import Wiring
from segment.models.sessions.ports import Port, is_identity
from segment.models.sessions.quantised import Levels, input_levels


class Preprocessing:
    """Builds the preprocessing nodes of one model. Raises ModelError: card and input do not match."""

    def __init__(self, card: ModelCard, model: ModelProto, entry: Port) -> None:
        self._card = card
        self._entry = entry
        self.levels = input_levels(card, entry, input_scales(Wiring(model.graph), entry.name))

    def added(self, nodes: Nodes, images: str) -> str:
        """Append the nodes from `uint8[N, H, W, 3]` RGB to the input; bytes are reordered before they become floats."""
        declared, value, axis = self._card.input, images, 3
        if declared.layout == "NCHW":
            value, axis = nodes.add("Transpose", value, perm=[0, 3, 1, 2]), 1
        if declared.channels == "GREY":
            value = _luma(nodes, value, axis)
        if declared.channels == "BGR":
            value = nodes.add("Gather", value, np.array([2, 1, 0], np.int64), axis=axis)
        by_channel = (-1, 1, 1) if axis == 1 else (-1,)
        if self.levels is not None:
            return _quantised(nodes, value, self.levels, by_channel)
        if not is_identity(self._card):
            value = self._normalised(nodes, nodes.cast(value, TensorProto.FLOAT), by_channel)
        return nodes.cast(value, helper.np_dtype_to_tensor_dtype(np.dtype(self._entry.dtype)))

    def _normalised(self, nodes: Nodes, value: str, shape: tuple[int, ...]) -> str:
        declared = self._card.input
        if declared.maximum != 255:
            value = nodes.add("Div", value, np.array(255 / declared.maximum, np.float32))
        if any(declared.mean):
            value = nodes.add("Sub", value, np.array(declared.mean, np.float32).reshape(shape))
        if set(declared.std) != {1.0}:
            value = nodes.add("Div", value, np.array(declared.std, np.float32).reshape(shape))
        return value


def _luma(nodes: Nodes, value: str, axis: int) -> str:
    """Append the nodes from RGB bytes to luma in int32; a sum over channels is faster if they come first."""
    if axis == 3:
        value = nodes.add("Transpose", value, perm=[0, 3, 1, 2])
    value = nodes.add("Mul", nodes.cast(value, TensorProto.INT32), WEIGHTS.reshape(3, 1, 1))
    value = nodes.over_axes("ReduceSum", value, [1], since=13, keepdims=1)
    value = nodes.add("Div", nodes.add("Add", value, np.array(HALF)), np.array(UNIT))
    return nodes.add("Transpose", value, perm=[0, 2, 3, 1]) if axis == 3 else value


def _quantised(nodes: Nodes, value: str, levels: Levels, shape: tuple[int, ...]) -> str:
    """Append the nodes from pixel values to their levels, `[channels, 256]`."""
    rows = (256 * np.arange(len(levels), dtype=np.int32)).reshape(shape)
    indices = nodes.add("Add", nodes.cast(value, TensorProto.INT32), rows)
    return nodes.add("Gather", levels.ravel(), indices)
