"""Input sizes: of models that take images of any size, few enough that a runtime sees each again; and of views."""

from math import ceil, gcd

Size = tuple[int, int]  # height, width

LARGEST_SIDE = 16384
# Where a forecast needs a size: pixels of all sizes that stay compiled, unless a single image has more.
USUAL = (1024, 2048)
_TRIAL = 256  # pixels, about
_STRIDE = 32  # the largest stride of most networks


def bucket_side(side: int, multiple_of: int) -> int:
    """Return the side of the input for a side of an image: rounded up to a step that doubles with every octave.

    From `8 * multiple_of` on there are eight sizes an octave, and a side grows by less than an eighth. With multiples
    of 32 that is 56 sizes up to 16,384.

    >>> [bucket_side(side, 32) for side in (375, 500, 720, 1080, 1920, 4000)]
    [384, 512, 768, 1152, 1920, 4096]
    """
    step = multiple_of
    while 16 * step <= side:
        step *= 2
    return ceil(side / step) * step


def bucket_size(size: Size, multiple_of: int) -> Size:
    """Return height and width of the input for an image of a size; see `bucket_side`."""
    return bucket_side(size[0], multiple_of), bucket_side(size[1], multiple_of)


def trial_side(multiple_of: int) -> int:
    """Return the side on which a model is tried when it is loaded.

    An odd multiple: a network that halves its input once more than `multiple_of` says fails there, not at some image.

    >>> [trial_side(multiple_of) for multiple_of in (1, 32, 64, 512)]
    [257, 288, 320, 512]
    """
    return multiple_of * (max(1, _TRIAL // multiple_of) | 1)


def scaled_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Return height and width of the view of a scale.

    They are rounded to the largest power of two, up to 32, that divides the side: a network of this stride takes them.
    """
    return _scaled_side(height, scale), _scaled_side(width, scale)


def _scaled_side(side: int, scale: float) -> int:
    step = step_of(side)
    return max(1, round(side * scale / step)) * step


def step_of(side: int) -> int:
    """Return the step in which a side of the input is scaled."""
    return gcd(side, _STRIDE)
