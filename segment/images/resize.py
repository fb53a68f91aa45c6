"""Resize images, labels and masks.

Resampling is part of a model's contract, so each function names the library whose algorithm it uses.
"""

from typing import NamedTuple

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from segment.errors import SampleError
from segment.images.tiles import filled
from segment.models.buckets import LARGEST_SIDE
from segment.models.card_input import Input, Resampler
from segment.models.classes import VOID

_PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
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
        size: (height, width) of the image.
        target: (height, width) of the enclosing array, in the aspect ratio of the input; by default the input itself.
            Of no use where the model runs at the size of each image.
    """
    if spec.is_dynamic:
        return Box(0, 0, *_scaled(spec, size))
    resize, entry = spec.resize, (spec.height, spec.width)
    target = target or entry
    if resize.method == "stretch":
        return Box(0, 0, *target)
    scale = min(entry[0] / size[0], entry[1] / size[1])
    if resize.method == "pad":
        scale = min(1.0, scale)
    if resize.method == "none":
        scale = 1.0
    height, width = (
        max(1, round(inner * scale * (outer / whole))) for inner, outer, whole in zip(size, target, entry, strict=True)
    )
    if resize.anchor == "top-left":
        return Box(0, 0, height, width)
    return Box((target[0] - height) // 2, (target[1] - width) // 2, height, width)


def fitted_size(spec: Input, size: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) in which the model sees an image of this size."""
    box = content_box(spec, size)
    return box.height, box.width


def _scaled(spec: Input, size: tuple[int, int]) -> tuple[int, int]:
    """Return the size (height, width) of an image within the input where the model runs at the size of each image."""
    target = spec.resize.short_side
    if target is None:
        return size
    short, long = min(size), int(target * max(size) / min(size))
    return (target, long) if size[0] == short else (long, target)


def unpadded(mask: NDArray[np.uint8], spec: Input, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a mask, `uint8[..., H, W]`, without the border of an image that the model ran at its own size.

    Where all images have the model's size it is returned as it is.
    """
    if not spec.is_dynamic:
        return mask
    box = content_box(spec, size)
    return mask[..., : box.height, : box.width]


def resize_image(image: NDArray[np.uint8], spec: Input, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Resize an image to the model's input size as its card specifies.

    Args:
        image: `uint8[H, W, 3]`, RGB, or `uint8[H, W, number of bands]`.
        size: (height, width) of an image that was decoded at a reduced size.

    Returns:
        `uint8[input height, input width, 3 or number of bands]`.

    Raises:
        SampleError: `larger_than_input`: the image does not fit, and the card does not shrink it.
    """
    box = content_box(spec, size or (image.shape[0], image.shape[1]))
    target = spec.size_for((box.height, box.width))
    most = (LARGEST_SIDE, LARGEST_SIDE) if spec.is_dynamic else target
    if box.height > most[0] or box.width > most[1]:
        detail = f"{box.height}x{box.width} pixels (height, width), at most {most[0]}x{most[1]}"
        raise SampleError("larger_than_input", detail)
    resized = _resample(image, (box.height, box.width), spec.resize.resampler, spec.resize.interpolation)
    if resized.shape[:2] == target:
        return resized
    canvas = filled(target, spec.resize.pad)
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
    if pixels.ndim == 3 and pixels.shape[2] != 3:  # as Pillow does it for RGB: each band by itself
        bands = [np.ascontiguousarray(pixels[..., band]) for band in range(pixels.shape[2])]
        return np.stack([_resample(band, size, resampler, interpolation) for band in bands], axis=2)
    height, width = size
    if resampler == "pillow" and interpolation == "nearest":  # equals Pillow's result, up to six times as fast
        return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), dtype=np.uint8)
    if resampler == "pillow":
        return np.asarray(_lent(pixels).resize((width, height), _PILLOW[interpolation]))
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=_OPENCV[interpolation]), dtype=np.uint8)


def _lent(pixels: NDArray[np.uint8]) -> Image.Image:
    """Return `uint8[H, W]` or `uint8[H, W, 3]` as a PIL image.

    Pillow keeps four bytes a pixel of RGB. OpenCV adds the fourth in half the time, and Pillow borrows the memory.
    """
    height, width = pixels.shape[:2]
    if pixels.ndim == 2:
        return Image.fromarray(pixels)
    padded = pa.array(cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA).ravel())
    return Image.fromarrow(pa.FixedSizeListArray.from_arrays(padded, 4), "RGB", (width, height))
