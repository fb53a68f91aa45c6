"""Images and labels as a caller holds them: arrays, PIL images, or the bytes of encoded images."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from segment.errors import SampleError
from segment.images.codec import Picture, decode_picture
from segment.images.labels import Label, LabelDecoder

ImageLike: TypeAlias = NDArray[np.uint8] | Image.Image | bytes | Mapping[str, Any]

_RGB_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX")  # whose conversion to RGB changes no value
_LOSSY_FORMATS = ("JPEG", "MPO", "WEBP")  # of an opened PIL image; whether a WebP is lossless is not known any more
_DEEP_MODES = ("I", "F")  # PNG cannot hold them


def to_picture(image: object, max_pixels: int) -> Picture:
    """Return the pixels of an image, upright.

    Args:
        image: `uint8[H, W, 3]`, RGB; a PIL image; or the bytes of an encoded image, also as `{"bytes": ...}`.
        max_pixels: encoded images that declare more are refused.

    Raises:
        SampleError: encoded bytes that cannot be used; see `decode_picture`.
        ValueError: an array of another shape or type, an empty one, or a PIL image whose values RGB cannot hold.
        TypeError: anything else.
    """
    if isinstance(image, np.ndarray):
        return Picture(_checked_rgb(image))
    if isinstance(image, Image.Image):
        return Picture(_checked_rgb(np.asarray(_upright_rgb(image))))
    return decode_picture(_encoded(image, "image"), max_pixels)


def to_label(label: object, size: tuple[int, int], turned_by: int, decoder: LabelDecoder) -> Label | None:
    """Return the classes of a label, or None if there is none.

    Args:
        label: `uint8[H, W]` of label values or `uint8[H, W, 3]` of RGB colours; a PIL image; the bytes of an encoded
            image, also as `{"bytes": ...}`. None, NaN and an empty array mean that there is no label.
        size: (height, width) of its image.
        turned_by: the EXIF orientation that the image had, 1-8.
        decoder: which values and colours mean which classes.

    Raises:
        SampleError: the label cannot be used; see `LabelDecoder.read`.
        ValueError: an array of another shape or type.
        TypeError: anything else.
    """
    if is_missing(label):
        return None
    if isinstance(label, Image.Image):
        return decoder.read(_lossless_bytes(label, decoder), *size, turned_by)
    if isinstance(label, np.ndarray):
        return decoder.read_pixels(_checked_label(label, size))
    return decoder.read(_encoded(label, "label"), *size, turned_by)


def is_missing(value: object) -> bool:
    """Whether a cell holds nothing: None, NaN (a null in a column of numbers), an empty array, `{"bytes": None}`."""
    if isinstance(value, np.ndarray):
        return value.size == 0
    if isinstance(value, Mapping):
        return value.get("bytes") is None and value.get("path") is None
    return value is None or (isinstance(value, float) and np.isnan(value))


def _checked_rgb(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise ValueError(f"an image is uint8[H, W, 3], RGB, not {pixels.dtype} {pixels.shape}{_advice(pixels)}")
    return np.ascontiguousarray(pixels)


def _advice(pixels: NDArray[Any]) -> str:
    if pixels.ndim == 4:
        return ": a batch is a list of images, or goes to `predict_batch`"
    if pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 4)):
        return ": convert grey and transparent images to RGB (ray.data.read_images(..., mode='RGB'))"
    if pixels.ndim == 3 and pixels.shape[0] == 3 and pixels.shape[2] != 3:
        return ": move the channels to the end (image.transpose(1, 2, 0))"
    if pixels.dtype != np.uint8:
        return ": values are bytes from 0 to 255, before any normalisation"
    return ""


def _upright_rgb(image: Image.Image) -> Image.Image:
    if image.mode not in _RGB_MODES:
        raise ValueError(f"a PIL image of mode {image.mode}: its values do not fit RGB bytes; give the encoded file")
    return ImageOps.exif_transpose(image).convert("RGB")


def _lossless_bytes(label: Image.Image, decoder: LabelDecoder) -> bytes:
    """Encode a PIL label without loss, so that one decoder reads every label."""
    if label.format in _LOSSY_FORMATS and not decoder.allow_lossy:
        raise SampleError("label_lossy", str(label.format))
    buffer = io.BytesIO()
    try:
        ImageOps.exif_transpose(label).save(buffer, "TIFF" if label.mode in _DEEP_MODES else "PNG")
    except OSError:  # a mode that neither holds
        raise SampleError("label_pixels", label.mode) from None
    return buffer.getvalue()


def _checked_label(label: NDArray[Any], size: tuple[int, int]) -> NDArray[np.uint8]:
    if label.dtype.kind not in "iu" or not (label.ndim == 2 or (label.ndim == 3 and label.shape[2] == 3)):
        raise ValueError(
            f"a label is uint8[H, W] of class indices or uint8[H, W, 3] of colours, not {label.dtype} {label.shape}"
        )
    if label.shape[:2] != size:
        raise SampleError("label_size", f"{label.shape[1]}x{label.shape[0]} for an image of {size[1]}x{size[0]}")
    outside = label[(label < 0) | (label > 255)]
    if outside.size:
        raise SampleError("label_value", str(outside[0]))
    return label.astype(np.uint8)


def _encoded(value: object, what: str) -> bytes:
    if isinstance(value, Mapping) and "bytes" in value:
        if value["bytes"] is None:
            raise ValueError(f"the {what} is a path without bytes ({value.get('path')}): read the file first")
        value = value["bytes"]
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise TypeError(f"the {what} is of type {type(value).__name__}: give an array, a PIL image, or encoded bytes")
