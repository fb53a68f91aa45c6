"""Strips of a TIFF that hold less than their pixels, of which decoders make up the rest without a word."""

import io
import struct
import warnings

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from segment.errors import SampleError
from segment.images.bands import decode_image
from segment.images.codec import decode_picture
from segment.images.label_images import read_label
from segment.images.tiff_tags import Field, TiffPage, encode_directory, file_header
from segment.images.tiff_unpacking import is_whole_jpeg
from segment.models.card_input import Input

STRIP_SIZES = 279
BANDS = Input.model_validate({"layout": "NCHW", "height": 20, "width": 30, "bands": (3, 1)})
ROWS = 32


def picture(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 9, (96, 128, *shape)).astype(np.uint8)


def tiff(pixels: NDArray[np.uint8], compression: str, rows: int = ROWS) -> bytes:
    """Of strips of so many rows."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "TIFF", compression=compression, tiffinfo={278: rows})
    return buffer.getvalue()


def with_shorter_strip(data: bytes, by: int, number: int = 1) -> bytes:
    """A strip, as a rule the second, declared so many bytes shorter."""
    page = TiffPage(io.BytesIO(data))
    sizes = page.tags[STRIP_SIZES]
    width = sizes.size // sizes.count
    at = sizes.at + number * width
    size = int(page.file.numbers(sizes)[number]) - by
    return data[:at] + size.to_bytes(width, "little") + data[at + width :]


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


@pytest.mark.parametrize("compression", ["packbits", "jpeg", "tiff_lzw", "tiff_adobe_deflate", "lzma", "zstd"])
def test_bands_of_which_a_strip_is_cut_are_refused(compression: str) -> None:
    data = tiff(picture(3), compression)
    assert decode_image(data, BANDS, 10**6).pixels.shape == (96, 128, 2)
    with pytest.raises(SampleError, match="undecodable"):
        decode_image(with_shorter_strip(data, 200), BANDS, 10**6)


@pytest.mark.parametrize("compression", ["packbits", "tiff_lzw", "tiff_adobe_deflate", "zstd"])
def test_one_strip_of_any_size_is_read_and_refused_if_it_is_cut(compression: str) -> None:
    """Larger than a strip may be that is read by window."""
    pixels = np.zeros((4100, 8200), np.uint8)
    pixels[::7, ::9] = 200
    data = tiff(pixels, compression, len(pixels))
    band = BANDS.model_copy(update={"bands": (1,)})
    assert pixels.size > 1 << 25
    assert (decode_picture(data, 10**8).pixels[..., 0] == pixels).all()
    assert (decode_image(data, band, 10**8).pixels[..., 0] == pixels).all()
    cut = with_shorter_strip(data, 200, 0)
    for decode in (decode_picture, lambda data, most: decode_image(data, band, most)):
        with pytest.raises(SampleError, match="undecodable"):
            decode(cut, 10**8)


def test_tiles_far_larger_than_the_page_are_refused_in_words() -> None:
    """They are not bounded by the limit of pixels."""
    file = io.BytesIO()
    tifffile.imwrite(file, picture(), tile=(64, 64), compression="zstd", photometric="minisblack")
    data = bytearray(file.getvalue())
    page = TiffPage(io.BytesIO(data))
    for number in (322, 323):
        at, width = page.tags[number].at, page.tags[number].size
        data[at : at + width] = (1 << 15).to_bytes(width, "little")
    with pytest.raises(SampleError, match="too large to be read one by one"):
        decode_picture(bytes(data), 10**6)


@pytest.mark.parametrize(("field", "value"), [("place", 1 << 62), ("width", 1 << 40)], ids=["place and size", "width"])
def test_numbers_beyond_any_file_are_damage(field: str, value: int) -> None:
    """No overflow, which Python would warn of, and no other error."""
    numbers = {"width": 8, "place": 8, field: value}
    page = {256: numbers["width"], 257: 8, 258: 8, 259: 7, 262: 1, 273: numbers["place"], 277: 1, 278: 8}
    fields = [Field(tag, 16, [held]) for tag, held in {**page, 279: numbers["place"]}.items()]
    data = file_header(16, big=True) + encode_directory(fields, 16, 0, big=True) + bytes(100)
    with warnings.catch_warnings(action="error"), pytest.raises(SampleError):
        decode_picture(data, 10**6)


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
    assert (decode_image(filled, BANDS, 10**6).pixels == decode_image(data, BANDS, 10**6).pixels).all()
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


@pytest.mark.parametrize("filling", [b"", bytes(3)])
def test_zstd_may_end_with_any_number_of_zeros(filling: bytes) -> None:
    """As it does where it stores bytes that it cannot pack."""
    pixels = np.random.default_rng(5).integers(1, 256, (ROWS, 128)).astype(np.uint8)
    pixels[-1, -40:] = 0
    data = tiff(pixels, "zstd")
    assert data.count(bytes(40)) == 1
    filled = with_filled_strips(data, filling)
    assert (decode_picture(filled, 10**6).pixels == pixels[..., np.newaxis]).all()
    with pytest.raises(SampleError, match="undecodable"):
        decode_picture(with_shorter_strip(filled, len(filling) + 20, 0), 10**6)


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
