"""Multi-band TIFFs: the card's bands, in its order, as bytes."""

import io
import re
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from segment.errors import SampleError
from segment.images import tiff_raster
from segment.images.bands import decode_image, displayed, pixel_reader
from segment.images.conversion import to_picture
from segment.images.resize import resize_image
from segment.images.tiff_raster import TiffRaster, open_raster
from segment.models.card_input import Input

LIMIT = 10**6
PIXELS = np.random.default_rng(0).integers(0, 256, (37, 50, 8), dtype=np.uint8)


def entry(bands: tuple[int, ...] = (4, 3, 2, 8), **values: Any) -> Input:
    return Input.model_validate({"layout": "NCHW", "height": 20, "width": 30, "bands": bands, **values})


def tiff(pixels: NDArray[Any], planar: bool = False, **options: Any) -> bytes:
    """Encode `[H, W, bands]`."""
    file = io.BytesIO()
    if pixels.shape[2] > 1:
        options["planarconfig"] = "separate" if planar else "contig"
    stored = np.moveaxis(pixels, 2, 0) if planar else pixels
    tifffile.imwrite(file, stored, photometric="minisblack", **options)
    return file.getvalue()


def fault(data: bytes, spec: Input, limit: int = LIMIT) -> tuple[str, str]:
    with pytest.raises(SampleError) as caught:
        decode_image(data, spec, limit)
    return caught.value.code, caught.value.detail


@pytest.mark.parametrize("planar", [True, False])
@pytest.mark.parametrize(
    "options", [{}, {"tile": (16, 16)}, {"compression": "deflate", "predictor": True}, {"compression": "zstd"},
                {"rowsperstrip": 5, "compression": "lzw"}, {"bigtiff": True, "byteorder": ">"}]
)  # fmt: skip
def test_bands_are_the_card_s_in_its_order(options: dict[str, Any], planar: bool) -> None:
    found = decode_image(tiff(PIXELS, planar, **options), entry(), LIMIT)
    assert np.array_equal(found.pixels, PIXELS[..., [3, 2, 1, 7]])
    assert (found.pixels.flags.c_contiguous, found.remarks) == (True, ())


@pytest.mark.parametrize(("kind", "said"), [("miniswhite", "white is 0"), ("palette", "indices of a palette")])
def test_pixels_that_are_no_numbers_of_bands_are_refused(kind: str, said: str) -> None:
    file = io.BytesIO()
    colours = np.zeros((3, 256), np.uint16) if kind == "palette" else None
    tifffile.imwrite(file, PIXELS[..., 0], photometric=kind, colormap=colours)
    assert fault(file.getvalue(), entry((1,))) == ("band_type", said)


@pytest.mark.parametrize("compression", [None, "deflate", "jpeg"])
def test_a_file_that_is_cut_off_is_damaged(compression: str | None) -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, PIXELS[..., :3], photometric="rgb", compression=compression)
    assert decode_image(file.getvalue(), entry((1, 2, 3)), LIMIT).pixels.shape == (37, 50, 3)
    assert fault(file.getvalue()[:-9], entry((1, 2, 3)))[0] == "undecodable"


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
@pytest.mark.parametrize("planar", [True, False])
def test_sixteen_bits_are_mapped_from_the_range_of_the_card(planar: bool, dtype: Any) -> None:
    levels = np.linspace(-500 if dtype == np.int16 else 0, 4000, 37 * 50).astype(dtype).reshape(37, 50, 1)
    stored = np.concatenate([levels, levels[::-1]], axis=2)
    found = decode_image(tiff(stored, planar), entry((2, 1), band_range=(100, 3000)), LIMIT).pixels
    wanted = np.round((stored.astype(float) - 100) / 2900 * 255).clip(0, 255)[..., ::-1]
    assert np.array_equal(found, wanted)
    assert (found.min(), found.max()) == (0, 255)


def test_numbers_of_another_type_are_refused() -> None:
    sixteen, floats = (tiff(PIXELS.astype(dtype)) for dtype in (np.uint16, np.float32))
    assert fault(sixteen, entry()) == ("band_type", "uint16, and the card has no input.band_range")
    assert fault(floats, entry(band_range=(0, 1))) == ("band_type", "float32, but input.band_range is for 16 bits")
    wanted = ("band_type", "uint8, but input.band_range is for 16 bits")
    assert fault(tiff(PIXELS), entry(band_range=(0, 3000))) == wanted


def test_fewer_bands_are_refused_with_both_numbers() -> None:
    assert fault(tiff(PIXELS[..., :3]), entry((1, 8))) == ("bands", "3 bands, and the card reads band 8")
    grey = tiff(PIXELS[..., :1])
    assert fault(grey, entry((2,))) == ("bands", "1 band, and the card reads band 2")
    assert np.array_equal(decode_image(grey, entry((1,)), LIMIT).pixels, PIXELS[..., :1])


def test_other_images_have_three_bands() -> None:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(PIXELS[..., :3])).save(file, "PNG")
    assert np.array_equal(decode_image(file.getvalue(), entry((3, 1)), LIMIT).pixels, PIXELS[..., [2, 0]])
    assert fault(file.getvalue(), entry((4,))) == ("bands", "3 bands, and the card reads band 4")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_bands_are_upright(orientation: int) -> None:
    data = tiff(PIXELS[..., :4], extratags=[(274, 3, 1, orientation, True)])
    file = io.BytesIO()
    tags = Image.Exif()
    tags[274] = orientation
    Image.fromarray(np.ascontiguousarray(PIXELS[..., :3])).save(file, "PNG", exif=tags)
    found, rgb = decode_image(data, entry((1, 2, 3, 4)), LIMIT), decode_image(file.getvalue(), None, LIMIT)
    assert found.orientation == rgb.orientation == orientation
    assert np.array_equal(found.pixels[..., :3], rgb.pixels)
    assert found.pixels.shape[2] == 4


def test_overviews_are_no_frames_but_pages_are() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(PIXELS, photometric="minisblack", planarconfig="contig")
        writer.write(PIXELS[::2, ::2], photometric="minisblack", planarconfig="contig", subfiletype=1)
    assert decode_image(file.getvalue(), entry(), LIMIT).remarks == ()
    file.seek(0)
    with tifffile.TiffWriter(file, append=True) as writer:
        writer.write(PIXELS, photometric="minisblack", planarconfig="contig")
    assert decode_image(file.getvalue(), entry(), LIMIT).remarks == ("image_frames",)


def test_a_header_of_too_many_pixels_is_refused_before_they_are_decoded() -> None:
    assert fault(tiff(PIXELS), entry(), 37 * 50 - 1)[0] == "too_many_pixels"
    assert decode_image(tiff(PIXELS), entry(), 37 * 50).pixels.shape == (37, 50, 4)
    many = np.zeros((4, 4, 17), np.uint8)
    assert fault(tiff(many), entry((1,)), 16)[0] == "too_many_pixels"


@pytest.mark.parametrize("options", [{}, {"compression": "deflate"}, {"tile": (16, 16), "compression": "lzw"}])
def test_a_damaged_file_is_an_error(options: dict[str, Any]) -> None:
    whole = tiff(PIXELS, **options)
    noise = np.random.default_rng(0)
    for keep in (0.1, 0.5, 0.9, 0.999):
        assert fault(whole[: int(len(whole) * keep)], entry())[0] == "undecodable"
    for _ in range(50):
        damaged = bytearray(whole)
        damaged[noise.integers(8, len(whole))] ^= 255
        try:
            found = decode_image(bytes(damaged), entry(), LIMIT)
        except SampleError:
            continue
        assert found.pixels.dtype == np.uint8


@pytest.mark.parametrize("bands", [(4, 3, 2, 8), (4, 3, 2)])
def test_arrays_hold_the_bands_of_the_card(bands: tuple[int, ...]) -> None:
    spec, number = entry(bands), len(bands)
    assert np.array_equal(to_picture(PIXELS[..., :number], LIMIT, spec).pixels, PIXELS[..., :number])
    assert np.array_equal(to_picture(tiff(PIXELS), LIMIT, spec).pixels, PIXELS[..., [band - 1 for band in bands]])
    said = f"an image is uint8[H, W, {number}], the card's bands, not uint8 (37, 50, 8)"
    with pytest.raises(ValueError, match=re.escape(said)):
        to_picture(PIXELS, LIMIT, spec)


@pytest.mark.parametrize("resampler", ["pillow", "opencv"])
@pytest.mark.parametrize("bands", [(1,), (1, 2), (1, 2, 3, 4, 5)])
def test_each_band_is_resized_as_colours_are(bands: tuple[int, ...], resampler: str) -> None:
    resize = {"method": "letterbox", "resampler": resampler, "pad": [7] * len(bands)}
    found = resize_image(PIXELS[..., : len(bands)], entry(bands, resize=resize))
    colour = {"method": "letterbox", "resampler": resampler, "pad": [7, 7, 7]}
    spec = Input.model_validate({"layout": "NCHW", "height": 20, "width": 30, "channels": "RGB", "resize": colour})
    for band in range(len(bands)):
        alone = resize_image(PIXELS[..., [band] * 3], spec)
        assert np.array_equal(found[..., band], alone[..., 0])


def test_people_see_the_first_three_bands() -> None:
    assert np.array_equal(displayed(PIXELS), PIXELS[..., :3])
    assert np.array_equal(displayed(PIXELS[..., :2]), PIXELS[..., [0, 0, 0]])


@pytest.mark.parametrize("planar", [True, False])
@pytest.mark.parametrize(
    "options", [{}, {"tile": (16, 16)}, {"compression": "deflate", "predictor": True, "tile": (32, 16)},
                {"compression": "zstd", "byteorder": ">"}, {"rowsperstrip": 5, "compression": "lzw"}]
)  # fmt: skip
@pytest.mark.parametrize("orientation", [1, 6])
def test_windows_are_slices_of_the_whole(
    options: dict[str, Any], planar: bool, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiff_raster, "LARGE", 1)
    spec = entry((8, 1, 2, 3, 4, 5), band_range=(100, 30_000))
    stored = PIXELS.astype(np.uint16) * 200
    data = tiff(stored, planar, extratags=[(274, 3, 1, orientation, True)], **options)
    whole = decode_image(data, spec, LIMIT)
    found = open_raster(io.BytesIO(data), LIMIT, reader=pixel_reader(spec))
    assert isinstance(found, TiffRaster)
    assert (found.orientation, found.height, found.width) == (orientation, *whole.pixels.shape[:2])
    assert np.array_equal(found.read(0, 0, found.height, found.width), whole.pixels)
    assert np.array_equal(found.read(11, 7, 20, 25), whole.pixels[11:31, 7:32])
    with pytest.raises(SampleError, match="band 9"):
        open_raster(io.BytesIO(data), LIMIT, reader=pixel_reader(entry((9, 1, 2, 3)))).read(0, 0, 5, 5)
    with pytest.raises(SampleError, match="too_many_pixels"):
        open_raster(io.BytesIO(data), 100, reader=pixel_reader(spec))
