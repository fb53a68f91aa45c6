"""Find labels by name: pairs of names, folders and patterns that relate labels to their images."""

import posixpath
import re
from collections.abc import Sequence

from segment.inputs.label_patterns import expand_pattern, stem_of
from segment.inputs.roles import LABEL_ENDS, LABEL_PARTS, role_of
from segment.store.names import basename, is_image, suffix_of

_LOSSLESS = frozenset({".png", ".apng", ".gif", ".tif", ".tiff", ".bmp", ".dib"})
# Words in file names that indicate a label, the plainest kind of label first, and words that indicate an image.
_LABEL_WORDS = """
    labeltrainids trainids labelids label labels mask masks seg segmentation segmap semantic semseg gt groundtruth annot
    annotation annotations gtfine gtcoarse l p color instanceids instance instances polygons parsing
    """.split()  # noqa: SIM905
_NO_AFFIX = frozenset("!:[]")  # what ends a field of a label pattern, so that no affix in it may hold them
_IMAGE_WORDS = frozenset("image images img imgs im sat rgb photo pic frame leftimg8bit input orig original x".split())  # noqa: SIM905


def labels_by_name(names: Sequence[str]) -> list[str]:
    """Return the names that look like labels of other images in `names`, by folder or by ending."""
    return pairs_by_ending(names)[2] or pairs_by_folder(names)[1] or [label for _, label in pairs_by_subject(names)]


def pairs_by_ending(names: Sequence[str]) -> tuple[str, str, list[str]]:
    """Find pairs in one folder such as `0.jpg` and `0_mask.png`, or `0.jpg` and `0.png`.

    Returns:
        Ending of the stem, suffix and names of the most frequent kind of label.
    """
    by_stem: dict[str, list[str]] = {}
    for name in names:
        by_stem.setdefault(stem_of(name), []).append(name)
    pairs: dict[tuple[str, str], list[str]] = {}
    for stem, held in by_stem.items():
        is_ended = stem.endswith(LABEL_ENDS)
        ends = [end for end in LABEL_ENDS if stem.endswith(end) and stem[: -len(end)] in by_stem] if is_ended else []
        photos = any(suffix_of(name) not in _LOSSLESS for name in held)
        for name in held:
            same = [""] if photos and suffix_of(name) in _LOSSLESS else []
            for end in ends + same:
                pairs.setdefault((end, name[len(stem) :]), []).append(name)
    if not pairs:
        return "", "", []
    (end, suffix), labels = max(pairs.items(), key=lambda item: len(item[1]))
    return end, suffix, labels


def pairs_by_folder(names: Sequence[str]) -> tuple[str, list[str]]:
    """Find a label folder whose files have the stems of images elsewhere in the input.

    Returns:
        Path of one such image, and the files in the folder.
    """
    elsewhere: dict[str, list[str]] = {}
    inside: dict[str, list[str]] = {}
    for name in names:
        folders = name.split("/")[:-1]
        at = next((i for i, folder in enumerate(folders) if _is_label_folder(folder)), None)
        if at is None:
            elsewhere.setdefault(stem_of(basename(name)), []).append(name)
        else:
            inside.setdefault("/".join(folders[: at + 1]), []).append(name)
    for held in inside.values():
        twins = [name for name in held if stem_of(basename(name)) in elsewhere]
        if twins and 2 * len(twins) >= len(held):
            end = stem_of(twins[0])[::-1]
            images = elsewhere[stem_of(basename(twins[0]))]
            return max(images, key=lambda name: _common_prefix(stem_of(name)[::-1], end)), twins
    return "", []


def _is_label_folder(name: str) -> bool:
    return role_of(name) == "label" or any(word in name.lower() for word in LABEL_PARTS)


def _words(name: str) -> list[str]:
    """Return the words and numbers of a file name in lower case: `0_gtFine_labelIds.png` has three."""
    return re.findall(r"[^\W_]+", stem_of(basename(name)).lower())


def pairs_by_subject(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pair images and labels whose names differ only in words for image and label: `0_sat.jpg`, `0_mask.png`.

    Of several labels of an image the plainest is returned.
    """
    images: dict[tuple[str, ...], str] = {}
    labels: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        words = _words(name)
        subject = tuple(word for word in words if word not in _LABEL_WORDS and word not in _IMAGE_WORDS)
        if not subject:
            continue
        if any(word in _LABEL_WORDS for word in words) and suffix_of(name) in _LOSSLESS:
            labels.setdefault(subject, []).append(name)
        elif is_image(name):
            images.setdefault(subject, name)
    return [(images[subject], min(held, key=plainness)) for subject, held in labels.items() if subject in images]


def plainness(name: str) -> tuple[int, str]:
    """Return the sort key of a label's name: the plainest kind of label comes first."""
    return min(_LABEL_WORDS.index(word) for word in _words(name) if word in _LABEL_WORDS), name


def infer_pattern(images: Sequence[str], labels: Sequence[str]) -> str:
    """Return the label pattern that gives most images one of `labels`; `""` if none does.

    Args:
        images, labels: paths relative to folders that correspond to each other.
    """
    known = set(labels)
    by_stem = {stem_of(label): label for label in labels}
    likely = [(image, by_stem[image]) for image in images if image in by_stem][:1]
    likely += [(image, label) for image, label in pairs_by_subject([*images, *labels]) if label in known][:1]
    patterns = [f"{{dir}}/{pattern}" for image, label in likely for pattern in _patterns(image, label)]
    matches = {pattern: sum(expand_pattern(pattern, name) in known for name in images) for pattern in patterns}
    best = max(patterns, key=matches.__getitem__, default="")
    return best if matches.get(best) else ""


def _patterns(image: str, label: str) -> list[str]:
    """Return label patterns, without folder, that turn the name of an image into that of its label."""
    name, stem, other = basename(image), stem_of(basename(image)), stem_of(basename(label))
    suffix = basename(label)[len(other) :]
    if "{" in name + other or "}" in name + other:
        return []
    found = [f"{{name}}{suffix}"] if other == name else []
    if (start := _common_prefix(stem, other)) and _NO_AFFIX.isdisjoint(stem[start:]):
        cut = f"%{stem[start:]}" if stem[start:] else ""
        found.append(f"{{stem{cut}}}{other[start:]}{suffix}")
    if (end := _common_prefix(stem[::-1], other[::-1])) and _NO_AFFIX.isdisjoint(stem[:-end]):
        cut = f"#{stem[:-end]}" if stem[:-end] else ""
        found.append(f"{other[:-end]}{{stem{cut}}}{suffix}")
    return found


def _common_prefix(one: str, other: str) -> int:
    """Return the length of the prefix that two texts share."""
    return len(posixpath.commonprefix([one, other]))
