"""Enlarging an output that is smaller than the model's input: the constants that both runtimes share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segment.models.card import ModelCard
from segment.models.sessions.ports import Size

# Replaces minus infinity before bilinear enlarging, where infinity times a weight of zero is NaN.
LOWEST = -1e30


def is_smaller(card: ModelCard, size: Size | None) -> bool:
    """Whether an output of `size` (height, width) needs enlarging; an unknown size (None) does not."""
    return size is not None and size != (card.output_height, card.output_width)


def nearest_positions(size: int, target: int) -> NDArray[np.int64]:
    """Return `int64[target]`: the source position of each pixel when Pillow's nearest enlarges `size` pixels."""
    line = Image.fromarray(np.arange(size, dtype=np.int32)[np.newaxis])
    return np.asarray(line.resize((target, 1), Image.Resampling.NEAREST), dtype=np.int64).reshape(target)
