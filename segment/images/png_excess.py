"""Refuse PNGs that take far more memory or work than their pixels need.

OpenCV makes room for a chunk of the length that it declares, before its first byte is there. libpng unpacks all that
follows the last row, and texts and profiles, however large. What deflate packs most is the same few bytes again and
again, and so is the packed data: a few samples tell whether it is worth to be unpacked by itself.
"""

import struct
import zlib
from collections.abc import Iterator

from zlib_ng import zlib_ng

from segment.errors import SampleError
from segment.images.magic import PNG_MAGIC

_MOST_CHUNKS = 1 << 17
_MOST_MISSING = 64 << 20  # bytes of a chunk behind the end of the data, of an image that is cut off
_SMALL = 1 << 16  # bytes of packed pixels that unpack in no time: at most 66 MB
_LARGE = 1 << 25  # from which on they are unpacked, even if they look as ordinary ones: 400 times as many take long
_SAMPLES, _SAMPLE = 16, 256
_LEAST_VALUES = 130  # different bytes in a sample; ordinary packed pixels are nearly noise, which has 162 or so
_SLACK = 1 << 16  # bytes behind the last row
_MOST_TEXT = 8 << 20  # bytes of a text or profile, as libpng has it
_MOST_TEXTS = 64 << 20  # bytes of all of them
_PIECE = 1 << 14  # bytes that are unpacked at once, to at most 17 MB

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))  # Adam7


def check_png(data: bytes) -> None:
    """Refuse a PNG by the number and lengths of its chunks, and by what its texts and profiles unpack to.

    Raises SampleError: `too_much_work`.
    """
    texts = 0
    for kind, start, end in chunks(data):
        if kind in (b"zTXt", b"iTXt", b"iCCP") and (packed := _packed_text(kind, data[start:end])):
            texts += _text_size(packed)
            if texts > _MOST_TEXTS:
                raise SampleError("too_much_work", "texts and profiles of a PNG")


def check_png_pixels(data: bytes) -> None:
    """Refuse a PNG that unpacks to more than its pixels. Raises SampleError: `too_much_work`."""
    pixels = b"".join(data[start:end] for kind, start, end in chunks(data) if kind == b"IDAT")
    if len(pixels) > _SMALL and (size := _pixel_bytes(data)) is not None:
        most = size + _SLACK
        if len(pixels) > min(most, _LARGE) or _is_repetitive(pixels):
            _check_pixels(pixels, most)


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type of each chunk, and where its content begins and ends: 8 bytes behind its start, 4 before its end.

    Raises SampleError: `too_much_work`.
    """
    at = len(PNG_MAGIC)
    for _ in range(_MOST_CHUNKS):
        if at + 12 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, at)
        if at + length - len(data) > _MOST_MISSING:
            raise SampleError("too_much_work", "a chunk of a PNG that says to be far longer than the file")
        yield kind, at + 8, at + 8 + length
        if kind == b"IEND":
            return
        at += 12 + length
    raise SampleError("too_much_work", f"more than {_MOST_CHUNKS} chunks of a PNG")


def _packed_text(kind: bytes, chunk: bytes) -> bytes:
    """Return the packed part of a text or profile; nothing if it is not packed."""
    rest = chunk.partition(b"\0")[2]  # behind the keyword
    if kind != b"iTXt":
        return rest[1:]
    return rest[2:].split(b"\0", 2)[-1] if rest[:1] == b"\1" else b""


def _text_size(packed: bytes) -> int:
    unpacker = zlib.decompressobj()
    try:
        size = len(unpacker.decompress(packed, _MOST_TEXT + 1))
    except zlib.error:
        return 0
    if size > _MOST_TEXT:
        raise SampleError("too_much_work", "a text or profile of a PNG")
    return size


def _is_repetitive(pixels: bytes) -> bool:
    """Return whether some of the packed pixels are the same few bytes again and again."""
    places = range(0, len(pixels) - _SAMPLE, len(pixels) // _SAMPLES)
    return any(len(set(pixels[at : at + _SAMPLE])) < _LEAST_VALUES for at in places)


def _pixel_bytes(data: bytes) -> int | None:
    """Return the bytes of all rows, unpacked, each with its filter; None if the header is damaged."""
    width, height, depth, colour, interlaced = struct.unpack_from(">IIBB2xB", data, 16)
    if colour not in _CHANNELS:
        return None
    bits, total = depth * _CHANNELS[colour], 0
    for left, top, right, down in _PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = max(0, -(-(width - left) // right)), max(0, -(-(height - top) // down))
        total += rows * (1 + -(-columns * bits // 8)) if columns else 0
    return total


def _check_pixels(pixels: bytes, most: int) -> None:
    unpacker, size = zlib_ng.decompressobj(), 0
    try:
        for at in range(0, len(pixels), _PIECE):
            size += len(unpacker.decompress(pixels[at : at + _PIECE]))
            if size > most:
                raise SampleError("too_much_work", "a PNG that unpacks to more than its pixels")
            if unpacker.eof:  # what follows is not unpacked, but would be gathered, and copied again with each piece
                return
    except zlib_ng.error:  # type: ignore[misc]  # it is an exception; its stub says less
        return  # the decoder says what is wrong
