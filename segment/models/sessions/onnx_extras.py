"""Confidence and probabilities as nodes of an ONNX graph; see `Extras`."""

import math

import numpy as np
from onnx import TensorProto

from segment.models.extra_options import Measure
from segment.models.sessions.extras import LEAST, LEVELS, Extras, ScoreKind
from segment.models.sessions.onnx_nodes import Nodes

_CLIP_INPUTS_SINCE = 11


def extras_of_scores(
    nodes: Nodes, extras: Extras, scores: str, kind: ScoreKind, axis: int, classes: int
) -> dict[str, str]:
    """Append the nodes to the extra outputs, and return these by name.

    Args:
        scores: one score per class, float32.
        axis: of the classes, 1 or 3.
    """
    probabilities = _softmax(nodes, scores, axis) if kind == "logits" else scores
    found = {}
    if extras.confidence is not None:
        found["confidence"] = _levels(nodes, _confidence(nodes, probabilities, extras.confidence, axis, classes))
    if extras.probabilities:
        chosen = nodes.add("Gather", probabilities, np.array(extras.probabilities, np.int64), axis=axis)
        if axis == 3:
            chosen = nodes.add("Transpose", chosen, perm=[0, 3, 1, 2])
        found["probabilities"] = _levels(nodes, chosen)
    return found


def extras_of_sigmoid(nodes: Nodes, extras: Extras, scores: str, logit: bool) -> dict[str, str]:
    """As `extras_of_scores`, of `[N, 1, H, W]`: of two classes, the first has what is left to 1.

    A logit z stands for the logits 0 and z.
    """
    slope, start = (np.array(value, np.float32) for value in ((0, 0) if logit else (-1, 1)))
    first = nodes.add("Add", nodes.add("Mul", scores, slope), start)
    both = nodes.add("Concat", first, scores, axis=1)
    return extras_of_scores(nodes, extras, both, "logits" if logit else "probabilities", 1, 2)


def _softmax(nodes: Nodes, scores: str, axis: int) -> str:
    """Append a softmax: ONNX' own flattens the axes behind before opset 13, and is twice as slow on axis 1."""
    highest = nodes.over_axes("ReduceMax", scores, [axis], since=18, keepdims=1)
    powers = nodes.add("Exp", nodes.add("Sub", scores, highest))
    return nodes.add("Div", powers, nodes.over_axes("ReduceSum", powers, [axis], since=13, keepdims=1))


def _confidence(nodes: Nodes, probabilities: str, measure: Measure, axis: int, classes: int) -> str:
    if measure == "maximum":
        return nodes.over_axes("ReduceMax", probabilities, [axis], since=18, keepdims=0)
    if measure == "margin":
        return _margin(nodes, _clip(nodes, probabilities, 0, 1), axis, classes)
    clipped = _clip(nodes, probabilities, LEAST, 1)
    terms = nodes.add("Mul", clipped, nodes.add("Log", clipped))
    total = nodes.over_axes("ReduceSum", terms, [axis], since=13, keepdims=0)
    share = nodes.add("Mul", total, np.array(1 / math.log(classes), np.float32))
    return nodes.add("Add", share, np.array(1, np.float32))


def _margin(nodes: Nodes, probabilities: str, axis: int, classes: int) -> str:
    """Append the highest less the second highest: the highest of what is left without the first argmax.

    Half the time of TopK in onnxruntime.
    """
    best = nodes.add("ArgMax", probabilities, axis=axis, keepdims=1)
    shape = [-1, 1, 1] if axis == 1 else [-1]
    is_best = nodes.add("Equal", best, np.arange(classes, dtype=np.int64).reshape(shape))
    others = nodes.add("Mul", nodes.cast(nodes.add("Not", is_best), TensorProto.FLOAT), probabilities)
    highest, second = (
        nodes.over_axes("ReduceMax", value, [axis], since=18, keepdims=0) for value in (probabilities, others)
    )
    return nodes.add("Sub", highest, second)


def _levels(nodes: Nodes, numbers: str) -> str:
    """Append the nodes from numbers of 0 to 1 to bytes."""
    scaled = nodes.add("Mul", _clip(nodes, numbers, 0, 1), np.array(LEVELS, np.float32))
    return nodes.cast(nodes.add("Add", scaled, np.array(0.5, np.float32)), TensorProto.UINT8)


def _clip(nodes: Nodes, value: str, low: float, high: float) -> str:
    if nodes.opset >= _CLIP_INPUTS_SINCE:
        return nodes.add("Clip", value, np.array(low, np.float32), np.array(high, np.float32))
    return nodes.add("Clip", value, min=float(low), max=float(high))
