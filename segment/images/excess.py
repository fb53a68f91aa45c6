"""Refuse images that are made to be far more work than their size and pixels explain, before a library reads them.

A decoder does what a file demands: thousands of scans over all pixels, gigabytes behind the last row, millions of empty
chunks. No time limit ends native code, so the demand is counted first, at a cost that no ordinary image notices.
"""

from __future__ import annotations

import re
import struct

from PIL import Image

from segment.errors import SampleError
from segment.images.magic import image_format
from segment.images.png_excess import check_png, check_png_pixels
from segment.images.tiff_excess import check_tiff

MOST_SCANS = 32  # over all pixels; encoders make about ten
MOST_WORK = 1 << 31  # pixels in all scans together, of an image with more scans

_MOST_SEGMENTS = 4096  # of a JPEG before its pixels; an ICC profile of 16 MB has 256
_MOST_PADDING = 1 << 16  # bytes between its segments
_MOST_EXIF = 8 << 20  # bytes of all its EXIF segments
_MOST_BLOCKS = 1 << 14  # of a GIF before its first frame, of up to 255 bytes

_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")  # of a JPEG, also behind entropy-coded data
_NEXT = re.compile(rb"[^\xff]*+\xff++(.)", re.DOTALL)  # its next marker, and what is before it
_SCAN, _END, _START, _EXIF = 0xDA, 0xD9, 0xD8, 0xE1
_BARE = (0, 1, *range(0xD0, _START + 1))  # markers without a length


def check_structure(data: bytes) -> None:
    """Refuse a file by its structure, before its header is opened.

    Raises:
        SampleError: `too_much_work`.
    """
    kind = image_format(data)
    if kind == "JPEG":
        _check_segments(data)
    elif kind == "PNG":
        check_png(data)
    elif kind == "TIFF":
        check_tiff(data, MOST_SCANS, MOST_WORK)
    elif data.startswith(b"GIF8"):
        _check_gif(data)


def check_work(header: Image.Image, data: bytes) -> None:
    """Refuse an image by what its pixels demand, once it is known that they are not too many.

    Raises:
        SampleError: `too_much_work`.
    """
    if header.format == "PNG":
        check_png_pixels(data)
    elif header.format in ("JPEG", "MPO"):
        _check_scans(header, data)


def _check_scans(header: Image.Image, data: bytes) -> None:
    """Refuse a JPEG of too many scans over all pixels. Where one scan has all components, no other is decoded."""
    components = data[_first_scan(data) + 4 :][:1]
    if not header.info.get("progressive") and components == bytes([len(header.getbands())]):
        return
    pixels = header.width * header.height
    if _is_too_much(data.count(b"\xff\xda"), pixels):  # which is cheap, and no less than there are
        scans = _count_scans(data)
        if _is_too_much(scans, pixels):
            raise SampleError("too_much_work", f"a JPEG of {scans} scans")


def _is_too_much(scans: int, pixels: int) -> bool:
    return scans > MOST_SCANS and scans * pixels > MOST_WORK


def _count_scans(data: bytes) -> int:
    """Return the number of scans up to the end of the image, without those of thumbnails."""
    at, scans = 2, 0
    while found := _MARKER.search(data, at):
        kind, at = found[1][0], found.end()
        scans += kind == _SCAN
        if kind == _END:
            break
        if kind not in _BARE and at + 2 <= len(data):
            at += struct.unpack_from(">H", data, at)[0]
    return scans


def _first_scan(data: bytes) -> int:
    """Return where the marker of the first scan is; the end of the data if there is none."""
    at = 2
    while found := _MARKER.search(data, at):
        at = found.end()
        if found[1][0] == _SCAN:
            return at - 2
        if found[1][0] not in _BARE and at + 2 <= len(data):
            at += struct.unpack_from(">H", data, at)[0]
    return len(data)


def _check_segments(data: bytes) -> None:
    """Refuse what Pillow would read byte by byte, or join again and again, before the first scan of a JPEG."""
    at, padding, exif = 2, 0, 0
    for _ in range(_MOST_SEGMENTS):
        found = _NEXT.match(data, at, at + _MOST_PADDING + 2)
        padding += len(found[0]) - 2 if found else min(len(data) - at, _MOST_PADDING + 2)
        if padding > _MOST_PADDING:
            raise SampleError("too_much_work", "bytes between the segments of a JPEG")
        if not found or found[1][0] in (_SCAN, _END):
            return
        kind, at = found[1][0], found.end()
        if kind in _BARE:
            padding += 2
            continue
        if at + 2 > len(data):
            return
        size = struct.unpack_from(">H", data, at)[0]
        exif += size if kind == _EXIF and data[at + 2 : at + 6] == b"Exif" else 0
        if exif > _MOST_EXIF:
            raise SampleError("too_much_work", "EXIF data of a JPEG")
        at += size
    raise SampleError("too_much_work", f"more than {_MOST_SEGMENTS} segments before the pixels of a JPEG")


def _check_gif(data: bytes) -> None:
    """Refuse comments that Pillow would join block by block."""
    palette = 3 << ((data[10] & 7) + 1) if len(data) > 10 and data[10] & 0x80 else 0
    at, blocks = 13 + palette, 0
    while data[at : at + 1] == b"!":
        at += 2
        while at < len(data) and data[at]:
            at += 1 + data[at]
            blocks += 1
            if blocks > _MOST_BLOCKS:
                raise SampleError("too_much_work", "comments and other extensions of a GIF")
        at += 1
