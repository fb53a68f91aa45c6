"""What the suffix of a tar member says: whether it may be the image of its sample, or the label.

A suffix is what is behind the key, in lower case: `jpg`, `seg.png`, `0001.rgb.jpg`.
"""

from __future__ import annotations

import re
from functools import lru_cache

from segment.inputs.words import LABEL_WORDS
from segment.store.names import IMAGE_SUFFIXES, LABEL_SUFFIXES

_MOST_DOTS = 16  # of a suffix that are looked at
_MOST_SUFFIXES = 512  # that are remembered
_OTHER_WORDS = frozenset(
    "depth disparity disp normal normals flow thumb thumbnail preview edge edges heatmap confidence alpha".split()  # noqa: SIM905
)
_LOSSLESS = ("png", "gif", "tif", "tiff", "bmp")


@lru_cache(_MOST_SUFFIXES)
def field_of(suffix: str) -> str:
    """The part of a suffix that may be the same in all samples: what is behind its last number.

    >>> field_of("0001.rgb.jpg"), field_of("seg.png"), field_of("v2.0001.jp2")
    ('rgb.jpg', 'seg.png', 'jp2')
    """
    parts = suffix.rsplit(".", _MOST_DOTS)
    numbered = (place for place, part in enumerate(parts[:-1], 1) if re.search(r"\d", part))
    return ".".join(parts[max(numbered, default=0) :])


@lru_cache(_MOST_SUFFIXES)
def may_be_image(suffix: str) -> bool:
    """Whether a suffix may be an image's: by its end, and its field does not say label.

    >>> may_be_image("left.jpg"), may_be_image("gt.png"), may_be_image("mask.0.png"), may_be_image("json")
    (True, False, True, False)
    """
    return f".{suffix.rpartition('.')[2]}" in IMAGE_SUFFIXES and not is_like_label(field_of(suffix))


def is_image_of_its_own(suffix: str) -> bool:
    """Whether nothing in a suffix says that the member is less than an image of its own, as in `mask.0.png`."""
    return may_be_image(suffix) and not is_like_label(suffix)


@lru_cache(_MOST_SUFFIXES)
def is_like_label(suffix: str) -> bool:
    """Whether a suffix says in words that the member is a label, as `gt.png` does."""
    return not LABEL_WORDS.isdisjoint(_words(suffix))


def may_be_label(suffix: str) -> bool:
    """Whether a member beside an image may be its label: a word says so, or it is one more image that is lossless."""
    last = suffix.rpartition(".")[2]
    if is_like_label(suffix):
        return f".{last}" in LABEL_SUFFIXES
    return last in _LOSSLESS and _OTHER_WORDS.isdisjoint(_words(suffix))


def _words(suffix: str) -> list[str]:
    return re.split(r"[^a-z]+", suffix.rpartition(".")[0])


@lru_cache(_MOST_SUFFIXES)
def rank(suffix: str) -> tuple[bool, bool, bool, bool, str]:
    """Which of several images is the sample's, the least first: a plain suffix, no word of others, JPEG, by name."""
    other = not _OTHER_WORDS.isdisjoint(_words(suffix))
    return is_like_label(suffix), "." in suffix, other, suffix.rpartition(".")[2] in _LOSSLESS, suffix
