"""Whether an image or label was compressed with loss, by its bytes, not its name."""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image

from segment.images.tiff_segments import TiffSegments
from segment.images.tiff_unpacking import WEBP

_COMPRESSION = 259  # a TIFF tag
_LOSSY_TIFF = {6: "JPEG", 7: "JPEG", 34676: "SGI LogLuv", 34677: "SGI LogLuv", 34892: "JPEG", WEBP: "lossy WebP"}


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
