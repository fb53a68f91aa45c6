"""Preprocessing of an openvino model: from bytes to its input."""

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino
from openvino import opset15 as ops
from openvino.preprocess import PrePostProcessor

from segment.models.card import ModelCard
from segment.models.sessions.luma import HALF, UNIT, WEIGHTS
from segment.models.sessions.openvino_ports import constant_of, to_port
from segment.models.sessions.ports import is_identity
from segment.models.sessions.quantised import Levels, Scales, common_scales, input_levels
from segment.models.weights import Weights

_REARRANGE = ("Transpose", "Reshape", "Convert", "Squeeze", "Unsqueeze")


def with_preprocessing(card: ModelCard, model: Any, levels: Levels | None) -> Any:
    """Add the card's preprocessing to a model: RGB bytes to the model's input; for `levels` see `input_levels`."""
    declared = card.input
    _keep_permutations(model)
    processor = PrePostProcessor(model)
    image = processor.input(0)
    dtype = openvino.Type.u8 if levels is None else model.inputs[0].get_element_type()
    image.tensor().set_element_type(dtype).set_layout(openvino.Layout("NHWC"))
    image.model().set_layout(openvino.Layout(declared.layout))
    if levels is None and not is_identity(card):
        steps = image.preprocess()
        steps.convert_element_type(openvino.Type.f32)
        steps.scale(255 / declared.maximum)
        steps.mean(list(declared.mean))
        steps.scale(list(declared.std))
    model = processor.build()
    if levels is not None:
        model = _fed(model, declared.depth, lambda images: _levels(images, levels))
    if declared.channels == "GREY":
        return _fed(model, 3, _luma)
    if declared.channels == "BGR":
        return _fed(model, 3, _reversed)
    return model


def _fed(model: Any, planes: int, made: Callable[[Any], Any]) -> Any:
    """Replace a model's input by what is made of `uint8[N, H, W, planes]`."""
    entry = model.inputs[0].get_node()
    shape = entry.get_partial_shape()
    shape[3] = planes
    images = ops.parameter(shape, openvino.Type.u8)
    entry.output(0).replace(made(images).output(0))
    return openvino.Model(model.get_results(), [images], "segment")


def _levels(images: Any, levels: Levels) -> Any:
    """Return the levels of pixels, which are in the card's order of channels."""
    rows = ops.constant(256 * np.arange(len(levels), dtype=np.int32))
    indices = ops.add(ops.convert(images, "i32"), rows)
    return ops.gather(ops.constant(levels.ravel()), indices, np.int64(0))


def _reversed(images: Any) -> Any:
    """Reverse the channels, at no cost: openvino fuses it into the convolutions behind."""
    return ops.gather(images, [2, 1, 0], np.int64(3))


def _keep_permutations(model: Any) -> None:
    """Rewrite a graph's own permutations of channels so that openvino does not fuse them (2026.4).

    Of several it drops some when it fuses one (`ReverseInputChannelsFusion`); one that is not its own inverse, such as
    a shuffle of features, it fuses in the wrong direction: classes or colours are interchanged without a word. It fuses
    a Gather by a list, and a Concat of the parts of one Split, but no Gather by a table.
    """
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        for body in _bodies(node):
            _keep_permutations(body)
        if kind == "Gather" and _lists(node):
            data, listed, axis = node.input_values()
            _replace(node, _by_table(data, listed, int(axis.get_node().data.item())))
        elif kind == "Concat" and (parts := _parts(node)):
            data, axis = parts[0].get_node().input_values()
            order = ops.constant(np.array([part.get_index() for part in parts], np.int64))
            _replace(node, _by_table(data, order.output(0), int(axis.get_node().data.item())))


def _bodies(node: Any) -> list[Any]:
    """Return the graphs within a node."""
    if node.get_type_name() == "If":
        return [node.get_function(0), node.get_function(1)]
    return [node.get_function()] if node.get_type_name() in ("Loop", "TensorIterator") else []


def kinds_of(node: Any) -> set[str]:
    """Return the types of a node and of those in the graphs within it."""
    inner = (kinds_of(each) for body in _bodies(node) for each in body.get_ops())
    return {node.get_type_name()}.union(*inner)


def _lists(node: Any) -> bool:
    """Whether a Gather takes more than one place by a list, of a value of two axes or more."""
    data, listed, axis = node.input_values()
    rank = data.get_partial_shape().rank
    places = listed.get_partial_shape()
    return bool(
        rank.is_static
        and rank.get_length() > 1
        and places.rank.is_static
        and places.rank.get_length() == 1
        and places != openvino.PartialShape([1])
        and constant_of(axis) is not None
        and not node.get_attributes().get("batch_dims", 0)
    )


def _parts(node: Any) -> list[Any]:
    """Return the inputs of a Concat along an axis on which one Split made all of them, a channel each; else none."""
    parts = list(node.input_values())
    splits = {part.get_node().get_name(): part.get_node() for part in parts}
    split = next(iter(splits.values()))
    if len(splits) != 1 or split.get_type_name() != "Split":
        return []
    axis = constant_of(split.input_value(1))
    shape = parts[0].get_partial_shape()
    if axis is None or shape.rank.is_dynamic:
        return []
    along, rank = int(axis.item()), shape.rank.get_length()
    is_along = along % rank == node.get_attributes()["axis"] % rank
    return parts if is_along and shape[along % rank] == 1 else []


def _by_table(data: Any, order: Any, axis: int) -> Any:
    along = ops.constant(np.array([axis % data.get_partial_shape().rank.get_length()], np.int64))
    table = ops.unsqueeze(order, [0])
    return ops.squeeze(ops.gather(data, table, np.int64(axis)), along)


def _replace(node: Any, other: Any) -> None:
    other.set_friendly_name(node.get_friendly_name())
    node.output(0).replace(other.output(0))


def _luma(images: Any) -> Any:
    """Return the luma of RGB, `uint8[N, H, W, 1]`."""
    weighted = ops.multiply(ops.convert(images, "i32"), WEIGHTS)
    luma = ops.reduce_sum(weighted, [3], keep_dims=True)
    luma = ops.add(luma, HALF)
    # The CPU plugin rounds a division of integers to the nearest, so subtract the remainder before. Integers stay exact
    # in bf16.
    luma = ops.subtract(luma, ops.floor_mod(luma, UNIT))
    return ops.convert(ops.divide(luma, UNIT), "u8")


def levels_of(card: ModelCard, weights: Weights, port: Any) -> Levels | None:
    """Return the levels of the pixel values for an input of a model; see `input_levels`.

    openvino reads the quantisation of TFLite as FakeQuantize from levels to numbers. That of ONNX it reads as
    arithmetic, of which it does not say whether it is the graph's own.

    Raises ModelError: as `input_levels`.
    """
    entry = to_port(port)
    if weights.format != "onnx":
        return input_levels(card, entry, input_scales(port))
    from segment.models.sessions import onnx_quantised
    from segment.models.sessions.onnxfile import Wiring, read_model

    return input_levels(card, entry, onnx_quantised.input_scales(Wiring(read_model(weights.graph).graph), entry.name))


def input_scales(port: Any) -> Scales | None:
    """Return scale and zero point of an input of a TFLite graph or IR: those of its FakeQuantize."""
    value = port.get_node().output(0)
    while len(readers := list(value.get_target_inputs())) == 1 and readers[0].get_node().get_type_name() in _REARRANGE:
        value = readers[0].get_node().output(0)
    return common_scales([_scales(reader.get_node()) for reader in readers])


def _scales(node: Any) -> Scales | None:
    if node.get_type_name() != "FakeQuantize":
        return None
    bounds = [constant_of(value) for value in node.input_values()[1:]]
    if any(bound is None for bound in bounds):
        return None
    lowest, highest, low, high = (np.asarray(bound, np.float64) for bound in bounds)
    scale, levels, numbers = np.broadcast_arrays((high - low) / (highest - lowest), lowest, low)
    return Scales(scale, np.rint(levels - numbers / scale))
