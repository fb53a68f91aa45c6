"""Windows of TIFFs: every layout and compression gives the pixels of the whole image; damage is told in words."""

import contextlib
import io
import tracemalloc
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from segment.errors import SampleError
from segment.images import codec, tiff_raster
from segment.images.labels import LabelDecoder
from segment.images.raster import ArrayRaster
from segment.images.tiff_labels import open_label
from segment.images.tiff_raster import TiffRaster, open_raster
from segment.images.tiff_tags import TiffError, TiffPage
from tests.runs import CARD

Pixels = NDArray[np.uint8]
HEIGHT, WIDTH = 150, 230
LIMIT = 1 << 30
KEYS = (1, 1, 0, 1, 1024, 0, 1, 2)
GEOTAGS = [(33550, 12, 3, (0.5, 0.5, 0.0), True), (34735, 3, 8, KEYS, True), (34737, 2, 8, "WGS 84|", True)]
RANDOM = np.random.default_rng(1)
# Smooth areas with some noise, so that lossy compressions have something to lose and others something to pack.
RGB: Pixels = np.kron(RANDOM.integers(0, 250, (15, 23, 3)), np.ones((10, 10, 1))).astype(np.uint8)
RGB += RANDOM.integers(0, 6, RGB.shape).astype(np.uint8)
ALPHA = np.dstack([RGB, RGB[:, :, :1]])
DEEP = (RGB.astype(np.uint16) << 8) + RGB[:, ::-1]
COLOURS = RANDOM.integers(0, 65536, (3, 256)).astype(np.uint16)
GREY = RGB[:, :, 0]

TILES: dict[str, Any] = {"tile": (64, 32)}
SMALL: dict[str, Any] = {"tile": (16, 48)}
STRIPS: dict[str, Any] = {"rowsperstrip": 16}
ONE_STRIP: dict[str, Any] = {"rowsperstrip": HEIGHT}
COMPRESSIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "deflate": {"compression": "zlib"},
    "deflate of differences": {"compression": "zlib", "predictor": True},
    "lzw": {"compression": "lzw"},
    "packbits": {"compression": "packbits"},
    "zstd": {"compression": "zstd"},
    "zstd of differences": {"compression": "zstd", "predictor": True},
    "lzma": {"compression": "lzma", "compressionargs": {"level": 0}},
}
KINDS: dict[str, tuple[NDArray[Any], dict[str, Any]]] = {
    "rgb": (RGB, {"photometric": "rgb"}),
    "rgba": (ALPHA, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "grey": (GREY, {"photometric": "minisblack"}),
    "white is 0": (GREY, {"photometric": "miniswhite"}),
    "palette": (GREY, {"photometric": "palette", "colormap": COLOURS}),
    "16 bits": (DEEP, {"photometric": "rgb"}),
    "16 bits, grey": (DEEP[:, :, 0], {"photometric": "minisblack"}),
    "planes": (RGB.transpose(2, 0, 1), {"photometric": "rgb", "planarconfig": "separate"}),
    "bits": (GREY > 100, {"photometric": "minisblack"}),
    "grey with alpha": (ALPHA[:, :, 2:], {"photometric": "minisblack", "extrasamples": ["unassalpha"]}),
    "cmyk": (ALPHA, {"photometric": "separated"}),
}


def written(pixels: NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, metadata=None, **options)
    return file.getvalue()


def raster(data: bytes) -> TiffRaster:
    return TiffRaster(TiffPage(io.BytesIO(data)), LIMIT)


def assert_windows(found: TiffRaster, whole: Pixels, number: int = 3) -> None:
    assert (found.height, found.width, 3) == whole.shape
    random = np.random.default_rng(2)
    windows = [(0, 0, *whole.shape[:2]), (0, 0, 1, 1)]
    for _ in range(number):
        top, left = int(random.integers(whole.shape[0])), int(random.integers(whole.shape[1]))
        windows.append(
            (top, left, int(random.integers(whole.shape[0] - top)) + 1, int(random.integers(whole.shape[1] - left)) + 1)
        )
    for top, left, height, width in windows:
        window = found.read(top, left, height, width)
        assert window.flags["C_CONTIGUOUS"]
        assert np.array_equal(window, whole[top : top + height, left : left + width]), (top, left, height, width)


@pytest.mark.parametrize("kind", KINDS)
def test_windows_are_slices_of_the_whole_image(kind: str) -> None:
    """Whatever the layout and byte order; and the whole image is the same in each, tiles beyond its edge or not."""
    pixels, options = KINDS[kind]
    plain = codec.decode(written(pixels, **options, **STRIPS), LIMIT)
    for layout in (TILES, SMALL, STRIPS, ONE_STRIP):
        for order, big in (("<", False), ("<", True), (">", False)):
            data = written(pixels, **options, **layout, byteorder=order, bigtiff=big)
            assert np.array_equal(codec.decode(data, LIMIT), plain)
            assert_windows(raster(data), plain)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_compression_gives_the_pixels_that_were_packed(compression: str) -> None:
    for kind in ("rgb", "rgba", "16 bits", "grey"):
        pixels, options = KINDS[kind]
        plain = codec.decode(written(pixels, **options), LIMIT)
        for layout in (SMALL, STRIPS):
            data = written(pixels, **options, **COMPRESSIONS[compression], **layout, byteorder=">")
            assert_windows(raster(data), plain)
            assert np.array_equal(codec.decode(data, LIMIT), plain)


@pytest.mark.parametrize("layout", [TILES, SMALL, STRIPS])
@pytest.mark.parametrize(("bits", "bands"), [(8, 2), (16, 4)])
def test_planes_with_alpha_are_read_as_interleaved(bits: int, bands: int, layout: dict[str, Any]) -> None:
    """OpenCV takes both planes of grey with alpha for grey, and Pillow mixes up the bytes of 16 bits."""
    random = np.random.default_rng(5)
    pixels = random.integers(0, 1 << bits, (37, 53, bands)).astype(f"u{bits // 8}")
    options = {**layout, "photometric": "rgb" if bands == 4 else "minisblack", "extrasamples": ["unassalpha"]}
    colours = pixels[..., :3] if bands == 4 else pixels[..., :1].repeat(3, axis=2)
    expected = (colours >> (bits - 8)).astype(np.uint8)
    for compression in (None, "deflate", "zstd"):
        packed = {**options, "compression": compression, "planarconfig": "separate"}
        data = written(pixels.transpose(2, 0, 1), **packed)
        assert np.array_equal(codec.decode(data, LIMIT), expected)
        assert_windows(raster(data), expected)


def test_two_planes_of_other_compressions_are_refused_in_words() -> None:
    options = {"photometric": "minisblack", "extrasamples": ["unassalpha"], "planarconfig": "separate"}
    data = written(np.zeros((2, 32, 32), np.uint8), compression="jpeg", tile=(16, 16), **options)
    with pytest.raises(SampleError, match="write it interleaved"):
        codec.decode(data, LIMIT)


@pytest.mark.parametrize("compression", ["deflate", "lzw", "zstd"])
@pytest.mark.parametrize("layout", [SMALL, STRIPS])
def test_many_planes_are_refused_as_many_bands(compression: str, layout: dict[str, Any]) -> None:
    data = written(np.zeros((7, 37, 53), np.uint8), planarconfig="separate", compression=compression, **layout)
    with pytest.raises(SampleError, match="7 samples of 8 bits"):
        codec.decode(data, LIMIT)
    with pytest.raises(SampleError, match="7 samples of 8 bits"):
        raster(data).read(0, 0, 20, 20)


@pytest.mark.parametrize("compression", ["jpeg", "jpeg, subsampled", "webp", "lossless webp"])
def test_lossy_compressions_give_what_the_decoder_gives(compression: str) -> None:
    options: dict[str, Any] = {
        "jpeg": {"compression": "jpeg", "photometric": "rgb"},
        "jpeg, subsampled": {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (2, 2)},
        "webp": {"compression": "webp", "photometric": "rgb"},
        "lossless webp": {"compression": "webp", "photometric": "rgb", "compressionargs": {"lossless": True}},
    }[compression]
    for layout in (TILES, STRIPS):
        data = written(RGB, **options, **layout)
        whole = codec.decode(data, LIMIT)
        assert_windows(raster(data), whole)
        if compression == "lossless webp":
            assert np.array_equal(whole, RGB)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_windows_are_upright(orientation: int) -> None:
    data = written(RGB, photometric="rgb", **TILES, extratags=[(274, 3, 1, orientation, True), *GEOTAGS])
    whole = codec.decode_picture(data, LIMIT)
    found = raster(data)
    assert found.orientation == whole.orientation == orientation
    assert_windows(found, whole.pixels)
    # The tags of a georeference are of the pixels as stored.
    assert (found.georeference is None) == (orientation != 1)
    assert found.remarks == (() if orientation == 1 else ("georeference_turned",))


def test_a_large_tiff_is_read_by_window_and_a_small_image_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data = written(RGB, photometric="rgb", **TILES, extratags=GEOTAGS)
    small = open_raster(io.BytesIO(data), LIMIT)
    assert isinstance(small, ArrayRaster)
    monkeypatch.setattr(tiff_raster, "LARGE", RGB[:, :, 0].size)
    large = open_raster(io.BytesIO(data), LIMIT)
    assert isinstance(large, TiffRaster)
    assert small.georeference == large.georeference
    assert large.georeference is not None
    assert large.georeference.tags == {33550: (0.5, 0.5, 0.0), 34735: KEYS, 34737: b"WGS 84|\0"}
    assert np.array_equal(small.read(3, 4, 50, 60), large.read(3, 4, 50, 60))
    png = open_raster(io.BytesIO(codec.encode_png(RGB)), LIMIT)
    assert np.array_equal(png.read(0, 0, HEIGHT, WIDTH), RGB)
    assert png.georeference is None
    with pytest.raises(ValueError, match="no window"):
        large.read(0, 1, HEIGHT, WIDTH)
    with pytest.raises(SampleError, match="too_many_pixels"):
        open_raster(io.BytesIO(data), 100)


def test_overviews_are_no_further_images_and_pages_are() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(RGB, subifds=0, tile=(64, 64), photometric="rgb", metadata=None)
        writer.write(RGB[::2, ::2], subfiletype=1, tile=(64, 64), photometric="rgb", metadata=None)
    assert raster(file.getvalue()).remarks == ()
    pages = written(np.stack([RGB, RGB]), photometric="rgb", tile=(64, 64))
    assert raster(pages).remarks == ("image_frames",) == codec.decode_picture(pages, LIMIT).remarks


class Recorded(io.BytesIO):
    """Notes where it is read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.requests: list[int] = []

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        self.requests.append(len(found))
        return found


def test_only_what_a_window_touches_is_read_and_every_tile_once() -> None:
    picture = np.tile(RGB, (4, 6, 1))
    data = written(picture, photometric="rgb", tile=(64, 64), compression="zlib")
    file = Recorded(data)
    found = TiffRaster(TiffPage(file), LIMIT)
    opened = len(file.requests)
    assert opened <= 3
    found.read(70, 70, 10, 10)
    assert len(file.requests) == opened + 1
    assert file.requests[-1] < len(data) / 50
    file.requests.clear()
    for top in range(0, picture.shape[0] - 80, 60):  # a sliding window that overlaps its neighbours
        for left in range(0, picture.shape[1] - 90, 70):
            assert np.array_equal(found.read(top, left, 80, 90), picture[top : top + 80, left : left + 90])
    assert sum(file.requests) < len(data)
    file.requests.clear()
    for top in range(0, picture.shape[0] // 64 * 64, 64):
        found.read(top, 0, 64, picture.shape[1])
    assert len(file.requests) <= picture.shape[0] / 64  # a row of tiles is a request


def test_one_strip_is_read_in_parts_if_it_is_not_compressed() -> None:
    picture = np.tile(RGB, (20, 9, 1))
    data = written(picture, photometric="rgb", rowsperstrip=len(picture))
    file = Recorded(data)
    found = TiffRaster(TiffPage(file), LIMIT)
    file.requests.clear()
    assert np.array_equal(found.read(2000, 5, 7, 1000), picture[2000:2007, 5:1005])
    assert sum(file.requests) < len(data) / 4


# --- damage --------------------------------------------------------------------------------------------------------


def tags_of(data: bytes) -> dict[int, tuple[int, int]]:
    """Return where the values of the first page's tags are: first byte, number of bytes."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        return {tag.code: (tag.valueoffset, tag.valuebytecount) for tag in file.pages[0].tags}


def changed(data: bytes, tag: int, value: int, at: int = 0) -> bytes:
    """Return the file with another value, of four bytes, for a tag."""
    start = tags_of(data)[tag][0] + at
    return data[:start] + value.to_bytes(4, "little") + data[start + 4 :]


def read_whole(data: bytes) -> Pixels:
    found = raster(data)
    return found.read(0, 0, found.height, found.width)


def fault(data: bytes) -> str:
    """Return the text of the error that reading the whole raises."""
    with pytest.raises(SampleError) as caught:
        read_whole(data)
    return str(caught.value)


WIDE: dict[str, Any] = {"photometric": "rgb", "tile": (64, 32), "compression": "zlib"}


def test_damage_is_told_in_words() -> None:
    data = written(RGB, **WIDE)
    offset = tags_of(data)[324][0]
    assert "beyond its end" in fault(changed(data, 324, 1 << 31))
    assert "beyond its end" in fault(data[:-3000])
    in_jpeg = written(RGB, photometric="rgb", tile=(64, 32), compression="jpeg")
    assert "sparse" in fault(without_first_segment(in_jpeg))
    assert "begins somewhere and has no bytes" in fault(without_first_segment(data, (325,)))
    assert "more bytes than its pixels need" in fault(
        changed(written(RGB, photometric="rgb", tile=(256, 256)), 325, 1 << 30)
    )
    assert "told apart" in fault(changed(data, 322, 0))
    assert "fewer strips or tiles" in fault(changed(data, 257, 100_000))
    assert "more strips or tiles" in fault(changed(changed(data, 257, 1 << 30), 322, 16))
    assert "too large to be read one by one" in fault(
        written(np.zeros((9000, 9000), np.uint8), compression="zlib", rowsperstrip=9000)
    )
    flipped = bytearray(data)
    flipped[int.from_bytes(data[offset : offset + 4], "little") + 40] ^= 255
    assert "undecodable" in fault(bytes(flipped))
    assert "pixel_format" in fault(written(RGB.astype(np.float32), photometric="rgb"))


def without_first_segment(data: bytes, tags: tuple[int, ...] = (324, 325)) -> bytes:
    """Set place and size of the first tile to 0, as GDAL writes sparse files."""
    found = bytearray(data)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        for number in tags:
            tag = file.pages.first.tags[number]
            size = {3: 2, 4: 4}[tag.dtype]
            found[tag.valueoffset : tag.valueoffset + size] = bytes(size)
    return bytes(found)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits", "zstd"])
@pytest.mark.parametrize("nodata", [None, "200", "-1", "nan"])
def test_tiles_that_are_not_stored_are_no_data(compression: str | None, nodata: str | None) -> None:
    """As tifffile reads them, by window and as a whole, and a remark tells it; a value that does not fit is 0."""
    tags = [(42113, 2, 0, nodata, True)] if nodata else []
    data = written(RGB, photometric="rgb", tile=(64, 32), compression=compression, extratags=tags)
    data = without_first_segment(data)
    expected = RGB.copy()
    expected[:64, :32] = 200 if nodata == "200" else 0
    whole, window = codec.decode_picture(data, 10**9), raster(data)
    assert np.array_equal(whole.pixels, expected)
    assert np.array_equal(window.read(0, 0, *RGB.shape[:2]), expected)
    assert whole.remarks == window.remarks == ("image_sparse",)


@pytest.mark.parametrize("compression", [None, "zlib", "packbits"])
def test_small_labels_of_which_tiles_are_not_stored(compression: str | None) -> None:
    """As tifffile reads them: Pillow would take the first bytes of the file for the pixels."""
    values = np.random.default_rng(0).integers(1, 3, (64, 96), np.uint8)
    data = without_first_segment(written(values, tile=(32, 32), compression=compression))
    decoder = LabelDecoder(CARD.classes, "auto", None)
    label = open_label(io.BytesIO(data), (64, 96), 1, decoder)
    expected = values.copy()
    expected[:32, :32] = 0
    assert np.array_equal(label.read(0, 0, 64, 96), expected)
    assert label.remarks == ("label_sparse",)
    assert np.array_equal(decoder.read(data, 64, 96, 1).classes, expected)


def old_lzw(data: bytes) -> bytes:
    """Encode as LZW was before TIFF 6.0, the low bits first: codes of 9 bits, so that the table is cleared in time."""
    codes = np.array([code for start in range(0, len(data), 200) for code in (256, *data[start : start + 200])] + [257])
    return np.packbits(codes[:, None] >> np.arange(9) & 1, bitorder="little").tobytes()


@pytest.mark.parametrize("kind", ["old LZW", "a strip filled beyond the page", "a size of 0"])
@pytest.mark.parametrize("compression", ["lzw", "zlib"])
def test_one_strip_is_read_as_opencv_reads_it(kind: str, compression: str) -> None:
    """Also where it holds the rows of `RowsPerStrip`, more than the page has; and where its size is not given."""
    grey = np.ascontiguousarray(GREY[:40, :50])
    data = bytearray(written(np.pad(grey, ((0, 24), (0, 0))), compression=compression, rowsperstrip=64))
    if kind == "a size of 0":
        data = bytearray(changed(bytes(data), 279, 0))
    elif kind == "old LZW":
        strip = old_lzw(np.pad(grey, ((0, 24), (0, 0))).tobytes())
        data = bytearray(changed(changed(changed(bytes(data), 259, 5), 273, len(data)), 279, len(strip)) + strip)
    found = codec.decode(changed(bytes(data), 257, 40), 10**9)
    assert np.array_equal(found, grey[..., None].repeat(3, 2))


@pytest.mark.parametrize(("compression", "least"), [("zlib", 1.0), ("lzw", 0.5)])
def test_a_flipped_byte_is_noticed_where_the_codec_can_tell(compression: str, least: float) -> None:
    """By its checksum, or by the length that it unpacks to; alike by window and as a whole."""
    data = written(RGB, photometric="rgb", tile=(64, 32), compression=compression)
    random, noticed = np.random.default_rng(0), 0
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        segments = list(zip(file.pages.first.dataoffsets, file.pages.first.databytecounts, strict=True))
    for _ in range(40):
        start, size = segments[random.integers(len(segments))]
        damaged = bytearray(data)
        damaged[start + random.integers(size)] ^= random.integers(1, 256)
        found = []
        for read in (lambda data: raster(data).read(0, 0, *RGB.shape[:2]), lambda data: codec.decode(data, 10**9)):
            try:
                found.append(read(bytes(damaged)).tobytes())
            except SampleError as error:
                found.append(error.code.encode())
        assert found[0] == found[1]
        noticed += found[0] in (b"undecodable", RGB.tobytes())
    assert noticed >= least * 40


def test_a_loop_of_pages_ends() -> None:
    data = bytearray(written(np.stack([GREY, GREY]), photometric="minisblack", **TILES))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        second = file.pages[1].offset
    entries = int.from_bytes(data[second : second + 2], "little")
    data[second + 2 + entries * 12 : second + 6 + entries * 12] = (8).to_bytes(4, "little")
    assert raster(bytes(data)).remarks == ("image_frames",)


@pytest.mark.parametrize("compression", ["zstd", "lzma", "webp"])
def test_a_bomb_is_not_unpacked(compression: str) -> None:
    """A tile that unpacks to more than its size: cut off, or refused."""
    if compression == "webp":
        bomb = imagecodecs.webp_encode(np.zeros((4000, 4000, 3), np.uint8), lossless=True)
    else:
        bomb = getattr(imagecodecs, f"{compression}_encode")(bytes(1 << 25))
    data = written(RGB[:64, :32], photometric="rgb", tile=(64, 32), compression=compression)
    data = changed(changed(data + bomb, 324, len(data)), 325, len(bomb))
    tracemalloc.start()
    with contextlib.suppress(SampleError):
        raster(data).read(0, 0, 10, 10)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 << 20


@pytest.mark.parametrize("kind", ["deflate", "zstd of differences", "one strip"])
def test_damaged_bytes_are_an_error_or_an_image(kind: str) -> None:
    options = {**(ONE_STRIP if kind == "one strip" else {**TILES, **COMPRESSIONS[kind]})}
    data = written(RGB, photometric="rgb", **options, extratags=GEOTAGS)
    random = np.random.default_rng(3)
    directory = int.from_bytes(data[4:8], "little")
    for _ in range(120):
        damaged = bytearray(data[: random.integers(8, len(data))] if random.random() < 0.2 else data)
        for _ in range(random.integers(1, 4)):
            at = directory + random.integers(250) if random.random() < 0.8 else random.integers(len(data))
            damaged[min(int(at), len(damaged) - 1)] = random.integers(256)
        with contextlib.suppress(SampleError):
            found = open_window(bytes(damaged))
            assert found.dtype == np.uint8


def open_window(data: bytes) -> Pixels:
    try:
        page = TiffPage(io.BytesIO(data))
    except TiffError:
        raise SampleError("undecodable") from None
    found = TiffRaster(page, 1 << 24)
    return found.read(0, 0, min(40, found.height), min(40, found.width))
