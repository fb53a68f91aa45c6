"""Postprocessing nodes of an ONNX graph: from its output to a mask, and a check value per image."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, helper

from segment.models.card import ModelCard
from segment.models.sessions.enlarging import BEYOND, LOWEST, SmallScores, enlarging_of, is_smaller, nearest_positions
from segment.models.sessions.extras import FURTHEST, NOTHING, Extras, ScoreKind, has_range, threshold
from segment.models.sessions.onnx_enlarging import Values, axis_of_rows, enlarged_outputs
from segment.models.sessions.onnx_extras import extras_of_scores, extras_of_sigmoid
from segment.models.sessions.onnx_nodes import Nodes
from segment.models.sessions.ports import Port, Size, apart, refuse
from segment.models.sessions.predict import NOT_FINITE, NOT_WHOLE
from segment.models.sessions.quantised import Quantised

HALF_PIXEL_OPSET = 11  # the first whose Resize has half-pixel centres


@dataclass(frozen=True)
class Postprocessing:
    """Builds the postprocessing nodes of one model.

    Attributes:
        size: (height, width) of the output; None if unknown.
        quantised: how the output's levels become numbers; None if they stay as they are.
        extras: outputs beside masks and check values.
        small: scores that the graph enlarges by itself; None if it does not.
    """

    card: ModelCard
    result: Port
    size: Size | None
    quantised: Quantised | None
    nodes: Nodes
    extras: Extras = NOTHING
    in_bands: bool = False
    small: SmallScores | None = None

    def outputs(self, masked: bool) -> Values:
        """Append all nodes, and return the outputs by name.

        `masks` are `uint8[N, Ho, Wo]`, `check` is `float32[N]`; see `predict.Run`. For `masked` see `predict.Load`. The
        others are the extras.
        """
        if self.card.output.kind == "index":
            return self._of_index()
        return self._of_sigmoid() if self.card.output.kind == "sigmoid" else self._of_scores(masked)

    def _pixels(self) -> str:
        """Return the output with height and width apart."""
        if "P" not in self.card.output.axes:
            return self.result.name
        return self.nodes.add("Reshape", self.result.name, np.array(apart(self.card), np.int64))

    def _of_scores(self, masked: bool) -> Values:
        nodes, layout = self.nodes, self.card.output.pixel_layout
        scores, axis = self.small.scores if self.small else self._pixels(), layout.index("C")
        if self.small or self.result.dtype != "float32":
            scores = nodes.cast(scores, TensorProto.FLOAT)
        check = self.check_of_masked(scores, axis) if masked else self._check_of_scores(scores)
        if is_smaller(self.card, self.size) and self.card.output.enlarging == "bilinear":
            if layout == "NHWC":
                scores = nodes.add("Transpose", scores, perm=[0, 3, 1, 2])
            if masked:
                scores = nodes.add("Max", scores, np.array(LOWEST, np.float32))
            found = self._of_enlarged(scores, self._outputs_of_scores)
        elif self.small:
            found = self._enlarged(self.small._replace(scores=scores), self._outputs_of_scores)
        else:
            found = self._outputs_of_scores(scores, axis)
        return {**self._at_mask_size(found), "check": check}

    def _check_of_scores(self, scores: str) -> str:
        if not has_range(self.card, self.extras) or (self.small and self.small.softmax):
            return self.check(scores)
        return self.check_of_probability(dequantised(self.nodes, scores, self.quantised))

    def _outputs_of_scores(self, scores: str, axis: int = 1) -> Values:
        best = self.nodes.add("ArgMax", scores, axis=axis, keepdims=0)
        masks = self.nodes.cast(best, TensorProto.UINT8)
        if not self.extras:
            return {"masks": masks}
        numbers = dequantised(self.nodes, scores, self.quantised)
        is_logits = self.card.output.kind == "logits" or (self.small and self.small.softmax)
        kind: ScoreKind = "logits" if is_logits else "probabilities"
        found = extras_of_scores(self.nodes, self.extras, numbers, kind, axis, len(self.card.classes))
        return {"masks": masks, **found}

    def _outputs_of_sigmoid(self, scores: str) -> Values:
        above = self.nodes.add("Greater", scores, np.array(threshold(self.card), np.float32))
        masks = self.nodes.over_axes("Squeeze", self.nodes.cast(above, TensorProto.UINT8), [1], since=13)
        if not self.extras:
            return {"masks": masks}
        return {"masks": masks, **extras_of_sigmoid(self.nodes, self.extras, scores, self.card.output.logit)}

    def _of_enlarged(self, scores: str, outputs: Callable[[str], Values]) -> Values:
        """Return outputs of `[N, C, H, W]` scores, enlarged bilinearly from half-pixel centres."""
        if self.nodes.opset < HALF_PIXEL_OPSET:
            refuse(
                self.card,
                f"the graph is of ONNX opset {self.nodes.opset}, which cannot enlarge scores from half-pixel centres: "
                f"export it again with opset {HALF_PIXEL_OPSET} or newer, or use --runtime openvino",
            )
        target = (self.card.output_height, self.card.output_width)
        if self.in_bands and self.size and (enlarging := enlarging_of(self.size, target, "half_pixel")):
            return self._enlarged(SmallScores(scores, enlarging), outputs)
        return outputs(resized(self.nodes, scores, target))

    def _enlarged(self, small: SmallScores, outputs: Callable[[str], Values]) -> Values:
        classes = 1 if self.card.output.kind == "sigmoid" else len(self.card.classes)
        return enlarged_outputs(self.nodes, small, classes, outputs)

    def _at_mask_size(self, found: Values) -> Values:
        """Enlarge pixels to the mask's size if they are fewer, and are not enlarged yet: exactly Pillow's nearest."""
        if self.size is None or not is_smaller(self.card, self.size) or self.card.output.enlarging == "bilinear":
            return found
        targets = (self.card.output_height, self.card.output_width)
        enlarged = {}
        for name, value in found.items():
            first = axis_of_rows(name)
            # Fails if the output has another size than declared.
            value = self.nodes.add("Reshape", value, np.array([0] * first + [*self.size], np.int64))
            for axis, (size, target) in enumerate(zip(self.size, targets, strict=True), first):
                value = self.nodes.add("Gather", value, nearest_positions(size, target), axis=axis)
            enlarged[name] = value
        return enlarged

    def check(self, scores: str) -> str:
        """Return the mean score per image: it is finite only if all scores are, while a sum could overflow."""
        return self.nodes.over_axes("ReduceMean", scores, [1, 2, 3], since=18, keepdims=0)

    def check_of_masked(self, scores: str, axis: int) -> str:
        """Return a value per image that is non-zero if a score is NaN or the best score of a pixel is not finite."""
        nodes = self.nodes
        best = nodes.over_axes("ReduceMax", scores, [axis], since=18, keepdims=0)
        best = nodes.add("Mul", best, np.array(0, np.float32))  # infinity times zero is NaN
        best = nodes.over_axes("ReduceSum", best, [1, 2], since=13, keepdims=0)
        return nodes.add("Add", self._any(nodes.add("IsNaN", scores)), best)

    def _any(self, truth: str) -> str:
        """Return 1 for each image where any of its truth values is true, else 0."""
        return self.nodes.over_axes(
            "ReduceMax", self.nodes.cast(truth, TensorProto.FLOAT), [1, 2, 3], since=18, keepdims=0
        )

    def numbers(self) -> str:
        """Return the output as numbers, `float32[N, C, H, W]`."""
        value = dequantised(self.nodes, self.nodes.cast(self._pixels(), TensorProto.FLOAT), self.quantised)
        if self.card.output.pixel_layout in ("NHWC", "NHW1"):
            return self.nodes.add("Transpose", value, perm=[0, 3, 1, 2])
        if self.card.output.pixel_layout == "NHW":
            return self.nodes.over_axes("Unsqueeze", value, [1], since=13)
        return value

    def _of_sigmoid(self) -> Values:
        scores = self.numbers()
        check = self.check_of_probability(scores) if has_range(self.card, self.extras) else self.check(scores)
        if is_smaller(self.card, self.size) and self.card.output.enlarging == "bilinear":
            return {**self._of_enlarged(scores, self._outputs_of_sigmoid), "check": check}
        return {**self._at_mask_size(self._outputs_of_sigmoid(scores)), "check": check}

    def check_of_probability(self, scores: str) -> str:
        """Return a value per image: 1 if a number is beyond 0 to 1, else 0; not finite if a number is not."""
        nodes = self.nodes
        distance = nodes.add("Abs", nodes.add("Sub", scores, np.array(0.5, np.float32)))
        beyond = self._any(nodes.add("Greater", distance, np.array(FURTHEST, np.float32)))
        # A mean that is not finite becomes NaN.
        return nodes.add("Add", nodes.add("Mul", self.check(scores), np.array(0, np.float32)), beyond)

    def _of_index(self) -> Values:
        nodes, dtype = self.nodes, _comparable(self.result.dtype)
        scores = ""
        if self.small:
            scores = nodes.cast(self.small.scores, TensorProto.FLOAT)
            clamped = nodes.add("Max", scores, np.array(LOWEST, np.float32))
            value = self._enlarged(self.small._replace(scores=clamped), self._outputs_of_scores)["masks"]
        else:
            value = self._pixels()
            if "1" in self.card.output.pixel_layout:
                value = nodes.over_axes("Squeeze", value, [self.card.output.pixel_layout.index("1")], since=13)
        index = nodes.cast(value, helper.np_dtype_to_tensor_dtype(dtype))
        found = self._at_mask_size({"masks": nodes.cast(index, TensorProto.UINT8)})
        # NOT (index < C), as NaN fails every comparison.
        beyond = nodes.add("Not", nodes.add("Less", index, np.array(len(self.card.classes), dtype)))
        wrong = nodes.add("Or", beyond, nodes.add("Less", index, np.array(0, dtype)))
        check = nodes.over_axes("ReduceSum", nodes.cast(wrong, TensorProto.FLOAT), [1, 2], since=13, keepdims=0)
        if self.small:
            finite = nodes.add("Less", scores, np.array(BEYOND, np.float32))  # false for NaN and infinity
            wrong = nodes.cast(self._any(nodes.add("Not", finite)), TensorProto.BOOL)
            check = nodes.add("Where", wrong, np.array(NOT_FINITE, np.float32), check)
        elif dtype == np.float32:
            part = nodes.add("Less", nodes.add("Floor", index), index)  # false for NaN and infinity
            part = nodes.over_axes("ReduceMax", nodes.cast(part, TensorProto.FLOAT), [1, 2], since=18, keepdims=0)
            check = nodes.add("Add", check, nodes.add("Mul", part, np.array(NOT_WHOLE, np.float32)))
        return {**found, "check": check}


def resized(nodes: Nodes, value: str, size: Size) -> str:
    """Append the bilinear resize of `[N, C, H, W]` to (height, width), from half-pixel centres."""
    outer = nodes.add("Gather", nodes.add("Shape", value), np.array([0, 1], np.int64))
    sizes = nodes.add("Concat", outer, np.array(size, np.int64), axis=0)
    empty = np.empty(0, np.float32)  # regions and scales, which opset 11 requires
    return nodes.add("Resize", value, empty, empty, sizes, mode="linear", coordinate_transformation_mode="half_pixel")


def dequantised(nodes: Nodes, levels: str, quantised: Quantised | None) -> str:
    """Append the nodes from float32 levels to numbers; none if the levels stay as they are."""
    if quantised is None:
        return levels
    moved = nodes.add("Sub", levels, np.array(quantised.zero_point, np.float32))
    return nodes.add("Mul", moved, np.array(quantised.scale, np.float32))


def _comparable(dtype: str) -> np.dtype[np.generic]:
    """Return the type for comparisons of indices: onnxruntime compares only these."""
    if "float" in dtype:
        return np.dtype(np.float32)
    return np.dtype(np.int64) if dtype in ("int64", "uint64", "uint32") else np.dtype(np.int32)
