"""Both ways in which openvino enlarges a band of scores make the same sums, to the last bit."""

from typing import Any

import numpy as np
import openvino
import pytest
from numpy.typing import NDArray
from openvino import opset15 as ops

from segment.models.sessions.enlarging import SmallScores, enlarging_of
from segment.models.sessions.openvino_enlarging import enlarged_outputs


def enlarged(scores: NDArray[np.float32], target: tuple[int, int], precision: str, steps: Any) -> NDArray[np.float32]:
    """Return `float32[N, H, C, W]` of `[N, C, h, w]`, computed in f32 in the layout of a precision."""
    enlarging = enlarging_of((scores.shape[2], scores.shape[3]), target, "half_pixel")
    assert enlarging
    parameter = ops.parameter(list(scores.shape), np.float32)

    def outputs(band: Any, axis: int) -> list[Any]:
        order = [0, 2, 1, 3] if axis == 1 else [0, 1, 2, 3]
        return [ops.reshape(ops.transpose(band, ops.constant(np.array(order))), ops.constant([0, 0, -1]), True)]

    small = SmallScores(parameter.output(0), enlarging, after=steps)
    model = openvino.Model([ops.result(one) for one in enlarged_outputs(small, outputs, precision)], [parameter], "m")
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled(scores)[0])


def test_many_wide_scores_are_enlarged_class_by_class() -> None:
    """All classes at once would take two copies of scores that are as wide as the mask."""
    parameter = ops.parameter([1, 150, 128, 128], np.float32)
    enlarging = enlarging_of((128, 128), (1024, 1024), "half_pixel")
    assert enlarging
    axes: list[int] = []

    def outputs(band: Any, axis: int) -> list[Any]:
        axes.append(axis)
        return [band]

    enlarged_outputs(SmallScores(parameter.output(0), enlarging), outputs, "f32")
    assert set(axes) == {1}


@pytest.mark.parametrize("size", [(1, 5, 9, 7), (2, 21, 33, 33), (1, 1, 4, 6)])
@pytest.mark.parametrize("target", [(120, 110), (513, 500)])
@pytest.mark.parametrize("steps", [(), (lambda scores: ops.round(scores, "half_to_even"),)], ids=["plain", "rounded"])
def test_a_product_of_all_classes_is_that_of_each(size: tuple[int, ...], target: tuple[int, int], steps: Any) -> None:
    scores = np.random.default_rng(3).normal(0, 40, size).astype(np.float32)
    found, expected = (enlarged(scores, target, precision, steps) for precision in ("f32", "bf16"))
    assert found.shape == (size[0], target[0], size[1] * target[1])
    assert np.array_equal(found, expected)
