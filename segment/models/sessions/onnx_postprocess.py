"""Postprocessing nodes of an ONNX graph: from its output to a mask, and a check value per image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import TensorProto, helper

from segment.models.card import ModelCard
from segment.models.sessions.chain import NodeChain
from segment.models.sessions.enlarging import BEYOND, LOWEST, SmallScores, enlarging_of, is_smaller, nearest_positions
from segment.models.sessions.extras import NOTHING, Extras, has_range
from segment.models.sessions.onnx_enlarging import Chains, NewChain, axis_of_rows, enlarged_chains
from segment.models.sessions.onnx_extras import ExtraNodes
from segment.models.sessions.ports import Port, Size, apart, refuse
from segment.models.sessions.predict import NOT_FINITE, NOT_WHOLE
from segment.models.sessions.quantised import Quantised
from segment.models.sessions.sigmoid import FURTHEST, threshold

HALF_PIXEL_OPSET = 11  # the first whose Resize has half-pixel centres


class Postprocessing:
    """Builds the postprocessing nodes of one model.

    Args:
        card: the model's card.
        result: the model's output.
        size: (height, width) of the output; None if unknown.
        quantised: how the output's levels become numbers; None if they stay as they are.
        chain: starts a chain of nodes; its arguments are a prefix of names, and the name of the input value.
        opset: ONNX opset of the model.
        extras: outputs beside masks and check values.
        in_bands: see `Surgeon.compiled`.
        small: scores that the graph enlarges by itself; None if it does not.
    """

    def __init__(
        self,
        card: ModelCard,
        result: Port,
        size: Size | None,
        quantised: Quantised | None,
        chain: Callable[[str, str], NodeChain],
        opset: int,
        extras: Extras = NOTHING,
        in_bands: bool = False,
        small: SmallScores | None = None,
    ) -> None:
        self._card = card
        self._result = result
        self._size = size
        self._quantised = quantised
        self._chain = chain
        self._opset = opset
        self._smaller = is_smaller(card, size)
        self._has_range = has_range(card, extras)
        self._extras = extras
        self._in_bands = in_bands
        self._small = small

    def chains(self, masked: bool) -> Chains:
        """Return all chains of nodes, in order, and those that end in an output, by its name.

        `masks` are `uint8[N, Ho, Wo]`, `check` is `float32[N]`; see `predict.Run`. For `masked` see `predict.Load`. The
        others are the extras.
        """
        if self._card.output.kind == "index":
            return self._of_index()
        return self._of_sigmoid() if self._card.output.kind == "sigmoid" else self._of_scores(masked)

    def _pixels(self) -> NodeChain:
        """Return a chain that starts with the output, its height and width apart."""
        chain = self._chain("out", self._result.name)
        if "P" in self._card.output.axes:
            chain.add("Reshape", np.array(apart(self._card), np.int64))
        return chain

    def _of_scores(self, masked: bool) -> Chains:
        chain = self._chain("small", self._small.scores) if self._small else self._pixels()
        if self._small or self._result.dtype != "float32":
            chain.add("Cast", to=TensorProto.FLOAT)
        axis = self._card.output.pixel_layout.index("C")
        check = self.check_of_masked(chain.tip, axis) if masked else self._check_of_scores(chain.tip)
        if self._smaller and self._card.output.enlarging == "bilinear":
            if self._card.output.pixel_layout == "NHWC":
                chain.add("Transpose", perm=[0, 3, 1, 2])
            if masked:
                chain.add("Max", np.array(LOWEST, np.float32))
            chains, ends = self._of_enlarged(chain, self._outputs_of_scores)
        elif self._small:
            chains, ends = self._enlarged(self._small._replace(scores=chain.tip), self._outputs_of_scores)
        else:
            chains, ends = self._outputs_of_scores(chain.tip, self._chain, axis)
        self._enlarge_masks(ends)
        return [chain, *chains, *check], {**ends, "check": check[-1]}

    def _check_of_scores(self, scores: str) -> list[NodeChain]:
        if not self._has_range or (self._small and self._small.softmax):
            return self.check(scores)
        numbers = self._chain("range", scores)
        add_dequantising(numbers, self._quantised)
        return [numbers, *self.check_of_probability(numbers.tip)]

    def _outputs_of_scores(self, scores: str, new_chain: NewChain, axis: int = 1) -> Chains:
        best = new_chain("class", scores)
        best.add("ArgMax", axis=axis, keepdims=0)
        best.add("Cast", to=TensorProto.UINT8)
        if not self._extras:
            return [best], {"masks": best}
        chain = new_chain("p", scores)
        add_dequantising(chain, self._quantised)
        is_logits = self._card.output.kind == "logits" or (self._small and self._small.softmax)
        extras = ExtraNodes(self._extras, len(self._card.classes), new_chain, self._opset)
        ends = extras.of_scores(chain, "logits" if is_logits else "probabilities", axis)
        return [best, chain, *ends.values()], {"masks": best, **ends}

    def _outputs_of_sigmoid(self, scores: str, new_chain: NewChain) -> Chains:
        above = new_chain("above", scores)
        above.add("Greater", np.array(threshold(self._card), np.float32))
        above.add("Cast", to=TensorProto.UINT8)
        above.over_axes("Squeeze", [1], since=13)
        if not self._extras:
            return [above], {"masks": above}
        chain = new_chain("p", scores)
        extras = ExtraNodes(self._extras, len(self._card.classes), new_chain, self._opset)
        ends = extras.of_sigmoid(chain, self._card.output.logit)
        return [above, chain, *ends.values()], {"masks": above, **ends}

    def _of_enlarged(self, chain: NodeChain, outputs: Callable[[str, NewChain], Chains]) -> Chains:
        """Return outputs of `[N, C, H, W]` scores, enlarged bilinearly from half-pixel centres."""
        if self._opset < HALF_PIXEL_OPSET:
            refuse(
                self._card,
                f"the graph is of ONNX opset {self._opset}, which cannot enlarge scores from half-pixel centres: "
                f"export it again with opset {HALF_PIXEL_OPSET} or newer, or use --runtime openvino",
            )
        target = (self._card.output_height, self._card.output_width)
        if self._in_bands and self._size and (enlarging := enlarging_of(self._size, target, "half_pixel")):
            return self._enlarged(SmallScores(chain.tip, enlarging), outputs)
        add_resize(chain, self._chain("sizes", chain.tip), *target)
        return outputs(chain.tip, self._chain)

    def _enlarged(self, small: SmallScores, outputs: Callable[[str, NewChain], Chains]) -> Chains:
        classes = 1 if self._card.output.kind == "sigmoid" else len(self._card.classes)
        return enlarged_chains(small, classes, self._chain, outputs)

    def _enlarge_masks(self, ends: dict[str, NodeChain]) -> None:
        if self._card.output.enlarging == "nearest":
            for name, end in ends.items():
                self._enlarge_mask(end, axis_of_rows(name))

    def _enlarge_mask(self, chain: NodeChain, first: int = 1) -> None:
        """Enlarge pixels (axes `first` and the next) to the mask's size if they are fewer: exactly Pillow's nearest."""
        if self._size is None or not self._smaller:
            return
        targets = (self._card.output_height, self._card.output_width)
        chain.add(
            "Reshape", np.array([0] * first + [*self._size], np.int64)
        )  # fails if the output has another size than declared
        for axis, (size, target) in enumerate(zip(self._size, targets, strict=True), first):
            chain.add("Gather", nearest_positions(size, target), axis=axis)

    def check(self, scores: str) -> list[NodeChain]:
        """Return the mean score per image: it is finite only if all scores are, while a sum could overflow."""
        check = self._chain("check_", scores)
        check.over_axes("ReduceMean", [1, 2, 3], since=18, keepdims=0)
        return [check]

    def check_of_masked(self, scores: str, axis: int) -> list[NodeChain]:
        """Return a value per image that is non-zero if a score is NaN or the best score of a pixel is not finite."""
        best = self._chain("best", scores)
        best.over_axes("ReduceMax", [axis], since=18, keepdims=0)
        best.add("Mul", np.array(0, np.float32))  # infinity times zero is NaN
        best.over_axes("ReduceSum", [1, 2], since=13, keepdims=0)
        check = self._chain("check_", scores)
        check.add("IsNaN")
        check.add("Cast", to=TensorProto.FLOAT)
        check.over_axes("ReduceMax", [1, 2, 3], since=18, keepdims=0)
        check.add("Add", best.tip)
        return [best, check]

    def numbers(self) -> NodeChain:
        """Return a chain that ends in the output as numbers, `float32[N, C, H, W]`."""
        chain = self._pixels()
        chain.add("Cast", to=TensorProto.FLOAT)
        add_dequantising(chain, self._quantised)
        if self._card.output.pixel_layout in ("NHWC", "NHW1"):
            chain.add("Transpose", perm=[0, 3, 1, 2])
        elif self._card.output.pixel_layout == "NHW":
            chain.over_axes("Unsqueeze", [1], since=13)
        return chain

    def _of_sigmoid(self) -> Chains:
        chain = self.numbers()
        check = self.check_of_probability(chain.tip) if self._has_range else self.check(chain.tip)
        if self._smaller and self._card.output.enlarging == "bilinear":
            chains, ends = self._of_enlarged(chain, self._outputs_of_sigmoid)
        else:
            chains, ends = self._outputs_of_sigmoid(chain.tip, self._chain)
            self._enlarge_masks(ends)
        return [chain, *chains, *check], {**ends, "check": check[-1]}

    def check_of_probability(self, scores: str) -> list[NodeChain]:
        """Return a value per image: 1 if a number is beyond 0 to 1, else 0; not finite if a number is not."""
        distance = self._chain("distance", scores)
        distance.add("Sub", np.array(0.5, np.float32))
        distance.add("Abs")
        distance.add("Greater", np.array(FURTHEST, np.float32))
        distance.add("Cast", to=TensorProto.FLOAT)
        distance.over_axes("ReduceMax", [1, 2, 3], since=18, keepdims=0)
        (check,) = self.check(scores)
        check.add("Mul", np.array(0, np.float32))  # a mean that is not finite becomes NaN
        check.add("Add", distance.tip)
        return [distance, check]

    def _of_index(self) -> Chains:
        dtype = _comparable(self._result.dtype)
        if self._small:
            small = self._chain("small", self._small.scores)
            small.add("Cast", to=TensorProto.FLOAT)
            wrong = self._chain("wrong", small.tip)
            small.add("Max", np.array(LOWEST, np.float32))
            before, ends = self._enlarged(self._small._replace(scores=small.tip), self._outputs_of_scores)
            before.insert(0, small)
            chain = self._chain("out", ends["masks"].tip)
        else:
            chain = self._pixels()
            if "1" in self._card.output.pixel_layout:
                chain.over_axes("Squeeze", [self._card.output.pixel_layout.index("1")], since=13)
        chain.add("Cast", to=helper.np_dtype_to_tensor_dtype(dtype))
        index = chain.tip
        chain.add("Cast", to=TensorProto.UINT8)
        self._enlarge_mask(chain)
        # NOT (index < C), as NaN fails every comparison.
        negative = self._chain("negative", index)
        negative.add("Less", np.array(0, dtype))
        check = self._chain("check_", index)
        check.add("Less", np.array(len(self._card.classes), dtype))
        check.add("Not")
        check.add("Or", negative.tip)
        check.add("Cast", to=TensorProto.FLOAT)
        check.over_axes("ReduceSum", [1, 2], since=13, keepdims=0)
        if self._small:
            wrong.add("Less", np.array(BEYOND, np.float32))  # false for NaN and infinity
            wrong.add("Not")
            wrong.add("Cast", to=TensorProto.FLOAT)
            wrong.over_axes("ReduceMax", [1, 2, 3], since=18, keepdims=0)
            wrong.add("Cast", to=TensorProto.BOOL)
            wrong.add("Where", np.array(NOT_FINITE, np.float32), check.tip)
            return [*before, chain, negative, check, wrong], {"masks": chain, "check": wrong}
        if dtype != np.float32:
            return [chain, negative, check], {"masks": chain, "check": check}
        fraction = self._chain("part", index)
        fraction.add("Floor")
        fraction.add("Less", index)  # false for NaN and infinity
        fraction.add("Cast", to=TensorProto.FLOAT)
        fraction.over_axes("ReduceMax", [1, 2], since=18, keepdims=0)
        fraction.add("Mul", np.array(NOT_WHOLE, np.float32))
        check.add("Add", fraction.tip)
        return [chain, negative, fraction, check], {"masks": chain, "check": check}


def add_resize(chain: NodeChain, sizes: NodeChain, height: int, width: int) -> None:
    """Append the bilinear resize of `[N, C, H, W]` from half-pixel centres; `sizes` starts where `chain` ends."""
    sizes.add("Shape")
    sizes.add("Gather", np.array([0, 1], np.int64))
    sizes.add("Concat", np.array([height, width], np.int64), axis=0)
    chain.nodes += sizes.nodes
    empty = np.empty(0, np.float32)  # regions and scales, which opset 11 requires
    chain.add("Resize", empty, empty, sizes.tip, mode="linear", coordinate_transformation_mode="half_pixel")


def add_dequantising(chain: NodeChain, quantised: Quantised | None) -> None:
    """Append the nodes from float32 levels to numbers; none if the levels stay as they are."""
    if quantised is not None:
        chain.add("Sub", np.array(quantised.zero_point, np.float32))
        chain.add("Mul", np.array(quantised.scale, np.float32))


def _comparable(dtype: str) -> np.dtype[np.generic]:
    """Return the type for comparisons of indices: onnxruntime compares only these."""
    if "float" in dtype:
        return np.dtype(np.float32)
    return np.dtype(np.int64) if dtype in ("int64", "uint64", "uint32") else np.dtype(np.int32)
