"""Bytes to arrays and back: decode, resize, masks as PNG, overlays.

Resampling is part of a model's contract, so each function says whose it is (Pillow's or OpenCV's).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segment import headers
from segment.card import Input, Resampler
from segment.classes import VOID
from segment.errors import SampleError
from segment.magic import image_format
from segment.native import Complaints, listening

cv2.setNumThreads(1)  # one worker per core is the unit of scale; OpenCV's own threads would fight them
cv2.utils.logging.setLogLevel(
    cv2.utils.logging.LOG_LEVEL_SILENT
)  # a damaged image is an error row, not a line on stderr

_PILLOW = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_OPENCV = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
}


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes:
        pixels: `uint8[H, W, 3]`, RGB, upright.
        orientation: the EXIF orientation that was applied, 1-8; 1 if there is none.
        remarks: codes of `segment.remarks.REMARKS`.
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


class Box(NamedTuple):
    """Where an image lies within the model's input or mask, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The pixels inside, a view."""
        return pixels[self.top : self.top + self.height, self.left : self.left + self.width]


def content_box(spec: Input, size: tuple[int, int], target: tuple[int, int] | None = None) -> Box:
    """Return what an image of `size` (height, width) covers: all of it if stretched, else the part inside the border.

    Args:
        spec: input size and resize of the card.
        size: (height, width) of the image.
        target: (height, width) of what it lies in, of the same shape as the input; the input itself unless given.
    """
    resize, entry = spec.resize, (spec.height, spec.width)
    target = target or entry
    if resize.method == "stretch":
        return Box(0, 0, *target)
    scale = min(entry[0] / size[0], entry[1] / size[1])
    if resize.method == "pad":
        scale = min(1.0, scale)
    height, width = (
        max(1, round(inner * scale * (outer / whole))) for inner, outer, whole in zip(size, target, entry, strict=True)
    )
    if resize.anchor == "top-left":
        return Box(0, 0, height, width)
    return Box((target[0] - height) // 2, (target[1] - width) // 2, height, width)


def resize_image(image: NDArray[np.uint8], spec: Input) -> NDArray[np.uint8]:
    """Bring an image to the model's input size as its card says.

    Args:
        image: `uint8[H, W, 3]`, RGB.
        spec: input size and resize of the card.

    Returns:
        `uint8[input height, input width, 3]`.
    """
    box = content_box(spec, (image.shape[0], image.shape[1]))
    resized = _resample(image, (box.height, box.width), spec.resize.resampler, spec.resize.interpolation)
    if resized.shape[:2] == (spec.height, spec.width):
        return resized
    canvas = np.empty((spec.height, spec.width, 3), dtype=np.uint8)
    canvas[:] = spec.resize.pad
    box.of(canvas)[:] = resized
    return canvas


def resize_label(
    label: NDArray[np.uint8], spec: Input, target: tuple[int, int], resampler: Resampler
) -> NDArray[np.uint8]:
    """Bring a label `uint8[H, W]` to the mask's size `target`, nearest neighbour; a border becomes void."""
    box = content_box(spec, (label.shape[0], label.shape[1]), target)
    resized = _resample(label, (box.height, box.width), resampler, "nearest")
    if resized.shape == target:
        return resized
    canvas = np.full(target, VOID, dtype=np.uint8)
    box.of(canvas)[:] = resized
    return canvas


def restore_mask(mask: NDArray[np.uint8], spec: Input, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Bring the model's mask back to its image's size (height, width): border cut off, Pillow's nearest."""
    box = content_box(spec, size, (mask.shape[0], mask.shape[1]))
    return _resample(box.of(mask), size, "pillow", "nearest")


def _resample(
    pixels: NDArray[np.uint8], size: tuple[int, int], resampler: Resampler, interpolation: str
) -> NDArray[np.uint8]:
    if pixels.shape[:2] == size:
        return pixels
    height, width = size
    if resampler == "pillow" and interpolation == "nearest":  # the same pixels as Pillow's, up to six times as fast
        return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), dtype=np.uint8)
    if resampler == "pillow":
        return np.asarray(Image.fromarray(pixels).resize((width, height), _PILLOW[interpolation]))
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=_OPENCV[interpolation]), dtype=np.uint8)


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


def paint(mask: NDArray[np.uint8], palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colour class indices `uint8[H, W]` by `palette` `uint8[C, 3]`; values beyond it become white. RGB."""
    table = np.full((256, 3), 255, dtype=np.uint8)
    table[: len(palette)] = palette
    return table[mask]


def overlay(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], palette: NDArray[np.uint8], opacity: float = 0.55
) -> NDArray[np.uint8]:
    """Lay the coloured mask over its image. `uint8[H, W, 3]`, RGB; the mask must have the image's size."""
    painted = paint(mask, palette)
    return np.asarray(cv2.addWeighted(image, 1 - opacity, painted, opacity, 0), dtype=np.uint8)


def grid(tiles: Sequence[NDArray[np.uint8]], columns: int, tile_width: int = 320, gap: int = 6) -> NDArray[np.uint8]:
    """Arrange RGB pictures in rows of `columns`, each scaled to `tile_width` pixels, on white."""
    scaled = [
        cv2.resize(t, (tile_width, max(1, round(t.shape[0] * tile_width / t.shape[1]))), interpolation=cv2.INTER_AREA)
        for t in tiles
    ]
    rows = [scaled[i : i + columns] for i in range(0, len(scaled), columns)]
    heights = [max(t.shape[0] for t in row) for row in rows]
    canvas = np.full((sum(heights) + gap * (len(rows) + 1), columns * (tile_width + gap) + gap, 3), 255, np.uint8)
    top = gap
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            left = gap + column * (tile_width + gap)
            canvas[top : top + tile.shape[0], left : left + tile_width] = tile
        top += height + gap
    return canvas
