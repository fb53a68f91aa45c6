"""Bilinear enlarging as nodes of an openvino model; see `enlarging`."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import openvino
from openvino import opset15 as ops

from segment.models.sessions.enlarging import (
    CENTRES,
    Band,
    Centres,
    Enlarging,
    SmallScores,
    bands_of,
    class_axes,
    enlarging_of,
)
from segment.models.sessions.openvino_ports import dims_of
from segment.models.sessions.ports import Size
from segment.models.sessions.predict import NOT_FINITE

_MOST_WIDE = 1 << 22  # scores that are enlarged to the width alone, of which there are two copies: 32 MB


def enlarged_outputs(small: SmallScores, outputs: Callable[[Any, int], Sequence[Any]], precision: str) -> list[Any]:
    """Enlarge scores, and make outputs of them, a band of rows at a time.

    Args:
        outputs: of enlarged scores, and the axis of their classes: 1 or 2 of four; the last axes of outputs are rows
            and W.
        precision: of the session: `f32`, `bf16` or `f16`.
    """
    _, classes, rows, _ = (dim.get_length() if dim.is_static else 0 for dim in small.scores.get_partial_shape())
    # Not where the plugin rounds to bf16 or f16 what it transposes.
    at_once = precision == "f32" and classes * rows * small.size[1] <= _MOST_WIDE
    bands, axis = (_all_classes(small), 2) if at_once else (_class_by_class(small), 1)
    made = [outputs(scores, axis) for scores in bands]
    if len(made) == 1:
        return list(made[0])
    return [ops.concat(list(parts), -2) for parts in zip(*made, strict=True)]


def _all_classes(small: SmallScores) -> Iterator[Any]:
    """Yield bands of enlarged scores, `float32[N, rows, C, W]`.

    A band is one product, `[rows, h] @ [h, C * W]`: two thirds of the time of one for each class, and the same sums.
    """
    classes, width = small.scores.get_partial_shape()[1].get_length(), small.size[1]
    wide = ops.matmul(ops.constant(small.enlarging.columns), small.scores, False, True)  # [N, C, W, h]
    wide = _shaped(ops.transpose(wide, ops.constant(np.array([0, 3, 1, 2]))), 0, 0, classes * width)
    for band in bands_of(small.enlarging, classes):
        scores = ops.matmul(ops.constant(band.rows), _rows(wide, band, 1), False, False)
        yield _shaped(_applied(small.after, scores), 0, 0, classes, width)


def _class_by_class(small: SmallScores) -> Iterator[Any]:
    """Yield bands of enlarged scores, `float32[N, C, rows, W]`."""
    # The constants come first: so the plugin computes in f32 where the precision of the model is bf16. It would take a
    # product whose second operand is constant for a fully connected layer, and compute it in bf16.
    columns = ops.constant(small.enlarging.columns)
    classes = small.scores.get_partial_shape()[1].get_length()
    for band in bands_of(small.enlarging, classes):
        wide = ops.matmul(columns, _rows(small.scores, band, 2), False, True)
        yield _applied(small.after, ops.matmul(ops.constant(band.rows), wide, False, True))


def _applied(steps: Sequence[Callable[[Any], Any]], scores: Any) -> Any:
    for step in steps:
        scores = step(scores)
    return scores


def interpolated(value: Any, size: Size, centres: Centres = "half_pixel", axes: Sequence[int] = (2, 3)) -> Any:
    """Resize two axes of a value bilinearly to (height, width)."""
    return ops.interpolate(
        value,
        ops.constant(np.array(size)),
        "linear_onnx",
        "sizes",
        coordinate_transformation_mode=centres,
        axes=ops.constant(np.array(axes)),
    )


def best_class(scores: Any, axis: int) -> Any:
    """Return the index of the highest score as bytes; of equal ones, the first."""
    best = ops.topk(scores, ops.constant(np.int64(1)), axis, "max", "value", index_element_type="i32", stable=True)
    return ops.convert(ops.squeeze(best.output(1), ops.constant(np.array([axis]))), "u8")


def best_of_enlarged(small: SmallScores, lowest: float, precision: str) -> Any:
    """Return the class of the highest enlarged score as bytes; minus infinity becomes `lowest`."""
    finite = ops.maximum(small.scores, ops.constant(np.float32(lowest))).output(0)
    of_finite = small._replace(scores=finite)
    (masks,) = enlarged_outputs(of_finite, lambda scores, axis: [best_class(scores, axis)], precision)
    return masks


def check_of_enlarged(scores: Any, check: Any, limit: float) -> Any:
    """Return the check value of each image, 0 if `check` is None; `NOT_FINITE` where a score is NaN or infinity."""
    finite = ops.convert(ops.less(scores, ops.constant(np.float32(limit))), "f32")  # 0 for NaN
    finite = ops.greater(
        ops.reduce_min(finite, ops.constant(np.array([1, 2, 3])), keep_dims=False), ops.constant(np.float32(0.5))
    )
    others = ops.constant(np.float32(0)) if check is None else check
    return ops.select(finite, others, ops.constant(np.float32(NOT_FINITE)))


def graph_scores(value: Any, layout: str) -> SmallScores | None:
    """Return the scores that a graph enlarges by itself, just before its output; None if it does not.

    Args:
        value: one score per class: the graph's output, or what its argmax takes.
        layout: of the value, `NCHW` or `NHWC`.
    """
    after: list[Callable[[Any], Any]] = []
    softmax = False
    node = value.get_node()
    while (kind := node.get_type_name()) != "Interpolate":
        if kind == "Transpose" and (found := _constant(node, 1)) is not None and found.size == len(layout):
            order = found.ravel().tolist()
            layout = "".join(layout[order.index(axis)] for axis in range(len(order)))
        elif kind == "Softmax" and not softmax and not after and node.get_attributes()["axis"] in class_axes(layout):
            softmax = True  # it keeps the order of a pixel's scores
        elif kind == "FakeQuantize" and (step := _quantising(node)):
            after.insert(0, step)
        elif kind == "Round":
            after.insert(0, partial(ops.round, mode=node.get_attributes()["mode"]))
        elif not (kind == "Convert" and node.get_element_type().is_real()) and kind != "Identity":
            return None
        if kind == "Convert" and not node.input(0).get_element_type().is_real():
            return None
        node = node.input_value(0).get_node()
    scores, enlarging = node.input_value(0), _enlarging(node, layout)
    if enlarging is None or layout[0] != "N" or not scores.get_element_type().is_real():  # of integers it rounds
        return None
    if scores.get_element_type() != openvino.Type.f32:
        scores = ops.convert(scores, "f32").output(0)
    order = [layout.index(axis) for axis in "NCHW"]
    if order != [0, 1, 2, 3]:
        scores = ops.transpose(scores, ops.constant(np.array(order))).output(0)
    return SmallScores(scores, enlarging, softmax, tuple(after))


def _rows(scores: Any, band: Band, axis: int) -> Any:
    """Return the small rows that a band is made of."""
    numbers = (ops.constant(np.array([number], np.int64)) for number in (band.start, band.stop, 1, axis))
    return ops.slice(scores, *numbers)


def _shaped(value: Any, *dims: int) -> Any:
    """Give a value other axes; 0 keeps that of the same place."""
    return ops.reshape(value, ops.constant(np.array(dims, np.int64)), True)


def _constant(node: Any, number: int) -> Any:
    """Return an operand if it is constant, else None."""
    source = node.input_value(number).get_node()
    return source.data if source.get_type_name() == "Constant" else None


def _quantising(node: Any) -> Callable[[Any], Any] | None:
    """Return a FakeQuantize of other values; None if its bounds are not one for all."""
    bounds = [_constant(node, number) for number in range(1, 5)]
    if any(bound is None or bound.size != 1 for bound in bounds):
        return None
    levels = node.get_attributes()["levels"]
    constants = [np.float32(bound.ravel()[0]) for bound in bounds]
    return lambda scores: ops.fake_quantize(scores, *(ops.constant(number) for number in constants), levels)


def _enlarging(node: Any, layout: str) -> Enlarging | None:
    """Return how an Interpolate enlarges; None if it does something else to any axis, or not bilinearly."""
    how = node.get_attributes()
    before, after = dims_of(node.input_value(0)), dims_of(node.output(0))
    # That of opset 1 has no modes, only `align_corners`.
    centres = how.get("coordinate_transformation_mode", "align_corners" if how.get("align_corners") else "")
    if centres not in CENTRES or not how["mode"].startswith("linear") or how["antialias"] or any(_pads(how)):
        return None
    if before is None or after is None or len(before) != 4 or None in (*before[1:], *after[1:]):
        return None
    height, width, channels = (layout.index(axis) for axis in "HWC")
    if before[channels] != after[channels]:
        return None
    scales = None
    if how.get("shape_calculation_mode") == "scales":
        if (found := _scales(node, (height, width))) is None:
            return None
        scales = found
    size, target = ((int(dims[height] or 0), int(dims[width] or 0)) for dims in (before, after))
    return enlarging_of(size, target, centres, scales)


def _pads(how: dict[str, Any]) -> list[int]:
    return [*how["pads_begin"], *how["pads_end"]]


def _scales(node: Any, axes: tuple[int, int]) -> tuple[float, float] | None:
    """Return the scales of two axes; None if they are not constant."""
    first = 2 if node.get_type_info().version_id == "opset4" else 1  # that of opset 4 has sizes before the scales
    scales = _constant(node, first)
    listed = _constant(node, first + 1) if len(node.inputs()) > first + 1 else np.arange(4)
    if scales is None or listed is None:
        return None
    found = dict(zip((int(axis) % 4 for axis in listed), map(float, scales.ravel()), strict=True))
    return found.get(axes[0], 1.0), found.get(axes[1], 1.0)
