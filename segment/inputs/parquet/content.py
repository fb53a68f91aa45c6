"""Identify the content of bytes and texts by how they begin."""

import base64
import binascii
import re

from segment.images.magic import image_format

_OTHERS = (
    (b"GIF8", "GIF images"), (b"\0\0\0\x0cjP  ", "JPEG 2000 images"), (b"\xff\x4f\xff\x51", "JPEG 2000 images"),
    (b"\xff\x0a", "JPEG XL images"), (b"\0\0\0\x0cJXL ", "JPEG XL images"), (b"%PDF", "PDF"),
    (b"\x93NUMPY", "NumPy arrays (.npy)"), (b"PK\x03\x04", "ZIP or NumPy archives (.npz)"), (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"), (b"RIFF", "audio or video"), (b"ID3", "audio"), (b"fLaC", "audio"),
    (b"OggS", "audio or video"),
)  # fmt: skip
_BASE64 = re.compile(r"[A-Za-z0-9+/]+")
_START = 64  # bytes or characters; a multiple of four


def is_label_format(data: bytes) -> bool:
    """Return whether bytes are an image in a format that labels are read in."""
    return bool(image_format(data)) or data.startswith(b"GIF8")


def content_of(data: bytes) -> str:
    """Return what bytes are, for a message."""
    if found := image_format(data):
        return f"{found} images"
    if data[4:8] == b"ftyp":
        return "AVIF, HEIC or video files"
    if data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickled Python objects"
    return next(
        (name for magic, name in _OTHERS if data.startswith(magic)), "text" if _is_text(data) else "other bytes"
    )


def _is_text(data: bytes) -> bool:
    start = data[:_START]
    return all(byte >= 32 or byte in b"\t\r\n" for byte in start) and start.isascii()


def embedded(text: str) -> str:
    """Return what kind of encoded image a text is: `data URIs` or `base64 text`; `""` if it is none."""
    if text[:5].lower() == "data:":
        return "data URIs"
    start = "".join(text[: 2 * _START].split())[:_START]
    if len(text) <= _START or len(start) % 4 or not _BASE64.fullmatch(start):
        return ""
    try:
        return "base64 text" if is_label_format(base64.b64decode(start)) else ""
    except binascii.Error:
        return ""
