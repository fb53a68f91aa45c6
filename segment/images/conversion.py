"""Images and labels as a caller holds them: arrays, PIL images, or the bytes of encoded images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segment.errors import SampleError
from segment.images import headers
from segment.images.bands import decode_image, with_bands
from segment.images.codec import Picture
from segment.images.labels import Label, LabelDecoder
from segment.images.pil_images import decoded_picture, file_bytes, lossless_bytes
from segment.models.card_input import Input

ImageLike: TypeAlias = NDArray[np.uint8] | Image.Image | bytes | Mapping[str, Any]

_FLOATS = (float, np.floating)


def to_picture(image: object, max_pixels: int, spec: Input | None = None) -> Picture:
    """Return the pixels of an image, upright.

    Args:
        image: `uint8[H, W, 3]`, RGB (`uint8[H, W, number of bands]`, if `spec` has bands); a PIL image, which a job's
            decoder reads while Pillow has not decoded it and has its file; or the bytes of an encoded image, also as
            `{"bytes": ...}` or `{"bytes": None, "path": ...}` of a local file.
        max_pixels: images of more pixels are refused, before they are decoded.
        spec: the card's input, if it may have `bands`.

    Raises:
        SampleError: an image that cannot be used; see `decode_image`. Also `missing` and `unreachable`: its file.
        ValueError: an array of another shape or type, or an empty one.
        TypeError: anything else.
    """
    if isinstance(image, np.ndarray):
        pixels = _checked_pixels(image, spec)
        _check_pixels(pixels.shape[0] * pixels.shape[1], max_pixels)
        return Picture(pixels)
    if isinstance(image, Image.Image):
        data = file_bytes(image, headers.IMAGE_FORMATS)
        if data is not None:
            return decode_image(data, spec, max_pixels)
        _check_pixels(image.width * image.height, max_pixels)
        return with_bands(decoded_picture(image), spec)
    return decode_image(_encoded(image, "image"), spec, max_pixels)


def to_label(label: object, size: tuple[int, int], turned_by: int, decoder: LabelDecoder) -> Label | None:
    """Return the classes of a label, or None if there is none.

    Args:
        label: `uint8[H, W]` of label values or `uint8[H, W, 3]` of RGB colours; a PIL image, of which the file is read
            as of an image; the bytes of an encoded image, also as `{"bytes": ...}` or `{"bytes": None, "path": ...}`
            of a local file. None, NaN and an empty array mean that there is no label.
        size: (height, width) of its image.
        turned_by: the EXIF orientation that the image had, 1-8.

    Raises:
        SampleError: the label cannot be used; see `LabelDecoder.read`. Also `label_missing` and
            `label_unreachable`: its file.
        ValueError: an array of another shape or type.
        TypeError: anything else.
    """
    if is_missing(label):
        return None
    if isinstance(label, Image.Image):
        data = file_bytes(label, headers.LABEL_FORMATS)
        if data is None:
            data = lossless_bytes(label, allow_lossy=decoder.allow_lossy)
        return decoder.read(data, *size, turned_by)
    if isinstance(label, np.ndarray):
        return decoder.read_pixels(_checked_label(label, size))
    return decoder.read(_encoded(label, "label"), *size, turned_by)


def is_missing(value: object) -> bool:
    """Whether a cell holds nothing: None, NaN (a null in a column of numbers), pandas' NA, an empty array,
    `{"bytes": None}`.
    """
    if isinstance(value, np.ndarray):
        return value.size == 0
    if isinstance(value, Mapping):
        return value.get("bytes") is None and value.get("path") is None
    return value is None or type(value).__name__ == "NAType" or bool(isinstance(value, _FLOATS) and np.isnan(value))


def _check_pixels(pixels: int, max_pixels: int) -> None:
    if pixels > max_pixels:
        raise SampleError("too_many_pixels")


def _checked_pixels(pixels: NDArray[Any], spec: Input | None) -> NDArray[np.uint8]:
    planes = spec.planes if spec else 3
    if pixels.ndim != 3 or pixels.shape[2] != planes or pixels.dtype != np.uint8 or not pixels.size:
        if spec and spec.bands:
            raise ValueError(f"an image is uint8[H, W, {planes}], the card's bands, not {pixels.dtype} {pixels.shape}")
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
        value = _file_of(value, what) if value["bytes"] is None else value["bytes"]
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise TypeError(f"the {what} is of type {type(value).__name__}: give an array, a PIL image, or encoded bytes")


def _file_of(cell: Mapping[str, Any], what: str) -> bytes:
    """Return the file of a cell that has a path and no bytes, as Hugging Face `datasets` makes of folders.

    Raises SampleError: `empty`, `missing` or `unreachable`, of a label with `label_` before it.
    """
    prefix = "" if what == "image" else "label_"
    if cell.get("path") is None:
        raise SampleError(f"{prefix}empty")
    try:
        return Path(cell["path"]).read_bytes()
    except FileNotFoundError:
        raise SampleError(f"{prefix}missing", "a path without bytes that names no local file") from None
    except (OSError, ValueError):  # no permission, a folder, a name that cannot be
        raise SampleError(f"{prefix}unreachable", "a path without bytes") from None
