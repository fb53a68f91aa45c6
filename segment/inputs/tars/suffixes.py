"""Classify the suffix of a tar member: may it be the image of its sample, or the label?

A suffix is the lower-case text after the key: `jpg`, `seg.png`, `0001.rgb.jpg`.
"""

import re
from functools import lru_cache

from segment.inputs.roles import LABEL_WORDS
from segment.store.names import IMAGE_SUFFIXES, LABEL_SUFFIXES

_MOST_DOTS = 16  # dots of a suffix that are examined
_MOST_SUFFIXES = 512  # cached results
_OTHER_WORDS = frozenset(
    "depth disparity disp normal normals flow thumb thumbnail preview edge edges heatmap confidence alpha".split()  # noqa: SIM905
)
_LOSSLESS = ("png", "gif", "tif", "tiff", "bmp")


@lru_cache(_MOST_SUFFIXES)
def field_of(suffix: str) -> str:
    """Return the part of a suffix that may be the same in all samples: the text after its last number.

    >>> field_of("0001.rgb.jpg"), field_of("seg.png"), field_of("v2.0001.jp2")
    ('rgb.jpg', 'seg.png', 'jp2')
    """
    parts = suffix.rsplit(".", _MOST_DOTS)
    numbered = (place for place, part in enumerate(parts[:-1], 1) if re.search(r"\d", part))
    return ".".join(parts[max(numbered, default=0) :])


@lru_cache(_MOST_SUFFIXES)
def may_be_image(suffix: str) -> bool:
    """Return whether a suffix may be an image's: it ends as one, and its field indicates no label.

    >>> may_be_image("left.jpg"), may_be_image("gt.png"), may_be_image("mask.0.png"), may_be_image("json")
    (True, False, True, False)
    """
    return f".{suffix.rpartition('.')[2]}" in IMAGE_SUFFIXES and not is_like_label(field_of(suffix))


def is_image_of_its_own(suffix: str) -> bool:
    """Return whether a member may be an image of its own sample: no word in its suffix means label (`mask.0.png`)."""
    return may_be_image(suffix) and not is_like_label(suffix)


@lru_cache(_MOST_SUFFIXES)
def is_like_label(suffix: str) -> bool:
    """Return whether a word in a suffix indicates a label, as in `gt.png`."""
    return not LABEL_WORDS.isdisjoint(_words(suffix))


def may_be_label(suffix: str) -> bool:
    """Return whether a member beside an image may be its label: a word says so, or it is a further lossless image."""
    last = suffix.rpartition(".")[2]
    if is_like_label(suffix):
        return f".{last}" in LABEL_SUFFIXES
    return last in _LOSSLESS and _OTHER_WORDS.isdisjoint(_words(suffix))


def _words(suffix: str) -> list[str]:
    return re.split(r"[^a-z]+", suffix.rpartition(".")[0])


@lru_cache(_MOST_SUFFIXES)
def rank(suffix: str) -> tuple[bool, bool, bool, bool, str]:
    """Return the sort key that puts a sample's image first: plain suffixes, no other kind, JPEG, then by name."""
    other = not _OTHER_WORDS.isdisjoint(_words(suffix))
    return is_like_label(suffix), "." in suffix, other, suffix.rpartition(".")[2] in _LOSSLESS, suffix
