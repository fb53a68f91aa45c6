"""Images of any number of bands: those that a card reads, from multi-band TIFFs."""

import io
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segment.errors import SampleError
from segment.images import headers
from segment.images.codec import Fit, Picture, decode_picture
from segment.images.excess import check_structure
from segment.images.magic import image_format
from segment.images.tiff_copies import segments_to_copy
from segment.images.tiff_raster import RGB, PixelReader
from segment.images.tiff_segments import TiffSegments
from segment.images.tiff_tags import MOST_PAGES, TiffPage
from segment.images.tiff_unpacking import DAMAGED, JPEG, PACKBITS, ZSTD, is_whole_jpeg
from segment.models.card_input import Input

_MOST_VALUES = 16  # times the pixels that are allowed: bands that are decoded to read a few of them
_ORIENTATION = 274
_NO_BANDS = {0: "white is 0", 3: "indices of a palette"}  # by PhotometricInterpretation
_SECONDARY = 0b101  # NewSubfileType: an overview, or a mask


def decode_image(data: bytes, spec: Input | None, max_pixels: int, fit: Fit | None = None) -> Picture:
    """Decode an image as a card reads it: RGB, or its bands in the card's order.

    Args:
        data: see `decode_picture`; for bands a TIFF of any number of them, planar or interleaved. Any other image has
            three bands: red, green, blue.
        spec: the card's input; None for RGB.
        max_pixels: limit that is checked by the header before any pixel is decoded.

    Returns:
        Pixels `uint8[H, W, 3]`, or `uint8[H, W, number of bands]`; 16-bit bands are mapped from `band_range` to 0-255.

    Raises:
        SampleError: as `decode_picture`; `bands`: the image has fewer; `band_type`: their numbers are not those that
            the card reads.
    """
    if spec is not None and spec.bands is not None and image_format(data) == "TIFF":
        return _decode_tiff(data, spec, max_pixels)
    return with_bands(decode_picture(data, max_pixels, fit), spec)


def pixel_reader(spec: Input) -> PixelReader:
    """Return how a card's images are read, as a whole or by window."""
    if spec.bands is None:
        return RGB
    return PixelReader(_check_page, lambda data, most: decode_image(data, spec, most))


def _check_page(page: TiffPage, segments: TiffSegments, max_pixels: int) -> tuple[int, tuple[str, ...]]:
    if page.height * page.width > max_pixels:
        raise SampleError("too_many_pixels")
    orientation = page.number(_ORIENTATION, 1)
    return orientation if orientation in range(1, 9) else 1, ()


def with_bands(picture: Picture, spec: Input | None) -> Picture:
    """Return an RGB image as a card reads it. Raises SampleError: `bands` or `band_type`."""
    if spec is None or spec.bands is None:
        return picture
    return replace(picture, pixels=_as_bytes(_chosen(picture.pixels, spec), spec))


def displayed(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return `uint8[H, W, 3]` for people: the first three bands as red, green and blue, or the first one as grey."""
    return pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1].repeat(3, axis=2)


def _chosen(pixels: NDArray[Any], spec: Input) -> NDArray[Any]:
    """Return the card's bands of `[H, W, all bands]`."""
    bands = spec.bands or ()
    if max(bands) > pixels.shape[2]:
        number = f"{pixels.shape[2]} band{'s' if pixels.shape[2] > 1 else ''}"
        raise SampleError("bands", f"{number}, and the card reads band {max(bands)}")
    return pixels[..., [band - 1 for band in bands]]


def _as_bytes(pixels: NDArray[Any], spec: Input) -> NDArray[np.uint8]:
    """Map 16-bit bands from `band_range` to 0-255, rounded and clipped; bytes stay as they are."""
    if spec.band_range is None:
        if pixels.dtype != np.uint8:
            raise SampleError("band_type", f"{pixels.dtype}, and the card has no input.band_range")
        return np.ascontiguousarray(pixels, np.uint8)
    if pixels.dtype not in (np.uint16, np.int16):
        raise SampleError("band_type", f"{pixels.dtype}, but input.band_range is for 16 bits")
    low, high = spec.band_range
    mapped = np.empty(pixels.shape, np.uint8)
    for band in range(pixels.shape[2]):  # floats of one band at a time
        numbers = (pixels[..., band].astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
        mapped[..., band] = np.rint(numbers).clip(0, 255)
    return mapped


def _decode_tiff(data: bytes, spec: Input, max_pixels: int) -> Picture:
    import tifffile

    check_structure(data)
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages.first
            _check_size(page, max_pixels)
            _check_content(page, data)
            pixels, axes = _stored_pixels(page, data)
            orientation = page.tags.get(_ORIENTATION)
            pages = islice(file.pages, MOST_PAGES)
            frames = sum(not int(getattr(page, "subfiletype", 0)) & _SECONDARY for page in pages)
    except (SampleError, MemoryError):
        raise
    except Exception as error:  # tifffile and its codecs raise many types
        raise SampleError("undecodable") from error
    if axes == "SYX":
        pixels = np.moveaxis(pixels, 0, 2)
    elif axes == "YX":
        pixels = pixels[..., np.newaxis]
    elif axes != "YXS":
        raise SampleError("pixel_format")
    found = _as_bytes(_chosen(pixels, spec), spec)
    turned_by = int(orientation.value) if orientation is not None and orientation.value in range(1, 9) else 1
    found = headers.apply_orientation(found, turned_by)
    remarks = {"image_frames": frames > 1, "image_sparse": 0 in page.databytecounts}
    return Picture(found, turned_by, tuple(code for code, noticed in remarks.items() if noticed))


def _stored_pixels(page: Any, data: bytes) -> tuple[NDArray[Any], str]:
    """Return pixels and their axes. Of strips that are filled tifffile takes those of other compressions only."""
    import tifffile

    segments = segments_to_copy(data) if page.compression in (PACKBITS, ZSTD) else None
    if segments is None:
        return page.asarray(), page.axes
    with tifffile.TiffFile(io.BytesIO(segments.excerpt())) as copy:
        first: Any = copy.pages.first
        return first.asarray(), first.axes


def _check_size(page: Any, max_pixels: int) -> None:
    pixels = page.imagewidth * page.imagelength
    if pixels > max_pixels or pixels * page.samplesperpixel > _MOST_VALUES * max_pixels:
        raise SampleError("too_many_pixels")


def _check_content(page: Any, data: bytes) -> None:
    """Refuse pixels that are no numbers of bands, and what is cut off: JPEG's decoder makes up what is missing."""
    if int(page.photometric) in _NO_BANDS:
        raise SampleError("band_type", _NO_BANDS[int(page.photometric)])
    for start, length in zip(page.dataoffsets, page.databytecounts, strict=True):
        if start + length > len(data):
            raise SampleError("undecodable")
        if page.compression == JPEG and not is_whole_jpeg(data[start : start + length]):
            raise SampleError("undecodable", f"{DAMAGED}: its JPEG has no end")
