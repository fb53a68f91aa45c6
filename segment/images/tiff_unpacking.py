"""Strips and tiles of a TIFF whose compression OpenCV does not know, unpacked by imagecodecs."""

from __future__ import annotations

import io
from collections.abc import Callable

import imagecodecs
import numpy as np
from PIL import Image

from segment.images import headers
from segment.images.tiff_tags import TiffError

LZMA, ZSTD, WEBP = 34925, 50000, 50001  # numbers of compressions
_DAMAGED = "a strip or tile is damaged"


def _packed_by(decode: Callable[..., bytes | bytearray]) -> Callable[[bytes, int, int, int, int], bytes]:
    def unpack(data: bytes, rows: int, width: int, samples: int, bits: int) -> bytes:
        size = rows * -(-width * samples * bits // 8)
        try:
            found = bytes(decode(data, out=size))  # not more, whatever the data unpack to
        except Exception as error:  # each codec has its own types
            raise TiffError(_DAMAGED) from error
        if len(found) != size:
            raise TiffError(f"{_DAMAGED}: it holds fewer pixels than its size needs")
        return found

    return unpack


def _webp(data: bytes, rows: int, width: int, samples: int, bits: int) -> bytes:
    try:
        with headers.pixel_limit.lifted(), Image.open(io.BytesIO(data), formats=("WEBP",)) as header:
            size = header.size
        if size == (width, rows) and bits == 8 and samples in (3, 4):
            return np.asarray(imagecodecs.webp_decode(data, hasalpha=samples == 4)).tobytes()
    except Exception as error:  # as above
        raise TiffError(_DAMAGED) from error
    raise TiffError(f"{_DAMAGED}: it is not of the size that its page tells")


# By compression: from the bytes of a segment, its rows, width, samples a pixel and bits a sample to its pixels' bytes.
# They raise TiffError.
UNPACKERS: dict[int, Callable[[bytes, int, int, int, int], bytes]] = {
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
    return np.cumsum(pixels, axis=1, dtype=native).astype(stored).tobytes()
