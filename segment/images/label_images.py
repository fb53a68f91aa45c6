"""Check and read a label file: format, loss, orientation and size by the rules for images, then its pixels."""

from __future__ import annotations

from PIL import Image

from segment.errors import SampleError
from segment.images import headers
from segment.images.decoder_stderr import capture_decoder_stderr
from segment.images.excess import check_work
from segment.images.label_pixels import LabelPixels, read_label_pixels


def read_label(
    data: bytes, size: tuple[int, int], image_orientation: int, *, as_colour: bool, allow_lossy: bool
) -> tuple[LabelPixels, tuple[str, ...]]:
    """Read the pixels of a label, upright, and its remarks: codes of `segment.output.remarks.REMARKS`.

    Args:
        data: encoded label.
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
    with capture_decoder_stderr() as messages, headers.pixel_limit.lifted():
        try:
            header, orientation, remarks = checked_label(data, size, image_orientation, allow_lossy=allow_lossy)
            if headers.is_sparse(header):
                raise SampleError("label_undecodable", "a strip or tile is not stored: write it without SPARSE_OK")
            if headers.has_more_frames(header):
                remarks += ("label_frames",)
            pixels = read_label_pixels(header, data, orientation, as_colour=as_colour)
        except SampleError:
            raise
        except Exception as error:  # Pillow raises many types on damaged files
            raise SampleError("label_undecodable") from error
    if messages.damage:
        remarks += ("label_damaged",)
    return pixels, remarks + turning_remarks(orientation, image_orientation)


def checked_label(
    data: bytes, size: tuple[int, int], image_orientation: int, *, allow_lossy: bool
) -> tuple[Image.Image, int, tuple[str, ...]]:
    """Return the header of a label that fits its image, its EXIF orientation, and remarks; no pixel is decoded.

    Args:
        data, size, image_orientation, allow_lossy: as of `read_label`.

    Raises:
        SampleError: `label_undecodable`, `label_pixels`, `label_lossy`, `label_size` or `label_too_much_work`.
        Exception: any type that Pillow raises on damaged files.
    """
    header = _open(data)
    if not allow_lossy and (compression := headers.lossy_compression(header, data)):
        raise SampleError("label_lossy", compression)
    orientation, remarks = _orientation(header, data)
    _check_size(header, size, orientation, image_orientation)
    try:
        check_work(header, data)
    except SampleError as error:
        raise SampleError(f"label_{error.code}", error.detail) from None
    return header, orientation, remarks


def turning_remarks(orientation: int, image_orientation: int) -> tuple[str, ...]:
    """Return the remark of a label whose EXIF orientation is not that of its image."""
    if orientation == image_orientation:
        return ()
    return ("label_not_turned" if orientation == 1 else "label_turned",)


def _open(data: bytes) -> Image.Image:
    try:
        return headers.open_header(data, headers.LABEL_FORMATS)
    except SampleError as error:
        raise SampleError(f"label_{error.code}", error.detail) from None
    except Exception as error:  # Pillow raises many types on damaged headers
        unsupported = headers.has_unsupported_pixels(data)
        refusal = SampleError("label_pixels", "a TIFF of 64-bit or many-band pixels") if unsupported else None
        raise refusal or SampleError("label_undecodable") from error


def _orientation(header: Image.Image, data: bytes) -> tuple[int, tuple[str, ...]]:
    try:
        return headers.read_orientation(header, data), ()
    except Exception:  # as above; the pixels may be valid nevertheless
        return 1, ("label_exif_damaged",)


def _check_size(header: Image.Image, image: tuple[int, int], orientation: int, image_orientation: int) -> None:
    """Compare sizes (height, width) before a pixel is decoded.

    Raises:
        SampleError: `label_size`; the message tells whether an orientation is the cause.
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
