"""Postprocessing of an openvino model: from its output to a mask, and a check value per image."""

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino
from openvino import opset15 as ops

from segment.models.card import ModelCard
from segment.models.sessions.enlarging import (
    BEYOND,
    LOWEST,
    SmallScores,
    enlarging_of,
    is_smaller,
    nearest_positions,
)
from segment.models.sessions.extras import FURTHEST, NOTHING, Extras, ScoreKind, has_range, threshold
from segment.models.sessions.openvino_enlarging import (
    best_class,
    best_of_enlarged,
    check_of_enlarged,
    enlarged_outputs,
    graph_scores,
    interpolated,
)
from segment.models.sessions.openvino_extras import extras_of_scores, extras_of_sigmoid
from segment.models.sessions.openvino_ports import dims_of, numpy_name
from segment.models.sessions.ports import Size, apart
from segment.models.sessions.predict import NOT_WHOLE
from segment.models.sessions.quantised import Quantised, quantised_output

# Operations that keep the values of class indices, and the types that represent every class index.
_KEEPS = {"Convert", "Identity", "Squeeze", "Unsqueeze", "Reshape", "Transpose"}
_INDEX_TYPES = {"u8", "i16", "u16", "i32", "u32", "i64", "u64", "f32"}

# With the hint f16 the plugin computes these nodes in half precision, too: a constant above 65504 would be infinite.
# bf16 has the range of f32.
_HALF_LOWEST, _HALF_BEYOND = -6e4, 6.5e4


def beyond(precision: str) -> float:
    """Return a number above the magnitude of any finite score."""
    return _HALF_BEYOND if precision == "f16" else BEYOND


def lowest(precision: str) -> float:
    """Return what replaces minus infinity before bilinear enlarging."""
    return _HALF_LOWEST if precision == "f16" else LOWEST


def postprocess(
    card: ModelCard, value: Any, size: Size | None, masked: bool, precision: str, extras: Extras = NOTHING
) -> list[Any]:
    """Return the masks `uint8[N, Ho, Wo]`, the check values `float32[N]` if the output needs a check, and the extras.

    Args:
        size: (height, width) of the output; None if unknown.
        masked: see `predict.Load`; for the check values see `predict.Run`.
        precision: of the session: `f32`, `bf16` or `f16`.
    """
    value = with_pixels(card, value)
    if card.output.kind == "index":
        return _postprocess_index(card, value, size, precision)
    if card.output.kind == "sigmoid":
        return _postprocess_sigmoid(card, value, size, precision, extras)
    return _postprocess_scores(card, value, size, masked, precision, extras)


def _postprocess_scores(
    card: ModelCard, value: Any, size: Size | None, masked: bool, precision: str, extras: Extras
) -> list[Any]:
    scores, axis = as_numbers(card, value), card.output.pixel_layout.index("C")
    enlarges = is_smaller(card, size) and card.output.enlarging == "bilinear"
    # Not where scores are minus infinity: their product with a weight of zero is NaN.
    graphs = None if enlarges or masked else graph_scores(_output(value), card.output.pixel_layout)
    kind: ScoreKind = "logits" if card.output.kind == "logits" or (graphs and graphs.softmax) else "probabilities"
    quantised = _quantised_value(card, value, numbers=True) if extras else None
    limit = beyond(precision)
    if masked:
        check = check_of_masked(scores, axis, limit)
    elif has_range(card, extras) and kind == "probabilities":
        check = check_of_probability(dequantised(scores, quantised), limit)
    else:
        check = finite_check(graphs.scores if graphs else value)

    def outputs(scores: Any, axis: int) -> list[Any]:
        found = extras_of_scores(extras, dequantised(scores, quantised), kind, axis, len(card.classes))
        return [best_class(scores, axis), *found.values()]

    if enlarges:
        scores = in_channels(card, scores)
        if masked:
            scores = ops.maximum(scores, ops.constant(np.float32(lowest(precision))))
        masks, *found = _of_enlarged(card, scores, size, outputs, precision)
    else:
        masks, *found = enlarged_outputs(graphs, outputs, precision) if graphs else outputs(scores, axis)
    return [_at_mask_size(card, masks, size), check, *(_at_mask_size(card, end, size) for end in found)]


def _of_enlarged(
    card: ModelCard, scores: Any, size: Size | None, outputs: Callable[[Any, int], list[Any]], precision: str
) -> list[Any]:
    """Return outputs of `[N, C, H, W]` scores, enlarged bilinearly from half-pixel centres."""
    target = card.output_height, card.output_width
    if size is not None and (enlarging := enlarging_of(size, target, "half_pixel")):
        return enlarged_outputs(SmallScores(_output(scores), enlarging), outputs, precision)
    return outputs(interpolated(scores, target), 1)


def with_pixels(card: ModelCard, value: Any) -> Any:
    """Return the model's output with height and width apart."""
    if "P" not in card.output.axes:
        return value
    return ops.reshape(value, ops.constant(np.array(apart(card))), special_zero=True).output(0)


def _at_mask_size(card: ModelCard, pixels: Any, size: Size | None) -> Any:
    """Enlarge pixels (the last two axes) to the mask's size, unless they have it: exactly Pillow's nearest."""
    if size is None or not is_smaller(card, size) or card.output.enlarging == "bilinear":
        return pixels
    targets = (card.output_height, card.output_width)
    for axis, (length, target) in enumerate(zip(size, targets, strict=True), -2):
        positions = ops.constant(nearest_positions(length, target))
        pixels = ops.gather(pixels, positions, ops.constant(np.int64(axis)))
    return pixels


def finite_check(scores: Any) -> Any:
    """Return the mean score per image: it is finite only if all scores are, while a sum could overflow."""
    checked = as_type(_before_enlarging(_output(scores)), openvino.Type.f32)
    return ops.reduce_mean(checked, ops.constant(np.array([1, 2, 3])), keep_dims=False)


def check_of_masked(scores: Any, axis: int, limit: float) -> Any:
    """Return a value per image that is non-zero if a score is NaN or the best score of a pixel is not finite."""
    best = ops.reduce_max(scores, ops.constant(np.array([axis])), keep_dims=False)
    # If all scores of a pixel are minus infinity, openvino's maximum is the lowest finite number.
    beyond = ops.logical_not(ops.less(ops.abs(best), ops.constant(np.float32(limit))))
    beyond = ops.reduce_max(as_type(beyond, openvino.Type.f32), ops.constant(np.array([1, 2])), keep_dims=False)
    unknown = as_type(ops.is_nan(scores), openvino.Type.f32)
    return ops.add(beyond, ops.reduce_max(unknown, ops.constant(np.array([1, 2, 3])), keep_dims=False))


def _before_enlarging(scores: Any) -> Any:
    """Return the scores before the graph's own bilinear enlarging: far fewer, and finite in the same images.

    An enlarged score is a convex mean of its neighbours, so it is finite if they are; every neighbour has a weight in
    some enlarged score.
    """
    node = scores.get_node()
    kind = node.get_type_name()
    if (
        kind == "Identity"
        or (kind == "Transpose" and _keeps_images(node))
        or (kind == "Interpolate" and _enlarges(node))
    ):
        return _before_enlarging(node.input_value(0))
    return scores


def _keeps_images(transpose: Any) -> bool:
    order = transpose.input_value(1).get_node()
    return bool(order.get_type_name() == "Constant" and order.data.flat[0] == 0)


def _enlarges(interpolate: Any) -> bool:
    how = interpolate.get_attributes()
    before, after = interpolate.input_value(0).get_partial_shape(), interpolate.output(0).get_partial_shape()
    if not how["mode"].startswith("linear") or any((*how["pads_begin"], *how["pads_end"])) or before.rank.is_dynamic:
        return False
    sizes = list(zip(before, after, strict=True))[1:]
    return all(old.is_static and new.is_static and old.get_length() <= new.get_length() for old, new in sizes)


def _postprocess_sigmoid(card: ModelCard, value: Any, size: Size | None, precision: str, extras: Extras) -> list[Any]:
    scores, limit = in_channels(card, as_numbers(card, value)), beyond(precision)
    check = check_of_probability(scores, limit) if has_range(card, extras) else finite_check(scores)

    def outputs(scores: Any, axis: int) -> list[Any]:
        above = ops.greater(scores, ops.constant(np.float32(threshold(card))))
        masks = as_type(ops.squeeze(above, ops.constant(np.array([axis]))), openvino.Type.u8)
        return [masks, *(extras_of_sigmoid(extras, scores, axis, card.output.logit) if extras else {}).values()]

    if is_smaller(card, size) and card.output.enlarging == "bilinear":
        masks, *found = _of_enlarged(card, scores, size, outputs, precision)
    else:
        masks, *found = (_at_mask_size(card, end, size) for end in outputs(scores, 1))
    return [masks, check, *found]


def in_channels(card: ModelCard, scores: Any) -> Any:
    """Transpose scores of the card's layout to `[N, C, H, W]`."""
    if card.output.pixel_layout in ("NHWC", "NHW1"):
        return ops.transpose(scores, ops.constant(np.array([0, 3, 1, 2])))
    return ops.unsqueeze(scores, ops.constant(np.array([1]))) if card.output.pixel_layout == "NHW" else scores


def check_of_probability(scores: Any, limit: float) -> Any:
    """Return a value per image: 1 if a number is beyond 0 to 1, else 0; not finite if a number is not."""
    mean = finite_check(scores)
    distance = ops.abs(ops.subtract(scores, ops.constant(np.float32(0.5))))
    beyond = as_type(ops.greater(distance, ops.constant(np.float32(FURTHEST))), openvino.Type.f32)
    beyond = ops.reduce_max(beyond, ops.constant(np.array([1, 2, 3])), keep_dims=False)
    return ops.select(ops.less(ops.abs(mean), ops.constant(np.float32(limit))), beyond, mean)


def _postprocess_index(card: ModelCard, index: Any, size: Size | None, precision: str) -> list[Any]:
    if "1" in card.output.pixel_layout:
        index = ops.squeeze(index, ops.constant(np.array([card.output.pixel_layout.index("1")])))
    small = _argmax_scores(index)
    masks = best_of_enlarged(small, lowest(precision), precision) if small else as_type(index, openvino.Type.u8)
    check = None if _is_argmax(index, len(card.classes)) else _check_of_index(card, index)
    if small:
        check = check_of_enlarged(small.scores, check, beyond(precision))
    masks = _at_mask_size(card, masks, size)
    return [masks] if check is None else [masks, check]


def _check_of_index(card: ModelCard, index: Any) -> Any:
    """Return a value per image: the number of pixels out of range, plus `NOT_WHOLE` if any is no whole number."""
    is_float = index.get_element_type().is_real()
    comparable = as_type(index, openvino.Type.f32 if is_float else openvino.Type.i64)
    zero, classes = (ops.constant(np.array(n, np.float32 if is_float else np.int64)) for n in (0, len(card.classes)))
    # NOT (index < C), as NaN fails every comparison.
    wrong = ops.logical_or(ops.logical_not(ops.less(comparable, classes)), ops.less(comparable, zero))
    axes = ops.constant(np.array([1, 2]))
    check = ops.reduce_sum(as_type(wrong, openvino.Type.f32), axes, keep_dims=False)
    if is_float:
        # False for NaN and infinity.
        fraction = as_type(ops.less(ops.floor(comparable), comparable), openvino.Type.f32)
        fraction = ops.reduce_max(fraction, axes, keep_dims=False)
        check = ops.add(check, ops.multiply(fraction, ops.constant(np.float32(NOT_WHOLE))))
    return check


def _best_index(index: Any) -> tuple[Any, set[str]]:
    """Return the node TopK that an index comes from (None if from another), and the types of nodes on the way."""
    source, passed = _output(index), set()
    while source.get_node().get_type_name() in _KEEPS and source.get_element_type().get_type_name() in _INDEX_TYPES:
        passed.add(source.get_node().get_type_name())
        source = source.get_node().input_value(0)
    is_index = source.get_node().get_type_name() == "TopK" and source.get_index() == 1
    return (source.get_node() if is_index else None), passed


def _is_argmax(index: Any, classes: int) -> bool:
    """Whether an index is the argmax of at most `classes` scores, so that it cannot be out of range."""
    best, _ = _best_index(index)
    scores = best and dims_of(best.input_value(0))
    return bool(scores and (scores[best.get_axis()] or classes + 1) <= classes)


def _argmax_scores(index: Any) -> SmallScores | None:
    """Return the scores that a graph enlarges before its argmax; None if it does not."""
    best, passed = _best_index(index)
    if best is None or "Transpose" in passed or best.get_attributes()["mode"] != "max":
        return None
    number = best.input_value(1).get_node()
    if number.get_type_name() != "Constant" or number.data.item() != 1:
        return None
    scores = best.input_value(0)
    layout = {1: "NCHW", 3: "NHWC"}.get(best.get_axis())
    found = graph_scores(scores, layout) if layout and len(dims_of(scores) or ()) == 4 else None
    return found if found and (dims_of(_output(index)) or ())[1:] == found.size else None


def as_numbers(card: ModelCard, value: Any, *, averaged: bool = False) -> Any:
    """Return the graph's output as f32: of a sigmoid in 8 bits the numbers that its levels mean.

    Args:
        averaged: scores per class in 8 bits become numbers, too.

    Raises:
        ModelError: as `quantised_output`.
    """
    return dequantised(as_type(value, openvino.Type.f32), _quantised_value(card, value, numbers=averaged))


def dequantised(numbers: Any, quantised: Quantised | None) -> Any:
    """Return the numbers that levels mean; None leaves them as they are."""
    if quantised is None:
        return numbers
    levels = ops.subtract(numbers, ops.constant(np.float32(quantised.zero_point)))
    return ops.multiply(levels, ops.constant(np.float32(quantised.scale)))


def _quantised_value(card: ModelCard, value: Any, *, numbers: bool = False) -> Quantised | None:
    """Read scale and zero point of the last FakeQuantize, as which openvino reads the quantisation of every format."""
    dtype = numpy_name(_output(value).get_element_type())
    if dtype not in ("uint8", "int8"):
        return quantised_output(card, dtype, None, numbers=numbers)
    node = _output(value).get_node()
    while node.get_type_name() in _KEEPS:
        node = node.input_value(0).get_node()
    bounds = [item.get_node() for item in node.input_values()[1:]]
    if node.get_type_name() != "FakeQuantize" or any(bound.get_type_name() != "Constant" for bound in bounds):
        return quantised_output(card, dtype, None, numbers=numbers)
    low, high, lowest, highest = (np.asarray(bound.data, np.float64).ravel() for bound in bounds)
    scale = float((high[0] - low[0]) / (highest[0] - lowest[0]))
    found = Quantised(scale, round(float(lowest[0] - low[0] / scale)))
    return quantised_output(card, dtype, found, is_per_axis=max(low.size, high.size) > 1, numbers=numbers)


def _output(value: Any) -> Any:
    return value if isinstance(value, openvino.Output) else value.output(0)


def as_type(value: Any, dtype: Any) -> Any:
    """Convert a value to a type; return it unchanged if it has the type."""
    return value if _output(value).get_element_type() == dtype else ops.convert(value, dtype.get_type_name())
