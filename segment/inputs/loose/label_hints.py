"""Files that could be labels and that nobody asked for: noticed by name, told with the options that would use them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence

from segment.errors import SegmentError
from segment.inputs.findings import Findings
from segment.inputs.lookup import in_threads
from segment.inputs.parts import expand_pattern
from segment.inputs.words import IMAGE_FOLDERS, LABEL_ENDS, LABEL_FOLDERS, LABEL_PARTS, role_of
from segment.store.client import Entry, Store
from segment.store.names import basename, count, examples, is_image, is_label, shown, suffix_of
from segment.store.urls import join_url, parent_url, relative_url

_SAME_STEM = "{dir}/{stem}.png"
_LOSSLESS = frozenset({".png", ".apng", ".gif", ".tif", ".tiff", ".bmp", ".dib"})
# Words within names: those that say label, the plainest kind of label first, and those that say image.
_LABEL_WORDS = """
    labeltrainids trainids labelids label labels mask masks seg segmentation segmap semantic semseg gt groundtruth annot
    annotation annotations gtfine gtcoarse l p color instanceids instance instances polygons parsing
    """.split()  # noqa: SIM905
_IMAGE_WORDS = frozenset("image images img imgs im sat rgb photo pic frame leftimg8bit input orig original x".split())  # noqa: SIM905


def stem_of(relative: str) -> str:
    """Return a path without its suffix."""
    return relative[: len(relative) - len(suffix_of(relative))]


def suggest_labels(base: str, entries: Sequence[Entry], store: Store, findings: Findings) -> None:
    """Warn of files that could be the labels of an input nobody asked labels for, and name the option to use them.

    Args:
        entries: images and all other files of the input.
    """
    names = [relative_url(entry.url, base) for entry in entries if is_label(entry.url)]
    found = (
        _named_like_labels(names)
        or _in_label_folders(names, base)
        or _of_one_subject(names, base)
        or _beside(base, entries, store)
    )
    if found:
        findings.warnings.append(f"no labels are used, but {found}")


def labels_by_name(names: Sequence[str]) -> list[str]:
    """Return those of the names of images that look like the labels of others, by folder or by end."""
    return _pairs(names)[2] or _twins(names)[1] or [label for _, label in _same_subjects(names)]


def _pairs(names: Sequence[str]) -> tuple[str, str, list[str]]:
    """Look for pairs as `0.jpg` and `0_mask.png`, or `0.jpg` and `0.png`, in one folder.

    Returns:
        End, suffix and names of the most frequent labels.
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


def _named_like_labels(names: Sequence[str]) -> str:
    end, suffix, labels = _pairs(names)
    if not labels:
        return ""
    return (
        f"{count(len(labels), 'file is', 'files are')} named like the label of an image beside it, {examples(labels)}. "
        f"If so, use --label-pattern '{{dir}}/{{stem}}{end}{suffix}'"
    )


def _twins(names: Sequence[str]) -> tuple[str, list[str]]:
    """Look for a folder that is named like labels and holds files with the stems of images elsewhere in the input.

    Returns:
        The path of such an image; and the files.
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
            return max(
                elsewhere[stem_of(basename(twins[0]))], key=lambda name: _shared(stem_of(name)[::-1], end)
            ), twins
    return "", []


def _in_label_folders(names: Sequence[str], base: str) -> str:
    image, twins = _twins(names)
    if not twins:
        return ""
    images, labels = _apart(posixpath.dirname(image), posixpath.dirname(twins[0]))
    return (
        f"{count(len(twins), 'file')} in {shown(labels)}/ {'has' if len(twins) == 1 else 'have'} the name of "
        f"an image elsewhere in the input, {examples(twins)}. If these are labels, "
        f"{f'name {shown(join_url(base, images))} as input and ' if images else ''}use --labels "
        f"{shown(join_url(base, labels))}"
    )


def _is_label_folder(name: str) -> bool:
    return role_of(name) == "label" or any(word in name.lower() for word in LABEL_PARTS)


def _words(name: str) -> list[str]:
    """The words and numbers of a file's name without suffix, in lower case: `0_gtFine_labelIds.png` has three."""
    return re.findall(r"[^\W_]+", stem_of(basename(name)).lower())


def _same_subjects(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pair images and labels whose names differ by words alone that say which is which: `0_sat.jpg`, `0_mask.png`.

    Of several labels of an image the plainest counts.
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
    return [(images[subject], min(held, key=_plainness)) for subject, held in labels.items() if subject in images]


def _plainness(name: str) -> tuple[int, str]:
    return min(_LABEL_WORDS.index(word) for word in _words(name) if word in _LABEL_WORDS), name


def _patterns(image: str, label: str) -> list[str]:
    """Return label patterns, without folder, that lead from the name of an image to that of its label."""
    name, stem, other = basename(image), stem_of(basename(image)), stem_of(basename(label))
    suffix = basename(label)[len(other) :]
    if "{" in name + other or "}" in name + other:
        return []
    found = [f"{{name}}{suffix}"] if other == name else []
    if start := _shared(stem, other):
        cut = f"%{stem[start:]}" if stem[start:] else ""
        found.append(f"{{stem{cut}}}{other[start:]}{suffix}")
    if end := _shared(stem[::-1], other[::-1]):
        cut = f"#{stem[:-end]}" if stem[:-end] else ""
        found.append(f"{other[:-end]}{{stem{cut}}}{suffix}")
    return found


def _shared(one: str, other: str) -> int:
    """Length of the beginning that two texts share."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def usable_pattern(images: Sequence[str], labels: Sequence[str]) -> str:
    """Return the pattern by which most images find some of these labels; `""` if none is found.

    Args:
        images, labels: paths below folders that correspond to each other.
    """
    known = set(labels)
    whole = {stem_of(label): label for label in labels}
    likely = [(image, whole[image]) for image in images if image in whole][:1]
    likely += [(image, label) for image, label in _same_subjects([*images, *labels]) if label in known][:1]
    patterns = [f"{{dir}}/{pattern}" for image, label in likely for pattern in _patterns(image, label)]
    matches = {pattern: sum(_expanded(pattern, name) in known for name in images) for pattern in patterns}
    best = max(patterns, key=matches.__getitem__, default="")
    return best if matches.get(best) else ""


def _expanded(pattern: str, image: str) -> str:
    directory, name = posixpath.split(image)
    values = {"dir": directory or ".", "stem": stem_of(name), "name": name}
    return posixpath.normpath(expand_pattern(pattern, values))


def _of_one_subject(names: Sequence[str], base: str) -> str:
    pairs = _same_subjects(names)
    if not pairs:
        return ""
    image, label = min(pairs, key=lambda pair: _plainness(pair[1]))
    image_folder, label_folder = _apart(posixpath.dirname(image), posixpath.dirname(label))
    images = [relative for name, _ in pairs if (relative := _below(name, image_folder))]
    labels = [relative for _, name in pairs if (relative := _below(name, label_folder))]
    pattern = usable_pattern(images, labels)
    text = f"{count(len(pairs), 'file is', 'files are')} named like the label of an image, {examples([label])}. If so, "
    if not pattern:
        return f"{text}say by --label-pattern how their names differ"
    if image_folder == label_folder:
        return f"{text}use --label-pattern '{pattern}'"
    return (
        f"{text}name {shown(join_url(base, image_folder))} as input and use --labels "
        f"{shown(join_url(base, label_folder))} --label-pattern '{pattern}'"
    )


def _below(name: str, folder: str) -> str:
    """The path of a file below a folder; `""` if it is elsewhere."""
    return name if not folder else name[len(folder) + 1 :] if name.startswith(folder + "/") else ""


def _apart(one: str, other: str) -> tuple[str, str]:
    """Cut off the folders that the ends of two paths share: `a/val/x` and `b/val/x` give `a` and `b`."""
    ones, others = one.split("/"), other.split("/")
    while one != other and len(ones) > 1 and len(others) > 1 and ones[-1] == others[-1]:
        ones, others = ones[:-1], others[:-1]
    return "/".join(ones), "/".join(others)


def _beside(base: str, entries: Sequence[Entry], store: Store) -> str:
    """Look for the label of the first image where labels usually are: in a folder beside that of the images."""
    images = [entry for entry in entries if is_image(entry.url)]
    if not images or base.startswith(("http://", "https://")) or parent_url(base) == base:
        return ""
    image = relative_url(images[0].url, base)

    def label_at(place: tuple[str, str]) -> Entry | None:
        try:
            return store.info(join_url(place[0], _expanded(place[1], image)))
        except SegmentError:  # a store may refuse to tell what is not there
            return None

    places = [(folder, pattern) for folder, pattern in _usual_places(base) if folder != base]
    for (folder, pattern), label in zip(places, in_threads(label_at, places), strict=True):
        if label is not None:
            by = "" if pattern == _SAME_STEM else f" --label-pattern '{pattern}'"
            return (
                f"{shown(label.url)} could be the label of {shown(images[0].url)}. If so, use --labels "
                f"{shown(folder)}{by}"
            )
    return ""


def _usual_places(base: str) -> Iterator[tuple[str, str]]:
    """Folders in which the labels of the images in `base` usually are, and their pattern there."""
    parent, name = parent_url(base), basename(base)
    folders = [join_url(parent, word) for word in (*LABEL_FOLDERS, f"{name}_labels", f"{name}_masks", f"{name}annot")]
    folders += [join_url(parent, version, "labels") for version in ("v2.0", "v1.2")]  # Mapillary Vistas
    above = parent_url(parent)
    if basename(parent).lower() in IMAGE_FOLDERS and above != parent:
        folders += [join_url(above, word, name) for word in LABEL_FOLDERS]
    yield from ((folder, _SAME_STEM) for folder in folders)
    yield join_url(parent, f"{name}_labels"), "{dir}/{stem}_L.png"  # CamVid
    if "/leftImg8bit" in base:  # Cityscapes
        for what in ("labelTrainIds", "labelIds"):
            folder = base.replace("/leftImg8bit", "/gtFine", 1)
            yield folder, f"{{dir}}/{{stem%_leftImg8bit}}_gtFine_{what}.png"
