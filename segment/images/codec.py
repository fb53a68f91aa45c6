"""Decode images of any format to arrays; encode pictures, decode masks."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from segment.errors import SampleError
from segment.images import headers
from segment.images.decoder_stderr import capture_decoder_stderr
from segment.images.excess import check_structure, check_work
from segment.images.magic import image_format
from segment.images.mask_png import mask_size
from segment.images.tiff_copies import segments_to_copy
from segment.images.tiff_tags import told_as

Fit: TypeAlias = Callable[[tuple[int, int]], tuple[int, int]]  # from the size of an image to the one it is wanted in

_BITS = 258  # a TIFF tag
_JPEGS = ("JPEG", "MPO")
_REDUCED = {  # by how much, and OpenCV's flag; with IMREAD_COLOR_RGB the pixels are RGB, not grey
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes:
        pixels: `uint8[H, W, 3]`, RGB, upright.
        orientation: the EXIF orientation that was applied, 1-8; 1 if there is none.
        remarks: codes of `segment.output.remarks.REMARKS`.
        reduced_from: (height, width), upright, of an image that was decoded at a reduced size.
    """

    pixels: NDArray[np.uint8]
    orientation: int = 1
    remarks: tuple[str, ...] = ()
    reduced_from: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image, upright."""
        return self.reduced_from or (self.pixels.shape[0], self.pixels.shape[1])


def decode(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Return the pixels of `decode_picture`."""
    return decode_picture(data, max_pixels).pixels


def decode_picture(data: bytes, max_pixels: int, fit: Fit | None = None) -> Picture:
    """Decode an image: 8 or 16 bits, grey, palette, RGB(A) or CMYK; EXIF orientation applied, alpha dropped.

    Args:
        data: JPEG, PNG, WebP, BMP or TIFF; of several frames or pages the first is decoded.
        max_pixels: limit that is checked by the header before any pixel is decoded.
        fit: if given, a JPEG is decoded at 1/2, 1/4 or 1/8 where that is no smaller than what this returns.

    Raises:
        SampleError: `empty`, `not_an_image`, `too_many_pixels`, `pixel_format`, `too_much_work` or `undecodable`.
    """
    if not data:
        raise SampleError("empty")
    with told_as("undecodable"):
        segments = segments_to_copy(data)
        header, orientation, remarks = checked_header(segments.header() if segments else data, max_pixels)
    reduction, reduced_from = 1, None
    if headers.has_more_frames(header, data):
        remarks += ("image_frames",)
    if segments:
        with told_as("undecodable"):
            copy = segments.excerpt()
        as_copied = _header(copy)
        pixels, damage = _with_pillow(as_copied) if _is_left_to_pillow(as_copied) else _with_opencv(copy)
        pixels = headers.apply_orientation(segments.inside(pixels), orientation)
        remarks += ("image_sparse",) if segments.is_sparse else ()
    elif _is_left_to_pillow(header):
        pixels, damage = _with_pillow(header)
    elif header.format in _JPEGS:
        size = headers.upright_size(header, orientation)
        if fit and (reduction := _reduction(size, fit(size))) > 1:
            reduced_from = size
        pixels, damage = _jpeg(data, (header.height, header.width), reduction)
        pixels = headers.apply_orientation(pixels, orientation)
    else:
        pixels, damage = _with_opencv(data)
        if not headers.has_orientation_tag(header):
            pixels = headers.apply_orientation(pixels, orientation)
    if damage:
        remarks += ("image_damaged",)
    return Picture(pixels, orientation, remarks, reduced_from)


def _reduction(size: tuple[int, int], fit: tuple[int, int]) -> int:
    """Return the largest reduction at which an image is no smaller than `fit`, else 1; sizes are (height, width)."""
    fitting = (by for by in _REDUCED if all(whole >= by * least for whole, least in zip(size, fit, strict=True)))
    return max(fitting, default=1)


def _jpeg(data: bytes, size: tuple[int, int], reduction: int) -> tuple[NDArray[np.uint8], list[str]]:
    """Decode a JPEG as it is stored, `size` (height, width), at 1/`reduction` of it.

    libjpeg-turbo alone gives the pixels of OpenCV in three quarters of the time. What it does not decode without a
    warning (damage, CMYK) OpenCV decodes, as its messages are what tells of damage.
    """
    height, width = (-(-side // reduction) for side in size)
    try:
        return simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width), []
    except ValueError:
        return _with_opencv(data, _REDUCED[reduction])


def _is_left_to_pillow(header: Image.Image) -> bool:
    """Return whether this is a TIFF with alpha, by which OpenCV would multiply the colours, or of odd bits a sample.

    OpenCV rounds colours of 16 bits, and takes the high byte of any other number of 16 bits; Pillow takes the high byte
    of all. OpenCV does not read samples of 2 and 4 bits, but those of some palettes.
    """
    if header.format != "TIFF":
        return False
    bits = max(header.tag_v2.get(_BITS, (1,)))  # type: ignore[attr-defined]
    return header.mode == "RGBA" or (header.mode in ("RGB", "CMYK") and bits > 8) or bits in (2, 4)


def checked_header(data: bytes, max_pixels: int) -> tuple[Image.Image, int, tuple[str, ...]]:
    """Return the header of an image that can be decoded, its EXIF orientation, and remarks; no pixel is decoded.

    Raises SampleError: `not_an_image`, `too_many_pixels`, `pixel_format`, `too_much_work` or `undecodable`.
    """
    header = _header(data)
    if header.width * header.height > max_pixels:
        raise SampleError("too_many_pixels")
    if header.format == "TIFF" and (unread := headers.unread_pixels(data)):  # OpenCV takes some of them for others
        raise SampleError("pixel_format", unread)
    check_work(header, data)
    return header, *headers.orientation_of(header, data, "image")


def _header(data: bytes) -> Image.Image:
    """Open an image with Pillow, which decodes no pixel here."""
    try:
        return headers.open_header(data)
    except SampleError:
        raise
    except Exception as error:  # Pillow raises many types on damaged headers
        if unread := headers.unread_pixels(data):
            raise SampleError("pixel_format", unread) from error
        raise SampleError("undecodable" if image_format(data) else "not_an_image") from error


def _with_opencv(data: bytes, reduced: int = 0) -> tuple[NDArray[np.uint8], list[str]]:
    """Decode without applying the orientation, except that of a TIFF tag; `reduced`: a flag of OpenCV."""
    how = reduced | cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    with capture_decoder_stderr() as damage:
        try:
            pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), how)
        except cv2.error as error:
            raise SampleError("undecodable") from error
    if pixels is None or pixels.dtype != np.uint8:
        unread = headers.unread_pixels(data)
        raise SampleError("pixel_format" if unread else "undecodable", unread)
    return np.asarray(pixels, dtype=np.uint8), damage


def _with_pillow(header: Image.Image) -> tuple[NDArray[np.uint8], list[str]]:
    """Decode with Pillow, which applies the orientation on loading."""
    with capture_decoder_stderr() as damage, headers.pixel_limit.lifted(), headers.damage_as("undecodable"):
        return np.asarray(header.convert("RGB")), damage


def encode_png(rgb: NDArray[np.uint8]) -> bytes:
    """Encode `uint8[H, W, 3]` RGB as PNG."""
    return _encoded(rgb, ".png")


def encode_jpeg(rgb: NDArray[np.uint8], quality: int) -> bytes:
    """Encode `uint8[H, W, 3]` RGB as JPEG for display; `quality` is 0-100."""
    return _encoded(rgb, ".jpg", cv2.IMWRITE_JPEG_QUALITY, quality)


def _encoded(rgb: NDArray[np.uint8], kind: str, *options: int) -> bytes:
    encoded, buffer = cv2.imencode(kind, np.ascontiguousarray(rgb[:, :, ::-1]), options)
    if not encoded:
        raise RuntimeError(f"OpenCV could not encode a {kind}")
    return buffer.tobytes()


def encode_palette_png(mask: NDArray[np.uint8], palette: NDArray[np.uint8], clear: Sequence[int] = ()) -> bytes:
    """Encode class indices `uint8[H, W]` as a palette PNG: pixels keep their values, viewers show the colours.

    Args:
        mask: class indices; values from `len(palette)` on (void) become white.
        palette: `uint8[C, 3]`, RGB.
        clear: values that become transparent.
    """
    colours = np.full((256, 3), 255, dtype=np.uint8)
    colours[: len(palette)] = palette
    picture = Image.fromarray(mask, "P")
    picture.putpalette(colours.tobytes())
    opacity = {"transparency": bytes(0 if value in clear else 255 for value in range(256))} if clear else {}
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **opacity)
    return buffer.getvalue()


def decode_mask(data: bytes) -> NDArray[np.uint8]:
    """Decode a PNG written by `mask_png.encode_mask` to `uint8[H, W]`.

    Raises ValueError: the bytes are none, or are damaged.
    """
    size = mask_size(data)
    with capture_decoder_stderr():
        try:
            check_structure(data)
            pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
        except (cv2.error, SampleError):
            pixels = None
    if pixels is None or pixels.dtype != np.uint8 or pixels.shape != size:
        raise ValueError("the mask is damaged")
    return np.asarray(pixels, dtype=np.uint8)
