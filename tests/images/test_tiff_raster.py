"""Windows of TIFFs: every layout and compression gives the pixels of the whole image; damage is told in words."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from segment.images import codec
from segment.images.tiff_raster import TiffRaster
from segment.images.tiff_tags import TiffPage

Pixels = NDArray[np.uint8]
HEIGHT, WIDTH = 150, 230
RANDOM = np.random.default_rng(1)
# Smooth areas with some noise, so that lossy compressions have something to lose and others something to pack.
RGB: Pixels = np.kron(RANDOM.integers(0, 250, (15, 23, 3)), np.ones((10, 10, 1))).astype(np.uint8)
RGB += RANDOM.integers(0, 6, RGB.shape).astype(np.uint8)
ALPHA = np.dstack([RGB, RGB[:, :, :1]])
DEEP = (RGB.astype(np.uint16) << 8) + RGB[:, ::-1]
COLOURS = RANDOM.integers(0, 65536, (3, 256)).astype(np.uint16)
GREY = RGB[:, :, 0]

TILES: dict[str, Any] = {"tile": (64, 32)}
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
    "lzma": {"compression": "lzma"},
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
    "cmyk": (ALPHA, {"photometric": "separated"}),
}


def written(pixels: NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, metadata=None, **options)
    return file.getvalue()


def raster(data: bytes) -> TiffRaster:
    return TiffRaster(TiffPage(io.BytesIO(data)), 1 << 30)


def assert_windows(found: TiffRaster, whole: Pixels, number: int = 8) -> None:
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


def as_tifffile_unpacks(data: bytes, options: dict[str, Any]) -> bytes:
    """Return the file without compression: OpenCV knows neither ZSTD nor LZMA."""
    return written(tifffile.imread(io.BytesIO(data)), **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_windows_are_slices_of_the_whole_image(kind: str, compression: str) -> None:
    pixels, options = KINDS[kind]
    for layout in (TILES, STRIPS, ONE_STRIP):
        for order, big in (("<", False), (">", True)):
            data = written(pixels, **options, **COMPRESSIONS[compression], **layout, byteorder=order, bigtiff=big)
            plain = as_tifffile_unpacks(data, options) if compression.startswith(("zstd", "lzma")) else data
            assert_windows(raster(data), codec.decode(plain, 1 << 30), 4)
