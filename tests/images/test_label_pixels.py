"""Label pixels: each mode and depth is read as it is stored or refused with a code; none is scaled or clipped."""

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from segment.errors import SampleError
from segment.images.labels import LabelDecoder
from segment.models.classes import VOID, Classes

PALETTE = ((0, 0, 0), (128, 64, 128), (240, 20, 30), (10, 200, 250), (7, 7, 9), (1, 250, 3), (90, 90, 200))
CLASSES = Classes(names=tuple("abcdefg"), palette=PALETTE, ignore=(255,), void_colours=((224, 224, 192),))
MASK = np.array([[0, 1, 2, 3, 4], [6, 5, 4, 3, 2], [255, 0, 0, 1, 1]], np.uint8)
SOUND = np.where(MASK == 255, 0, MASK).astype(np.uint8)
RGB = np.array([*PALETTE, *[(224, 224, 192)] * 249], np.uint8)[MASK]


def saved(pixels: NDArray[Any] | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(buffer, kind, **options)
    return buffer.getvalue()


def deep_png(pixels: NDArray[np.uint16]) -> bytes:
    """Return a 16-bit PNG with 1 to 4 channels; two channels are grey and alpha."""
    height, width, channels = pixels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(
    pixels: NDArray[Any], photometric: int = 1, sample_format: int = 1, order: str = "<", **tags: tuple[int, ...]
) -> bytes:
    """Return an uncompressed TIFF of `[H, W]` or `[H, W, n]` pixels, with the tags given as `t<number>`."""
    height, width, bands = pixels.shape if pixels.ndim == 3 else (*pixels.shape, 1)
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()  # type: ignore[call-overload]
    bits = (8 * pixels.dtype.itemsize,) * bands
    found: dict[int, tuple[int, ...]] = {
        256: (width,), 257: (height,), 258: bits, 259: (1,), 262: (photometric,), 273: (8,), 277: (bands,),
        278: (height,), 279: (len(data),), 339: (sample_format,) * bands,
        **{int(name[1:]): values for name, values in tags.items()},
    }  # fmt: skip
    entries, behind = b"", b""
    at = 8 + len(data) + 2 + 12 * len(found) + 4
    for tag, values in sorted(found.items()):
        packed = struct.pack(f"{order}{len(values)}H", *values)
        if len(packed) > 4:
            field, behind = struct.pack(f"{order}I", at + len(behind)), behind + packed
        else:
            field = packed.ljust(4, b"\0")
        entries += struct.pack(f"{order}HHI", tag, 3, len(values)) + field
    magic = b"II*\0" if order == "<" else b"MM\0*"
    header = magic + struct.pack(f"{order}I", 8 + len(data))
    return header + data + struct.pack(f"{order}H", len(found)) + entries + bytes(4) + behind


def decoded(data: bytes, **options: Any) -> NDArray[np.uint8]:
    return LabelDecoder(CLASSES, **options).decode(data, *MASK.shape)


def refused(data: bytes, **options: Any) -> tuple[str, str]:
    with pytest.raises(SampleError) as caught:
        decoded(data, **options)
    return caught.value.code, caught.value.detail


def with_alpha(pixels: NDArray[Any], alpha: int) -> NDArray[Any]:
    stacked = pixels[..., None] if pixels.ndim == 2 else pixels
    return np.concatenate([stacked, np.full((*MASK.shape, 1), alpha, stacked.dtype)], axis=2)


# --- values -----------------------------------------------------------------------------------------------------------

WIDE = MASK.astype(np.uint16)
VALUES = {
    "grey and alpha, 8 bits, PNG": saved(with_alpha(MASK, 255)),
    "grey and half alpha, 8 bits, PNG": saved(with_alpha(MASK, 128)),
    "grey and alpha, 8 bits, TIFF": saved(Image.fromarray(with_alpha(MASK, 255)), "TIFF"),
    "grey and alpha, 8 bits, LZW": saved(Image.fromarray(with_alpha(MASK, 255)), "TIFF", compression="tiff_lzw"),
    "grey and premultiplied alpha": tiff(with_alpha(MASK, 255), t338=(1,)),
    "grey and alpha, 16 bits": deep_png(with_alpha(WIDE, 65535)),
    "grey and alpha of 255, 16 bits": deep_png(with_alpha(WIDE, 255)),
    "grey, 16 bits, PNG": deep_png(WIDE[..., None]),
    "grey, 16 bits, TIFF": tiff(WIDE),
    "grey, 16 bits, big-endian TIFF": tiff(WIDE, order=">"),
    "grey, 16 bits, LZW": cv2.imencode(".tif", WIDE)[1].tobytes(),
    "signed, 8 bits": tiff(np.where(MASK == 255, 0, MASK).astype(np.int8), sample_format=2),
    "signed, 16 bits": tiff(MASK.astype(np.int16), sample_format=2),
    "signed, 16 bits, big-endian": tiff(MASK.astype(np.int16), sample_format=2, order=">"),
    "signed, 32 bits": tiff(MASK.astype(np.int32), sample_format=2),
    "unsigned, 32 bits": tiff(MASK.astype(np.uint32)),
    "float, TIFF": tiff(MASK.astype(np.float32), sample_format=3),
    "float, big-endian": tiff(MASK.astype(np.float32), sample_format=3, order=">"),
    "float, LZW": cv2.imencode(".tif", MASK.astype(np.float32))[1].tobytes(),
    "grey, BMP": saved(MASK, "BMP"),
    "grey, GIF": saved(MASK, "GIF"),
    "grey with a transparent value": saved(MASK, transparency=1),
}


@pytest.mark.parametrize("encoding", ["auto", "index"])
@pytest.mark.parametrize("kind", [kind for kind in VALUES if kind != "grey, GIF"])
def test_values_are_read_as_they_are_stored(kind: str, encoding: str) -> None:
    expected = SOUND if kind == "signed, 8 bits" else MASK
    assert np.array_equal(decoded(VALUES[kind], encoding=encoding), expected)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (deep_png(WIDE[..., None] * 257), "257, 514, 771 and 4 more"),
        (deep_png(with_alpha(WIDE * 256, 65535)), "256, 512, 768 and 4 more"),
        (tiff(np.full(MASK.shape, -1, np.int8), sample_format=2), "-1"),
        (tiff(np.full(MASK.shape, -2, np.int16), sample_format=2), "-2"),
        (tiff(np.full(MASK.shape, -3, np.int32), sample_format=2), "-3"),
        (tiff(np.full(MASK.shape, 2**32 - 1, np.uint32)), "4294967295"),
        (tiff(np.full(MASK.shape, 65535, np.uint16)), "65535"),
        (tiff(np.full(MASK.shape, 0.5, np.float32), sample_format=3), "0.5"),
        (tiff(np.full(MASK.shape, 1 / 255, np.float32), sample_format=3), "0.00392157"),
        (tiff(np.full(MASK.shape, np.nan, np.float32), sample_format=3), "nan"),
        (tiff(np.full(MASK.shape, -np.inf, np.float32), sample_format=3), "-inf"),
        (tiff(np.full(MASK.shape, 300, np.float32), sample_format=3), "300"),
        (tiff(np.full(MASK.shape, -1, np.float32), sample_format=3), "-1"),
    ],
)
def test_values_beyond_a_byte_or_between_whole_numbers_are_named(data: bytes, named: str) -> None:
    for encoding in ("auto", "index"):
        assert refused(data, encoding=encoding) == ("label_value", named)


@pytest.mark.parametrize("write", ["PNG", "TIFF", "BMP", "group4"])
def test_one_bit(write: str) -> None:
    bits = Image.fromarray(MASK % 2 == 1)
    data = saved(bits, "TIFF", compression="group4") if write == "group4" else saved(bits, write)
    assert np.array_equal(decoded(data), MASK % 2)
    white = {"255,255,255": "c"}
    assert np.array_equal(decoded(data, encoding="colour", remap=white), (MASK % 2) * 2)


def test_a_one_bit_tiff_in_which_zero_is_white_reads_as_it_looks() -> None:
    packed = np.packbits(MASK % 2, axis=1)
    tags = {"t256": (MASK.shape[1],), "t258": (1,)}
    assert np.array_equal(decoded(tiff(packed, **tags)), MASK % 2)
    assert np.array_equal(decoded(tiff(packed, photometric=0, **tags)), 1 - MASK % 2)


# --- colours ----------------------------------------------------------------------------------------------------------

DEEP = RGB.astype(np.uint16)
COLOURS = {
    "8 bits": saved(RGB),
    "8 bits and alpha": saved(with_alpha(RGB, 255)),
    "8 bits and half alpha": saved(with_alpha(RGB, 128)),
    "8 bits and a transparent colour": saved(RGB, transparency=PALETTE[1]),
    "16 bits, values of 8": deep_png(DEEP),
    "16 bits and alpha, values of 8": deep_png(with_alpha(DEEP, 255)),
    "16 bits": deep_png(DEEP * 257),
    "16 bits and alpha": deep_png(with_alpha(DEEP * 257, 65535)),
    "16 bits, TIFF, values of 8": tiff(DEEP, photometric=2),
    "16 bits, TIFF": tiff(DEEP * 257, photometric=2),
    "16 bits, LZW": cv2.imencode(".tif", DEEP[..., ::-1])[1].tobytes(),
    "16 bits and alpha, TIFF": tiff(with_alpha(DEEP, 65535), photometric=2, t338=(2,)),
    "16 bits, big-endian TIFF": tiff(DEEP, photometric=2, order=">"),
    "premultiplied alpha, opaque": tiff(with_alpha(RGB, 255), photometric=2, t338=(1,)),
    "TIFF": saved(RGB, "TIFF"),
    "BMP": saved(RGB, "BMP"),
    "BMP with alpha": saved(with_alpha(RGB, 255), "BMP"),
    "WebP": saved(RGB, "WEBP", lossless=True),
    "WebP with alpha": saved(with_alpha(RGB, 255), "WEBP", lossless=True, exact=True),
}


@pytest.mark.parametrize("encoding", ["auto", "colour"])
@pytest.mark.parametrize("kind", COLOURS)
def test_colours_are_read_as_they_are_stored(kind: str, encoding: str) -> None:
    assert np.array_equal(decoded(COLOURS[kind], encoding=encoding), MASK)


def test_deep_colours_between_those_of_eight_bits_are_named() -> None:
    odd = DEEP * 257
    odd[0, 0] = 258
    assert refused(deep_png(odd))[0] == "label_colour"
    assert refused(deep_png(np.full((*MASK.shape, 3), 300, np.uint16))) == ("label_colour", "300,300,300")


def test_grey_is_read_as_colours_with_the_colour_encoding() -> None:
    remap: dict[str, str | int] = {"2,2,2": "c", "0,0,0": "a"}
    two = np.where(MASK % 2, 2, 0).astype(np.uint8)
    for data in (saved(two), tiff(two.astype(np.uint16)), tiff(two.astype(np.float32), sample_format=3)):
        assert np.array_equal(decoded(data, encoding="colour", remap=remap), two)


def test_grey_as_rgb_is_said_to_be_that() -> None:
    code, detail = refused(saved(np.repeat(SOUND[..., None], 3, axis=2)))
    assert (code, detail) == (
        "label_colour",
        "1,1,1, 2,2,2, 3,3,3 and 3 more; if its grey levels are class indices, use --label-encoding index",
    )
    assert np.array_equal(decoded(saved(np.repeat(SOUND[..., None], 3, axis=2)), encoding="index"), SOUND)
    assert "grey" not in refused(saved(RGB // 2))[1]


def test_white_on_black_is_said_to_be_that_and_the_advice_works() -> None:
    rgb = np.where((MASK % 2)[..., None], 255, 0).repeat(3, axis=2).astype(np.uint8)
    code, detail = refused(saved(rgb))
    assert (code, detail.partition(";")[0]) == ("label_colour", "255,255,255")
    assert "--label-remap 255,255,255=CLASS" in detail
    assert np.array_equal(decoded(saved(rgb), remap={"255,255,255": "b", "0,0,0": "a"}), MASK % 2)


# --- palettes ---------------------------------------------------------------------------------------------------------


def palette_image(indices: NDArray[np.uint8], colours: NDArray[Any]) -> Image.Image:
    image = Image.frombytes("P", indices.shape[::-1], np.ascontiguousarray(indices).tobytes())
    image.putpalette(np.asarray(colours, np.uint8).tobytes())
    return image


ODD = np.random.default_rng(3).integers(0, 256, (256, 3), np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_indices_of_a_palette(kind: str) -> None:
    assert np.array_equal(decoded(saved(palette_image(MASK, ODD), kind)), MASK)


def test_indices_of_a_palette_with_alpha() -> None:
    pixels = with_alpha(MASK, 255)
    colours = tuple(int(v) * 257 for v in ODD.T.ravel())
    assert np.array_equal(decoded(tiff(pixels, photometric=3, t338=(2,), t320=colours)), MASK)
    pixels[0, 0, 1] = 0
    assert refused(tiff(pixels, photometric=3, t338=(2,), t320=colours))[0] == "label_alpha"


def test_a_tiff_palette_of_eight_bits_is_not_black() -> None:
    shuffled = np.array([3, 0, 2, 1, 4, 5, 6])
    colours = np.zeros((256, 3), np.uint8)
    colours[:7] = np.array(PALETTE, np.uint8)[shuffled]
    indices = np.argsort(shuffled).astype(np.uint8)[SOUND]
    for scale in (1, 256, 257):
        label = tiff(indices, photometric=3, t320=tuple(int(v) * scale for v in colours.T.ravel()))
        assert np.array_equal(decoded(label), SOUND)
        assert np.array_equal(decoded(label, encoding="colour"), SOUND)


def test_an_index_without_a_colour_is_not_black() -> None:
    whole = saved(palette_image(SOUND, ODD[:8]), bits=8)
    at = whole.index(b"PLTE")
    (length,) = struct.unpack_from(">I", whole, at - 4)
    entries = whole[at + 4 : at + 4 + 9]
    shrunk = struct.pack(">I", 9) + b"PLTE" + entries + struct.pack(">I", zlib.crc32(b"PLTE" + entries))
    label = whole[: at - 4] + shrunk + whole[at + 4 + length + 4 :]
    assert refused(label, encoding="colour") == ("label_value", "palette index 6 has no colour")
    assert np.array_equal(decoded(label, encoding="index"), SOUND)


@pytest.mark.parametrize("kind", ["GIF", "PNG"])
def test_a_shrunk_palette_of_grey_levels_is_read_by_these(kind: str) -> None:
    """Pillow shrinks the palette of every GIF: the value 255 of a grey label becomes index 3."""
    label = np.array([[0, 2, 5], [5, 255, 2]], np.uint8)
    levels = np.array([0, 2, 5, 255])
    shrunk = palette_image(np.searchsorted(levels, label).astype(np.uint8), levels.repeat(3))
    data = saved(Image.fromarray(label), "GIF") if kind == "GIF" else saved(shrunk)
    header = Image.open(io.BytesIO(data))
    assert (header.mode, sorted(set(np.asarray(header).ravel().tolist()))) == ("P", [0, 1, 2, 3])
    assert np.array_equal(LabelDecoder(CLASSES).decode(data, 2, 3), np.where(label == 255, VOID, label))
    assert LabelDecoder(CLASSES, "index").decode(data, 2, 3).max() == 3
    assert LabelDecoder(CLASSES, remap={"3": "ignore"}).decode(data, 2, 3).max() == VOID  # the remap names values


def test_black_and_white_of_a_palette_are_indices() -> None:
    binary = (MASK % 2).astype(np.uint8)
    for kind in ("PNG", "GIF", "TIFF"):
        assert np.array_equal(decoded(saved(palette_image(binary, np.array([[0] * 3, [255] * 3])), kind)), binary)


# --- GIF --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"interlace": True}, {"transparency": 1}])
def test_gif(options: dict[str, Any]) -> None:
    ramp = np.arange(256).repeat(3)
    image = palette_image(SOUND, ramp)
    assert np.array_equal(decoded(saved(image, "GIF", **options)), SOUND)
    assert np.array_equal(decoded(saved(palette_image(SOUND, np.array(PALETTE)), "GIF", **options)), SOUND)
    coloured = Image.fromarray(RGB).quantize(16)
    assert np.array_equal(decoded(saved(coloured, "GIF")), MASK)


def test_a_gif_whose_frame_does_not_cover_it_is_refused() -> None:
    data = bytearray(saved(palette_image(SOUND, np.array(PALETTE)), "GIF"))
    struct.pack_into("<HH", data, 6, MASK.shape[1] + 1, MASK.shape[0])
    with pytest.raises(SampleError) as caught:
        LabelDecoder(CLASSES).decode(bytes(data), MASK.shape[0], MASK.shape[1] + 1)
    assert (caught.value.code, caught.value.detail) == ("label_pixels", "a GIF whose first frame does not cover it")


# --- pixels that are refused ------------------------------------------------------------------------------------------

HOLE = with_alpha(RGB, 255)
HOLE[0, 0] = 0
CLEAR = with_alpha(np.zeros_like(RGB), 0)


@pytest.mark.parametrize(
    "data",
    [
        saved(HOLE),
        saved(CLEAR),  # transparent everywhere: black would be wrong
        saved(HOLE, "TIFF"),
        saved(HOLE, "WEBP", lossless=True, exact=True),
        saved(Image.fromarray(HOLE), "BMP"),
        deep_png(HOLE.astype(np.uint16) * 257),
        saved(np.dstack([MASK, MASK + 1])),
        deep_png(np.dstack([WIDE, WIDE + 1])),
        tiff(with_alpha(RGB, 128), photometric=2, t338=(1,)),  # colours are multiplied by alpha
        tiff(with_alpha(MASK, 128), t338=(1,)),
    ],
)
def test_alpha_that_varies_or_hides_is_refused(data: bytes) -> None:
    for encoding in ("auto", "index", "colour"):
        assert refused(data, encoding=encoding) == ("label_alpha", "")


FOUR = np.dstack([RGB, MASK])


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (saved(Image.fromarray(RGB).convert("CMYK"), "TIFF"), "CMYK colours"),
        (saved(Image.fromarray(RGB).convert("YCbCr"), "TIFF"), "YCbCr colours"),
        (saved(Image.fromarray(RGB).convert("YCbCr"), "TIFF", compression="tiff_lzw"), "YCbCr colours"),
        (tiff(RGB, photometric=8), "LAB colours"),
        (tiff(255 - MASK, photometric=0), "a TIFF in which 0 is white"),
        (tiff(MASK.astype(np.float32), photometric=0, sample_format=3), "a TIFF in which 0 is white"),
        (tiff(np.dstack([MASK, MASK]), t338=(0,)), "a TIFF with a band of no stated meaning"),
        (tiff(FOUR, photometric=2, t338=(0,)), "a TIFF with a band of no stated meaning"),
        (tiff(FOUR.astype(np.uint16), photometric=2, t338=(0,)), "a TIFF with a band of no stated meaning"),
        (tiff(MASK.astype(np.float64), sample_format=3), "a TIFF of floating-point numbers of 64 bits"),
        (tiff(MASK.astype(np.int64), sample_format=2), "a TIFF of signed numbers of 64 bits"),
        (tiff(np.dstack([MASK] * 5), t338=(0,) * 4), "a TIFF of grey pixels, 5 samples of 8 bits"),
    ],
)
def test_pixels_that_cannot_be_read_exactly_are_refused_by_name(data: bytes, detail: str) -> None:
    for encoding in ("auto", "index", "colour"):
        assert refused(data, encoding=encoding) == ("label_pixels", detail)


def test_a_bmp_that_pillow_misreads_is_refused() -> None:
    """Pillow reads two 8-bit shades of grey as 1 bit per pixel, and sixteen 4-bit ones as 8: black, or noise."""
    black_and_white = palette_image((MASK % 2).astype(np.uint8), np.array([[0] * 3, [255] * 3]))
    assert refused(saved(black_and_white, "BMP"))[1] == "a BMP with 8 bits a pixel and few shades of grey"
    header = struct.pack("<IiiHHIIIIII", 40, 5, 3, 1, 4, 0, 12, 0, 0, 16, 0)
    colours = b"".join(bytes([value] * 3 + [0]) for value in range(16))
    data = b"BM" + struct.pack("<IHHI", 54 + 64 + 12, 0, 0, 54 + 64) + header + colours + bytes(12)
    assert refused(data)[1] == "a BMP with 4 bits a pixel and few shades of grey"


def test_a_bmp_of_sixteen_bits_is_refused() -> None:
    header = struct.pack("<IiiHHIIIIII", 40, 5, 3, 1, 16, 0, 36, 0, 0, 0, 0)
    data = b"BM" + struct.pack("<IHHI", 54 + 36, 0, 0, 54) + header + bytes(36)
    assert refused(data) == ("label_pixels", "a BMP with 16 bits a pixel, which are too few for a colour")


# --- advice on unknown values -----------------------------------------------------------------------------------------

PLAIN = Classes(names=tuple("abcdefg"), palette=PALETTE)


@pytest.mark.parametrize(
    ("values", "detail"),
    [
        ([0, 1, 6, 255], "255; if 255 marks pixels without a class, use --label-remap 255=ignore"),
        ([3, 255], "255; if 255 marks pixels without a class, use --label-remap 255=ignore"),
        (
            [0, 255],
            "255; if 255 is a class (as in masks of 0 and 255), name it with --label-remap 255=CLASS, and if it marks "
            "pixels without a class, with --label-remap 255=ignore",
        ),
        ([0, 77, 255], "77, 255"),  # ignoring 255 would not suffice
        ([0, 1, 254], "254"),
        ([0, 1, 254, 255], "254, 255"),
    ],
)
def test_the_advice_on_255_follows_from_the_other_values(values: list[int], detail: str) -> None:
    label = saved(np.array([values], np.uint8))
    with pytest.raises(SampleError) as caught:
        LabelDecoder(PLAIN).decode(label, 1, len(values))
    assert (caught.value.code, caught.value.detail) == ("label_value", detail)
    if detail.startswith("255"):
        assert LabelDecoder(PLAIN, remap={"255": "ignore"}).decode(label, 1, len(values)).tolist() == [values]


def test_no_advice_where_a_remap_of_values_would_change_how_a_palette_is_read() -> None:
    colours = np.zeros((256, 3), np.uint8)
    colours[:7] = np.array(PALETTE)[[1, 0, 2, 3, 4, 5, 6]]  # read by colour; with a remap of a value by index
    label = saved(palette_image(np.array([[0, 1, 255]], np.uint8), colours))
    with pytest.raises(SampleError) as caught:
        LabelDecoder(PLAIN).decode(label, 1, 3)
    assert (caught.value.code, caught.value.detail) == ("label_value", "255")
    assert LabelDecoder(CLASSES).decode(label, 1, 3).tolist() == [
        [1, 0, VOID]
    ]  # the filler is black, which is class 'a'


def test_black_at_the_end_of_a_palette_is_the_class_only_where_no_other_entry_is() -> None:
    colours = np.zeros((256, 3), np.uint8)
    colours[:6] = np.array(PALETTE)[[1, 2, 3, 4, 5, 6]]
    label = np.array([[0, 6, 5]], np.uint8)
    assert LabelDecoder(CLASSES).decode(saved(palette_image(label, colours)), 1, 3).tolist() == [[1, 0, 6]]
    with pytest.raises(SampleError):
        LabelDecoder(CLASSES).decode(saved(palette_image(label + 1, colours)), 1, 3)
    black = np.zeros((256, 3), np.uint8)
    assert LabelDecoder(CLASSES).decode(saved(palette_image(label * 0, black)), 1, 3).tolist() == [[0, 0, 0]]
