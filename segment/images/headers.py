"""Read the header of an image or label before a pixel is decoded: format, orientation, frames.

Images and labels share these rules.
"""

import io
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from segment.errors import SampleError
from segment.images.excess import check_structure
from segment.images.jpeg_excess import has_odd_pixels
from segment.images.magic import image_format
from segment.images.png_excess import chunks
from segment.images.tiff_kinds import unread_kind
from segment.images.tiff_tags import TiffError, TiffPage

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")  # Pillow's other decoders never run
LABEL_FORMATS = (*IMAGE_FORMATS, "GIF")

_PNG_METADATA = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")  # chunks in which Pillow looks for an orientation
_ORIENTATION = 274  # a TIFF tag, also within EXIF data
_UPRIGHT = 1
_FLIPS = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}  # orientation to the code of `cv2.flip`; 5 to 8 are transposed first

# Importing a plugin registers its formats for `Image.open(formats=...)`; `Image.init()` would import forty more.
_PLUGINS = (BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin)
# What Pillow warns of, such as damaged EXIF data, is a remark or an error of ours. Its warnings cannot be silenced for
# a single call, as `catch_warnings` is not thread-safe. `DecompressionBombWarning` is none of these.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())  # without a handler its errors would go to stderr


class _PixelLimit:
    """Pillow's limit of pixels, one for the whole process: lifted while a thread of ours opens or decodes by Pillow.

    Ours, `max_pixels`, may be higher, and is checked before a pixel is decoded. Outside, a program that imports this
    package keeps its guard.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lifts = 0
        self._theirs: int | None = None

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Lift the limit. It is back when the last of the threads that lift it is done."""
        with self._lock:
            if not self._lifts:
                self._theirs, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._lifts += 1
        try:
            yield
        finally:
            with self._lock:
                self._lifts -= 1
                if not self._lifts:
                    Image.MAX_IMAGE_PIXELS = self._theirs

    def restore(self) -> None:
        """Begin anew in a forked child, which has none of the threads that lifted the limit."""
        if self._lifts:
            Image.MAX_IMAGE_PIXELS = self._theirs
        self._lock, self._lifts = threading.Lock(), 0


pixel_limit = _PixelLimit()
os.register_at_fork(after_in_child=pixel_limit.restore)


@contextmanager
def damage_as(code: str) -> Iterator[None]:
    """Raise what a decoder raises on a damaged file as a `SampleError` of this code; Pillow raises many types."""
    try:
        yield
    except SampleError:
        raise
    except TiffError as error:
        raise SampleError(code, str(error)) from error
    except Exception as error:
        raise SampleError(code) from error


def open_header(data: bytes, formats: tuple[str, ...] = IMAGE_FORMATS) -> Image.Image:
    """Open an image or label with Pillow: size and mode are known, no pixel is decoded. Pillow may raise any error.

    Raises SampleError: `too_much_work`, before anything else reads the file.
    """
    check_structure(data)
    with pixel_limit.lifted():
        return Image.open(io.BytesIO(data), formats=formats)


def read_orientation(header: Image.Image, data: bytes) -> int:
    """Return the EXIF orientation that Pillow's `exif_transpose` would apply, without decoding; 1 is upright.

    It is stored in the EXIF data of any format, in a TIFF tag, in the text chunks of a PNG (by ImageMagick), or in XMP.

    Raises:
        Exception: any type that Pillow raises on damaged EXIF data.
    """
    if header.format == "PNG":
        header = _with_all_metadata(header, data)
    # PngImageFile.getexif decodes the whole image to reach the chunks after the pixels; the base class does not.
    found = Image.Image.getexif(header).get(_ORIENTATION, _UPRIGHT)
    return int(found) if found in range(1, 9) else _UPRIGHT


def orientation_of(header: Image.Image, data: bytes, kind: str) -> tuple[int, tuple[str, ...]]:
    """Return the orientation of an image or label, and a remark if it cannot be read: the pixels may be valid."""
    try:
        return read_orientation(header, data), ()
    except Exception:  # Pillow raises many types on damaged EXIF data
        return _UPRIGHT, (f"{kind}_exif_damaged",)


def _with_all_metadata(header: Image.Image, data: bytes) -> Image.Image:
    """Return a PNG's header that includes the metadata chunks after the pixels."""
    found = [(kind, start - 8, end + 4) for kind, start, end in chunks(data)]
    pixels = next((start for kind, start, _ in found if kind == b"IDAT"), len(data))
    behind = [data[start:end] for kind, start, end in found if start > pixels and kind in _PNG_METADATA]
    return open_header(data[:pixels] + b"".join(behind) + data[pixels:], ("PNG",)) if behind else header


def upright_size(header: Image.Image, orientation: int) -> tuple[int, int]:
    """Return (height, width) after the orientation is applied."""
    width, height = header.size
    if orientation >= 5 and not has_orientation_tag(header):  # Pillow's size of a TIFF already includes the tag
        return width, height
    return height, width


def has_orientation_tag(header: Image.Image) -> bool:
    """Return whether this is a TIFF with an orientation tag: Pillow and OpenCV always apply it themselves."""
    return header.format == "TIFF" and _ORIENTATION in _tags(header)


def apply_orientation(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply an EXIF orientation to `[H, W]` pixels, or `[H, W, n]` of any number of bands; OpenCV takes four."""
    if orientation != _UPRIGHT and pixels.ndim == 3 and pixels.shape[2] > 4:
        return np.stack([apply_orientation(pixels[..., band], orientation) for band in range(pixels.shape[2])], axis=2)
    if orientation >= 5:
        pixels = cv2.transpose(pixels)
    return cv2.flip(pixels, _FLIPS[orientation]) if orientation in _FLIPS else pixels


def stored_window(
    window: tuple[int, int, int, int], size: tuple[int, int], orientation: int
) -> tuple[int, int, int, int]:
    """Return the window (top, left, height, width) of the stored pixels that `apply_orientation` turns into another.

    Args:
        window: of the upright image.
        size: (height, width) of the upright image.
        orientation: EXIF orientation, 1-8.
    """
    top, left, height, width = window
    if orientation in (2, 3, 6, 7):
        left = size[1] - left - width
    if orientation in (3, 4, 7, 8):
        top = size[0] - top - height
    return (left, top, width, height) if orientation >= 5 else (top, left, height, width)


def has_more_frames(header: Image.Image, data: bytes) -> bool:
    """Return whether further frames or pages show something else than the first.

    Overviews and masks of a TIFF do not count, nor do the other pictures in a phone's JPEG (MPO): previews, gain maps
    and views of the same scene.
    """
    if header.format == "TIFF":
        with suppress(TiffError):  # the decoder says what is wrong
            return TiffPage(io.BytesIO(data)).has_more
        return False
    with pixel_limit.lifted():  # Pillow looks for a second frame
        return header.format != "MPO" and bool(getattr(header, "is_animated", False))


def unread_pixels(data: bytes) -> str:
    """Return what the pixels of a TIFF or JPEG are, if they are not read; '' where it does not even tell that."""
    kind = image_format(data)
    if kind == "JPEG" and has_odd_pixels(data):
        return "a JPEG of more than 8 bits, or without loss"
    try:
        return unread_kind(TiffPage(io.BytesIO(data))) if kind == "TIFF" else ""
    except TiffError:
        return ""


def _tags(header: Image.Image) -> ImageFileDirectory_v2:
    tags: ImageFileDirectory_v2 = header.tag_v2  # type: ignore[attr-defined]
    return tags
