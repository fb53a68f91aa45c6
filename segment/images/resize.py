"""Resize images, labels and masks.

Resampling is part of a model's contract, so each function names the library whose algorithm it uses.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segment.models.card_input import Input, Resampler
from segment.models.classes import VOID

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


class Box(NamedTuple):
    """The area of an image within the model's input or mask, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a view of the pixels inside."""
        return pixels[self.top : self.top + self.height, self.left : self.left + self.width]


def content_box(spec: Input, size: tuple[int, int], target: tuple[int, int] | None = None) -> Box:
    """Return the area that an image covers: all of the target if stretched, else the part inside the border.

    Args:
        spec: input size and resize of the card.
        size: (height, width) of the image.
        target: (height, width) of the enclosing array, in the aspect ratio of the input; by default the input itself.
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
    """Resize an image to the model's input size as its card specifies.

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
    """Resize a label `uint8[H, W]` to the mask's size `target` by nearest neighbour; the border becomes void."""
    box = content_box(spec, (label.shape[0], label.shape[1]), target)
    resized = _resample(label, (box.height, box.width), resampler, "nearest")
    if resized.shape == target:
        return resized
    canvas = np.full(target, VOID, dtype=np.uint8)
    box.of(canvas)[:] = resized
    return canvas


def restore_mask(mask: NDArray[np.uint8], spec: Input, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize the model's mask, without border, to the image's size (height, width): Pillow's nearest neighbour."""
    box = content_box(spec, size, (mask.shape[0], mask.shape[1]))
    return _resample(box.of(mask), size, "pillow", "nearest")


def _resample(
    pixels: NDArray[np.uint8], size: tuple[int, int], resampler: Resampler, interpolation: str
) -> NDArray[np.uint8]:
    if pixels.shape[:2] == size:
        return pixels
    height, width = size
    if resampler == "pillow" and interpolation == "nearest":  # equals Pillow's result, up to six times as fast
        return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), dtype=np.uint8)
    if resampler == "pillow":
        return np.asarray(Image.fromarray(pixels).resize((width, height), _PILLOW[interpolation]))
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=_OPENCV[interpolation]), dtype=np.uint8)
