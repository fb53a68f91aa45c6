"""The segments of a JPEG, by which those are refused that are far more work than their pixels explain."""

import re
from collections.abc import Iterator

from PIL import Image

from segment.errors import SampleError

MOST_SCANS = 32  # over all pixels; encoders make about ten
MOST_WORK = 1 << 31  # pixels in all scans together, of an image with more scans

_MOST_SEGMENTS = 4096  # before its pixels, or where it has many scans; an ICC profile of 16 MB has 256
_MOST_PADDING = 1 << 16  # bytes between its segments
_MOST_EXIF = 8 << 20  # bytes of all its EXIF segments

# A marker, also behind entropy-coded data, in which \xff is followed by \x00 or is a restart: those are no segments.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")
_SCAN, _END, _START, _EXIF = 0xDA, 0xD9, 0xD8, 0xE1
_BARE = (_START, _END)  # markers without a length
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_DECODED_FRAMES = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}  # DCT, not hierarchical; the others are without loss, or differences


def _segments(data: bytes, most_gap: int | None = None) -> Iterator[tuple[int, int, int]]:
    """Yield the kind of each segment, and where its marker ends and it ends; none behind a gap of more than so much.

    They are at most one more than `_MOST_SEGMENTS`: a file may have millions.
    """
    at = 2
    for _ in range(_MOST_SEGMENTS + 1):
        found = _MARKER.search(data, at, len(data) if most_gap is None else at + most_gap + 2)
        if not found:
            return
        kind, start = found[1][0], found.end()
        at = start if kind in _BARE else start + int.from_bytes(data[start : start + 2], "big")
        yield kind, start, at


def check_segments(data: bytes) -> None:
    """Refuse what Pillow would read byte by byte, or join again and again, before the first scan.

    Raises SampleError: `too_much_work`.
    """
    behind, padding, exif = 2, 0, 0
    for number, (kind, start, end) in enumerate(_segments(data, _MOST_PADDING)):
        padding += start - 2 - behind
        if kind in (_SCAN, _END):
            break
        if number == _MOST_SEGMENTS:
            raise SampleError("too_much_work", f"more than {_MOST_SEGMENTS} segments before the pixels of a JPEG")
        exif += end - start if kind == _EXIF and data[start + 2 : start + 6] == b"Exif" else 0
        behind = end
    else:
        padding += max(0, len(data) - behind)
    if padding > _MOST_PADDING:
        raise SampleError("too_much_work", "bytes between the segments of a JPEG")
    if exif > _MOST_EXIF:
        raise SampleError("too_much_work", "EXIF data of a JPEG")


def check_scans(header: Image.Image, data: bytes) -> None:
    """Refuse too many scans over all pixels. Where one scan has all components, no other is decoded.

    Raises SampleError: `too_much_work`.
    """
    first = next((start for kind, start, _ in _segments(data) if kind == _SCAN), len(data))
    components = data[first + 2 : first + 3]
    if not header.info.get("progressive") and components == bytes([len(header.getbands())]):
        return
    pixels = header.width * header.height
    if _is_too_much(data.count(b"\xff\xda"), pixels):  # which is cheap, and no less than there are
        kinds = [kind for kind, _, _ in _segments(data)]
        shown = kinds[: kinds.index(_END)] if _END in kinds else kinds  # without those of thumbnails behind it
        if len(shown) > _MOST_SEGMENTS:
            raise SampleError("too_much_work", f"a JPEG of more than {_MOST_SEGMENTS} segments")
        if _is_too_much(shown.count(_SCAN), pixels):
            raise SampleError("too_much_work", f"a JPEG of {shown.count(_SCAN)} scans")


def _is_too_much(scans: int, pixels: int) -> bool:
    return scans > MOST_SCANS and scans * pixels > MOST_WORK


def has_odd_pixels(data: bytes) -> bool:
    """Return whether the pixels of a JPEG have more than 8 bits, or are packed in a way that is not decoded."""
    frame = next(((kind, start) for kind, start, _ in _segments(data, _MOST_PADDING) if kind in _FRAMES), None)
    return frame is not None and (frame[0] not in _DECODED_FRAMES or data[frame[1] + 2 : frame[1] + 3] != b"\x08")
