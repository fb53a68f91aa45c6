"""Strips and tiles of a TIFF, unpacked by imagecodecs.

These are compressions that OpenCV does not know; deflate, of which it takes damaged tiles without a word; and tiles
without compression, of which it refuses some sizes.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import imagecodecs
import numpy as np
from PIL import Image

from segment.images import headers
from segment.images.tiff_tags import TiffError

NONE, DEFLATE, OLD_DEFLATE, LZMA, ZSTD, WEBP = 1, 8, 32946, 34925, 50000, 50001  # numbers of compressions
UNKNOWN_TO_OPENCV = (LZMA, ZSTD, WEBP)
DAMAGED = "a strip or tile is damaged"


def _packed_by(decode: Callable[..., bytes | bytearray]) -> Callable[[bytes, int, int, int, int], bytes]:
    def unpack(data: bytes, rows: int, width: int, samples: int, bits: int) -> bytes:
        try:
            return bytes(decode(data, out=rows * -(-width * samples * bits // 8)))
        except Exception as error:  # each codec has its own types
            raise TiffError(DAMAGED) from error

    return unpack


def _webp(data: bytes, rows: int, width: int, samples: int, bits: int) -> bytes:
    try:
        with headers.pixel_limit.lifted(), Image.open(io.BytesIO(data), formats=("WEBP",)) as header:
            size = header.size
        if size[0] == width and size[1] <= rows and bits == 8 and samples in (3, 4):
            return np.asarray(imagecodecs.webp_decode(data, hasalpha=samples == 4)).tobytes()
    except Exception as error:  # as above
        raise TiffError(DAMAGED) from error
    raise TiffError(f"{DAMAGED}: it is not of the size that its page tells")


# By compression: from the bytes of a segment, its greatest number of rows, its width, samples a pixel and bits a sample
# to its pixels' bytes. They never return more than these, whatever the bytes unpack to, and raise TiffError.
UNPACKERS: dict[int, Callable[[bytes, int, int, int, int], bytes]] = {
    NONE: lambda data, *_: data,
    DEFLATE: _packed_by(imagecodecs.deflate_decode),
    OLD_DEFLATE: _packed_by(imagecodecs.deflate_decode),
    LZMA: _packed_by(imagecodecs.lzma_decode),
    ZSTD: _packed_by(imagecodecs.zstd_decode),
    WEBP: _webp,
}


def without_differences(data: bytes, stored: str, shape: tuple[int, int, int]) -> bytes:
    """Undo the predictor by which each sample is the difference to that of the pixel on its left.

    Args:
        data: a segment, unpacked.
        stored: the type of its samples, in the file's byte order.
        shape: rows, width, samples.
    """
    pixels = np.frombuffer(data, stored).reshape(shape)
    native = pixels.dtype.newbyteorder("=")
    return np.asarray(imagecodecs.delta_decode(pixels.astype(native), axis=1)).astype(stored).tobytes()
