"""Run lengths of Label Studio's brush: the bit stream of @thi.ng/rle-pack over the bytes of an RGBA picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CHANNELS = 4
_WORD = 8  # bits of a value
_SIZES = np.array([3, 4, 8, 16])  # bits of a length, of which each run chooses one
_LONGEST = 1 << 16  # bytes of a run
_AT_ONCE = 1 << 13  # runs that are encoded at once
_HEADER = np.array([32, 5, 4, 4, 4, 4])  # bits of: number of bytes, bits of a value, bits of each length
LARGEST = ((1 << 32) - 1) // _CHANNELS  # pixels


def encode(counts: NDArray[np.int64]) -> bytes:
    """Encode a mask, whose pixels of the class are 255 in each channel and the others 0.

    After the header each run is a bit 1, the number of its length's size (2 bits), its length minus 1, and its value.

    Args:
        counts: pixels by turns of background and class, row by row, the first one of background and maybe 0; at most
            `LARGEST` in all.
    """
    header = np.array([int(counts.sum()) * _CHANNELS, _WORD - 1, *(_SIZES - 1)])
    encoded, left = bytearray(), _bits(header, _HEADER)
    for first in range(0, len(counts), _AT_ONCE):
        bits = np.concatenate([left, _runs(counts[first : first + _AT_ONCE])])  # the first one is of background
        whole = len(bits) // 8 * 8
        encoded += np.packbits(bits[:whole]).tobytes()
        left = bits[whole:]
    return bytes(encoded + np.packbits(left).tobytes())


def _runs(counts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the bits of runs, by turns of background and class."""
    lengths, values = counts * _CHANNELS, np.arange(len(counts)) % 2 * 255
    pieces = -(-lengths // _LONGEST)  # a longer run is several
    values, left = np.repeat(values, pieces), np.repeat(lengths, pieces)
    number = np.arange(len(left)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    size = np.minimum(left - number * _LONGEST, _LONGEST)
    choice = np.searchsorted(1 << _SIZES, size)
    bits = _SIZES[choice]
    return _bits(((((4 | choice) << bits) | (size - 1)) << _WORD) | values, 3 + bits + _WORD)


def _bits(numbers: NDArray[np.int64], widths: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the lowest `widths[i]` bits of each number, highest first, one after another, `uint8[n]` of 0 and 1."""
    longest = int(widths.max())
    place = widths[:, np.newaxis] - 1 - np.arange(longest)
    found: NDArray[np.uint8] = ((numbers[:, np.newaxis] >> np.maximum(place, 0)) & 1).astype(np.uint8)
    return found[place >= 0]
