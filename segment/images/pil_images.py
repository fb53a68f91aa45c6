"""Read PIL images as a caller holds them: by the bytes of their file until a pixel is decoded, by their pixels after.

A job reads files by its own decoders. Pillow's would give other pixels (JPEG, 16 bits, CMYK) and other label values
(grey of 2 and 4 bits), so they are taken only where the file is gone.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile

from segment.errors import SampleError
from segment.images import headers
from segment.images.codec import Picture
from segment.images.decoder_stderr import capture_decoder_stderr

_LOSSY_FORMATS = ("JPEG", "MPO", "WEBP", "JPEG2000", "AVIF", "HEIF")  # some may be lossless: that is not known any more
_LOSSY_COMPRESSIONS = ("jpeg", "tiff_jpeg", "webp")  # of a TIFF
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
_DEEP_MODES = ("I", "F")  # PNG cannot hold them


def file_bytes(image: Image.Image, formats: tuple[str, ...]) -> bytes | None:
    """Return the file that an image was opened from, if it still is what that file holds.

    Args:
        image: as a caller holds it; it stays as it is.
        formats: Pillow's names of the formats that are wanted.

    Returns:
        None if pixels are decoded already, the file is closed or of another format, or the image was changed: another
        frame, or a JPEG at reduced size (`draft`).
    """
    if not isinstance(image, ImageFile) or image._im is not None or image.fp is None:
        return None
    try:
        at = image.fp.tell()
        image.fp.seek(0)  # `Image.open` begins there, too
        data = image.fp.read()
        image.fp.seek(at)
        fresh = headers.open_header(data, formats)
    except SampleError:
        raise
    except Exception:  # Pillow raises many types; files of other kinds than Python's may raise any
        return None
    same = (fresh.size, fresh.mode, fresh.format) == (image.size, image.mode, image.format) and image.tell() == 0
    return data if same else None


def decoded_picture(image: Image.Image) -> Picture:
    """Return the pixels of an image that Pillow decodes or has decoded, upright.

    Raises SampleError: `empty`, `undecodable`, or `pixel_format` for modes whose values do not fit bytes.
    """
    if not image.width or not image.height:
        raise SampleError("empty")
    remarks = ("image_damaged",) if _load(image, "undecodable") else ()
    try:
        upright = ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises many types on damaged EXIF data
        upright, remarks = image, (*remarks, "image_exif_damaged")
    return Picture(_rgb(upright), remarks=remarks)


def lossless_bytes(label: Image.Image, *, allow_lossy: bool) -> bytes:
    """Encode a label that Pillow decodes or has decoded, without loss, so that one decoder reads every label.

    Raises SampleError: `label_lossy`, `label_undecodable` or `label_pixels`.
    """
    is_lossy = label.format in _LOSSY_FORMATS or label.info.get("compression") in _LOSSY_COMPRESSIONS
    if is_lossy and not allow_lossy:
        raise SampleError("label_lossy", str(label.format))
    _load(label, "label_undecodable")
    buffer = io.BytesIO()
    try:
        ImageOps.exif_transpose(label).save(buffer, "TIFF" if label.mode in _DEEP_MODES else "PNG")
    except Exception:  # a mode that neither holds, or damaged EXIF data
        raise SampleError("label_pixels", label.mode) from None
    return buffer.getvalue()


def _load(image: Image.Image, code: str) -> bool:
    """Decode, and return whether a decoder reports damage. Raises SampleError with this code."""
    with capture_decoder_stderr() as damage, headers.damage_as(code):
        image.load()
    return bool(damage)


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Return `uint8[H, W, 3]`. Of 16 bits the high byte is taken, as a job does; Pillow would clip them."""
    if image.mode in _SIXTEEN_BITS:
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
    if image.mode in _DEEP_MODES:
        raise SampleError("pixel_format", f"a PIL image of mode {image.mode}")
    try:
        return np.array((image.convert("LA") if image.mode == "La" else image).convert("RGB"))
    except ValueError:
        raise SampleError("pixel_format", f"a PIL image of mode {image.mode}") from None
