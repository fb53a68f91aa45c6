"""What a run keeps of an image in its row (`keep`): values that came with it, and its brightness."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from segment.inputs.metadata import Values
from segment.models.extra_options import BRIGHTNESS

_LUMA = (0.299, 0.587, 0.114)  # of R, G and B: ITU-R BT.601


def mean_luma(pixels: NDArray[np.uint8]) -> float:
    """Return the mean luma (ITU-R BT.601) of an image, `uint8[H, W, 3]`, RGB; 0-255, with one decimal."""
    red, green, blue, _ = cv2.mean(pixels)
    return round(_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue, 1)


def row_meta(keep: Sequence[str], values: Values, brightness: float | None) -> Values:
    """Return the values of a row in the order of `keep`; empty if there are none.

    Args:
        keep: names of columns, and `:brightness`.
        values: of the columns, in this order; empty if they were not read.
        brightness: see `mean_luma`; None of an image that is not decoded.
    """
    if not values and brightness is None:
        return ()
    columns = iter(values or (None,) * len(keep))
    measured = None if brightness is None else str(brightness)
    return tuple(measured if name == BRIGHTNESS else next(columns) for name in keep)
