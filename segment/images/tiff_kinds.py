"""The kinds of pixels of TIFFs that are read as images."""

from segment.images.tiff_tags import TiffPage

_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _EXTRA, _SAMPLE_FORMAT = 258, 259, 262, 277, 338, 339  # tags
_WHITE_IS_0, _BLACK_IS_0, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8  # values of `_PHOTOMETRIC`
_NAMES = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "Lab", 32803: "raw sensor"}
_NUMBERS = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}  # by `_SAMPLE_FORMAT`
_COMPRESSIONS = {1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34925, 50000, 50001}
_ALPHAS = (1, 2)

# Bits of a sample, by what the samples are and their number. With alpha the further bands of RGB are left out.
_READ = {
    (_WHITE_IS_0, 1): (1, 2, 4, 8, 16),
    (_BLACK_IS_0, 1): (1, 2, 4, 8, 16),
    (_BLACK_IS_0, 2): (8,),
    (_RGB, 3): (8, 16),
    (_RGB, 4): (8, 16),
    (_RGB, 5): (8,),
    (_RGB, 6): (8,),
    (_PALETTE, 1): (1, 2, 4, 8),
    (_PALETTE, 2): (8,),
    (_CMYK, 4): (8, 16),
    (_YCBCR, 3): (8,),
    (_YCBCR, 1): (8,),  # of an old JPEG, which need not say that it has three
}


def unread_kind(page: TiffPage) -> str:
    """Return what an image's pixels are, if they are none that is read; else ''.

    Raises TiffError: the page is damaged.
    """
    compression, photometric = page.number(_COMPRESSION, 1), page.number(_PHOTOMETRIC, 0)
    samples, bits = page.number(_SAMPLES, 1), page.numbers(_BITS, 1)
    if compression not in _COMPRESSIONS:
        return f"a TIFF of compression {compression}"
    if odd := {*page.numbers(_SAMPLE_FORMAT, 1)} - {1, 4}:
        return f"a TIFF of {_NUMBERS.get(int(min(odd)), 'unknown')} numbers of {max(bits, default=1)} bits"
    if not bits:
        return ""  # the decoder says what is wrong
    is_read = {*bits} <= {*_READ.get((photometric, samples), ())} and len({*bits}) == 1
    if is_read and (samples <= 4 or page.number(_EXTRA, 0) in _ALPHAS):
        return ""
    name = _NAMES.get(photometric, f"photometric interpretation {photometric}")
    return f"a TIFF of {name} pixels, {samples} sample{'s' * (samples > 1)} of {max(bits)} bits"
