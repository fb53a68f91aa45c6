"""Enlarging an output that is smaller than the model's input: the constants that both runtimes share.

Bilinear enlarging is two matrix products: `rows @ scores @ columns.T`, of each class, or of all at once (openvino in
f32, which widens all scores before). The mask is made a band of rows at a time: a band of enlarged scores stays in the
processor's cache until its best classes are found. Both are 4 to 7 times as fast as the runtimes' interpolation with an
argmax behind it (`jobs/enlarging.py`), and in f32 where the model is in bf16 (in f16 where it is in f16).
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segment.models.card import ModelCard
from segment.models.sessions.ports import Size

# Where a pixel of the enlarged image lies between those of the small one: ONNX' coordinate_transformation_mode.
Centres = Literal["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]
CENTRES: tuple[Centres, ...] = get_args(Centres)

# Replaces minus infinity before bilinear enlarging, where infinity times a weight of zero is NaN.
LOWEST = -1e30
BEYOND = 3e38  # above the magnitude of any finite score

_BAND = 2**18  # scores: 1 MiB, half of a core's cache
_MOST_BANDS = 16  # more would compute many small rows twice
_LEAST_GAIN = 8  # enlarged pixels for each small one: with 4, ICNet in bf16 is slower than with an interpolation


class Enlarging(NamedTuple):
    """A bilinear enlarging.

    Attributes:
        rows: `float32[H, h]`: of each small row in each enlarged one.
        columns: `float32[W, w]`: the same of columns.
    """

    rows: NDArray[np.float32]
    columns: NDArray[np.float32]


class SmallScores(NamedTuple):
    """Scores that are to be enlarged.

    Attributes:
        scores: `[N, C, h, w]`: a value of the runtime's graph.
        enlarging: how.
        softmax: whether the model makes probabilities of the enlarged scores: left out here, as it keeps their order.
        after: what else it does to each enlarged score.
    """

    scores: Any
    enlarging: Enlarging
    softmax: bool = False
    after: tuple[Callable[[Any], Any], ...] = ()

    @property
    def size(self) -> Size:
        """(height, width) of the enlarged scores."""
        return len(self.enlarging.rows), len(self.enlarging.columns)


class Band(NamedTuple):
    """Some rows of the enlarged scores.

    Attributes:
        start, stop: the small rows that they are made of.
        rows: `float32[enlarged rows, stop - start]`: the part of `Enlarging.rows`.
    """

    start: int
    stop: int
    rows: NDArray[np.float32]


def enlarging_of(
    size: Size, target: Size, centres: Centres, scales: tuple[float, float] | None = None
) -> Enlarging | None:
    """Return how scores of `size` (height, width) are enlarged to `target`; None if matrix products do not pay.

    Args:
        size, target: (height, width).
        scales: enlarged pixels a small one, where the graph states them; else target / size.
    """
    if any(big < small for small, big in zip(size, target, strict=True)):
        return None
    if math.prod(target) < _LEAST_GAIN * math.prod(size):
        return None
    lines = zip(size, target, scales or (None, None), strict=True)
    rows, columns = (line_weights(small, big, centres, scale) for small, big, scale in lines)
    return Enlarging(rows, columns)


def line_weights(size: int, target: int, centres: Centres, scale: float | None = None) -> NDArray[np.float32]:
    """Return `float32[target, size]`: the weight of each pixel of a line in each pixel of the enlarged line.

    Two neighbours share a pixel by their distance; beyond the first and last centre, the outermost has it all.
    """
    step = 1 / scale if scale else size / target
    at = np.arange(target, dtype=np.float64)
    if centres == "align_corners":
        at *= (size - 1) / max(target - 1, 1)
    elif centres == "asymmetric":
        at *= step
    elif centres == "pytorch_half_pixel" and target == 1:
        at[:] = 0
    else:
        at = (at + 0.5) * step - 0.5
    at = at.clip(0, size - 1)
    first = np.floor(at).astype(np.int64)
    share, lines = at - first, np.arange(target)
    weights = np.zeros((target, size))
    weights[lines, first] = 1 - share
    weights[lines, np.minimum(first + 1, size - 1)] += share
    return weights.astype(np.float32)


def bands_of(enlarging: Enlarging, classes: int) -> Iterator[Band]:
    """Yield the bands of an enlarging, from the top."""
    height, width = len(enlarging.rows), len(enlarging.columns)
    lines = max(1, _BAND // (classes * width), math.ceil(height / _MOST_BANDS))
    for start in range(0, height, lines):
        rows = enlarging.rows[start : start + lines]
        used = np.flatnonzero(rows.any(axis=0))
        first, last = int(used[0]), int(used[-1]) + 1
        yield Band(first, last, np.ascontiguousarray(rows[:, first:last]))


def is_smaller(card: ModelCard, size: Size | None) -> bool:
    """Whether an output of `size` (height, width) needs enlarging; an unknown size (None) does not."""
    return size is not None and size != (card.output_height, card.output_width)


def nearest_positions(size: int, target: int) -> NDArray[np.int64]:
    """Return `int64[target]`: the source position of each pixel when Pillow's nearest enlarges `size` pixels."""
    line = Image.fromarray(np.arange(size, dtype=np.int32)[np.newaxis])
    return np.asarray(line.resize((target, 1), Image.Resampling.NEAREST), dtype=np.int64).reshape(target)


def class_axes(layout: str) -> tuple[int, int]:
    """Return both numbers of the axis of the classes."""
    axis = layout.index("C")
    return axis, axis - len(layout)
