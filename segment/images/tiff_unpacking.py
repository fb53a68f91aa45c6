"""Strips and tiles of a TIFF, unpacked by imagecodecs.

These are compressions that OpenCV does not know; deflate, LZW and PackBits, of which it takes damaged
tiles without a word; and tiles without compression, of which it refuses some sizes.
"""

import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

import imagecodecs
import numpy as np
from PIL import Image

from segment.images import headers
from segment.images.tiff_tags import TiffError, TiffPage

NONE, LZW, JPEG, DEFLATE, PACKBITS, OLD_DEFLATE, LZMA, ZSTD, WEBP = 1, 5, 7, 8, 32773, 32946, 34925, 50000, 50001
LEFT_TO_US = (LZW, DEFLATE, PACKBITS, OLD_DEFLATE, LZMA, ZSTD, WEBP)  # compressions; see above
OF_FLOATS = 3  # a predictor; 2 is of whole numbers
PREDICTED_BITS = {2: (8, 16, 32), OF_FLOATS: (32,)}  # of samples, by predictor
_NO_DATA = 42113  # a tag of GDAL's: a number as text
_ZSTD_FRAME = b"\x28\xb5\x2f\xfd"  # as which it begins
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"  # markers
DAMAGED = "a strip or tile is damaged"

# From the bytes of a segment, its greatest number of rows, its width, samples a pixel and bits a sample to its pixels'
# bytes. They never return more than these and one, whatever the bytes unpack to, and raise TiffError.
Unpacker: TypeAlias = Callable[[bytes, int, int, int, int], bytes]


def _packed_by(decode: Callable[..., bytes | bytearray]) -> Unpacker:
    def unpack(data: bytes, rows: int, width: int, samples: int, bits: int) -> bytes:
        try:
            return bytes(decode(data, out=rows * -(-width * samples * bits // 8)))
        except Exception as error:  # each codec has its own types
            raise TiffError(DAMAGED) from error

    return unpack


def _packbits(data: bytes, rows: int, width: int, samples: int, bits: int) -> bytes:
    """Leave out the zeros that some writers fill strips with: each two of them are a byte of zero."""
    size, filling = rows * -(-width * samples * bits // 8), len(data) - len(data.rstrip(b"\0"))
    try:
        unpacked = bytes(imagecodecs.packbits_decode(data, out=size + filling // 2))
    except Exception as error:  # as above
        raise TiffError(DAMAGED) from error
    if any(unpacked[size:]):
        raise TiffError(DAMAGED)
    return unpacked[:size]


def _zstd(data: bytes, rows: int, width: int, samples: int, bits: int) -> bytes:
    """Leave out the zeros that some writers fill strips with; frames may themselves end with zeros."""
    end = 0
    while data.startswith(_ZSTD_FRAME, end):
        end = _zstd_end(data, end)
    if any(data[end:]):
        raise TiffError(DAMAGED)
    return _packed_by(imagecodecs.zstd_decode)(data[:end], rows, width, samples, bits)


def _zstd_end(data: bytes, start: int) -> int:
    """Return the byte behind a frame (RFC 8878, 3.1.1), which may be beyond the data, if it is cut."""
    flags = int.from_bytes(data[start + 4 : start + 5], "little")
    is_single, has_checksum = flags >> 5 & 1, flags >> 2 & 1  # a single segment has no byte for the window
    at = start + 6 - is_single + (0, 1, 2, 4)[flags & 3] + (is_single, 2, 4, 8)[flags >> 6]  # dictionary; size
    is_last = 0
    while not is_last and at < len(data):
        header = int.from_bytes(data[at : at + 3], "little")
        is_last, is_repeated = header & 1, header >> 1 & 3 == 1  # one byte is stored
        at += 3 + (1 if is_repeated else header >> 3)
    return at + 4 * has_checksum


def _lzw(data: bytes, rows: int, width: int, samples: int, bits: int) -> bytes:
    """Return one byte more, if there are more: LZW has no checksum, and wrong codes tend to give another length."""
    try:
        return bytes(imagecodecs.lzw_decode(data, out=rows * -(-width * samples * bits // 8) + 1))
    except Exception as error:  # as above
        raise TiffError(DAMAGED) from error


def _webp(data: bytes, rows: int, width: int, samples: int, bits: int) -> bytes:
    try:
        with headers.pixel_limit.lifted(), Image.open(io.BytesIO(data), formats=("WEBP",)) as header:
            size = header.size
        if size[0] == width and size[1] <= rows and bits == 8 and samples in (3, 4):
            return np.asarray(imagecodecs.webp_decode(data, hasalpha=samples == 4)).tobytes()
    except Exception as error:  # as above
        raise TiffError(DAMAGED) from error
    raise TiffError(f"{DAMAGED}: it is not of the size that its page tells")


UNPACKERS: dict[int, Unpacker] = {  # by compression
    NONE: lambda data, *_: data,
    PACKBITS: _packbits,
    LZW: _lzw,
    DEFLATE: _packed_by(imagecodecs.deflate_decode),
    OLD_DEFLATE: _packed_by(imagecodecs.deflate_decode),
    LZMA: _packed_by(imagecodecs.lzma_decode),
    ZSTD: _zstd,
    WEBP: _webp,
}


def is_whole_jpeg(segment: bytes) -> bool:
    """Return whether a JPEG has its last marker, or is not stored; of one that is cut decoders make up the rest.

    Whatever fills the segment may be behind the marker. A small JPEG within has its own, before the scans.
    """
    end = segment.rfind(_JPEG_END)
    return not segment or (end >= 0 and segment.find(_JPEG_SCAN, end) < 0)


def check_packed(segments: Sequence[bytes], compression: int) -> None:
    """Refuse segments of which a decoder would make up pixels. Raises TiffError."""
    if not all(segments):
        raise TiffError("a strip or tile has no bytes, as sparse files have them: write it without SPARSE_OK")
    if compression == JPEG and not all(map(is_whole_jpeg, segments)):
        raise TiffError(f"{DAMAGED}: its JPEG has no end")


def blank_samples(page: TiffPage, bits: int, size: int) -> bytes:
    """Return the bytes of a strip or tile that is not stored: what the page names for 'no data', if it fits, or 0."""
    value, tag = 0, page.tags.get(_NO_DATA)
    if tag is not None and bits in (8, 16, 32):
        with suppress(ValueError, OverflowError):  # such as 'nan', of floating-point numbers
            number = float(page.file.encoded(tag).rstrip(b"\0 ").decode("ascii", "replace"))
            value = int(number) if number == int(number) and 0 <= number < 1 << bits else 0
    sample = value.to_bytes(bits // 8, "little")  # as an excerpt has it where bytes are turned round
    return sample * (size * 8 // bits) if value else bytes(size)


def strips_of_tiles(tiles: Sequence[bytes], shape: tuple[int, int, int, int, int], rows: int, size: int) -> list[bytes]:
    """Return one strip for each plane, of so many rows of so many bytes.

    Args:
        tiles: unpacked, plane by plane and row by row.
        shape: planes, rows and columns of tiles, rows of a tile, bytes of its rows.
    """
    planes, down, _, height, _ = shape
    stored = np.frombuffer(b"".join(tiles), np.uint8).reshape(shape)
    return [plane.tobytes() for plane in stored.swapaxes(2, 3).reshape(planes, down * height, -1)[:, :rows, :size]]


def interleaved(segments: Sequence[bytes], planes: int, bits: int) -> list[bytes]:
    """Return segments of whole pixels, of those of each plane one behind the other; samples are whole bytes."""
    number = len(segments) // planes
    values = [np.frombuffer(segment, f"V{bits // 8}") for segment in segments]
    return [np.stack(values[first::number], axis=1).tobytes() for first in range(number)]


def plain_samples(data: bytes, predictor: int, bits: int, order: str, shape: tuple[int, int, int]) -> bytes:
    """Return samples as they are without a predictor, little-endian.

    Args:
        data: a segment, unpacked.
        predictor: by which each sample is the difference to that of the pixel on its left; 1 for none. Of
            floating-point numbers the bytes of a row are ordered by their rank, whatever the byte order.
        bits: of a sample.
        order: of its bytes, `<` or `>`.
        shape: rows, width, samples.
    """
    if predictor == OF_FLOATS:
        pixels = np.frombuffer(data, "<f4").reshape(shape)
        return np.asarray(imagecodecs.floatpred_decode(pixels, axis=1)).tobytes()
    kind = f"u{bits // 8}" if bits in (16, 32, 64) else "u1"
    if order == ">" and kind != "u1":
        data = np.frombuffer(data, f">{kind}").astype(f"<{kind}").tobytes()
    if predictor == 1:
        return data
    return np.asarray(imagecodecs.delta_decode(np.frombuffer(data, f"<{kind}").reshape(shape), axis=1)).tobytes()
