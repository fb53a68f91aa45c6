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


def test_zeros_behind_a_jpeg_are_no_damage() -> None:
    """Some writers fill strips up to a multiple of their own."""
    buffer = io.BytesIO()
    Image.fromarray(picture(3)).save(buffer, "JPEG")
    whole = buffer.getvalue()
    assert [is_whole_jpeg(data) for data in (whole, whole + bytes(3), b"", whole[:-2])] == [True, True, True, False]
