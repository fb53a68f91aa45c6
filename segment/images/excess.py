"""Refuse images that are made to be far more work than their size and pixels explain, before a library reads them.

A decoder does what a file demands: thousands of scans over all pixels, gigabytes behind the last row, millions of empty
chunks. No time limit ends native code, so the demand is counted first, at a cost that no ordinary image notices.
"""

from PIL import Image

from segment.errors import SampleError
from segment.images.jpeg_excess import check_scans, check_segments
from segment.images.magic import image_format
from segment.images.png_excess import check_png, check_png_pixels
from segment.images.tiff_excess import check_tiff

_MOST_BLOCKS = 1 << 14  # of a GIF before its first frame, of up to 255 bytes


def check_structure(data: bytes) -> None:
    """Refuse a file by its structure, before its header is opened. Raises SampleError: `too_much_work`."""
    kind = image_format(data)
    if kind == "JPEG":
        check_segments(data)
    elif kind == "PNG":
        check_png(data)
    elif kind == "TIFF":
        check_tiff(data)
    elif data.startswith(b"GIF8"):
        _check_gif(data)


def check_work(header: Image.Image, data: bytes) -> None:
    """Refuse an image by what its pixels demand, once it is known that they are not too many.

    Raises SampleError: `too_much_work`.
    """
    if header.format == "PNG":
        check_png_pixels(data)
    elif header.format in ("JPEG", "MPO"):
        check_scans(header, data)


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
