"""Images that are far more work than their size and pixels explain are refused, and no ordinary image is."""

import io
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from segment.errors import SampleError
from segment.images.bands import decode_image
from segment.images.codec import decode_mask, decode_picture
from segment.images.labels import LabelDecoder
from segment.images.mask_png import encode_mask
from segment.images.png_excess import check_png_pixels
from segment.images.tiff_raster import open_raster
from segment.images.tiff_tags import LONG, SHORT, Field
from segment.models.card_input import Input
from tests import bombs
from tests.bombs import (
    PIXELS,
    chunk,
    encoded,
    like_noise,
    many_scans,
    png_of,
    segment,
    text,
    tiff,
    with_segments,
    zeros,
)
from tests.runs import CARD

MOST = 100_000_000  # pixels
_JPEG = many_scans(3000, (8, 8))


def noise(*shape: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8))


def jpeg_tiles(side: int, content: bytes) -> bytes:
    """A TIFF of side x side tiles of 256 x 256 pixels that are all the same JPEG, as writers that save space do it."""
    width, number = 256 * side, side * side
    sizes = [Field(tag, LONG, [value]) for tag, value in ((256, width), (257, width), (322, 256), (323, 256))]
    tiles = [Field(324, LONG, [16] * number), Field(325, LONG, [len(content)] * number), Field(259, SHORT, [7])]
    colours = [Field(258, SHORT, [8] * 3), Field(262, SHORT, [6]), Field(277, SHORT, [3]), Field(530, SHORT, [2, 2])]
    return tiff([*sizes, *tiles, *colours], content)


BOMBS: dict[str, Callable[[], bytes]] = {
    "scans of a progressive JPEG": lambda: many_scans(40, (8000, 8000)),
    "scans of a progressive JPEG, with filling bytes": lambda: many_scans(40, (9000, 9000), fill=b"\xff\xff"),
    "very many scans of a small JPEG": lambda: many_scans(3000, (1000, 1000)),
    "scans of a JPEG of one component each": lambda: many_scans(40, (8000, 8000), progressive=False),
    "empty segments of a JPEG": lambda: with_segments(segment(0xFE, b""), 5000),
    "padding of a JPEG": lambda: with_segments(b"\xff" * 1000, 100),
    "junk of a JPEG": lambda: with_segments(segment(0xFE, b"") + b"\0" * 1000, 100),
    "bare markers of a JPEG": lambda: with_segments(b"\xff\xd0", 50_000),
    "filling bytes behind the scans of a JPEG": lambda: many_scans(40, (8000, 8000), fill=b"\xff" * 20_000 + b"\0"),
    "restarts behind the scans of a JPEG": lambda: many_scans(40, (8000, 8000), fill=b"\xff\xd0" * 100_000),
    "empty segments behind the scans of a JPEG": lambda: many_scans(40, (8000, 8000), fill=b"\xff\xfe\0\2" * 50_000),
    "EXIF of a JPEG": lambda: with_segments(segment(0xE1, b"Exif\0\0" + bytes(65000)), 150),
    "PNG that unpacks to more": lambda: png_of(zeros(200)),
    "PNG that unpacks to more, in one chunk": lambda: png_of(zeros(200), piece=1 << 30),
    "PNG of pixels, then of noise": lambda: png_of(zlib.compress(noise(1 << 11, 1 << 11).tobytes())),
    "PNG of pixels, then of more": lambda: png_of(zeros(200), (1000, 1000)),
    "PNG that unpacks to more and looks like noise": lambda: png_of(like_noise(33), (6000, 6000), piece=1 << 25),
    "text of a PNG": lambda: png_of(PIXELS, before=text(b"zTXt", zeros(9))),
    "text behind the pixels of a PNG": lambda: png_of(PIXELS, behind=text(b"zTXt", zeros(9))),
    "international text of a PNG": lambda: png_of(PIXELS, behind=text(b"iTXt", zeros(9))),
    "profile of a PNG": lambda: png_of(PIXELS, before=text(b"iCCP", zeros(9))),
    "many texts of a PNG": lambda: png_of(PIXELS, behind=text(b"zTXt", zeros(7)) * 12),
    "empty chunks of a PNG": lambda: png_of(PIXELS, behind=chunk(b"abCd", b"") * 140_000),
    "empty pixel chunks of a PNG": lambda: png_of(PIXELS, before=chunk(b"IDAT", b"") * 140_000),
    "chunk of a PNG that is said to be 3 GB": lambda: png_of(PIXELS)[:33] + b"\xd6\x20\0\x52IDAT" + bytes(20),
    "text of a PNG that is said to be 1 GB": lambda: png_of(PIXELS)[:33] + b"\x40\0\0\0tEXt" + bytes(20),
    "strips of a TIFF that are the same bytes": lambda: bombs.shared_strips(50_000, zlib.compress(bytes(8)) * 10_000),
    "JPEG strips of a TIFF that are the same bytes": lambda: bombs.shared_strips(400, _JPEG, 7),
    "JPEG tiles of a TIFF that share many scans": lambda: jpeg_tiles(30, many_scans(200, (256, 256))),
    "scans of a JPEG in a TIFF": lambda: tiff(
        [Field(257, SHORT, [9000]), Field(256, SHORT, [9000]), Field(259, SHORT, [7]), Field(273, LONG, [16]),
         Field(279, LONG, [len(_JPEG)])], _JPEG
    ),
    "strips of a TIFF": lambda: tiff([Field(273, LONG, [16] * ((1 << 20) + 1))]),
    "entries of a BigTIFF": lambda: tiff([Field(tag, SHORT, [1]) for tag in range(1000, 9000)], big=True),
}  # fmt: skip


@pytest.mark.parametrize("what", BOMBS)
def test_work_without_measure_is_refused(what: str) -> None:
    with pytest.raises(SampleError) as caught:
        decode_picture(BOMBS[what](), MOST)
    assert caught.value.code == "too_much_work"
    assert caught.value.detail


LABELS = [
    "PNG that unpacks to more",
    "chunk of a PNG that is said to be 3 GB",
    "many texts of a PNG",
    "strips of a TIFF that are the same bytes",
]


@pytest.mark.parametrize(
    "data", [*(BOMBS[what]() for what in LABELS), bombs.commented_gif(20_000)], ids=[*LABELS, "GIF"]
)
def test_a_label_is_refused_likewise(data: bytes) -> None:
    with pytest.raises(SampleError) as caught:
        LabelDecoder(CARD.classes).decode(data, 8, 8)
    assert caught.value.code == "label_too_much_work"


def test_a_mask_is_refused_likewise() -> None:
    data = encode_mask(np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match="damaged"):
        decode_mask(data[:33] + b"\xd6\x20\0\x52IDAT" + data[41:])


def test_bands_of_a_tiff_are_refused_likewise() -> None:
    spec = Input(layout="NCHW", height=8, width=8, bands=(1,))
    with pytest.raises(SampleError, match="too_much_work"):
        decode_image(BOMBS["strips of a TIFF that are the same bytes"](), spec, MOST)


THUMBNAIL = segment(0xE1, b"Exif\0\0" + b"\xff\xda" * 2000)
ORDINARY = {
    "progressive": lambda: encoded("JPEG", noise(300, 300, 3), progressive=True),
    "many scans over few pixels": lambda: many_scans(60, (8, 8)),
    "scans named in a thumbnail": lambda: with_segments(THUMBNAIL, 30),
    "grey": lambda: encoded("JPEG", noise(30, 30)),
    "profile of many segments": lambda: with_segments(segment(0xE2, b"ICC_PROFILE\0" + bytes(65000)), 20),
    "JPEG tiles of a TIFF that are all blank": lambda: jpeg_tiles(
        8, encoded("JPEG", Image.new("RGB", (256, 256), "grey"))
    ),
    "stored PNG": lambda: encoded("PNG", noise(300, 300, 3), compress_level=0),
    "noise as PNG": lambda: encoded("PNG", noise(300, 300, 3)),
    "flat PNG of many pixels": lambda: encoded("PNG", Image.new("L", (3000, 3000), 7)),
    "PNG with texts": lambda: png_of(PIXELS, before=text(b"zTXt", zlib.compress(b"a" * 500_000))),
    "tiled TIFF": lambda: encoded("TIFF", noise(300, 300, 3), compression="tiff_lzw"),
    "JPEG in TIFF": lambda: encoded("TIFF", noise(300, 300, 3), compression="jpeg"),
    "WebP": lambda: encoded("WEBP", noise(30, 30, 3)),
}


@pytest.mark.parametrize("what", ORDINARY)
def test_ordinary_images_are_read(what: str) -> None:
    assert decode_picture(ORDINARY[what](), MOST).pixels.size


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize(("colour", "depth"), [(0, 1), (0, 16), (2, 8), (3, 4), (4, 8), (6, 16)])
def test_the_rows_of_a_png_are_counted_exactly(interlace: int, colour: int, depth: int) -> None:
    """By libpng's own words: one byte less, and rows are missing."""
    from segment.images.png_excess import _pixel_bytes

    for height, width in ((1, 1), (5, 3), (9, 17)):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))
        palette = chunk(b"PLTE", bytes(48)) if colour == 3 else b""
        size = _pixel_bytes(b"\x89PNG\r\n\x1a\n" + header)
        assert size
        sound, cut = (
            b"\x89PNG\r\n\x1a\n" + header + palette + chunk(b"IDAT", zlib.compress(bytes(number))) + chunk(b"IEND", b"")
            for number in (size, size - 1)
        )
        assert decode_picture(sound, MOST).remarks == ()
        assert outcome(cut) in ("image_damaged", "undecodable")


def outcome(data: bytes) -> str:
    try:
        return " ".join(decode_picture(data, MOST).remarks)
    except SampleError as error:
        return error.code


def test_damage_is_no_excess() -> None:
    """Packed pixels that look like a bomb's, and are none."""
    with pytest.raises(SampleError, match="undecodable"):
        decode_picture(png_of(b"\x78\x9c" + b"\xff" * 200_000), MOST)


def test_bytes_behind_packed_pixels_are_checked_in_linear_time() -> None:
    data = png_of(zlib.compress(bytes(100)) + bytes(40 << 20))
    began = time.process_time()
    check_png_pixels(data)
    assert time.process_time() - began < 5  # 22 seconds if each piece were added to those before


@contextmanager
def memory(most: int) -> Iterator[None]:
    """Fail if Python holds more bytes at once within the block than so many."""
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < most, f"{peak >> 20} MiB"


def overlapping_strips(strips: int, content: bytes, compression: int) -> bytes:
    """A TIFF of strips of 8 pixels, each of which is other bytes of 64 kB, most of them shared."""
    less = [number % 999 for number in range(strips)]
    starts, sizes = [16 + by for by in less], [len(content) + 999 - by for by in less]
    fields = [Field(257, LONG, [strips]), Field(278, SHORT, [1]), Field(259, SHORT, [compression])]
    return tiff([*fields, Field(273, LONG, starts), Field(279, LONG, sizes)], bytes(999) + content)


def test_strips_that_share_their_bytes_are_not_all_held_at_once() -> None:
    """130 MB of strips in a file of 64 kB, which are looked at before the size of the image is checked."""
    jpegs = overlapping_strips(2000, bytes(64000) + b"\xff\xd9", 7)
    with memory(4 << 20), pytest.raises(SampleError, match="too_many_pixels"):
        decode_picture(jpegs, 100)


def test_webp_strips_that_share_their_bytes_are_not_all_held_at_once() -> None:
    content = encoded("WEBP", noise(8, 1, 3), lossless=True) + bytes(60000)
    sizes = Field(279, LONG, [len(content) - by for by in range(2000)])
    fields = [Field(257, LONG, [2000]), Field(278, SHORT, [1]), Field(259, SHORT, [50001])]
    webps = tiff([*fields, Field(273, LONG, [16] * 2000), sizes], content)
    with memory(4 << 20), pytest.raises(SampleError, match="label_size"):
        LabelDecoder(CARD.classes).read(webps, 3, 3, 1)


@pytest.mark.parametrize("compression", [5, 7, 8, 32773])
def test_strips_that_share_their_bytes_again_and_again_are_not_copied(compression: int) -> None:
    """300 MB of strips in a file of 64 kB, each of 8 pixels."""
    data = overlapping_strips(5000, bytes(64000), compression)
    with memory(16 << 20), pytest.raises(SampleError, match=r"undecodable.*again and again"):
        decode_picture(data, MOST)


def test_a_window_holds_few_strips_that_share_their_bytes() -> None:
    """64 kB for each of the strips, of 8 pixels, of a large image; a window touches 260 MB of them."""
    strips = 1 << 21
    content = zlib.compress(bytes(8)) + bytes(64000)
    sizes = [Field(257, LONG, [strips]), Field(278, SHORT, [1]), Field(259, SHORT, [8])]
    places = [Field(273, LONG, [16] * strips), Field(279, LONG, [len(content) - by % 999 for by in range(strips)])]
    found = open_raster(io.BytesIO(tiff([*sizes, *places], content)), 8 * strips)
    with memory(100 << 20):
        assert not found.read(0, 0, 4096, 8).any()
