"""Strips and tiles of fax codes, which have no length and no checksum: of what is missing no pixel is made up."""

import io

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from segment.errors import SampleError
from segment.images.codec import decode_picture
from segment.images.label_images import read_label
from segment.images.tiff_raster import open_raster
from segment.images.tiff_tags import LONG, SHORT, Field, TiffPage, encode_directory, file_header
from tests.images.test_cut_tiffs import ROWS, STRIP_SIZES, with_filled_strips, with_shorter_strip


def fax(pixels: NDArray[np.bool_], compression: str, rows: int = ROWS, **tags: int) -> bytes:
    """A TIFF of strips of so many rows; `t4`: T4Options, `fill_order`: FillOrder."""
    numbers = {"t4": 292, "fill_order": 266}
    buffer = io.BytesIO()
    info = {278: rows, **{numbers[name]: value for name, value in tags.items()}}
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


def scan(height: int, width: int) -> NDArray[np.bool_]:
    """A page of marks."""
    pixels = np.ones((height, width), np.bool_)
    pixels[100::40, ::3] = False
    pixels[:, 50:60] = False
    return pixels


@pytest.mark.parametrize("compression", ["group3", "group4"])
def test_a_large_scan_in_one_strip_is_read_and_refused_if_it_is_cut(compression: str) -> None:
    """A4 at 600 dots per inch: larger than a strip may be that is read by window."""
    pixels = scan(7016, 4960)
    assert pixels.size > 1 << 25
    data = fax(pixels, compression, len(pixels))
    assert (decode_picture(data, 10**8).pixels[..., 0] == 255 * pixels).all()
    with pytest.raises(SampleError, match="fewer rows"):
        decode_picture(with_shorter_strip(data, 200, 0), 10**8)


def test_windows_of_a_large_scan_are_read_and_refused_where_it_is_cut() -> None:
    pixels = scan(4200, 4100)
    data = fax(pixels, "group4", 100)
    cut = open_raster(io.BytesIO(with_shorter_strip(data, 8)), 10**8)
    assert (cut.height, cut.width) == pixels.shape
    for found in (open_raster(io.BytesIO(data), 10**8), cut):
        assert (found.read(250, 30, 500, 90)[..., 0] == 255 * pixels[250:750, 30:120]).all()
    with pytest.raises(SampleError, match="fewer rows"):
        cut.read(50, 30, 500, 90)


def test_strips_are_checked_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each decoding has its price, however small a strip is: a small file may have a million of them."""
    calls, decode = [], cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda *given: calls.append(1) or decode(*given))
    pixels = scan(3000, 16)
    data = fax(pixels, "group4", 1)
    assert TiffPage(io.BytesIO(data)).tags[STRIP_SIZES].count == 3000
    assert (decode_picture(data, 10**6).pixels[..., 0] == 255 * pixels).all()
    assert len(calls) <= 4


def tiled_fax(pixels: NDArray[np.bool_], compression: str, shorter: int, side: int = 64) -> bytes:
    """A TIFF of tiles, the second of which has so many bytes less; what is beyond the page is white."""
    height, width = pixels.shape
    padded = np.pad(pixels, ((0, -height % side), (0, -width % side)), constant_values=True)
    files = [
        fax(padded[top : top + side, left : left + side], compression, side)
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]
    pages = [TiffPage(io.BytesIO(file)) for file in files]
    places = [(page.number(273, 0), page.number(STRIP_SIZES, 0)) for page in pages]
    tiles = [file[start : start + size] for file, (start, size) in zip(files, places, strict=True)]
    tiles[1] = tiles[1][: len(tiles[1]) - shorter]
    numbers = {256: width, 257: height, 277: 1, 322: side, 323: side}
    fields = [Field(tag, LONG, [number]) for tag, number in numbers.items()]
    fields += [Field(tag, SHORT, [pages[0].number(tag, 1)]) for tag in (258, 259, 262, 266)]

    def directory(first: int) -> bytes:
        sizes = [len(tile) for tile in tiles]
        starts = np.cumsum([first, *sizes[:-1]]).tolist()
        return encode_directory([*fields, Field(324, LONG, starts), Field(325, LONG, sizes)], 8, 0, big=False)

    return file_header(8, big=False) + directory(8 + len(directory(0))) + b"".join(tiles)


@pytest.mark.parametrize("compression", ["tiff_ccitt", "group3", "group4"])
def test_tiles_of_fax_codes_are_read_and_cut_ones_refused(compression: str) -> None:
    pixels = drawings()["disc"]
    data = tiled_fax(pixels, compression, 0)
    assert (decode_picture(data, 10**6).pixels[..., 0] == 255 * pixels).all()
    values, _ = read_label(data, (96, 128), 1, as_colour=False, allow_lossy=False)
    assert values.values is not None
    assert (values.values == pixels).all()
    for shorter in (5, 20):
        with pytest.raises(SampleError, match="fewer rows"):
            decode_picture(tiled_fax(pixels, compression, shorter), 10**6)


def test_a_flipped_bit_loses_no_row_without_a_word() -> None:
    """In group 3 a row that is lost moves all below it; a row of wrong codes alone is read, as nothing tells it."""
    pixels = drawings()["disc"]
    data = fax(pixels, "group3", len(pixels))
    start = int(TiffPage(io.BytesIO(data)).number(273, 0))
    size = int(TiffPage(io.BytesIO(data)).number(STRIP_SIZES, 0))
    refused: list[str] = []
    read = 0
    for bit in range(0, 8 * size, 7):
        flipped = bytearray(data)
        flipped[start + bit // 8] ^= 1 << bit % 8
        try:
            found = decode_picture(bytes(flipped), 10**6).pixels[..., 0]
        except SampleError as error:
            refused.append(str(error))
        else:
            assert (found != 255 * pixels).any(axis=1).sum() <= 2
            read += 1
    assert all("fewer rows than its size needs, or damaged codes" in said for said in refused)
    assert min(len(refused), read) > 20
