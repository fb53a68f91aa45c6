"""A perceptual hash, by which near-duplicates are found: frames of a video, other sizes or encodings of a picture.

The difference hash, in both directions: a picture is shrunk to a few grey pixels, and each bit says whether one is
markedly darker than its neighbour. Evenly coloured pictures have equal hashes whatever their colour, so colours are
compared, too. Source: N. Krawetz, 'Kind of Like That', The Hacker Factor Blog, 2013.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_SIDE = 9  # pixels, of which 8 x 8 pairs in each direction are compared
_NOISE = 4  # of 255: a smaller difference of neighbours is none, so that noise sets no bit of an even area
_NEAR_BITS = 24  # of 128, in which near-duplicates differ at most
_NEAR_COLOUR = 28.0  # of 255, the mean difference of their colours at most


@dataclass(frozen=True, eq=False)
class PerceptualHash:
    """What a picture looks like, from afar.

    Attributes:
        bits: the difference hash, 128 bits.
        colours: the picture, shrunk to `uint8[9, 9, 3]`.
    """

    bits: int
    colours: NDArray[np.uint8]

    @staticmethod
    def of(rgb: NDArray[np.uint8]) -> PerceptualHash:
        """Return the hash of a picture `uint8[H, W, 3]`, RGB."""
        small = cv2.resize(np.ascontiguousarray(rgb), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        grey = small.astype(np.int32).sum(axis=2)
        above = grey[:-1, :-1] + 3 * _NOISE
        darker = [above < grey[:-1, 1:], above < grey[1:, :-1]]
        return PerceptualHash(int.from_bytes(np.packbits(darker).tobytes(), "big"), np.asarray(small, np.uint8))

    def is_near(self, other: PerceptualHash) -> bool:
        """Return whether both are of near-duplicates."""
        if (self.bits ^ other.bits).bit_count() > _NEAR_BITS:
            return False
        return float(cv2.absdiff(self.colours, other.colours).mean()) <= _NEAR_COLOUR
