"""Behind an ONNX graph: from its output to a mask, and one number per image that tells whether it can be trusted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import TensorProto, helper

from segment.models.card import ModelCard
from segment.models.sessions.chain import Chain
from segment.models.sessions.enlarging import LOWEST, is_smaller, nearest_positions
from segment.models.sessions.ports import Port, Size, refuse
from segment.models.sessions.predict import NOT_WHOLE

_HALF_PIXEL_OPSET = 11  # the first whose Resize knows half-pixel centres


class Back:
    """Makes the nodes behind one model's output.

    Args:
        card: the contract.
        result: the output.
        size: (height, width) of the output, if it is known.
        chain: begins a chain: a stem for its names, and the name of the value that it takes.
        opset: of the model.
    """

    def __init__(
        self, card: ModelCard, result: Port, size: Size | None, chain: Callable[[str, str], Chain], opset: int
    ) -> None:
        self._card = card
        self._result = result
        self._size = size
        self._chain = chain
        self._opset = opset
        self._smaller = is_smaller(card, size)

    def chains(self, masked: bool) -> list[Chain]:
        """Chains of nodes, in order: the first ends in the mask `uint8[N, Ho, Wo]`, the last in the check `float32[N]`.

        The check is what `predict.Run` says; `masked` as in `Surgeon.compiled`.
        """
        return self._of_index() if self._card.output.kind == "index" else self._of_scores(masked)

    def _of_scores(self, masked: bool) -> list[Chain]:
        chain = self._chain("out", self._result.name)
        if self._result.dtype != "float32":
            chain.add("Cast", to=TensorProto.FLOAT)
        axis = self._card.output.layout.index("C")
        check = self._check_of_masked(chain.tip, axis) if masked else self._check(chain.tip)
        if self._smaller and self._card.output.enlarging == "bilinear":
            self._enlarge_scores(chain, masked)
            axis = 1
        chain.add("ArgMax", axis=axis, keepdims=0)
        chain.add("Cast", to=TensorProto.UINT8)
        if self._card.output.enlarging == "nearest":
            self._enlarge_mask(chain)
        return [chain, *check]

    def _enlarge_scores(self, chain: Chain, masked: bool) -> None:
        """Scores to `[N, C, input height, input width]`."""
        if self._opset < _HALF_PIXEL_OPSET:
            refuse(
                self._card,
                f"the graph is of ONNX opset {self._opset}, which cannot enlarge scores from half-pixel centres: "
                f"export it anew with opset {_HALF_PIXEL_OPSET} or newer, or use --runtime openvino",
            )
        if self._card.output.layout == "NHWC":
            chain.add("Transpose", perm=[0, 3, 1, 2])
        if masked:
            chain.add("Max", np.array(LOWEST, np.float32))
        sizes = self._chain("sizes", chain.tip)
        sizes.add("Shape")
        sizes.add("Gather", np.array([0, 1], np.int64))
        sizes.add("Concat", np.array([self._card.output_height, self._card.output_width], np.int64), axis=0)
        chain.nodes += sizes.nodes
        nothing = np.empty(0, np.float32)  # regions and scales, which opset 11 demands
        chain.add("Resize", nothing, nothing, sizes.tip, mode="linear", coordinate_transformation_mode="half_pixel")

    def _enlarge_mask(self, chain: Chain) -> None:
        """Class indices `[N, Ho, Wo]` to the mask's size, if they are smaller: exactly Pillow's nearest."""
        if self._size is None or not self._smaller:
            return
        targets = (self._card.output_height, self._card.output_width)
        chain.add("Reshape", np.array([0, *self._size], np.int64))  # fails if the graph does not give what it says
        for axis, (size, target) in enumerate(zip(self._size, targets, strict=True), 1):
            chain.add("Gather", nearest_positions(size, target), axis=axis)

    def _check(self, scores: str) -> list[Chain]:
        """Not finite for an image with a score that is not: the mean, as a sum of finite scores could overflow."""
        check = self._chain("check_", scores)
        check.over_axes("ReduceMean", [1, 2, 3], since=18, keepdims=0)
        return [check]

    def _check_of_masked(self, scores: str, axis: int) -> list[Chain]:
        """Not zero for an image with a score that is NaN, or a pixel whose best score is not finite."""
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

    def _of_index(self) -> list[Chain]:
        chain = self._chain("out", self._result.name)
        if "1" in self._card.output.layout:
            chain.over_axes("Squeeze", [self._card.output.layout.index("1")], since=13)
        dtype = _comparable(self._result.dtype)
        chain.add("Cast", to=helper.np_dtype_to_tensor_dtype(dtype))
        index = chain.tip
        chain.add("Cast", to=TensorProto.UINT8)
        self._enlarge_mask(chain)
        # 'not below C' and not 'C or above': a NaN is neither.
        negative = self._chain("negative", index)
        negative.add("Less", np.array(0, dtype))
        check = self._chain("check_", index)
        check.add("Less", np.array(len(self._card.classes), dtype))
        check.add("Not")
        check.add("Or", negative.tip)
        check.add("Cast", to=TensorProto.FLOAT)
        check.over_axes("ReduceSum", [1, 2], since=13, keepdims=0)
        if dtype != np.float32:
            return [chain, negative, check]
        part = self._chain("part", index)
        part.add("Floor")
        part.add("Less", index)  # of what is not finite, no
        part.add("Cast", to=TensorProto.FLOAT)
        part.over_axes("ReduceMax", [1, 2], since=18, keepdims=0)
        part.add("Mul", np.array(NOT_WHOLE, np.float32))
        check.add("Add", part.tip)
        return [chain, negative, part, check]


def _comparable(dtype: str) -> np.dtype[np.generic]:
    """The type in which indices are compared: onnxruntime compares these only."""
    if "float" in dtype:
        return np.dtype(np.float32)
    return np.dtype(np.int64) if dtype in ("int64", "uint64", "uint32") else np.dtype(np.int32)
