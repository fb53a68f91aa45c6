"""Preprocessing of an openvino model: from bytes to its input."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset15 as ops
from openvino.preprocess import PrePostProcessor

from segment.models.card import ModelCard
from segment.models.sessions.luma import HALF, UNIT, WEIGHTS
from segment.models.sessions.openvino_ports import to_port
from segment.models.sessions.ports import is_identity
from segment.models.sessions.quantised_input import Levels, Scales, input_levels
from segment.models.weights import Weights

_REARRANGE = ("Transpose", "Reshape", "Convert", "Squeeze", "Unsqueeze")


def with_preprocessing(card: ModelCard, model: Any, levels: Levels | None) -> Any:
    """Add the card's preprocessing to a model: RGB bytes to the model's input; for `levels` see `input_levels`."""
    declared = card.input
    processor = PrePostProcessor(model)
    image = processor.input(0)
    dtype = openvino.Type.u8 if levels is None else model.inputs[0].get_element_type()
    image.tensor().set_element_type(dtype).set_layout(openvino.Layout("NHWC"))
    image.model().set_layout(openvino.Layout(declared.layout))
    steps = image.preprocess()
    if declared.channels == "BGR":
        steps.reverse_channels()
    if levels is None and not is_identity(card):
        steps.convert_element_type(openvino.Type.f32)
        steps.scale(255 / declared.maximum)
        steps.mean(list(declared.mean))
        steps.scale(list(declared.std))
    model = processor.build()
    if levels is not None:
        model = _with_levels(model, levels[::-1] if declared.channels == "BGR" else levels)
    return _with_luma(model) if declared.channels == "GREY" else model


def _with_levels(model: Any, levels: Levels) -> Any:
    """Replace a model's input, levels `[N, H, W, C]`, by pixels `uint8[N, H, W, C]`."""
    entry = model.inputs[0].get_node()
    images = ops.parameter(entry.get_partial_shape(), openvino.Type.u8)
    rows = ops.constant(256 * np.arange(len(levels), dtype=np.int32))
    indices = ops.add(ops.convert(images, "i32"), rows)
    found = ops.gather(ops.constant(levels.ravel()), indices, ops.constant(np.int64(0)))
    entry.output(0).replace(found.output(0))
    return openvino.Model(model.get_results(), [images], "segment")


def _with_luma(model: Any) -> Any:
    """Replace a model's input, `uint8[N, H, W, 1]`, by the luma of `uint8[N, H, W, 3]`."""
    grey = model.inputs[0].get_node()
    shape = grey.get_partial_shape()
    shape[3] = 3
    images = ops.parameter(shape, openvino.Type.u8)
    weighted = ops.multiply(ops.convert(images, "i32"), ops.constant(WEIGHTS))
    luma = ops.reduce_sum(weighted, ops.constant(np.array([3])), keep_dims=True)
    luma = ops.add(luma, ops.constant(HALF))
    # The CPU plugin rounds a division of integers to the nearest, so subtract the remainder before. Integers stay exact
    # in bf16.
    luma = ops.subtract(luma, ops.floor_mod(luma, ops.constant(UNIT)))
    luma = ops.divide(luma, ops.constant(UNIT))
    grey.output(0).replace(ops.convert(luma, "u8").output(0))
    return openvino.Model(model.get_results(), [images], "segment")


def levels_of(card: ModelCard, weights: Weights, port: Any) -> Levels | None:
    """Return the levels of the pixel values for an input of a model; see `input_levels`.

    openvino reads the quantisation of TFLite as FakeQuantize from levels to numbers. That of ONNX it reads as
    arithmetic, of which it does not say whether it is the graph's own.

    Raises:
        ModelError: as `input_levels`.
    """
    entry = to_port(port)
    if weights.format != "onnx":
        return input_levels(card, entry, input_scales(port))
    from segment.models.sessions import onnx_quantised
    from segment.models.sessions.onnxfile import read_model

    return input_levels(card, entry, onnx_quantised.input_scales(read_model(weights.graph), entry.name))


def input_scales(port: Any) -> Scales | None:
    """Return scale and zero point of an input of a TFLite graph or IR: those of its FakeQuantize."""
    value = port.get_node().output(0)
    while len(readers := list(value.get_target_inputs())) == 1 and readers[0].get_node().get_type_name() in _REARRANGE:
        value = readers[0].get_node().output(0)
    found = [_scales(reader.get_node()) for reader in readers]
    first = found[0] if found else None
    same = first and all(other and all(map(np.array_equal, first, other)) for other in found)
    return first if same else None


def _scales(node: Any) -> Scales | None:
    if node.get_type_name() != "FakeQuantize":
        return None
    lowest, highest, low, high = (_constant(value) for value in node.input_values()[1:])
    if lowest is None or highest is None or low is None or high is None:
        return None
    scale, levels, numbers = np.broadcast_arrays((high - low) / (highest - lowest), lowest, low)
    return Scales(scale, np.rint(levels - numbers / scale))


def _constant(value: Any) -> NDArray[np.float64] | None:
    """Return a constant as `float64[size]`, or None if the graph computes it."""
    node = value.get_node()
    return np.asarray(node.data, np.float64).ravel() if node.get_type_name() == "Constant" else None
