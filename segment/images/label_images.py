"""A label's file, by the rules of an image's: format, loss, orientation and size are checked, then pixels are read."""

from __future__ import annotations

from PIL import Image

from segment.errors import SampleError
from segment.images import headers
from segment.images.decoder_stderr import listening
from segment.images.label_pixels import LabelPixels, read_label_pixels


def read_label(
    data: bytes, size: tuple[int, int], image_turned_by: int, *, as_colour: bool, allow_lossy: bool
) -> tuple[LabelPixels, tuple[str, ...]]:
    """Read the pixels of a label, upright, and what was noticed: codes of `segment.output.remarks.REMARKS`.

    Args:
        data: encoded label.
        size: (height, width) of the image, upright.
        image_turned_by: the EXIF orientation that the image had, 1-8.
        as_colour: take grey and palette images for the colours they show.
        allow_lossy: take what was compressed with loss as it decodes.

    Raises:
        SampleError: `label_empty`, `label_undecodable`, `label_lossy`, `label_size`, `label_pixels`, `label_alpha`,
            `label_value` or `label_colour`.
    """
    if not data:
        raise SampleError("label_empty")
    with listening() as complaints:
        try:
            header = _open(data)
            if not allow_lossy and (compression := headers.lossy_compression(header, data)):
                raise SampleError("label_lossy", compression)
            turned_by, remarks = _orientation(header, data)
            _check_size(header, size, turned_by, image_turned_by)
            if headers.has_more_frames(header):
                remarks += ("label_frames",)
            pixels = read_label_pixels(header, data, turned_by, as_colour=as_colour)
        except SampleError:
            raise
        except Exception as error:  # Pillow raises many types on damaged files
            raise SampleError("label_undecodable") from error
    if complaints.damage:
        remarks += ("label_damaged",)
    if turned_by != image_turned_by:
        remarks += ("label_not_turned" if turned_by == 1 else "label_turned",)
    return pixels, remarks


def _open(data: bytes) -> Image.Image:
    try:
        return headers.open_header(data, headers.LABEL_FORMATS)
    except Exception as error:  # Pillow raises many types on damaged headers
        foreign = headers.has_foreign_pixels(data)
        refusal = SampleError("label_pixels", "a TIFF of 64-bit or many-band pixels") if foreign else None
        raise refusal or SampleError("label_undecodable") from error


def _orientation(header: Image.Image, data: bytes) -> tuple[int, tuple[str, ...]]:
    try:
        return headers.orientation(header, data), ()
    except Exception:  # as above; the pixels may be sound all the same
        return 1, ("label_exif_damaged",)


def _check_size(header: Image.Image, image: tuple[int, int], turned_by: int, image_turned_by: int) -> None:
    """Compare sizes (height, width) before a pixel is decoded.

    Raises:
        SampleError: `label_size`, and whether an orientation is why.
    """
    height, width = headers.upright_size(header, turned_by)
    if (height, width) == image:
        return
    detail = f"{width}x{height} for an image of {image[1]}x{image[0]}"
    if (width, height) == image and (turned_by >= 5) != (image_turned_by >= 5):
        whose = "label" if turned_by >= 5 else "image"
        other = "image" if turned_by >= 5 else "label"
        detail += f" (the {whose}'s EXIF orientation was applied, and the {other} has none that turns it likewise)"
    raise SampleError("label_size", detail)
