"""COCO's compressed run lengths: counts of pixels, column by column, as text."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BITS = 5  # of a number in a character
_MORE = 1 << _BITS  # the number goes on in the next character
_FIRST = 48  # character of the value 0
_LONGEST = 13  # characters of a number of 64 bits


def compress(counts: NDArray[np.int64]) -> str:
    """Return run lengths as the text that COCO's tools read (`rleToString` of cocoapi's `maskApi.c`).

    From the fourth on, the difference to the count before the previous one is written. A number is cut into groups of 5
    bits, the lowest first, until the rest is but its sign; a sixth bit says that another group follows.

    Args:
        counts: lengths by turns of background and foreground, column by column, the first one of background.
    """
    rest = counts.copy()
    rest[3:] -= counts[1:-2]
    characters = np.zeros((len(rest), _LONGEST), np.uint8)  # 0: none
    going_on = np.ones(len(rest), np.bool_)
    for place in range(_LONGEST):
        low = rest & (_MORE - 1)
        rest >>= _BITS
        ends = np.where(low & (_MORE >> 1), rest == -1, rest == 0)
        characters[:, place] = np.where(going_on, low + np.where(ends, 0, _MORE) + _FIRST, 0)
        going_on &= ~ends
        if not going_on.any():
            break
    return characters[characters > 0].tobytes().decode("ascii")
