"""Read the pixels of a label as they are stored: values, palette indices or colours, exact or refused.

No pixel is scaled, clipped or blended. Formats and modes that do not hold exact values have their own error codes.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile

from segment.errors import SampleError
from segment.images import headers
from segment.images.tiff_segments import TiffSegments
from segment.images.tiff_unpacking import WEBP

_NAMED = 3  # values or colours that an error lists
_PHOTOMETRIC, _BITS, _EXTRA, _SAMPLE_FORMAT, _COLOUR_MAP = 262, 258, 338, 339, 320  # TIFF tags
_WHITE_IS_ZERO, _YCBCR = 0, 6
_SIGNED = 2
_GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")
_PALETTE = ("P", "PA")
_COLOUR = ("RGB", "RGBA")
_COMPRESSION = 259  # a TIFF tag
_LOSSY_TIFF = {6: "JPEG", 7: "JPEG", 34676: "SGI LogLuv", 34677: "SGI LogLuv", 34892: "JPEG", WEBP: "lossy WebP"}


@dataclass(frozen=True)
class LabelPixels:
    """The content of a label image, upright.

    Attributes:
        values: `uint8[H, W]` values or palette indices; None if the image holds colours.
        palette: `uint8[n, 3]`, RGB, of a palette image.
        colours: `uint8[H, W, 3]`, RGB; None if the image holds values.
    """

    values: NDArray[np.uint8] | None = None
    palette: NDArray[np.uint8] | None = None
    colours: NDArray[np.uint8] | None = None


def read_label_pixels(header: Image.Image, data: bytes, orientation: int, *, as_colour: bool) -> LabelPixels:
    """Read the pixels of an opened label.

    Raises:
        SampleError: `label_pixels`, `label_alpha`, `label_value` or `label_colour`.
        Exception: any type that Pillow or OpenCV raises on damaged files.
    """
    _refuse_inexact(header, data)
    depth = _scaled_depth(header)  # known only until the pixels are loaded
    is_signed = header.format == "TIFF" and _SIGNED in _tag(header, _SAMPLE_FORMAT, (1,))
    if header.mode in _PALETTE:
        indices = _upright(header, _single_band(header), orientation)
        palette = _palette(header)
        return LabelPixels(colours=_shown(indices, palette)) if as_colour else LabelPixels(indices, palette)
    is_grey = header.mode in _GREY or _raw_mode(header).startswith("LA")
    pixels = _sixteen_bits(header, data, orientation) if _is_cut_to_eight_bits(header) else _read(header, orientation)
    if not is_grey:
        return LabelPixels(colours=_eight_bit_colours(_opaque(pixels, 3, header)))
    values = _opaque(pixels, 1, header)[..., 0] if pixels.ndim == 3 else pixels
    if header.mode == "1":
        values = values * np.uint8(255 if as_colour else 1)
    elif depth in (2, 4) and not as_colour:
        values = values // np.uint8(255 // (2**depth - 1))
    elif is_signed or values.dtype == np.int32:
        values = _with_sign(values, is_signed)
    if as_colour:
        whole = _whole(values)
        return LabelPixels(colours=_eight_bit_colours(np.repeat(whole[..., None], 3, axis=2)))
    return LabelPixels(_eight_bit_values(values))


def first_few(found: Iterable[str]) -> str:
    """Return the first few: `77, 80, 81 and 4 more`."""
    names = list(found)
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _refuse_inexact(header: Image.Image, data: bytes) -> None:
    """Raise `label_pixels` or `label_alpha` for pixels that cannot be read as they are stored."""
    if header.mode not in (*_GREY, *_PALETTE, *_COLOUR):
        raise SampleError("label_pixels", f"{header.mode} colours")
    if header.format == "TIFF":
        photometric = _tag(header, _PHOTOMETRIC, _WHITE_IS_ZERO)
        if photometric == _WHITE_IS_ZERO and header.mode != "1":
            raise SampleError("label_pixels", "a TIFF in which 0 is white")
        if photometric == _YCBCR and lossy_compression(header, b"") is None:
            raise SampleError("label_pixels", "YCbCr colours")
        if 0 in _tag(header, _EXTRA, ()):
            raise SampleError("label_pixels", "a TIFF with a band of no stated meaning")
    if header.format == "BMP":
        _refuse_inexact_bmp(header, data)
    if header.format == "GIF" and isinstance(header, ImageFile) and _covers_part(header):
        raise SampleError("label_pixels", "a GIF whose first frame does not cover it")


def _refuse_inexact_bmp(header: Image.Image, data: bytes) -> None:
    bits = int.from_bytes(data[24:26] if data[14] == 12 else data[28:30], "little")  # the OS/2 header is shorter
    if bits == 16:
        raise SampleError("label_pixels", "a BMP with 16 bits a pixel, which are too few for a colour")
    if (header.mode == "1" and bits != 1) or (header.mode == "L" and bits != 8):  # Pillow reads them as 1 and 8 bits
        raise SampleError("label_pixels", f"a BMP with {bits} bits a pixel and few shades of grey")
    if _raw_mode(header) == "BGRX":  # without a mask the fourth byte is unused, or alpha in files that Pillow wrote
        start = header.tile[0].offset if isinstance(header, ImageFile) else 0
        if len(np.unique(np.frombuffer(data[start + 3 :: 4][: header.width * header.height], np.uint8))) > 1:
            raise SampleError("label_alpha")


def _covers_part(header: ImageFile) -> bool:
    """Return whether the first frame is smaller than the image."""
    return bool(header.tile) and header.tile[0].extents != (0, 0, *header.size)


def _read(header: Image.Image, orientation: int) -> NDArray[Any]:
    """Decode with Pillow: OpenCV would replace palette indices by colours."""
    pixels = _loaded(header)
    return _upright(header, pixels.astype(np.uint8) if pixels.dtype == bool else pixels, orientation)


def _loaded(header: Image.Image) -> NDArray[Any]:
    """Decode with Pillow. One band of bytes is not copied where it is one block of memory, as it is up to 16 MB."""
    header.load()
    if header.mode in ("L", "P"):
        with suppress(ValueError):
            return np.asarray(pa.array(header)).reshape(header.height, header.width)
    return np.asarray(header)


def _upright(header: Image.Image, pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply the orientation, except to a TIFF, where Pillow applies it on loading."""
    return pixels if header.format == "TIFF" else headers.apply_orientation(pixels, orientation)


def _sixteen_bits(header: Image.Image, data: bytes, orientation: int) -> NDArray[np.uint16]:
    """Decode with OpenCV, as Pillow reduces 16-bit colours to their high bytes: `[H, W, 2]` (grey, alpha) or RGB(A)."""
    pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise SampleError("label_undecodable")
    if not headers.has_orientation_tag(header):
        pixels = headers.apply_orientation(pixels, orientation)
    if _raw_mode(header).startswith("LA"):
        return np.asarray(pixels[..., [0, 3]], dtype=np.uint16)
    return np.asarray(pixels[..., [2, 1, 0, 3][: pixels.shape[2]]], dtype=np.uint16)


def _opaque(pixels: NDArray[Any], bands: int, header: Image.Image) -> NDArray[Any]:
    """Drop an alpha channel that carries no information: all of its values are equal and not zero.

    Raises SampleError: `label_alpha`, because tools disagree on what a transparent pixel of a label means.
    """
    has_alpha = header.mode in ("LA", "La", "RGBA", "PA") and pixels.shape[2] > bands
    if has_alpha:
        alpha = pixels[..., bands]
        least = np.iinfo(alpha.dtype).max if _is_premultiplied(header) else 1
        if alpha.min() < max(least, alpha.max()):
            raise SampleError("label_alpha")
    return pixels[..., :bands]


def _is_premultiplied(header: Image.Image) -> bool:
    """Return whether colours are multiplied by alpha, which loses information unless alpha is opaque."""
    return header.format == "TIFF" and 1 in _tag(header, _EXTRA, ())


def _single_band(header: Image.Image) -> NDArray[np.uint8]:
    """Return palette indices; any alpha channel must be opaque. A transparent palette entry is an ordinary index."""
    pixels = _loaded(header)
    return np.asarray(_opaque(pixels, 1, header)[..., 0] if pixels.ndim == 3 else pixels, dtype=np.uint8)


def _palette(header: Image.Image) -> NDArray[np.uint8]:
    """Return the palette, `uint8[n, 3]`, RGB."""
    if header.format == "TIFF" and max(entries := _tag(header, _COLOUR_MAP, (256,))) < 256:
        return np.array(entries, dtype=np.uint8).reshape(3, -1).T  # 8-bit entries, which Pillow reads as 16-bit
    return np.asarray(header.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)


def _shown(indices: NDArray[np.uint8], palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the colours that a palette image shows.

    Raises SampleError: `label_value` for an index without a colour, which decoders would show as black.
    """
    if indices.max(initial=0) >= len(palette):
        raise SampleError("label_value", f"palette index {indices.max()} has no colour")
    return np.asarray(palette[indices])


def _scaled_depth(header: Image.Image) -> int:
    """Return the bits of a grey PNG or TIFF, whose values Pillow scales to 0-255 if they are 2 or 4; else 8."""
    if header.mode != "L" or header.format not in ("PNG", "TIFF"):
        return 8
    if header.format == "TIFF":
        return int(_tag(header, _BITS, (8,))[0])
    raw = _raw_mode(header).partition(";")[2]
    return int(raw) if raw.isdecimal() else 8


def _is_cut_to_eight_bits(header: Image.Image) -> bool:
    bits = _tag(header, _BITS, (8,)) if header.format == "TIFF" else (16 if ";16" in _raw_mode(header) else 8,)
    return header.mode in ("RGB", "RGBA", "LA") and max(bits) > 8


def _with_sign(values: NDArray[Any], is_signed: bool) -> NDArray[Any]:
    """Restore the sign: Pillow reads 8-bit values as unsigned and 32-bit values as signed."""
    if values.dtype == np.uint8:
        return values.view(np.int8)
    return values if is_signed or values.dtype != np.int32 or values.min(initial=0) >= 0 else values.view(np.uint32)


def _whole(values: NDArray[Any]) -> NDArray[Any]:
    """Return whole numbers. Raises SampleError: `label_value` for fractions, NaN and infinity."""
    if values.dtype.kind != "f":
        return values
    odd = values[~(np.isfinite(values) & (values == np.floor(values)))]
    if len(odd):
        raise SampleError("label_value", first_few(f"{value:g}" for value in np.unique(odd)))
    return values.astype(np.int64)


def _eight_bit_values(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return values as bytes. Raises SampleError: `label_value` for values outside 0-255."""
    if values.dtype == np.uint8:
        return values
    whole = _whole(values)
    if whole.min(initial=0) < 0 or whole.max(initial=0) > 255:
        raise SampleError("label_value", first_few(str(v) for v in np.unique(whole[(whole < 0) | (whole > 255)])))
    return whole.astype(np.uint8)


def _eight_bit_colours(rgb: NDArray[Any]) -> NDArray[np.uint8]:
    """Return 8-bit colours. 16-bit colours are kept if all are up to 255, or divided by 257 if that is exact.

    Raises SampleError: `label_colour` for others.
    """
    if rgb.dtype == np.uint8:
        return rgb
    if rgb.min(initial=0) >= 0 and rgb.max(initial=0) <= 255:
        return rgb.astype(np.uint8)
    if rgb.min(initial=0) >= 0 and rgb.max(initial=0) <= 65535 and not (rgb % 257).any():
        return (rgb // 257).astype(np.uint8)
    odd = np.unique(rgb[((rgb < 0) | (rgb > 255)).any(axis=2)], axis=0)
    raise SampleError("label_colour", first_few(",".join(map(str, colour)) for colour in odd.tolist()))


def _raw_mode(header: Image.Image) -> str:
    """Return Pillow's raw mode, `L;4` or `RGB;16B`; empty if there is none."""
    args = header.tile[0].args if isinstance(header, ImageFile) and header.tile else ""
    return str(args[0] if isinstance(args, tuple) and args else args or "")


def _tag(header: Image.Image, tag: int, default: Any) -> Any:
    return header.tag_v2.get(tag, default)  # type: ignore[attr-defined]


def lossy_compression(header: Image.Image, data: bytes, segments: TiffSegments | None = None) -> str | None:
    """Return the name of a compression that changes pixels; None if it is lossless.

    Args:
        segments: of a TIFF of which it is the header; without them, WebP in a TIFF counts as lossy.
    """
    if header.format in ("JPEG", "MPO"):
        return "JPEG"
    if header.format == "WEBP":
        return "lossy WebP" if _is_lossy_webp(data) else None
    if segments and segments.compression == WEBP:
        return "lossy WebP in TIFF" if any(map(_is_lossy_webp, segments.stored())) else None
    compression = header.tag_v2.get(_COMPRESSION) if header.format == "TIFF" else None  # type: ignore[attr-defined]
    return f"{_LOSSY_TIFF[compression]} in TIFF" if compression in _LOSSY_TIFF else None


def _is_lossy_webp(data: bytes) -> bool:
    """Return whether any frame is a `VP8 ` chunk; lossless frames are `VP8L`. An unreadable file counts as lossy."""
    kinds = set(_riff_chunks(data, 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))))
    return b"VP8 " in kinds or b"VP8L" not in kinds


def _riff_chunks(data: bytes, at: int, end: int) -> Iterator[bytes]:
    """Yield the types of chunks, including those within the frames of an animation."""
    while at + 8 <= end:
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        yield kind
        if kind == b"ANMF":
            yield from _riff_chunks(data, at + 8 + 16, min(end, at + 8 + length))
        at += 8 + length + length % 2
