"""Read the header of an image or label before a pixel is decoded: format, orientation, frames, compression.

Images and labels share these rules.
"""

from __future__ import annotations

import io
import logging
import os
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from segment.images.excess import check_structure
from segment.images.magic import PNG_MAGIC, image_format

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")  # Pillow's other decoders never run
LABEL_FORMATS = (*IMAGE_FORMATS, "GIF")

_PNG_METADATA = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")  # chunks in which Pillow looks for an orientation
_ORIENTATION, _COMPRESSION, _SUBFILE = 274, 259, 254  # TIFF tags
_STRIPS, _TILES, _STRIP_SIZES, _TILE_SIZES = 273, 324, 279, 325
_PLACES = ((_STRIPS, _STRIP_SIZES), (_TILES, _TILE_SIZES))
_SECONDARY = 1 | 4  # bits of `_SUBFILE`: a page of reduced resolution, a transparency mask
_LOSSY_TIFF = {6: "JPEG", 7: "JPEG", 34676: "SGI LogLuv", 34677: "SGI LogLuv", 34892: "JPEG"}
_WEBP_TIFF = 50001
_MOST_PAGES = 1000  # pages of a TIFF that are examined
_MOST_ENTRIES = 1 << 16  # of all their directories
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


def open_header(data: bytes, formats: tuple[str, ...] = IMAGE_FORMATS) -> Image.Image:
    """Open an image or label with Pillow: size and mode are known, no pixel is decoded. Pillow may raise any error.

    Raises:
        SampleError: `too_much_work`, before anything else reads the file.
    """
    check_structure(data)
    with pixel_limit.lifted():
        return Image.open(io.BytesIO(data), formats=formats)


def read_orientation(header: Image.Image, data: bytes) -> int:
    """Return the EXIF orientation that Pillow's `exif_transpose` would apply, without decoding; 1 is upright.

    It is stored in the EXIF data of any format, in a TIFF tag, in the text chunks of a PNG (by ImageMagick), or in XMP.

    Args:
        header: as opened, not loaded.
        data: the bytes it was opened from.

    Raises:
        Exception: any type that Pillow raises on damaged EXIF data.
    """
    if header.format == "PNG":
        header = _with_all_metadata(header, data)
    # PngImageFile.getexif decodes the whole image to reach the chunks after the pixels; the base class does not.
    found = Image.Image.getexif(header).get(_ORIENTATION, _UPRIGHT)
    return int(found) if found in range(1, 9) else _UPRIGHT


def _with_all_metadata(header: Image.Image, data: bytes) -> Image.Image:
    """Return a PNG's header that includes the metadata chunks after the pixels."""
    chunks = list(_png_chunks(data))
    pixels = next((start for kind, start, _ in chunks if kind == b"IDAT"), len(data))
    behind = [data[start:end] for kind, start, end in chunks if start > pixels and kind in _PNG_METADATA]
    return open_header(data[:pixels] + b"".join(behind) + data[pixels:], ("PNG",)) if behind else header


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, start and end (exclusive) of each chunk."""
    at = len(PNG_MAGIC)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, at, at + 12 + length
        at += 12 + length


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
    """Apply an EXIF orientation to `[H, W]` or `[H, W, n]` pixels."""
    if orientation >= 5:
        pixels = cv2.transpose(pixels)
    return cv2.flip(pixels, _FLIPS[orientation]) if orientation in _FLIPS else pixels


def turn_bands(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply an EXIF orientation to `[H, W]` pixels, or `[H, W, n]` of any number of bands; OpenCV takes four."""
    if pixels.ndim == 2 or pixels.shape[2] <= 4 or orientation == _UPRIGHT:
        return apply_orientation(pixels, orientation)
    return np.stack([apply_orientation(pixels[..., band], orientation) for band in range(pixels.shape[2])], axis=2)


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


def has_more_frames(header: Image.Image) -> bool:
    """Return whether further frames or pages show something else than the first.

    Overviews and masks of a TIFF do not count, nor do the other pictures in a phone's JPEG (MPO): previews, gain maps
    and views of the same scene.
    """
    with pixel_limit.lifted():  # Pillow looks for a second frame
        if header.format == "MPO" or not getattr(header, "is_animated", False):
            return False
    return header.format != "TIFF" or any(not int(tags.get(_SUBFILE, 0)) & _SECONDARY for tags in _later_pages(header))


def _later_pages(header: Image.Image) -> Iterator[ImageFileDirectory_v2]:
    """Yield the tags of a TIFF's pages after the first. It reads a copy, so that the header stays at the first page."""
    file = io.BytesIO(header.fp.getvalue())  # type: ignore[attr-defined]
    at, seen, entries = int(_tags(header).next), set[int](), 0
    while at and at not in seen and len(seen) < _MOST_PAGES and entries < _MOST_ENTRIES:
        seen.add(at)
        file.seek(0)
        tags = ImageFileDirectory_v2(file.read(16 if _tags(header)._bigtiff else 8))
        file.seek(at)
        tags.load(file)
        entries += max(len(tags), 1)
        yield tags
        at = int(tags.next)


def lossy_compression(header: Image.Image, data: bytes) -> str | None:
    """Return the name of a compression that changes pixels, by the bytes, not the file name; None if it is lossless."""
    if header.format in ("JPEG", "MPO"):
        return "JPEG"
    if header.format == "WEBP":
        return "lossy WebP" if _is_lossy_webp(data) else None
    if header.format != "TIFF":
        return None
    tags = _tags(header)
    compression = tags.get(_COMPRESSION, 1)
    if compression in _LOSSY_TIFF:
        return f"{_LOSSY_TIFF[compression]} in TIFF"
    if compression == _WEBP_TIFF and any(map(_is_lossy_webp, _tiff_pieces(tags, data))):
        return "lossy WebP in TIFF"
    return None


def is_sparse(header: Image.Image) -> bool:
    """Return whether it is a TIFF of which a strip or tile is not stored: Pillow would take the file's first bytes."""
    tags = _tags(header) if header.format == "TIFF" else {}
    found = (zip(tags.get(at, ()), tags.get(sizes, ()), strict=False) for at, sizes in _PLACES)
    return any(not start and not size for places in found for start, size in places)


def _tiff_pieces(tags: ImageFileDirectory_v2, data: bytes) -> Iterator[bytes]:
    """Yield the encoded strips or tiles of a TIFF page. Raises KeyError or ValueError if a tag is missing."""
    starts, sizes = (_STRIPS, _STRIP_SIZES) if _STRIPS in tags else (_TILES, _TILE_SIZES)
    for at, size in zip(tags[starts], tags[sizes], strict=True):
        yield data[at : at + size]


def _is_lossy_webp(data: bytes) -> bool:
    """Return whether any frame is a `VP8 ` chunk; lossless frames are `VP8L`. An unreadable file counts as lossy."""
    kinds = list(_riff_chunks(data, 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))))
    return b"VP8 " in kinds or b"VP8L" not in kinds


def _riff_chunks(data: bytes, at: int, end: int) -> Iterator[bytes]:
    """Yield the types of chunks, including those within the frames of an animation."""
    while at + 8 <= end:
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        yield kind
        if kind == b"ANMF":
            yield from _riff_chunks(data, at + 8 + 16, min(end, at + 8 + length))
        at += 8 + length + length % 2


def has_unsupported_pixels(data: bytes) -> bool:
    """Return whether the bytes are a TIFF with valid tags and a pixel type that Pillow cannot decode."""
    if image_format(data) != "TIFF":
        return False
    try:
        file = io.BytesIO(data)
        tags = ImageFileDirectory_v2(file.read(16 if data[2:4].strip(b"\0") == b"+" else 8))
        file.seek(tags.next)
        tags.load(file)
        bits, kinds, bands = (tags.get(tag, default) for tag, default in ((258, (1,)), (339, (1,)), (277, 1)))
        return max(bits) > 16 or any(kind not in (1, 4) for kind in kinds) or bands > 4
    except Exception:  # Pillow raises many types on damaged files
        return False


def _tags(header: Image.Image) -> ImageFileDirectory_v2:
    tags: ImageFileDirectory_v2 = header.tag_v2  # type: ignore[attr-defined]
    return tags
