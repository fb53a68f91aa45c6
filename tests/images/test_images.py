"""Images: every kind is decoded correctly, bad ones are refused by their header, resampling follows the card."""

import hashlib
import io
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from segment.errors import SampleError
from segment.images import codec, drawing, resize
from segment.images.mask_png import encode_mask, encode_painted
from segment.models.card_input import Input, Resize

Pixels = NDArray[np.uint8]
LIMIT = 100_000_000
RGB: Pixels = np.kron(np.random.default_rng(0).integers(0, 256, (7, 11, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
ALPHA: Pixels = np.repeat([[0], [128], [255], [7]], 14, axis=0).astype(np.uint8).repeat(88, axis=1)
PICTURE = Image.fromarray(RGB)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pillow(data: bytes) -> Pixels:
    """Return the image as Pillow decodes it, upright and without alpha."""
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def fault(data: bytes, max_pixels: int = LIMIT) -> str:
    with pytest.raises(SampleError) as caught:
        codec.decode(data, max_pixels)
    return caught.value.code


def off_by(data: bytes, expected: NDArray[Any]) -> float:
    """Return the greatest difference from the expected RGB."""
    found = codec.decode(data, LIMIT)
    assert found.dtype == np.uint8
    assert found.shape == expected.shape
    return float(np.abs(found.astype(float) - expected).max())


# --- every kind of image ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "JPEG", "WEBP"])
def test_grey_becomes_three_equal_channels(kind: str) -> None:
    data = saved(PICTURE.convert("L"), kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert off_by(data, pillow(data)) == 0
    found = codec.decode(data, LIMIT)
    assert np.array_equal(found[:, :, 0], found[:, :, 2])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_become_eight_by_scaling_not_by_clipping(suffix: str, channels: int) -> None:
    deep = np.random.default_rng(1).integers(0, 65536, (40, 30, channels)).astype(np.uint16)
    data = cv2.imencode(suffix, deep)[1].tobytes()
    expected = np.repeat(deep, 3, axis=2) if channels == 1 else deep[:, :, 2::-1]
    assert off_by(data, expected / 257) < 1


@pytest.mark.parametrize("colours", [2, 4, 16, 200])
def test_palette(colours: int) -> None:
    picture = PICTURE.quantize(colours)
    assert off_by(saved(picture, "PNG"), np.asarray(picture.convert("RGB"))) == 0
    assert off_by(saved(picture, "TIFF"), np.asarray(picture.convert("RGB"))) == 0


@pytest.mark.parametrize("transparency", [3, bytes(range(64))], ids=["one colour", "alpha by colour"])
def test_palette_with_transparency_keeps_its_colours(transparency: int | bytes) -> None:
    picture = PICTURE.quantize(64)
    assert off_by(saved(picture, "PNG", transparency=transparency), np.asarray(picture.convert("RGB"))) == 0


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("BMP", {}),
        ("WEBP", {"lossless": True, "exact": True}),
    ],
)
def test_alpha_is_dropped_not_blended(kind: str, options: dict[str, Any]) -> None:
    picture = Image.fromarray(np.dstack([RGB, ALPHA]))
    assert off_by(saved(picture, kind, **options), RGB) == 0


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_with_alpha(kind: str) -> None:
    grey = PICTURE.convert("L")
    picture = Image.merge("LA", [grey, Image.fromarray(ALPHA)])
    assert off_by(saved(picture, kind), np.asarray(grey.convert("RGB"))) == 0


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_one_bit(kind: str) -> None:
    picture = PICTURE.convert("1")
    assert off_by(saved(picture, kind), np.asarray(picture.convert("RGB"))) == 0


def test_cmyk() -> None:
    picture = PICTURE.convert("CMYK")
    for data in (saved(picture, "JPEG", quality=95), saved(picture, "TIFF")):
        assert off_by(data, pillow(data)) <= 1


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"optimize": True}])
def test_jpeg(options: dict[str, Any]) -> None:
    data = saved(PICTURE, "JPEG", quality=90, **options)
    assert off_by(data, pillow(data)) <= 1


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_compressed_tiff(compression: str) -> None:
    data = saved(PICTURE, "TIFF", compression=compression)
    assert off_by(data, pillow(data)) <= 1


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "TIFF"])
def test_the_first_frame_or_page_is_decoded(kind: str) -> None:
    red, green = (Image.fromarray(np.full((16, 24, 3), colour, np.uint8)) for colour in ((255, 0, 0), (0, 255, 0)))
    options = {"lossless": True} if kind == "WEBP" else {}
    assert off_by(saved(red, kind, save_all=True, append_images=[green], **options), np.asarray(red)) == 0


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(kind: str, orientation: int) -> None:
    if kind == "TIFF":
        options: dict[str, Any] = {"tiffinfo": {0x0112: orientation}}
    else:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"exif": exif, "lossless": True} if kind == "WEBP" else {"exif": exif}
    data = saved(PICTURE, kind, **options)
    assert off_by(data, pillow(data)) <= 1
    assert codec.decode(data, LIMIT).shape == ((56, 88, 3) if orientation < 5 else (88, 56, 3))


def test_exif_orientation_of_a_tiff_with_alpha() -> None:
    data = saved(Image.fromarray(np.dstack([RGB, ALPHA])), "TIFF", tiffinfo={0x0112: 6})
    assert off_by(data, np.rot90(RGB, -1)) == 0


# --- images that are refused -----------------------------------------------------------------------------------------


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that declares a size and holds almost no data."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    )
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def forged(data: bytes, width: int, height: int) -> bytes:
    """Return a JPEG whose frame header declares another size than its data."""
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


@pytest.mark.parametrize(
    "data",
    [png_header(50_000, 50_000), png_header(2**31 - 1, 2**31 - 1), forged(saved(PICTURE, "JPEG"), 12_000, 12_000)],
    ids=["png 50000 x 50000", "png 2147483647 x 2147483647", "jpeg 144 megapixels"],
)
def test_the_declared_size_suffices_to_refuse(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    tracemalloc.start()
    assert fault(data) == "too_many_pixels"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


def test_max_pixels_is_inclusive_and_the_only_limit() -> None:
    data = saved(PICTURE, "PNG")
    assert codec.decode(data, 56 * 88).shape == RGB.shape
    assert fault(data, 56 * 88 - 1) == "too_many_pixels"
    assert fault(png_header(30_000, 30_000), 10**9) == "undecodable"  # Pillow's own limit would refuse this size


KINDS = ["JPEG", "PNG", "WEBP", "BMP", "TIFF"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_truncated_is_damaged(kind: str, share: float) -> None:
    data = saved(PICTURE, kind)
    assert fault(data[: int(len(data) * share)]) == "undecodable"


@pytest.mark.parametrize("kind", KINDS)
def test_a_header_without_data_is_damaged(kind: str) -> None:
    assert fault(saved(PICTURE, kind)[:16]) == "undecodable"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty"),
        (b"\0", "not_an_image"),
        (b"<!DOCTYPE html><title>404</title>", "not_an_image"),
        (bytes(range(256)) * 8, "not_an_image"),
        (saved(PICTURE.convert("P"), "GIF"), "not_an_image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 88 56\n", "not_an_image"),
        (b"RIFF\x24\0\0\0WAVEfmt " + bytes(40), "not_an_image"),
    ],
    ids=["zero bytes", "one byte", "html", "garbage", "gif", "postscript", "sound"],
)
def test_no_image(data: bytes, code: str) -> None:
    assert fault(data) == code


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 2**32), flips=st.integers(1, 30), keep=st.floats(0.05, 1))
def test_any_damage_is_an_image_or_a_sample_error(kind: str, seed: int, flips: int, keep: float) -> None:
    data = bytearray(saved(PICTURE, kind))
    generator = np.random.default_rng(seed)
    for position in generator.integers(0, len(data), flips):
        data[position] = generator.integers(0, 256)
    try:
        found = codec.decode(bytes(data[: int(len(data) * keep)]), 1_000_000)
    except SampleError:
        return
    assert found.ndim == 3
    assert found.dtype == np.uint8


# --- resampling ------------------------------------------------------------------------------------------------------

SIZES = [(24, 32), (100, 40), (56, 88), (111, 177)]
_PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_OPENCV = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
}


def entry(size: tuple[int, int], **resize: Any) -> Input:
    """Return a model's input of (height, width) with a resize method."""
    return Input(layout="NCHW", height=size[0], width=size[1], channels="RGB", resize=Resize(**resize))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", _PILLOW)
def test_stretch_by_pillow_is_pillows(interpolation: Any, size: tuple[int, int]) -> None:
    found = resize.resize_image(RGB, entry(size, resampler="pillow", interpolation=interpolation))
    assert np.array_equal(found, np.asarray(PICTURE.resize(size[::-1], _PILLOW[interpolation])))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", _OPENCV)
def test_stretch_by_opencv_is_opencvs(interpolation: Any, size: tuple[int, int]) -> None:
    found = resize.resize_image(RGB, entry(size, resampler="opencv", interpolation=interpolation))
    assert np.array_equal(found, cv2.resize(RGB, size[::-1], interpolation=_OPENCV[interpolation]))


def test_pillow_and_opencv_nearest_differ_and_the_card_decides() -> None:
    label = np.arange(9, dtype=np.uint8).reshape(1, 9)
    stretch = entry((1, 3))
    assert resize.resize_label(label, stretch, (1, 3), "pillow").tolist() == [[1, 4, 7]]  # pixel centres
    assert resize.resize_label(label, stretch, (1, 3), "opencv").tolist() == [[0, 3, 6]]  # rounded down


def test_masks_are_restored_by_pillows_nearest() -> None:
    mask = np.arange(9, dtype=np.uint8).reshape(1, 9)
    assert resize.restore_mask(mask, entry((1, 9), resampler="opencv"), (1, 3)).tolist() == [[1, 4, 7]]
    assert resize.restore_mask(mask[:, :2], entry((1, 2), resampler="opencv"), (2, 4)).tolist() == [[0, 0, 1, 1]] * 2


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 8000), st.integers(1, 8000))
def test_nearest_is_pillows_at_any_size(size: int, target: int) -> None:
    label = (np.arange(size) % 251).astype(np.uint8)
    for line, shape in ((label[np.newaxis], (1, target)), (label[:, np.newaxis], (target, 1))):
        found = resize.resize_label(line, entry(shape), shape, "pillow")
        expected = Image.fromarray(line).resize((shape[1], shape[0]), Image.Resampling.NEAREST)
        assert np.array_equal(found, np.asarray(expected))


def test_letterbox_keeps_the_aspect_pads_right_and_below_and_comes_back() -> None:
    box = entry((64, 64), method="letterbox", resampler="opencv", interpolation="nearest", pad=(1, 2, 3))
    assert resize.content_box(box, (56, 88)) == (0, 0, 41, 64)
    assert resize.content_box(box, (88, 56)) == (0, 0, 64, 41)
    assert resize.content_box(box, (1, 1000)) == (0, 0, 1, 64)  # at least one pixel
    image = resize.resize_image(RGB, box)
    assert np.array_equal(image[:41], cv2.resize(RGB, (64, 41), interpolation=cv2.INTER_NEAREST))
    assert (image[41:] == (1, 2, 3)).all()
    label = np.full((56, 88), 4, np.uint8)
    resized = resize.resize_label(label, box, (64, 64), "pillow")
    assert (resized[:41] == 4).all()
    assert (resized[41:] == 255).all()  # the border is void and counts for no class
    mask = np.full((64, 64), 9, np.uint8)
    mask[:41] = np.arange(41)[:, None]
    restored = resize.restore_mask(mask, box, (56, 88))
    assert restored.shape == (56, 88)
    assert restored.max() == 40  # the border is removed


@pytest.mark.parametrize(
    ("method", "anchor", "size", "box"),
    [
        ("pad", "top-left", (3, 4), (0, 0, 3, 4)),  # never enlarged
        ("pad", "centre", (3, 4), (2, 2, 3, 4)),  # 5 free rows: 2 above, 3 below
        ("pad", "centre", (8, 9), (0, 0, 8, 9)),
        ("pad", "centre", (1, 1), (3, 4, 1, 1)),
        ("pad", "top-left", (16, 9), (0, 0, 8, 4)),  # 4.5 columns: rounded to even
        ("pad", "centre", (16, 9), (0, 2, 8, 4)),
        ("pad", "top-left", (4, 18), (0, 0, 2, 9)),
        ("pad", "centre", (4, 18), (3, 0, 2, 9)),
        ("letterbox", "centre", (4, 3), (0, 1, 8, 6)),  # enlarged, 3 free columns: 1 left, 2 right
        ("letterbox", "top-left", (4, 3), (0, 0, 8, 6)),
        ("stretch", "top-left", (4, 3), (0, 0, 8, 9)),
    ],
)
def test_the_area_of_an_image(method: Any, anchor: Any, size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    assert resize.content_box(entry((8, 9), method=method, anchor=anchor), size) == box


@pytest.mark.parametrize("anchor", ["top-left", "centre"])
@pytest.mark.parametrize("size", [(5, 7), (4, 6), (8, 9), (1, 9)])
def test_padding_changes_no_pixel_and_masks_come_back_pixel_for_pixel(anchor: Any, size: tuple[int, int]) -> None:
    spec = entry((8, 9), method="pad", anchor=anchor, pad=(127, 1, 2))
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    top, left = ((8 - size[0]) // 2, (9 - size[1]) // 2) if anchor == "centre" else (0, 0)
    padded = resize.resize_image(picture, spec)
    inside = np.zeros((8, 9), bool)
    inside[top : top + size[0], left : left + size[1]] = True
    assert np.array_equal(padded[inside], picture.reshape(-1, 3))
    assert (padded[~inside] == (127, 1, 2)).all()
    label = resize.resize_label(picture[:, :, 0] % 20, spec, (8, 9), "pillow")
    assert np.array_equal(label[inside], picture[:, :, 0].ravel() % 20)
    assert (label[~inside] == 255).all()
    mask = np.arange(72, dtype=np.uint8).reshape(8, 9)
    restored = resize.restore_mask(mask, spec, size)
    assert np.array_equal(restored, mask[top : top + size[0], left : left + size[1]])


@pytest.mark.parametrize("anchor", ["top-left", "centre"])
def test_a_larger_image_is_shrunk_into_the_padding_by_its_own_resampler(anchor: Any) -> None:
    spec = entry((64, 64), method="pad", anchor=anchor, pad=(127, 127, 127))
    top = 11 if anchor == "centre" else 0  # 23 free rows
    found = resize.resize_image(RGB, spec)
    wanted = np.asarray(PICTURE.resize((64, 41), Image.Resampling.BILINEAR))
    assert np.array_equal(found[top : top + 41], wanted)
    assert (found[:top] == 127).all()
    assert (found[top + 41 :] == 127).all()
    mask = np.full((64, 64), 9, np.uint8)
    mask[top : top + 41] = np.arange(41)[:, None]
    wanted = np.asarray(Image.fromarray(mask[top : top + 41]).resize((88, 56), Image.Resampling.NEAREST))
    assert np.array_equal(resize.restore_mask(mask, spec, (56, 88)), wanted)


def test_a_mask_larger_than_the_input_follows_the_same_geometry() -> None:
    """The output has twice the input's size, so the border is twice as wide."""
    spec = entry((8, 9), method="pad", anchor="centre")
    assert resize.content_box(spec, (3, 4), (16, 18)) == (5, 5, 6, 8)
    mask = np.zeros((16, 18), np.uint8)
    mask[5:11, 5:13] = np.arange(12).reshape(3, 4).repeat(2, 0).repeat(2, 1)
    assert np.array_equal(resize.restore_mask(mask, spec, (3, 4)), np.arange(12).reshape(3, 4))
    label = resize.resize_label(np.arange(12, dtype=np.uint8).reshape(3, 4), spec, (16, 18), "pillow")
    assert np.array_equal(label[5:11, 5:13], mask[5:11, 5:13])
    assert (label == 255).sum() == 16 * 18 - 6 * 8


@settings(max_examples=100, deadline=None)
@given(
    method=st.sampled_from(["stretch", "letterbox", "pad"]),
    centred=st.booleans(),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    target=st.tuples(st.integers(1, 60), st.integers(1, 60)),
)
def test_sizes_and_content_survive_any_geometry(
    method: Any, centred: bool, size: tuple[int, int], target: tuple[int, int]
) -> None:
    anchor = "centre" if centred and method != "stretch" else "top-left"
    spec = entry(target, method=method, anchor=anchor, interpolation="nearest", pad=(0, 0, 0))
    image = resize.resize_image(np.full((*size, 3), 200, np.uint8), spec)
    box = resize.content_box(spec, size)
    assert image.shape == (*target, 3)
    assert image.sum() == 200 * 3 * box.height * box.width
    restored = resize.restore_mask(np.ascontiguousarray(image[:, :, 0]), spec, size)
    assert restored.shape == size
    assert (restored == 200).all()


def test_an_image_of_the_right_size_is_not_touched() -> None:
    for resampler in ("pillow", "opencv"):
        assert np.array_equal(resize.resize_image(RGB, entry((56, 88), resampler=resampler)), RGB)


# --- masks and pictures ----------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70), seed=st.integers(0, 2**32))
def test_masks_round_trip(height: int, width: int, seed: int) -> None:
    mask = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    data = encode_mask(mask)
    assert np.array_equal(codec.decode_mask(data), mask)
    opened = Image.open(io.BytesIO(data))
    assert opened.mode == "L"
    assert np.array_equal(np.asarray(opened), mask)
    colours = np.random.default_rng(seed).integers(0, 256, (256, 3), np.uint8)
    strips = [mask[: height // 3], mask[height // 3 :]]
    painted = Image.open(io.BytesIO(encode_painted(strips, mask.shape, colours)))
    assert painted.mode == "RGB"
    assert np.array_equal(np.asarray(painted), colours[mask])


def test_a_mask_that_is_a_view_round_trips() -> None:
    mask = np.arange(200, dtype=np.uint8).reshape(10, 20)[::2, ::3]
    assert np.array_equal(codec.decode_mask(encode_mask(mask)), mask)


def digest() -> str:
    mask = np.kron(np.random.default_rng(3).integers(0, 12, (20, 30), np.uint8), np.ones((9, 9), np.uint8))
    return hashlib.sha256(encode_mask(mask)).hexdigest()


def test_mask_bytes_are_the_same_in_another_process() -> None:
    code = "from tests.images.test_images import digest; print(digest())"
    root, environment = Path(__file__).parents[2], {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == digest()


def test_overlays_outline_objects_and_leave_the_background_clear() -> None:
    palette = np.array([[0, 0, 0], [200, 100, 0], [0, 0, 240]], np.uint8)
    image = np.full((40, 60, 3), 80, np.uint8)
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 10:30], mask[10:30, 30:50] = 1, 2
    lines = drawing.borders(mask, clear=(0,))
    assert lines.sum() == 2 * (20 * 20 - 18 * 18)  # a frame of a pixel in each object
    assert not lines[mask == 0].any()
    drawn = drawing.overlay(image, mask, palette, 0.5, clear=(0,))
    assert np.array_equal(drawn[mask == 0], image[mask == 0])
    assert drawn[20, 20].tolist() == [140, 90, 40]
    assert drawn[20, 10].tolist() == [188, 98, 8]  # 0.9 of the colour
    large = drawing.borders(np.kron(mask, np.ones((40, 40), np.uint8)), (0,))  # 2400 pixels wide
    assert large[800, 400:405].tolist() == [True] * 4 + [False]
    assert not np.array_equal(drawing.overlay(image, mask, palette, 0.5)[mask == 0], image[mask == 0])


def test_paint_overlay_and_grid() -> None:
    palette = np.array([[10, 20, 30], [200, 100, 0]], np.uint8)
    mask = np.array([[0, 1], [1, 255]], np.uint8)
    painted = drawing.paint(mask, palette)
    assert painted.tolist() == [[[10, 20, 30], [200, 100, 0]], [[200, 100, 0], [255, 255, 255]]]
    image = np.zeros((2, 2, 3), np.uint8)
    assert np.array_equal(drawing.overlay(image, mask, palette, opacity=1), painted)
    assert np.array_equal(drawing.overlay(image, mask, palette, opacity=0), image)
    tiles = [RGB, RGB[:20], RGB, RGB[:, :40]]
    canvas = drawing.grid(tiles, columns=3, tile_width=44, gap=2)
    # scaled to 44 wide: 28, 10 and 28 rows high, then 62
    assert canvas.shape == (2 + 28 + 2 + 62 + 2, 2 + 3 * (44 + 2), 3)
    assert (canvas[:2] == 255).all()
    assert (canvas[12:30, 48:92] == 255).all()  # below the short tile
    assert np.array_equal(canvas[2:30, 2:46], cv2.resize(RGB, (44, 28), interpolation=cv2.INTER_AREA))
    png = codec.encode_png(canvas)
    assert np.array_equal(codec.decode(png, LIMIT), canvas)
    assert hashlib.sha256(png).digest() == hashlib.sha256(codec.encode_png(canvas)).digest()


def test_a_legend_has_columns_for_its_longest_name() -> None:
    red, none = (200, 0, 0), None
    short, long = (drawing.legend([name, "b", "c", "d"], [red, none, red, red], 300) for name in ("a", "pavement " * 9))
    assert [strip.shape for strip in (short, long)] == [(32, 300, 3), (4 * 24 + 8, 300, 3)]
    assert tuple(short[10, 12]) == red
    assert (short[10, 12 + 36 + 10] == 255).all()  # an empty frame: the second name
    assert (long[:, -4:] == 255).all()  # a long name is cut, not run off the edge
    street, question = (drawing.legend([name], [none], 300) for name in ("道路", "??"))
    assert not np.array_equal(street, question)
    assert drawing.legend(["a\udcff.png"], [none], 300).shape == (32, 300, 3)


@pytest.mark.parametrize(("anchor", "at"), [("top-left", (0, 0)), ("centre", (2, 3))])
def test_without_scaling_an_image_fits_or_is_refused(anchor: Any, at: tuple[int, int]) -> None:
    spec = entry((8, 9), method="none", anchor=anchor, pad=(7, 8, 9))
    picture = np.random.default_rng(0).integers(0, 256, (4, 3, 3), dtype=np.uint8)
    found = resize.resize_image(picture, spec)
    assert np.array_equal(found[at[0] : at[0] + 4, at[1] : at[1] + 3], picture)
    assert (found == (7, 8, 9)).all(axis=2).sum() == 8 * 9 - 4 * 3
    assert np.array_equal(resize.restore_mask(found[:, :, 0], spec, (4, 3)), picture[:, :, 0])
    for size in ((9, 9), (8, 10)):
        with pytest.raises(SampleError) as caught:
            resize.resize_image(np.zeros((*size, 3), np.uint8), spec)
        wanted = f"{size[0]}x{size[1]} pixels (height, width), at most 8x9"
        assert (caught.value.code, caught.value.detail) == ("larger_than_input", wanted)
