"""TIFFs that OpenCV and Pillow do not read, or read wrong: they get them as excerpts."""

import io

from segment.images.magic import image_format
from segment.images.tiff_excess import check_tiff
from segment.images.tiff_segments import TiffSegments
from segment.images.tiff_tags import TiffError, TiffPage


def segments_to_copy(data: bytes) -> TiffSegments | None:
    """Return the segments of a TIFF of which the decoders get excerpts; None of anything else.

    They do not know some compressions, nor BigTIFFs of the other byte order, and take damaged tiles for black, and what
    is missing of fax codes for white, without a word. Of tiles that reach beyond the image OpenCV takes rows of a wrong
    length (grey of 16 bits, or with alpha), it turns each tile by itself (orientations 2, 3, 6 and 7), and it refuses
    tiles without compression of no multiple of 1,024 bytes, and sparse files; seen in 5.0. Pillow takes the bytes of
    some numbers in the wrong order; seen in 13.0.

    Raises:
        SampleError: `too_much_work`, before anything else reads the file.
        TiffError: its tiles are too large, and far larger than its page.
    """
    if image_format(data) != "TIFF":
        return None
    check_tiff(data)
    try:
        segments = TiffSegments(TiffPage(io.BytesIO(data)))
    except TiffError:
        return None  # the decoder says what is wrong
    if not segments.is_unreadable:
        return None
    segments.check_size(by_window=False)
    return segments
