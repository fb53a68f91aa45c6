"""Headers, read before a pixel is decoded: orientation in every place, further frames, lossy compression."""

import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from segment.errors import SampleError
from segment.images import codec, headers
from segment.images.label_pixels import lossy_compression
from segment.images.labels import LabelDecoder
from segment.images.tiff_copies import segments_to_copy
from segment.models.classes import Classes

CORNERS = np.zeros((24, 40), np.uint8)
CORNERS[:8, :16], CORNERS[:8, 24:], CORNERS[16:, :16] = 1, 2, 3
PALETTE = np.array([(0, 0, 0), (200, 10, 10), (10, 200, 10), (10, 10, 200)], np.uint8)
PICTURE = PALETTE[CORNERS]
CLASSES = Classes(names=tuple("abcd"), palette=tuple(map(tuple, PALETTE.tolist())), ignore=(255,))
LIMIT = 10**6


def saved(pixels: NDArray[Any] | Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int) -> bytes:
    found = Image.Exif()
    found[0x0112] = orientation
    return found.tobytes()


def xmp(orientation: int) -> bytes:
    return b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>' % orientation


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(png: bytes, kind: bytes, data: bytes, *, behind: bool = False) -> bytes:
    """Insert a chunk before or after the pixels of a PNG."""
    at = len(png) - 12 if behind else 33
    return png[:at] + chunk(kind, data) + png[at:]


def raw_profile(orientation: int) -> bytes:
    """Return EXIF data as ImageMagick writes it into text chunks of a PNG."""
    data = exif(orientation)
    return b"\nexif\n%8d\n%s\n" % (len(data), data.hex().encode())


def text_chunk(orientation: int) -> bytes:
    return b"Raw profile type exif\0" + raw_profile(orientation)


PNGS: dict[str, Callable[[bytes, int], bytes]] = {
    "eXIf": lambda png, o: with_chunk(png, b"eXIf", exif(o)[6:]),
    "eXIf behind the pixels": lambda png, o: with_chunk(png, b"eXIf", exif(o)[6:], behind=True),
    "tEXt": lambda png, o: with_chunk(png, b"tEXt", text_chunk(o)),
    "tEXt behind the pixels": lambda png, o: with_chunk(png, b"tEXt", text_chunk(o), behind=True),
    "zTXt": lambda png, o: with_chunk(png, b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw_profile(o))),
    "XMP": lambda png, o: with_chunk(png, b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(o)),
    "XMP behind the pixels": lambda png, o: with_chunk(
        png, b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(o), behind=True
    ),
}
CARRIERS: dict[str, Callable[[NDArray[np.uint8], int], bytes]] = {
    **{
        f"PNG {where}": lambda pixels, o, write=write: write(saved(pixels, "PNG"), o)  # type: ignore[misc]
        for where, write in PNGS.items()
    },
    "TIFF tag": lambda pixels, o: saved(pixels, "TIFF", tiffinfo={0x0112: o}),
    "TIFF tag, LZW": lambda pixels, o: saved(pixels, "TIFF", tiffinfo={0x0112: o}, compression="tiff_lzw"),
    "TIFF XMP": lambda pixels, o: saved(pixels, "TIFF", tiffinfo={700: xmp(o)}),
    "WebP": lambda pixels, o: saved(pixels, "WEBP", exif=exif(o), lossless=True),
    "WebP XMP": lambda pixels, o: saved(pixels, "WEBP", xmp=xmp(o), lossless=True),
}


def as_pillow(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("carrier", CARRIERS)
def test_orientation_in_any_place_is_applied_once_to_images_and_labels(carrier: str, orientation: int) -> None:
    image = CARRIERS[carrier](PICTURE, orientation)
    picture = codec.decode_picture(image, LIMIT)
    assert picture.orientation == orientation
    assert picture.remarks == ()
    assert np.array_equal(picture.pixels, as_pillow(image))
    upright = headers.apply_orientation(CORNERS, orientation)
    assert np.array_equal(picture.pixels, PALETTE[upright])  # so that Pillow applied it, too
    label = CARRIERS[carrier](PICTURE if "WebP" in carrier else CORNERS, orientation)
    found = LabelDecoder(CLASSES).read(label, *picture.pixels.shape[:2], orientation)
    assert np.array_equal(found.classes, upright)
    assert found.remarks == ()


@pytest.mark.parametrize("orientation", [3, 5, 6, 8])
@pytest.mark.parametrize("mode", ["P", "1", "I;16", "F", "RGB"])
def test_labels_of_every_kind_of_pixels_are_turned(mode: str, orientation: int) -> None:
    stored = CORNERS % 2 if mode == "1" else CORNERS
    if mode == "P":
        picture = Image.fromarray(stored)
        picture.putpalette(PALETTE.tobytes())
    else:
        picture = {
            "1": lambda: Image.fromarray(stored.astype(bool)),
            "I;16": lambda: Image.fromarray(stored.astype(np.uint16)),
            "F": lambda: Image.fromarray(stored.astype(np.float32)),
            "RGB": lambda: Image.fromarray(PALETTE[stored]),
        }[mode]()
    upright = headers.apply_orientation(stored, orientation)
    tiff = saved(picture, "TIFF", tiffinfo={0x0112: orientation})
    assert np.array_equal(LabelDecoder(CLASSES).read(tiff, *upright.shape, orientation).classes, upright)
    if mode != "F":
        png = PNGS["eXIf"](saved(picture, "PNG"), orientation)
        assert np.array_equal(LabelDecoder(CLASSES).read(png, *upright.shape, orientation).classes, upright)


def test_xmp_rotates_a_jpeg_and_exif_takes_precedence() -> None:
    both = saved(PICTURE, "JPEG", quality=95, xmp=xmp(6), exif=exif(3))
    for data, orientation in ((saved(PICTURE, "JPEG", quality=95, xmp=xmp(6)), 6), (both, 3)):
        picture = codec.decode_picture(data, LIMIT)
        assert picture.orientation == orientation
        assert np.abs(picture.pixels.astype(int) - as_pillow(data)).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_orientations_that_are_none_leave_pixels_as_they_are(kind: str) -> None:
    for orientation in (0, 9, 255):
        data = saved(PICTURE, kind, exif=exif(orientation))
        assert codec.decode_picture(data, LIMIT).orientation == 1
        assert codec.decode(data, LIMIT).shape == PICTURE.shape


def test_exif_data_that_cannot_be_read_are_noticed() -> None:
    damaged = with_chunk(saved(PICTURE, "PNG"), b"eXIf", b"no exif at all")
    picture = codec.decode_picture(damaged, LIMIT)
    assert np.array_equal(picture.pixels, PICTURE)
    assert picture.remarks == ("image_exif_damaged",)
    label = with_chunk(saved(CORNERS, "PNG"), b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\n\n\nxyz"))
    assert LabelDecoder(CLASSES).read(label, *CORNERS.shape).remarks == ("label_exif_damaged",)


# --- image and label that do not agree ------------------------------------------------------------------------------


def refused(label: bytes, height: int, width: int, orientation: int) -> str:
    with pytest.raises(SampleError) as caught:
        LabelDecoder(CLASSES).read(label, height, width, orientation)
    assert caught.value.code == "label_size"
    return caught.value.detail


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
def test_a_label_without_orientation_that_fits_the_upright_image_is_read_as_upright(orientation: int) -> None:
    upright = headers.apply_orientation(CORNERS, orientation)
    found = LabelDecoder(CLASSES).read(saved(upright, "PNG"), *upright.shape, orientation)
    assert np.array_equal(found.classes, upright)
    assert found.remarks == ("label_not_turned",)


def test_a_label_that_fits_only_without_the_orientation_is_refused_with_the_cause() -> None:
    detail = refused(saved(CORNERS, "PNG"), 40, 24, 6)
    assert detail == (
        "40x24 for an image of 24x40 (the image's EXIF orientation was applied, and the label has none that turns it "
        "likewise)"
    )
    label = saved(CORNERS, "PNG", exif=exif(8))
    assert refused(label, 24, 40, 1).endswith(
        "(the label's EXIF orientation was applied, and the image has none that turns it likewise)"
    )
    assert refused(saved(CORNERS[:, 1:], "PNG"), 40, 24, 6) == "39x24 for an image of 24x40"
    assert refused(saved(CORNERS, "PNG"), 40, 24, 3) == "40x24 for an image of 24x40"  # orientation 3 changes no size


def test_a_label_with_an_orientation_of_its_own_is_turned_by_it() -> None:
    label = saved(CORNERS, "PNG", exif=exif(3))
    found = LabelDecoder(CLASSES).read(label, *CORNERS.shape)
    assert np.array_equal(found.classes, CORNERS[::-1, ::-1])
    assert found.remarks == ("label_turned",)
    assert LabelDecoder(CLASSES).read(label, *CORNERS.shape, 2).remarks == ("label_turned",)


# --- several frames -------------------------------------------------------------------------------------------------


def frames(kind: str, pixels: NDArray[np.uint8], **options: Any) -> bytes:
    others = [Image.fromarray(255 - pixels)]
    return saved(Image.fromarray(pixels), kind, save_all=True, append_images=others, **options)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_further_frames_are_noticed(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = codec.decode_picture(frames(kind, PICTURE, **options), LIMIT)
    assert (picture.remarks, np.array_equal(picture.pixels, PICTURE)) == (("image_frames",), True)
    label = LabelDecoder(CLASSES).read(frames(kind, PICTURE, **options), *CORNERS.shape)
    assert (label.remarks, np.array_equal(label.classes, CORNERS)) == (("label_frames",), True)
    assert codec.decode_picture(saved(PICTURE, kind, **options), LIMIT).remarks == ()


def test_further_frames_of_a_gif_are_noticed() -> None:
    label = LabelDecoder(CLASSES).read(frames("GIF", CORNERS), *CORNERS.shape)
    assert (label.remarks, np.array_equal(label.classes, CORNERS)) == (("label_frames",), True)


@pytest.mark.parametrize(("subfile", "remarks"), [(0, ("image_frames",)), (1, ()), (4, ()), (2, ("image_frames",))])
def test_overviews_and_masks_of_a_tiff_are_no_pages(subfile: int, remarks: tuple[str, ...]) -> None:
    second = Image.fromarray(PICTURE[::2, ::2])
    second.encoderinfo = {"tiffinfo": {254: subfile}}  # type: ignore[attr-defined]
    data = saved(Image.fromarray(PICTURE), "TIFF", save_all=True, append_images=[second])
    assert codec.decode_picture(data, LIMIT).remarks == remarks


def test_a_tiff_with_a_cycle_of_pages_ends() -> None:
    data = bytearray(saved(PICTURE, "TIFF"))
    (first,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * entries, first)
    assert np.array_equal(codec.decode(bytes(data), LIMIT), PICTURE)


def test_the_other_pictures_of_a_phones_jpeg_are_no_frames() -> None:
    data = saved(Image.fromarray(PICTURE), "MPO", save_all=True, append_images=[Image.fromarray(PICTURE[::2])])
    assert headers.open_header(data).format == "MPO"
    assert codec.decode_picture(data, LIMIT).remarks == ()


# --- loss -----------------------------------------------------------------------------------------------------------


def bare_lossless(pixels: NDArray[np.uint8]) -> bytes:
    return saved(pixels, "WEBP", lossless=True)


LOSSY = {
    "JPEG": saved(PICTURE, "JPEG", quality=100),
    "grey JPEG": saved(CORNERS, "JPEG"),
    "MPO": saved(Image.fromarray(PICTURE), "MPO", save_all=True, append_images=[Image.fromarray(PICTURE)]),
    "WebP": saved(PICTURE, "WEBP", quality=100),
    "WebP with EXIF": saved(PICTURE, "WEBP", quality=100, exif=exif(1)),
    "WebP with alpha": saved(np.dstack([PICTURE, CORNERS]), "WEBP", quality=90),
    "animated WebP": frames("WEBP", PICTURE, quality=90),
    "TIFF": saved(PICTURE, "TIFF", compression="jpeg"),
    "grey TIFF": saved(CORNERS, "TIFF", compression="jpeg"),
}
LOSSLESS = {
    "PNG": saved(PICTURE, "PNG"),
    "BMP": saved(PICTURE, "BMP"),
    "WebP": bare_lossless(PICTURE),
    "WebP with EXIF": saved(PICTURE, "WEBP", lossless=True, exif=exif(1)),
    "animated WebP": frames("WEBP", PICTURE, lossless=True),
    "TIFF": saved(PICTURE, "TIFF"),
    "TIFF, LZW": saved(PICTURE, "TIFF", compression="tiff_lzw"),
    "TIFF, deflate": saved(PICTURE, "TIFF", compression="tiff_adobe_deflate"),
    "GIF": saved(CORNERS, "GIF"),
}


@pytest.mark.parametrize("kind", LOSSY)
def test_labels_compressed_with_loss_are_refused_unless_they_are_allowed(kind: str) -> None:
    with pytest.raises(SampleError) as caught:
        LabelDecoder(CLASSES).read(LOSSY[kind], *CORNERS.shape)
    assert (caught.value.code, caught.value.detail) == (
        "label_lossy",
        "lossy WebP" if "WebP" in kind else "JPEG in TIFF" if "TIFF" in kind else "JPEG",
    )
    allowed = LabelDecoder(CLASSES, remap={"*": 0}, allow_lossy=True)
    if kind != "WebP with alpha":
        assert allowed.read(LOSSY[kind], *CORNERS.shape).classes.shape == CORNERS.shape
    assert codec.decode(LOSSY[kind], LIMIT).shape == PICTURE.shape  # images may be lossy


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_labels_are_accepted(kind: str) -> None:
    assert np.array_equal(LabelDecoder(CLASSES).read(LOSSLESS[kind], *CORNERS.shape).classes, CORNERS)


def test_the_name_of_webp_in_tiff_follows_from_its_strips() -> None:
    """The libtiff of this Pillow does not decode it: only the tags and the first bytes are examined."""
    for webp, name in ((saved(PICTURE, "WEBP"), "lossy WebP in TIFF"), (bare_lossless(PICTURE), None)):
        tags = {256: 40, 257: 24, 258: 8, 259: 50001, 262: 1, 273: 8, 277: 1, 278: 24, 279: len(webp)}
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
        end = 8 + len(webp)
        data = b"II*\0" + struct.pack("<I", end) + webp + struct.pack("<H", len(tags)) + entries + bytes(4)
        segments = segments_to_copy(data)
        assert segments
        assert lossy_compression(headers.open_header(data), data, segments) == name


def test_only_the_bytes_of_a_strip_are_looked_at() -> None:
    """Each strip is lossless; a lossy picture directly after one is not part of it."""
    webp = bare_lossless(PICTURE)
    riff = webp[:4] + struct.pack("<I", len(webp) + len(saved(PICTURE, "WEBP"))) + webp[8:]
    for strip, behind in ((riff, saved(PICTURE, "WEBP")[12:]), (webp, b"")):
        tags = {256: 40, 257: 24, 258: 8, 259: 50001, 262: 1, 273: 8, 277: 1, 278: 24, 279: len(strip)}
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
        end = 8 + len(strip) + len(behind)
        data = b"II*\0" + struct.pack("<I", end) + strip + behind + struct.pack("<H", len(tags)) + entries + bytes(4)
        segments = segments_to_copy(data)
        assert segments
        assert lossy_compression(headers.open_header(data), data, segments) is None


# --- Pillow's limit of pixels ----------------------------------------------------------------------------------------


def animated(kind: str) -> bytes:
    return saved(Image.fromarray(PICTURE), kind, save_all=True, append_images=[Image.fromarray(255 - PICTURE)])


@pytest.mark.parametrize(
    "data",
    [
        saved(PICTURE, "JPEG"),
        saved(PICTURE, "PNG"),
        saved(PICTURE, "WEBP", lossless=True),
        saved(PICTURE, "BMP"),
        saved(PICTURE, "TIFF"),
        saved(PICTURE, "TIFF", compression="tiff_lzw"),
        saved(Image.fromarray(PICTURE).convert("RGBA"), "TIFF"),
        animated("TIFF"),
        animated("WEBP"),
        with_chunk(saved(PICTURE, "PNG"), b"eXIf", exif(3), behind=True),
    ],
)
@pytest.mark.filterwarnings("error")
def test_pillows_limit_is_not_ours(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow warns of more, and refuses twice as many
    assert codec.decode_picture(data, LIMIT).pixels.shape == PICTURE.shape
    found = LabelDecoder(CLASSES, "colour", {"*": "a"}, allow_lossy=True).read(data, *CORNERS.shape)
    assert found.classes.shape == CORNERS.shape
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))


@pytest.mark.filterwarnings("error")
def test_labels_that_are_gif_are_not_limited_by_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for data in (animated("GIF"), saved(CORNERS, "GIF")):
        assert LabelDecoder(CLASSES, "index", {"*": "a"}).read(data, *CORNERS.shape).classes.shape == CORNERS.shape
    with pytest.raises(SampleError, match="label_size"):
        LabelDecoder(CLASSES).read(animated("GIF"), 3, 4)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_importing_leaves_pillows_guard_as_it_is() -> None:
    code = """
import warnings
from PIL import Image
before = Image.MAX_IMAGE_PIXELS
import segment, segment.images.headers, segment.images.codec, segment.images.labels
assert Image.MAX_IMAGE_PIXELS == before is not None
Image.MAX_IMAGE_PIXELS = 100
with warnings.catch_warnings(record=True) as caught:
    Image._decompression_bomb_check((12, 12))
assert [warning.category for warning in caught] == [Image.DecompressionBombWarning], caught
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_limit_is_back_when_the_last_thread_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = saved(PICTURE, "PNG")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: codec.decode(data, LIMIT).shape, range(400)))
    assert set(found) == {PICTURE.shape}
    assert Image.MAX_IMAGE_PIXELS == 100
    with headers.pixel_limit.lifted():
        child = os.fork()
        if child == 0:  # without the thread that lifted it
            sound = Image.MAX_IMAGE_PIXELS == 100 and codec.decode(data, LIMIT).shape == PICTURE.shape
            os._exit(0 if sound and Image.MAX_IMAGE_PIXELS == 100 else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert Image.MAX_IMAGE_PIXELS is None
    assert Image.MAX_IMAGE_PIXELS == 100
