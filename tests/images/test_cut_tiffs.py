"""Strips of a TIFF that hold less than their pixels, of which decoders make up the rest without a word."""

import io
import struct

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from segment.errors import SampleError
from segment.images.codec import decode_picture
from segment.images.label_images import read_label
from segment.images.tiff_tags import TiffPage
from segment.images.tiff_unpacking import is_whole_jpeg

STRIP_SIZES = 279
ROWS = 32


def picture(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 9, (96, 128, *shape)).astype(np.uint8)


def tiff(pixels: NDArray[np.uint8], compression: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "TIFF", compression=compression, tiffinfo={278: ROWS})
    return buffer.getvalue()


def with_shorter_strip(data: bytes, by: int) -> bytes:
    """The second strip declared so many bytes shorter."""
    page = TiffPage(io.BytesIO(data))
    sizes = page.file.numbers(page.tags[STRIP_SIZES])
    kind = {3: "H", 4: "I"}[page.tags[STRIP_SIZES].kind]
    stored = struct.pack(f"<{len(sizes)}{kind}", *sizes)
    assert data.count(stored) == 1
    shorter = [size - by * (number == 1) for number, size in enumerate(sizes)]
    return data.replace(stored, struct.pack(f"<{len(sizes)}{kind}", *shorter))


@pytest.mark.parametrize("shape", [(), (3,)], ids=["grey", "colours"])
@pytest.mark.parametrize(
    ("compression", "by"),
    [
        ("packbits", 2),
        ("jpeg", 2),
        *((name, 200) for name in ("packbits", "jpeg", "tiff_lzw", "tiff_adobe_deflate", "lzma", "zstd")),
    ],
)
def test_an_image_of_which_a_strip_is_cut_is_refused(compression: str, by: int, shape: tuple[int, ...]) -> None:
    data = tiff(picture(*shape), compression)
    whole = decode_picture(data, 10**6)
    assert (whole.pixels.shape, whole.remarks) == ((96, 128, 3), ())
    with pytest.raises(SampleError, match="undecodable"):
        decode_picture(with_shorter_strip(data, by), 10**6)


@pytest.mark.parametrize("compression", ["packbits", "tiff_lzw"])
def test_a_label_of_which_a_strip_is_cut_is_refused(compression: str) -> None:
    values = picture()
    data = tiff(values, compression)
    pixels, remarks = read_label(data, (96, 128), 1, as_colour=False, allow_lossy=False)
    assert pixels.values is not None
    assert (pixels.values == values).all()
    assert remarks == ()
    with pytest.raises(SampleError, match="label_undecodable"):
        read_label(with_shorter_strip(data, 200), (96, 128), 1, as_colour=False, allow_lossy=False)


def with_filled_strips(data: bytes, filling: bytes) -> bytes:
    """Some bytes behind each strip, which count as its own; the strips anew at the end of the file."""
    page = TiffPage(io.BytesIO(data))
    starts, sizes = (page.tags[tag] for tag in (273, STRIP_SIZES))
    held = bytearray(data)
    for number, (start, size) in enumerate(zip(*map(page.file.numbers, (starts, sizes)), strict=True)):
        for tag, value in ((starts, len(held)), (sizes, int(size) + len(filling))):
            width = tag.size // tag.count
            held[tag.at + number * width : tag.at + (number + 1) * width] = value.to_bytes(width, "little")
        held += data[int(start) : int(start + size)] + filling
    return bytes(held)


@pytest.mark.parametrize("number", [1, 2, 3, 20])
@pytest.mark.parametrize("compression", ["packbits", "jpeg", "tiff_lzw", "tiff_adobe_deflate", "lzma", "zstd"])
def test_zeros_behind_strips_are_no_damage(compression: str, number: int) -> None:
    """Some writers fill strips up to a multiple of their own; a cut strip is refused all the same."""
    data = tiff(picture(3), compression)
    filled = with_filled_strips(data, bytes(number))
    assert (decode_picture(filled, 10**6).pixels == decode_picture(data, 10**6).pixels).all()
    if compression != "jpeg":
        values, _ = read_label(filled, (96, 128), 1, as_colour=True, allow_lossy=False)
        assert values.colours is not None
        assert (values.colours == picture(3)).all()
    with pytest.raises(SampleError, match="undecodable"):
        decode_picture(with_shorter_strip(filled, 200 + number), 10**6)


@pytest.mark.parametrize("value", [0, 8])
def test_packed_strips_of_one_value_are_read_filled_or_not(value: int) -> None:
    """Their last bytes may themselves be zeros, as those of a filling are."""
    pixels = np.full((96, 128), value, np.uint8)
    for compression in ("packbits", "zstd"):
        for filling in (b"", bytes(3)):
            data = with_filled_strips(tiff(pixels, compression), filling)
            assert (decode_picture(data, 10**6).pixels == value).all(), (compression, filling)


def test_packbits_of_more_pixels_than_its_strips_have_is_damage() -> None:
    data = tiff(picture(), "packbits")
    with pytest.raises(SampleError, match="undecodable"):
        decode_picture(with_filled_strips(data, b"\xfd\x05"), 10**6)  # four of value 5


@pytest.mark.parametrize("filling", [b"", bytes(3), b"\xff", b"\r\n"])
def test_a_jpeg_is_whole_that_has_its_end(filling: bytes) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture(3)).save(buffer, "JPEG")
    whole = buffer.getvalue()
    preview = whole[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(whole)) + whole + whole[2:]  # in a segment
    for data in (whole, preview):
        assert is_whole_jpeg(data + filling)
        assert not is_whole_jpeg(data[:-2] + filling)
    assert is_whole_jpeg(b"")
