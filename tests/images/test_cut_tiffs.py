"""Strips of a TIFF that hold less than their pixels, of which decoders make up the rest without a word."""

import io
import struct

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from segment.errors import SampleError
from segment.images.bands import decode_image
from segment.images.codec import decode_picture
from segment.images.label_images import read_label
from segment.images.tiff_tags import TiffPage
from segment.images.tiff_unpacking import is_whole_jpeg
from segment.models.card_input import Input

STRIP_SIZES = 279
BANDS = Input.model_validate({"layout": "NCHW", "height": 20, "width": 30, "bands": (3, 1)})
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


@pytest.mark.parametrize("compression", ["packbits", "jpeg", "tiff_lzw", "tiff_adobe_deflate", "lzma", "zstd"])
def test_bands_of_which_a_strip_is_cut_are_refused(compression: str) -> None:
    data = tiff(picture(3), compression)
    assert decode_image(data, BANDS, 10**6).pixels.shape == (96, 128, 2)
    with pytest.raises(SampleError, match="undecodable"):
        decode_image(with_shorter_strip(data, 200), BANDS, 10**6)


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


def fax(pixels: NDArray[np.bool_], compression: str, **tags: int) -> bytes:
    """A TIFF of three strips; `t4`: T4Options, `fill_order`: FillOrder."""
    numbers = {"t4": 292, "fill_order": 266}
    buffer = io.BytesIO()
    info = {278: ROWS, **{numbers[name]: value for name, value in tags.items()}}
    Image.fromarray(pixels).save(buffer, "TIFF", compression=compression, tiffinfo=info)
    return buffer.getvalue()


def drawings() -> dict[str, NDArray[np.bool_]]:
    down, right = np.mgrid[:96, :128]
    return {
        "noise": np.random.default_rng(7).random((96, 128)) < 0.5,
        "disc": (down - 48) ** 2 + (right - 64) ** 2 < 1500,
        "white": np.ones((96, 128), np.bool_),
        "black": np.zeros((96, 128), np.bool_),
    }


FAXES: dict[str, tuple[str, dict[str, int]]] = {
    "rows": ("tiff_ccitt", {}),
    "group 3": ("group3", {}),
    "group 3 in two dimensions": ("group3", {"t4": 1}),
    "group 3 with filling bits": ("group3", {"t4": 4}),
    "group 4": ("group4", {}),
    "group 4, lowest bit first": ("group4", {"fill_order": 2}),
    "group 3, lowest bit first": ("group3", {"fill_order": 2}),
}


@pytest.mark.parametrize("drawing", drawings())
@pytest.mark.parametrize("kind", FAXES)
def test_fax_codes_are_read_and_cut_ones_refused(kind: str, drawing: str) -> None:
    """Group 4 ends with 3 bytes that no row needs, group 3 may, and strips may be filled; neither is read."""
    compression, tags = FAXES[kind]
    pixels = drawings()[drawing]
    data = fax(pixels, compression, **tags)
    page = TiffPage(io.BytesIO(data))
    assert page.numbers(259, 1) == ({"tiff_ccitt": 2, "group3": 3, "group4": 4}[compression],)
    second = int(page.numbers(STRIP_SIZES, 0)[1])
    for filling in (
        b"",
        b"\0",
        bytes(50),
        b"\0\x10\1\0\x10\1\0\x10\1",
        b"\xff\x55\xaa",
    ):  # the fourth: six ends of lines
        filled = with_filled_strips(data, filling)
        found = decode_picture(filled, 10**6)
        assert (found.pixels == 255 * pixels[..., np.newaxis]).all()
        assert found.remarks == ()
        values, _ = read_label(filled, (96, 128), 1, as_colour=False, allow_lossy=False)
        assert values.values is not None
        assert (values.values == pixels).all()
    if kind.startswith("group 4"):
        without_end = with_shorter_strip(with_filled_strips(data, b""), 2)
        assert (decode_picture(without_end, 10**6).pixels == 255 * pixels[..., np.newaxis]).all()
    for by in {4, 5, second // 2, second - 1} & {*range(4, second)}:
        cut = with_shorter_strip(with_filled_strips(data, b""), by)
        with pytest.raises(SampleError, match=r"^undecodable: .* fewer rows"):
            decode_picture(cut, 10**6)
        with pytest.raises(SampleError, match="label_undecodable"):
            read_label(cut, (96, 128), 1, as_colour=False, allow_lossy=False)
