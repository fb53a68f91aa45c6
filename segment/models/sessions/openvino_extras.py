"""Confidence and probabilities as nodes of an openvino model; see `Extras`."""

from __future__ import annotations

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
        axis: of the classes, 1 or 3.
    """
    probabilities = ops.softmax(scores, axis) if kind == "logits" else scores
    found = {}
    if extras.confidence is not None:
        found["confidence"] = _levels(_confidence(probabilities, extras.confidence, axis, classes))
    if extras.probabilities:
        # No Gather, which openvino may take for a reversal of the image's channels; see `openvino_preprocess`.
        chosen = [ops.slice(probabilities, [index], [index + 1], [1], [axis]) for index in extras.probabilities]
        chosen = ops.concat(chosen, axis)
        if axis == 3:
            chosen = ops.transpose(chosen, [0, 3, 1, 2])
        found["probabilities"] = _levels(chosen)
    return found


def extras_of_sigmoid(extras: Extras, scores: Any, logit: bool) -> dict[str, Any]:
    """As `extras_of_scores`, of `[N, 1, H, W]`: of two classes, the first has what is left to 1.

    A logit z stands for the logits 0 and z.
    """
    slope, start = map(np.float32, (0, 0) if logit else (-1, 1))
    both = ops.concat([ops.add(ops.multiply(scores, slope), start), scores], 1)
    return extras_of_scores(extras, both, "logits" if logit else "probabilities", 1, 2)


def _confidence(probabilities: Any, measure: Measure, axis: int, classes: int) -> Any:
    if measure == "maximum":
        return ops.reduce_max(probabilities, [axis], keep_dims=False)
    if measure == "margin":
        best = ops.topk(ops.clamp(probabilities, 0, 1), np.int64(2), axis, "max", "value")
        first, second = (ops.gather(best.output(0), np.int64(n), np.int64(axis)) for n in (0, 1))
        return ops.subtract(first, second)
    clipped = ops.clamp(probabilities, LEAST, 1)
    total = ops.reduce_sum(ops.multiply(clipped, ops.log(clipped)), [axis], keep_dims=False)
    return ops.add(ops.multiply(total, np.float32(1 / math.log(classes))), np.float32(1))


def _levels(numbers: Any) -> Any:
    """Return numbers of 0 to 1 as bytes."""
    scaled = ops.multiply(ops.clamp(numbers, 0, 1), np.float32(LEVELS))
    return ops.convert(ops.floor(ops.add(scaled, np.float32(0.5))), "u8")
