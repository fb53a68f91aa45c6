"""Check and read a label file: format, loss, orientation and size by the rules for images, then its pixels."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segment.errors import SampleError
from segment.images import headers
from segment.images.decoder_stderr import capture_decoder_stderr
from segment.images.excess import check_work
from segment.images.label_pixels import LabelPixels, lossy_compression, read_label_pixels
from segment.images.tiff_copies import segments_to_copy
from segment.images.tiff_segments import TiffSegments


def read_label(
    data: bytes, size: tuple[int, int], image_orientation: int, *, as_colour: bool, allow_lossy: bool
) -> tuple[LabelPixels, tuple[str, ...]]:
    """Read the pixels of a label, upright, and its remarks: codes of `segment.output.remarks.REMARKS`.

    Args:
        size: (height, width) of the image, upright.
        image_orientation: EXIF orientation of the image, 1-8.
        as_colour: read grey and palette images as the colours they show.
        allow_lossy: accept labels with lossy compression.

    Raises:
        SampleError: `label_empty`, `label_undecodable`, `label_lossy`, `label_size`, `label_pixels`, `label_alpha`,
            `label_value`, `label_colour` or `label_too_much_work`.
    """
    if not data:
        raise SampleError("label_empty")
    with capture_decoder_stderr() as damage, headers.pixel_limit.lifted(), headers.damage_as("label_undecodable"):
        with _named_label():
            segments = segments_to_copy(data)
        header_bytes = segments.header() if segments else data
        header, orientation, remarks = checked_label(
            header_bytes, size, image_orientation, allow_lossy=allow_lossy, segments=segments
        )
        if headers.has_more_frames(header, data):
            remarks += ("label_frames",)
        if segments is None:
            pixels = read_label_pixels(header, data, orientation, as_colour=as_colour)
        else:
            pixels = _copied_pixels(segments, orientation, as_colour=as_colour)
            remarks += ("label_sparse",) if segments.is_sparse else ()
    if damage:
        remarks += ("label_damaged",)
    return pixels, remarks + turning_remarks(orientation, image_orientation)


def _copied_pixels(segments: TiffSegments, orientation: int, *, as_colour: bool) -> LabelPixels:
    copy = segments.excerpt()
    pixels = read_label_pixels(headers.open_header(copy), copy, 1, as_colour=as_colour)

    def upright(found: NDArray[np.uint8] | None) -> NDArray[np.uint8] | None:
        return None if found is None else headers.apply_orientation(segments.inside(found), orientation)

    return LabelPixels(upright(pixels.values), pixels.palette, upright(pixels.colours))


def checked_label(
    data: bytes,
    size: tuple[int, int],
    image_orientation: int,
    *,
    allow_lossy: bool,
    segments: TiffSegments | None = None,
) -> tuple[Image.Image, int, tuple[str, ...]]:
    """Return the header of a label that fits its image, its EXIF orientation, and remarks; no pixel is decoded.

    Args:
        segments: of the TIFF of which `data` is `TiffSegments.header`.

    Raises:
        SampleError: `label_undecodable`, `label_pixels`, `label_lossy`, `label_size` or `label_too_much_work`.
        Exception: any type that Pillow raises on damaged files.
    """
    header = _open(data)
    if not allow_lossy and (compression := lossy_compression(header, data, segments)):
        raise SampleError("label_lossy", compression)
    orientation, remarks = headers.orientation_of(header, data, "label")
    _check_size(header, size, orientation, image_orientation)
    with _named_label():
        check_work(header, data)
    return header, orientation, remarks


@contextmanager
def _named_label() -> Iterator[None]:
    """Raise an image's errors as a label's."""
    try:
        yield
    except SampleError as error:
        raise SampleError(f"label_{error.code}", error.detail) from None


def turning_remarks(orientation: int, image_orientation: int) -> tuple[str, ...]:
    """Return the remark of a label whose EXIF orientation is not that of its image."""
    if orientation == image_orientation:
        return ()
    return ("label_not_turned" if orientation == 1 else "label_turned",)


def _open(data: bytes) -> Image.Image:
    try:
        with _named_label():
            return headers.open_header(data, headers.LABEL_FORMATS)
    except SampleError:
        raise
    except Exception as error:  # Pillow raises many types on damaged headers
        unread = headers.unread_pixels(data)
        raise SampleError("label_pixels" if unread else "label_undecodable", unread) from error


def _check_size(header: Image.Image, image: tuple[int, int], orientation: int, image_orientation: int) -> None:
    """Compare sizes (height, width) before a pixel is decoded.

    Raises SampleError: `label_size`; the message tells whether an orientation is the cause.
    """
    height, width = headers.upright_size(header, orientation)
    if (height, width) == image:
        return
    detail = f"{width}x{height} for an image of {image[1]}x{image[0]}"
    if (width, height) == image and (orientation >= 5) != (image_orientation >= 5):
        whose = "label" if orientation >= 5 else "image"
        other = "image" if orientation >= 5 else "label"
        detail += f" (the {whose}'s EXIF orientation was applied, and the {other} has none that turns it likewise)"
    raise SampleError("label_size", detail)
