"""File signatures of the image formats that are read; planning uses them without decoding an image."""

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"), (PNG_MAGIC, "PNG"), (b"BM", "BMP"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"), (b"MM\0+", "TIFF"),  # BigTIFF
)  # fmt: skip


def image_format(data: bytes) -> str:
    """Return the format of an encoded image: `JPEG`, `PNG`, `BMP`, `TIFF`, `WebP`, or `""` for any other."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    return next((name for magic, name in _MAGIC if data.startswith(magic)), "")
