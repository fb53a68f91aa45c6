"""TIFFs of either byte order, and pixels of types that are not read: exact, or refused by their name."""

import io
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from segment.errors import SampleError
from segment.images import tiff_raster
from segment.images.codec import decode_picture
from segment.images.headers import unread_pixels
from segment.images.label_images import read_label
from segment.images.tiff_tags import LONG, SHORT, Field
from tests.bombs import encoded, tiff

LIMIT = 1 << 24
LAYOUTS: dict[str, dict[str, Any]] = {
    "strips": {},
    "tiles": {"tile": (16, 16)},
    "deflate": {"compression": "zlib"},
    "tiles of differences": {"tile": (16, 16), "compression": "zlib", "predictor": True},
    "lzw": {"compression": "lzw"},
    "packbits": {"compression": "packbits"},
    "zstd of differences": {"compression": "zstd", "predictor": True},
    "lzma": {"compression": "lzma"},
}


def written(pixels: NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, metadata=None, **{"photometric": "minisblack", **options})
    return file.getvalue()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_numbers_of_either_byte_order_are_read(layout: str, order: Any) -> None:
    """Pillow takes compressed numbers of 16 and 32 bits in the wrong order, and does not read BigTIFFs of the other."""
    values = np.add.outer(np.arange(21), np.arange(37)).astype(np.uint8) % 12
    for kind in ("u1", "i1", "u2", "i2", "u4", "i4", "f4"):
        for big in (False, True):
            data = written(values.astype(kind), byteorder=order, bigtiff=big, **LAYOUTS[layout])
            found, remarks = read_label(data, values.shape, 1, as_colour=False, allow_lossy=False)
            assert np.array_equal(found.values, values), (kind, big)
            assert remarks == ()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_colours_of_16_bits_are_read_from_any_compression(layout: str) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (21, 37, 3)).astype(np.uint16) * 257
    for order in ("<", ">"):
        data = written(colours, photometric="rgb", byteorder=order, **LAYOUTS[layout])
        found, _ = read_label(data, (21, 37), 1, as_colour=False, allow_lossy=False)
        assert np.array_equal(found.colours, colours // 257)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_images_of_either_byte_order_are_read(layout: str, photometric: str, kind: str) -> None:
    grey = np.add.outer(3 * np.arange(21), 2 * np.arange(37)).astype(np.uint8)
    stored = (grey if photometric == "minisblack" else 255 - grey).astype(kind) * (257 if kind == "u2" else 1)
    expected = grey[..., None].repeat(3, axis=2)
    for order in ("<", ">"):
        for big in (False, True):
            data = written(stored, photometric=photometric, byteorder=order, bigtiff=big, **LAYOUTS[layout])
            assert np.array_equal(decode_picture(data, LIMIT).pixels, expected), (order, big)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_large_bigtiff_of_the_other_order_is_read_by_window(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_raster, "LARGE", 1)
    grey = np.add.outer(3 * np.arange(21), 2 * np.arange(37)).astype(np.uint8)
    for kind in ("u1", "u2"):
        stored = grey.astype(kind) * (257 if kind == "u2" else 1)
        found = tiff_raster.open_raster(
            io.BytesIO(written(stored, byteorder=">", bigtiff=True, **LAYOUTS[layout])), LIMIT
        )
        assert isinstance(found, tiff_raster.TiffRaster)
        assert np.array_equal(found.read(3, 5, 17, 30), grey[3:20, 5:35, None].repeat(3, axis=2))


def test_further_pages_of_a_bigtiff_of_the_other_order_are_noticed() -> None:
    pages = written(np.zeros((2, 16, 16), np.uint8), byteorder=">", bigtiff=True)
    assert decode_picture(pages, LIMIT).remarks == ("image_frames",)


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("compression", ["zlib", "jpeg"])
def test_a_bigtiff_of_the_other_order_is_turned_upright(orientation: int, compression: str) -> None:
    rgb = np.kron(np.random.default_rng(0).integers(0, 256, (3, 5, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    options = {"photometric": "rgb", "compression": compression, "extratags": [(274, 3, 1, orientation, True)]}
    for tile in (None, (16, 32)):
        one, other = (
            decode_picture(written(rgb, byteorder=order, bigtiff=True, tile=tile, **options), LIMIT) for order in "<>"
        )
        assert np.array_equal(one.pixels, other.pixels)
        assert one.orientation == other.orientation == orientation


def lab() -> bytes:
    return encoded("TIFF", Image.new("LAB", (8, 8)))


def jpeg_of_12_bits() -> bytes:
    return imagecodecs.jpeg8_encode(np.zeros((16, 16, 3), np.uint16), bitspersample=12)


def lossless_jpeg() -> bytes:
    return imagecodecs.ljpeg_encode(np.zeros((16, 16), np.uint16))


@pytest.mark.parametrize("image", [lab, jpeg_of_12_bits, lossless_jpeg])
def test_pixels_of_other_types_are_refused_by_name(image: Any) -> None:
    """OpenCV gives Lab in other colours than it has."""
    with pytest.raises(SampleError) as caught:
        decode_picture(image(), LIMIT)
    assert caught.value.code == "pixel_format"


@pytest.mark.parametrize("layout", [*LAYOUTS, "planes"])
def test_pictures_of_16_bits_are_their_high_bytes(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of PNGs; OpenCV would round the colours of TIFFs, and Pillow mixes up planes without compression."""
    colours = np.random.default_rng(0).integers(0, 65536, (21, 37, 3), dtype=np.uint16)
    options = {"planarconfig": "separate"} if layout == "planes" else LAYOUTS[layout]
    given = colours.transpose(2, 0, 1) if layout == "planes" else colours
    for order in ("<", ">"):
        for turned_by in (1, 6):
            data = written(given, photometric="rgb", byteorder=order, extratags=[(274, "H", 1, turned_by)], **options)
            upright = np.rot90(colours, -1) if turned_by == 6 else colours
            assert np.array_equal(decode_picture(data, LIMIT).pixels, upright >> 8)
            monkeypatch.setattr(tiff_raster, "LARGE", 1)
            raster = tiff_raster.open_raster(io.BytesIO(data), LIMIT)
            assert np.array_equal(raster.read(3, 5, 11, 9), (upright >> 8)[3:14, 5:14])
    png = cv2.imencode(".png", colours[..., ::-1])[1].tobytes()
    assert np.array_equal(decode_picture(png, LIMIT).pixels, colours >> 8)


@pytest.mark.parametrize("kind", [1, 2, 5, 7, 10, 11, 12])
def test_a_number_of_bits_that_is_no_number_is_a_damaged_image(kind: int) -> None:
    data = tiff([Field(256, LONG, [4]), Field(257, LONG, [4]), Field(258, kind, b"")], b"")
    with pytest.raises(SampleError, match="undecodable"):
        decode_picture(data, LIMIT)
    with pytest.raises(SampleError, match="undecodable"):
        read_label(data, (4, 4), 1, as_colour=False, allow_lossy=False)


GREY, COLOURS = np.arange(64, dtype=np.uint8).reshape(8, 8), np.arange(192, dtype=np.uint8).reshape(8, 8, 3)


@pytest.mark.parametrize(
    ("pixels", "options", "kind"),
    [
        (np.dstack([GREY, GREY]).astype(np.uint16), {"planarconfig": "contig"}, "grey pixels, 2 samples of 16 bits"),
        (np.dstack([GREY, GREY]), {"photometric": "miniswhite", "planarconfig": "contig"},
         "grey pixels, 2 samples of 8 bits"),
        (COLOURS.transpose(2, 0, 1), {"planarconfig": "separate"}, "grey pixels, 3 samples of 8 bits"),
        (GREY.astype(np.int8), {}, "signed numbers of 8 bits"),
        (GREY.astype(np.uint16), {"photometric": "palette", "colormap": np.zeros((3, 1 << 16), np.uint16)},
         "palette pixels, 1 sample of 16 bits"),
        (GREY > 9, {"photometric": 32803, "extratags": [(33421, "H", 2, (2, 2)), (33422, "B", 4, (0, 1, 1, 2))]},
         "raw sensor pixels, 1 sample of 1 bits"),
        (COLOURS, {"photometric": "rgb", "compression": "jpegxl"}, "compression 50002"),
    ],
)  # fmt: skip
def test_a_sound_tiff_that_is_not_read_does_not_count_as_damaged(pixels: Any, options: Any, kind: str) -> None:
    with pytest.raises(SampleError) as caught:
        decode_picture(written(pixels, **options), LIMIT)
    assert (caught.value.code, caught.value.detail) == ("pixel_format", f"a TIFF of {kind}")


def test_an_old_jpeg_that_does_not_say_its_samples_is_left_to_the_decoder() -> None:
    assert unread_pixels(tiff([Field(259, SHORT, [6]), Field(262, SHORT, [6])])) == ""


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("photometric", [0, 1, 3])
def test_few_bits_a_pixel_are_read(bits: int, photometric: int) -> None:
    """OpenCV reads none of these but palettes of 4 bits."""
    values, colours = GREY % (1 << bits), np.random.default_rng(0).integers(0, 256, (3, 1 << bits))
    packed = np.packbits((values[..., None] >> np.arange(bits - 1, -1, -1)) & 1)
    places = [Field(273, LONG, [16]), Field(279, LONG, [len(packed)])]
    shown = [Field(262, SHORT, [photometric]), Field(320, SHORT, (257 * colours).ravel().tolist())]
    found = decode_picture(
        tiff([*places, *shown[: 1 + (photometric == 3)], Field(258, SHORT, [bits])], bytes(packed)), LIMIT
    )
    levels = values * (255 // ((1 << bits) - 1))
    grey = 255 - levels if photometric == 0 else levels
    assert np.array_equal(found.pixels, colours.T[values] if photometric == 3 else grey[..., None].repeat(3, axis=2))


@pytest.mark.parametrize("compression", ["none", "packbits"])
def test_planes_are_read(compression: str) -> None:
    """Of four without stated alpha OpenCV refuses one; of two it takes both for grey."""
    options = {"planarconfig": "separate", "compression": compression}
    planes = np.concatenate([COLOURS.transpose(2, 0, 1), GREY[None]])
    found = decode_picture(written(planes, photometric="rgb", extrasamples=["unspecified"], **options), LIMIT)
    assert np.array_equal(found.pixels, COLOURS)
    found = decode_picture(written(planes[2:], extrasamples=["unassalpha"], **options), LIMIT)
    assert np.array_equal(found.pixels, COLOURS[..., 2:].repeat(3, axis=2))


def test_inks_of_16_bits_are_read_as_those_of_8() -> None:
    inks = np.random.default_rng(0).integers(0, 65536, (8, 8, 4), dtype=np.uint16)
    deep, plain = (
        decode_picture(written(each, photometric="separated"), LIMIT) for each in (inks, (inks >> 8).astype(np.uint8))
    )
    assert np.abs(deep.pixels.astype(int) - plain.pixels).max() <= 1  # of two decoders
