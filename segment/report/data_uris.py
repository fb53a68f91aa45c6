"""Pictures as data URIs, so that a page of them stays one file that can be sent."""

from __future__ import annotations

import base64

import cv2
import numpy as np
from numpy.typing import NDArray

from segment.images import codec
from segment.images.drawing import borders

_QUALITY = 82  # of JPEG
_NO_LINE = np.uint8(255)


def smaller(
    pixels: NDArray[np.uint8], size: tuple[int, int], interpolation: int = cv2.INTER_NEAREST_EXACT
) -> NDArray[np.uint8]:
    """Resize pixels to `size` (height, width); by default to the nearest one, as class indices need it."""
    if pixels.shape[:2] == size:
        return pixels
    return np.asarray(cv2.resize(pixels, (size[1], size[0]), interpolation=interpolation), np.uint8)


def mask_uris(
    mask: NDArray[np.uint8], size: tuple[int, int], palette: NDArray[np.uint8], clear: tuple[int, ...]
) -> tuple[str, str]:
    """Return the colours of a mask, and the lines along the borders of its classes, as two PNGs.

    Args:
        mask: class indices, `uint8[H, W]`.
        size: (height, width) of the pictures.
        palette: `uint8[C, 3]`, RGB.
        clear: values that are transparent; 255 is one of them.
    """
    small = smaller(mask, size)
    lines = np.where(borders(small, clear), small, _NO_LINE)
    return png_uri(small, palette, clear), png_uri(lines, palette, (int(_NO_LINE),))


def jpeg_uri(rgb: NDArray[np.uint8]) -> str:
    """Return pixels `uint8[H, W, 3]`, RGB, as a JPEG."""
    return _uri("jpeg", codec.encode_jpeg(rgb, _QUALITY))


def png_uri(pixels: NDArray[np.uint8], palette: NDArray[np.uint8], clear: tuple[int, ...]) -> str:
    """Return indices `uint8[H, W]` as a PNG with a palette `uint8[N, 3]`; the indices `clear` are transparent."""
    return _uri("png", codec.encode_palette_png(pixels, palette, clear))


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
