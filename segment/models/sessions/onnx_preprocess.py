"""Preprocessing nodes of an ONNX graph: from bytes to its input."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper

from segment.models.card import ModelCard
from segment.models.sessions.chain import NodeChain
from segment.models.sessions.luma import HALF, UNIT, WEIGHTS
from segment.models.sessions.onnx_quantised import input_scales
from segment.models.sessions.ports import Port, is_identity
from segment.models.sessions.quantised_input import Levels, input_levels


class Preprocessing:
    """Builds the preprocessing nodes of one model.

    Args:
        card: the model's card.
        model: the model.
        entry: its input.

    Raises:
        ModelError: card and input do not match.
    """

    def __init__(self, card: ModelCard, model: ModelProto, entry: Port) -> None:
        self._card = card
        self._entry = entry
        self._levels = input_levels(card, entry, input_scales(model, entry.name))

    @property
    def levels(self) -> Levels | None:
        """Levels of the pixel values; see `input_levels`."""
        return self._levels

    def extend(self, chain: NodeChain) -> None:
        """Append the nodes from `uint8[N, H, W, 3]` RGB to the input; bytes are reordered before they become floats."""
        axis = 3
        if self._card.input.layout == "NCHW":
            chain.add("Transpose", perm=[0, 3, 1, 2])
            axis = 1
        if self._card.input.channels == "GREY":
            _add_luma(chain, axis)
        if self._card.input.channels == "BGR":
            chain.add("Gather", np.array([2, 1, 0], np.int64), axis=axis)
        by_channel = (-1, 1, 1) if axis == 1 else (-1,)
        if self._levels is not None:
            _quantise(chain, self._levels, by_channel)
        else:
            if not is_identity(self._card):
                chain.add("Cast", to=TensorProto.FLOAT)
                self._normalise(chain, by_channel)
            chain.add("Cast", to=helper.np_dtype_to_tensor_dtype(np.dtype(self._entry.dtype)))
        chain.finish(self._entry.name)

    def _normalise(self, chain: NodeChain, shape: tuple[int, ...]) -> None:
        declared = self._card.input
        if declared.maximum != 255:
            chain.add("Div", np.array(255 / declared.maximum, np.float32))
        if any(declared.mean):
            chain.add("Sub", np.array(declared.mean, np.float32).reshape(shape))
        if set(declared.std) != {1.0}:
            chain.add("Div", np.array(declared.std, np.float32).reshape(shape))


def _add_luma(chain: NodeChain, axis: int) -> None:
    """Append the nodes from RGB bytes to luma in int32; a sum over channels is faster if they come first."""
    if axis == 3:
        chain.add("Transpose", perm=[0, 3, 1, 2])
    chain.add("Cast", to=TensorProto.INT32)
    chain.add("Mul", WEIGHTS.reshape(3, 1, 1))
    chain.over_axes("ReduceSum", [1], since=13, keepdims=1)
    chain.add("Add", np.array(HALF))
    chain.add("Div", np.array(UNIT))
    if axis == 3:
        chain.add("Transpose", perm=[0, 2, 3, 1])


def _quantise(chain: NodeChain, levels: Levels, shape: tuple[int, ...]) -> None:
    """Append the nodes from pixel values to their levels, `[channels, 256]`."""
    chain.add("Cast", to=TensorProto.INT32)
    chain.add("Add", (256 * np.arange(len(levels), dtype=np.int32)).reshape(shape))
    chain.look_up(levels.ravel())
