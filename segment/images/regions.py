"""Connected regions in which a label and a prediction disagree."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segment.models.classes import VOID

SMALLEST = 16  # pixels of a region that is told


@dataclass(frozen=True)
class Region:
    """A connected region with one label and another prediction.

    Attributes:
        label, prediction: class indices.
        left, top, width, height: its box, in pixels.
        disc: pixels of the largest disc within it: small for the thin seams along the outlines of objects, however
            long they are, and large for whole objects.
        pixel: `bool[height, width]`, which pixels of the box are its own.
    """

    label: int
    prediction: int
    left: int
    top: int
    width: int
    height: int
    pixels: int
    disc: float
    pixel: NDArray[np.bool_]

    @property
    def box(self) -> tuple[slice, slice]:
        """The box as slices of an array `[H, W]`."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def disagreements(
    label: NDArray[np.uint8], prediction: NDArray[np.uint8], ignored: Sequence[int] = ()
) -> Iterator[Region]:
    """Yield the regions of an image in which label and prediction differ, in no order.

    Args:
        label: `uint8[H, W]` of class indices, and `VOID`, which is no disagreement.
        prediction: `uint8[H, W]` of class indices.
        ignored: classes whose labels are no disagreement.
    """
    wrong = (label != prediction) & ~np.isin(label, [*ignored, VOID])
    pairs = label.astype(np.uint16) << 8 | prediction
    for pair, pixels in zip(*np.unique(pairs[wrong], return_counts=True), strict=True):
        if pixels >= SMALLEST:
            yield from _regions(wrong & (pairs == pair), int(pair) >> 8, int(pair) & 255)


def _regions(chosen: NDArray[np.bool_], label: int, prediction: int) -> Iterator[Region]:
    number, members, boxes, _ = cv2.connectedComponentsWithStats(chosen.astype(np.uint8), connectivity=8)
    for component in range(1, number):
        left, top, width, height, pixels = (int(value) for value in boxes[component])
        if pixels < SMALLEST:
            continue
        inside = members[top : top + height, left : left + width] == component
        distances = cv2.distanceTransform(np.pad(inside, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        disc = min(math.pi * float(distances.max()) ** 2, float(pixels))
        yield Region(label, prediction, left, top, width, height, pixels, disc, inside)
