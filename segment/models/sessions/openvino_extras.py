"""Confidence and probabilities as nodes of an openvino model; see `Extras`."""

import math
from typing import Any

import numpy as np
from openvino import opset15 as ops

from segment.models.extra_options import Measure
from segment.models.sessions.extras import LEAST, LEVELS, Extras, ScoreKind


def extras_of_scores(extras: Extras, scores: Any, kind: ScoreKind, axis: int, classes: int) -> dict[str, Any]:
    """Return the extra outputs by name.

    Args:
        scores: one score per class, f32.
        kind: what the scores are.
        axis: of the classes, 1, 2 or 3.
    """
    probabilities = ops.softmax(scores, axis) if kind == "logits" else scores
    found = {}
    if extras.confidence is not None:
        found["confidence"] = _levels(_confidence(probabilities, extras.confidence, axis, classes))
    if extras.probabilities:
        # No Gather, which openvino may take for a reversal of the image's channels; see `openvino_preprocess`.
        chosen = ops.concat([_channel(probabilities, index, axis) for index in extras.probabilities], axis)
        if axis > 1:
            order = [0, axis, *(other for other in (1, 2, 3) if other != axis)]
            chosen = ops.transpose(chosen, ops.constant(np.array(order)))
        found["probabilities"] = _levels(chosen)
    return found


def extras_of_sigmoid(extras: Extras, scores: Any, axis: int, logit: bool) -> dict[str, Any]:
    """As `extras_of_scores`, of one score: of two classes, the first has what is left to 1.

    A logit z stands for the logits 0 and z.
    """
    slope, start = (ops.constant(np.float32(value)) for value in ((0, 0) if logit else (-1, 1)))
    both = ops.concat([ops.add(ops.multiply(scores, slope), start), scores], axis)
    return extras_of_scores(extras, both, "logits" if logit else "probabilities", axis, 2)


def _confidence(probabilities: Any, measure: Measure, axis: int, classes: int) -> Any:
    axes = ops.constant(np.array([axis]))
    if measure == "maximum":
        return ops.reduce_max(probabilities, axes, keep_dims=False)
    if measure == "margin":
        best = ops.topk(ops.clamp(probabilities, 0, 1), ops.constant(np.int64(2)), axis, "max", "value")
        first, second = (
            ops.gather(best.output(0), ops.constant(np.int64(n)), ops.constant(np.int64(axis))) for n in (0, 1)
        )
        return ops.subtract(first, second)
    clipped = ops.clamp(probabilities, LEAST, 1)
    total = ops.reduce_sum(ops.multiply(clipped, ops.log(clipped)), axes, keep_dims=False)
    return ops.add(ops.multiply(total, ops.constant(np.float32(1 / math.log(classes)))), ops.constant(np.float32(1)))


def _channel(values: Any, index: int, axis: int) -> Any:
    return ops.slice(values, *(ops.constant(np.array([number])) for number in (index, index + 1, 1, axis)))


def _levels(numbers: Any) -> Any:
    """Return numbers of 0 to 1 as bytes."""
    scaled = ops.multiply(ops.clamp(numbers, 0, 1), ops.constant(np.float32(LEVELS)))
    return ops.convert(ops.floor(ops.add(scaled, ops.constant(np.float32(0.5)))), "u8")
