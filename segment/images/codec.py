"""Bytes to arrays and back: images of any format, masks as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segment.errors import SampleError
from segment.images import headers
from segment.images.decoder_stderr import Complaints, listening
from segment.images.magic import image_format


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes:
        pixels: `uint8[H, W, 3]`, RGB, upright.
        orientation: the EXIF orientation that was applied, 1-8; 1 if there is none.
        remarks: codes of `segment.output.remarks.REMARKS`.
    """

    pixels: NDArray[np.uint8]
    orientation: int = 1
    remarks: tuple[str, ...] = ()


def decode(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Return the pixels of `decode_picture`."""
    return decode_picture(data, max_pixels).pixels


def decode_picture(data: bytes, max_pixels: int) -> Picture:
    """Decode an image: 8 or 16 bits, grey, palette, RGB(A) or CMYK; EXIF orientation applied, alpha dropped.

    Args:
        data: JPEG, PNG, WebP, BMP or TIFF; of several frames or pages the first.
        max_pixels: refuse more than this, from the header, before any pixel is decoded.

    Raises:
        SampleError: `empty`, `not_an_image`, `too_many_pixels`, `pixel_format` or `undecodable`.
    """
    if not data:
        raise SampleError("empty")
    header = _header(data)
    if header.width * header.height > max_pixels:
        raise SampleError("too_many_pixels")
    if header.format == "TIFF" and header.mode in ("F", "I"):
        raise SampleError("pixel_format")
    turned_by, remarks = _orientation(header, data)
    if headers.has_more_frames(header):
        remarks += ("image_frames",)
    if header.format == "TIFF" and header.mode == "RGBA":
        pixels, complaints = _with_pillow(header)
    else:
        pixels, complaints = _with_opencv(data)
        if not headers.has_orientation_tag(header):
            pixels = headers.turned(pixels, turned_by)
    if complaints.damage:
        remarks += ("image_damaged",)
    return Picture(pixels, turned_by, remarks)


def _header(data: bytes) -> Image.Image:
    """Open an image with Pillow, which reads no pixel here."""
    try:
        return headers.open_header(data)
    except Exception as error:  # Pillow raises many types on damaged headers
        if headers.has_foreign_pixels(data):
            raise SampleError("pixel_format") from error
        raise SampleError("undecodable" if image_format(data) else "not_an_image") from error


def _orientation(header: Image.Image, data: bytes) -> tuple[int, tuple[str, ...]]:
    try:
        return headers.orientation(header, data), ()
    except Exception:  # as above; the pixels may be sound all the same
        return 1, ("image_exif_damaged",)


def _with_opencv(data: bytes) -> tuple[NDArray[np.uint8], Complaints]:
    """Decode without turning, but for a TIFF with the tag."""
    how = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    with listening() as complaints:
        try:
            pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), how)
        except cv2.error as error:
            raise SampleError("undecodable") from error
    if pixels is None or pixels.dtype != np.uint8:
        raise SampleError("undecodable")
    return np.asarray(pixels, dtype=np.uint8), complaints


def _with_pillow(header: Image.Image) -> tuple[NDArray[np.uint8], Complaints]:
    """For TIFF with alpha: OpenCV's libtiff multiplies the colours by it. Pillow turns a TIFF that it loads."""
    with listening() as complaints:
        try:
            return np.asarray(header.convert("RGB")), complaints
        except Exception as error:  # as above
            raise SampleError("undecodable") from error


def encode_mask(mask: NDArray[np.uint8]) -> bytes:
    """Encode `uint8[H, W]` class indices as an 8-bit grey PNG. OpenCV only, so that bytes never differ."""
    return _encode_png(mask)


def encode_png(rgb: NDArray[np.uint8]) -> bytes:
    """Encode `uint8[H, W, 3]` RGB as PNG."""
    return _encode_png(rgb[:, :, ::-1])


def encode_jpeg(rgb: NDArray[np.uint8], quality: int) -> bytes:
    """Encode `uint8[H, W, 3]` RGB as JPEG, for people to look at."""
    encoded, buffer = cv2.imencode(".jpg", np.ascontiguousarray(rgb[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not encoded:
        raise RuntimeError("OpenCV could not encode a JPEG")
    return buffer.tobytes()


def encode_palette_png(mask: NDArray[np.uint8], palette: NDArray[np.uint8], clear: Sequence[int] = ()) -> bytes:
    """Encode class indices `uint8[H, W]` as a palette PNG: pixel values stay, viewers show the colours.

    Args:
        mask: values at `len(palette)` and beyond (void) become white.
        palette: `uint8[C, 3]`, RGB.
        clear: values that are transparent.
    """
    colours = np.full((256, 3), 255, dtype=np.uint8)
    colours[: len(palette)] = palette
    picture = Image.fromarray(mask, "P")
    picture.putpalette(colours.tobytes())
    opacity = {"transparency": bytes(0 if value in clear else 255 for value in range(256))} if clear else {}
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **opacity)
    return buffer.getvalue()


def _encode_png(pixels: NDArray[np.uint8]) -> bytes:
    encoded, buffer = cv2.imencode(".png", np.ascontiguousarray(pixels))
    if not encoded:
        raise RuntimeError("OpenCV could not encode a PNG")
    return buffer.tobytes()


def decode_mask(data: bytes) -> NDArray[np.uint8]:
    """Decode a PNG written by `encode_mask` to `uint8[H, W]`."""
    return np.asarray(cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED), dtype=np.uint8)
