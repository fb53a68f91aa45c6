"""Images on their way to the model: one array where all have one size, else a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from segment.models.card_input import Input

Arrays: TypeAlias = NDArray[np.uint8] | list[NDArray[np.uint8]]


def stack(images: list[NDArray[np.uint8]], spec: Input) -> Arrays:
    """Stack images of the model's input size, without a copy of a single one; a list stays where sizes are the images'.

    Args:
        images: `uint8[H, W, 3]`, C-contiguous.
    """
    if spec.is_dynamic:
        return images
    if not images:
        return np.empty((0, spec.height, spec.width, spec.planes), dtype=np.uint8)
    return np.ascontiguousarray(images[0][np.newaxis] if len(images) == 1 else np.stack(images))


def by_size(images: Sequence[NDArray[np.uint8]]) -> list[list[int]]:
    """Return the positions of the images of each shape; shapes are in the order in which they appear."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for position, image in enumerate(images):
        groups.setdefault(image.shape, []).append(position)
    return list(groups.values())
