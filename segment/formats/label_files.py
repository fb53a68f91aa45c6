"""Labels of loose images: found by relative path, by a pattern; and noticed where nobody asked for them."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Mapping, Sequence

from segment.errors import SegmentError, UsageError
from segment.findings import Findings, Reason, by_reason
from segment.formats.lookup import in_threads, look_up
from segment.formats.words import IMAGE_FOLDERS, LABEL_ENDS, LABEL_FOLDERS, LABEL_PARTS, role_of
from segment.names import basename, count, examples, is_image, is_label, no_data, shown, suffix_of
from segment.parts import InputOptions, expand_pattern
from segment.store import Entry, Store
from segment.urls import join_url, parent_url, relative_url, to_url


def labels_by_stem(
    base: str, images: Sequence[Entry], folder: str, options: InputOptions, store: Store, findings: Findings
) -> dict[str, Entry]:
    """Return label entries by image URL, matched by path below the two folders, without suffix.

    Raises:
        UsageError: no image has a label there, or the images would be their own labels.
    """
    if folder == base:
        raise UsageError(
            f"{shown(folder)}: the labels are in the input's own folder, so every image would be its own "
            "label. Say how their names differ with --label-pattern, for example '{dir}/{stem}_L.png'"
        )
    found = _label_files(base, folder, options, store, findings)
    # PNG first: of several files with one stem it is the one that holds exact indices.
    by_stem: dict[str, Entry] = {}
    for entry in sorted(found, key=lambda entry: suffix_of(entry.url) != ".png"):
        by_stem.setdefault(_stem(relative_url(entry.url, folder)), entry)
    stems = ((image.url, _stem(relative_url(image.url, base))) for image in images)
    labels = {url: by_stem[stem] for url, stem in stems if stem in by_stem}
    if images and not labels:
        looked = join_url(folder, _stem(relative_url(images[0].url, base)))
        have = f"{count(len(found), 'image')} there, {examples(e.url for e in found)}" if found else "no images there"
        odd = "".join(f"; {item}" for item in by_reason(findings.left_out) if item.reason == "label_format")
        raise UsageError(
            f"none of the {count(len(images), 'image')} has a label: looked for {shown(looked)}.png "
            f"(or another image suffix); {have}{odd}"
        )
    _tell_unmatched(images, labels, found, folder, base, findings)
    return labels


def _label_files(base: str, folder: str, options: InputOptions, store: Store, findings: Findings) -> list[Entry]:
    """List the label images of a folder; what else is there is counted."""
    found = []
    left: dict[Reason, list[str]] = defaultdict(list)
    for entry in store.list(folder):
        name = relative_url(entry.url, folder)
        if base.startswith(folder + "/") and entry.url.startswith(base + "/"):
            continue
        if reason := no_data(name, include_hidden=options.include_hidden):
            left[reason].append(name)
        elif is_label(name):
            found.append(entry)
        else:
            left["label_format"].append(name)
    for why, names in left.items():
        findings.leave_out(why, names)
    return found


def _tell_unmatched(
    images: Sequence[Entry],
    labels: Mapping[str, Entry],
    found: Sequence[Entry],
    folder: str,
    base: str,
    findings: Findings,
) -> None:
    bare = [relative_url(image.url, base) for image in images if image.url not in labels]
    if bare:
        findings.warnings.append(
            f"{len(bare)} of {count(len(images), 'image')} {'has' if len(bare) == 1 else 'have'} no label in "
            f"{shown(folder)}: segmented, not scored; {examples(bare)}"
        )
    used = {label.url for label in labels.values()}
    idle = [relative_url(label.url, folder) for label in found if label.url not in used]
    findings.leave_out("unused_label", idle)


def labels_by_pattern(
    base: str,
    images: Sequence[Entry],
    everything: Mapping[str, Entry],
    options: InputOptions,
    store: Store,
    findings: Findings,
) -> tuple[list[Entry], dict[str, Entry]]:
    """Return the images that are no labels, and label entries by image URL.

    A label may have any name that the pattern gives: a hidden one, or one with a suffix that is no image's.

    Args:
        everything: all objects below `base`, by URL.

    Raises:
        UsageError: no image has a label.
    """
    folder = to_url(options.labels) if options.labels is not None else base
    pattern = options.label_pattern or ""
    wanted = {entry.url: _expand(pattern, relative_url(entry.url, base), folder) for entry in images}
    listed = {} if folder == base else {entry.url: entry for entry in store.list(folder)}
    elsewhere = [
        url for url in wanted.values() if url not in everything and url not in listed and not _below(url, folder)
    ]
    there = {**everything, **listed, **look_up(elsewhere, store)}
    taken = {url for image, url in wanted.items() if url in there and url != image}
    kept = [entry for entry in images if entry.url not in taken]
    labels = {entry.url: there[wanted[entry.url]] for entry in kept if wanted[entry.url] in there}
    labels = {image: label for image, label in labels.items() if image != label.url}
    if kept and not labels:
        raise UsageError(
            f"none of the {count(len(kept), 'image')} has a label: with --label-pattern '{pattern}' looked "
            f"for {shown(wanted[kept[0].url])} as the label of {shown(kept[0].url)}"
        )
    idle = [entry for url, entry in listed.items() if is_label(url) and url not in everything]
    _tell_unmatched(kept, labels, idle, folder, base, findings)
    return kept, labels


def _below(url: str, folder: str) -> bool:
    return url.startswith(folder + "/")


def _expand(pattern: str, relative: str, folder: str) -> str:
    """Return the URL that a label pattern gives for an image; `{dir}` of a top-level image is `.`."""
    directory, name = posixpath.split(relative)
    path = expand_pattern(pattern, {"stem": _stem(name), "dir": directory or ".", "name": name})
    return join_url(folder, posixpath.normpath(path))


def _stem(relative: str) -> str:
    return relative[: len(relative) - len(suffix_of(relative))]


def suggest_labels(base: str, entries: Sequence[Entry], store: Store, findings: Findings) -> None:
    """Warn of files that could be the labels of an input nobody asked labels for, and name the option to use them.

    Args:
        entries: images and all other files of the input.
    """
    names = [relative_url(entry.url, base) for entry in entries if is_label(entry.url)]
    found = _named_like_labels(names) or _in_label_folders(names, base) or _beside(base, entries, store)
    if found:
        findings.warnings.append(f"no labels are used, but {found}")


def labels_by_name(names: Sequence[str]) -> list[str]:
    """Return those of the names of images that look like the labels of others, by folder or by end."""
    return _pairs(names)[2] or _twins(names)[1]


def _pairs(names: Sequence[str]) -> tuple[str, str, list[str]]:
    """Look for pairs as `0.jpg` and `0_mask.png` in one folder: end, suffix and names of the most frequent labels."""
    by_stem = {_stem(name): name for name in names}
    pairs: dict[tuple[str, str], list[str]] = {}
    for stem, name in by_stem.items():
        if not stem.endswith(LABEL_ENDS):
            continue
        for end in LABEL_ENDS:
            if stem.endswith(end) and stem[: -len(end)] in by_stem:
                pairs.setdefault((end, suffix_of(name)), []).append(name)
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
    """Look for a folder that is named like labels and holds files with the stems of images elsewhere in the input."""
    stems_elsewhere: set[str] = set()
    inside: dict[str, list[str]] = {}
    for name in names:
        folders = name.split("/")[:-1]
        at = next((i for i, folder in enumerate(folders) if _is_label_folder(folder)), None)
        if at is None:
            stems_elsewhere.add(_stem(basename(name)))
        else:
            inside.setdefault("/".join(folders[: at + 1]), []).append(name)
    for folder, held in inside.items():
        twins = [name for name in held if _stem(basename(name)) in stems_elsewhere]
        if twins and 2 * len(twins) >= len(held):
            return folder, twins
    return "", []


def _in_label_folders(names: Sequence[str], base: str) -> str:
    folder, twins = _twins(names)
    if not twins:
        return ""
    return (
        f"{count(len(twins), 'file')} in {shown(folder)}/ {'has' if len(twins) == 1 else 'have'} the name of "
        f"an image elsewhere in the input, {examples(twins)}. If these are labels, name the folder of the "
        f"images as input and use --labels {shown(join_url(base, folder))}"
    )


def _is_label_folder(name: str) -> bool:
    return role_of(name) == "label" or any(part in name.lower() for part in LABEL_PARTS)


def _beside(base: str, entries: Sequence[Entry], store: Store) -> str:
    """Look for the label of the first image where labels usually are: in a folder beside that of the images."""
    images = [entry for entry in entries if is_image(entry.url)]
    parent, name = parent_url(base), basename(base)
    if not images or base.startswith(("http://", "https://")) or parent == base:
        return ""
    stem = _stem(relative_url(images[0].url, base))
    folders = [join_url(parent, word) for word in (*LABEL_FOLDERS, f"{name}_labels", f"{name}_masks", f"{name}annot")]
    above = parent_url(parent)
    if basename(parent).lower() in IMAGE_FOLDERS and above != parent:
        folders += [join_url(above, word, name) for word in LABEL_FOLDERS]

    def label_in(folder: str) -> Entry | None:
        try:
            return store.info(f"{join_url(folder, stem)}.png")
        except SegmentError:  # a store may refuse to tell what is not there
            return None

    places = [folder for folder in folders if folder != base]
    for folder, label in zip(places, in_threads(label_in, places), strict=True):
        if label is not None:
            return (
                f"{shown(label.url)} could be the label of {shown(images[0].url)}. If so, use --labels {shown(folder)}"
            )
    return ""
