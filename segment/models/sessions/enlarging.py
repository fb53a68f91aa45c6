"""What is smaller than the model's input becomes as large, inside the graph: the numbers both runtimes share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segment.models.card import ModelCard
from segment.models.sessions.ports import Size

# Stands for minus infinity before linear enlarging, where infinity times a weight of zero would be no number.
LOWEST = -1e30


def is_smaller(card: ModelCard, size: Size | None) -> bool:
    """Whether an output of `size` (None: not known, so taken for as large as the mask) is to be enlarged."""
    return size is not None and size != (card.output_height, card.output_width)


def nearest_positions(size: int, target: int) -> NDArray[np.int64]:
    """`int64[target]`: of `size` pixels, the one that each enlarged pixel is taken from by Pillow's nearest."""
    line = Image.fromarray(np.arange(size, dtype=np.int32)[np.newaxis])
    return np.asarray(line.resize((target, 1), Image.Resampling.NEAREST), dtype=np.int64).reshape(target)
