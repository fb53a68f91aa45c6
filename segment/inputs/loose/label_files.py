"""Labels of loose images: find them by relative path or by a label pattern."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from segment.errors import UsageError
from segment.inputs.findings import Findings, Reason, by_reason
from segment.inputs.label_names import infer_pattern
from segment.inputs.label_patterns import expand_pattern, stem_of
from segment.inputs.lookup import look_up
from segment.job import InputOptions
from segment.store.client import Entry, Store
from segment.store.local_files import with_hint
from segment.store.names import count, examples, is_label, shown, skip_reason, suffix_of
from segment.store.urls import join_url, relative_url, to_url


def labels_by_stem(
    base: str, images: Sequence[Entry], folder: str, options: InputOptions, store: Store, findings: Findings
) -> dict[str, Entry]:
    """Return label entries by image URL, matched by relative path without suffix.

    Args:
        base: URL of the input's folder.
        images: the images below it.
        folder: URL of the folder of labels.
        options: whether hidden labels count.
        store: lists the folder.
        findings: collects warnings and what is left out.

    Raises:
        UsageError: no image has a label there, or `folder` is `base`, where each image would be its own label.
    """
    if folder == base:
        raise UsageError(
            f"{shown(folder)}: the labels are in the input's own folder, so every image would be its own "
            "label. Describe how their names differ by --label-pattern, for example '{dir}/{stem}_L.png'"
        )
    found = _label_files(base, folder, options, store, findings)
    # PNG first: of several files with one stem it is the lossless one.
    by_stem: dict[str, Entry] = {}
    for entry in sorted(found, key=lambda entry: suffix_of(entry.url) != ".png"):
        by_stem.setdefault(stem_of(relative_url(entry.url, folder)), entry)
    stems = ((image.url, stem_of(relative_url(image.url, base))) for image in images)
    labels = {url: by_stem[stem] for url, stem in stems if stem in by_stem}
    if images and not labels:
        looked = join_url(folder, stem_of(relative_url(images[0].url, base)))
        have = f"{count(len(found), 'image')} there, {examples(e.url for e in found)}" if found else "no images there"
        odd = "".join(f"; {item}" for item in by_reason(findings.left_out) if item.reason == "label_format")
        pattern = infer_pattern(
            [relative_url(image.url, base) for image in images], [relative_url(entry.url, folder) for entry in found]
        )
        advice = f". If these are the labels, add --label-pattern '{pattern}'" if pattern else ""
        message = (
            f"none of the {count(len(images), 'image')} has a label: looked for {shown(looked)}.png "
            f"(or another image suffix); {have}{odd}{advice}"
        )
        raise UsageError(with_hint(message, folder))
    _report_unmatched(images, labels, found, folder, base, findings)
    return labels


def _label_files(base: str, folder: str, options: InputOptions, store: Store, findings: Findings) -> list[Entry]:
    """Return the label images of a folder; count its other files."""
    found = []
    left: dict[Reason, list[str]] = defaultdict(list)
    for entry in store.list(folder):
        name = relative_url(entry.url, folder)
        if base.startswith(folder + "/") and entry.url.startswith(base + "/"):
            continue
        if reason := skip_reason(name, include_hidden=options.include_hidden):
            left[reason].append(name)
        elif is_label(name):
            found.append(entry)
        else:
            left["label_format"].append(name)
    for why, names in left.items():
        findings.leave_out(why, names)
    return found


def _report_unmatched(
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
    if shared := len(labels) - len(used):
        first = Counter(label.url for label in labels.values()).most_common(1)[0][0]
        findings.warnings.append(
            f"{count(shared, 'image has', 'images have')} the label file of another image, {examples([first])}"
        )
    idle = [relative_url(label.url, folder) for label in found if label.url not in used]
    findings.leave_out("unused_label", idle)


def wanted_labels(base: str, images: Sequence[Entry], options: InputOptions) -> dict[str, str]:
    """Return the URL of each image's label by the label pattern, by image URL; empty without a pattern."""
    if options.label_pattern is None:
        return {}
    folder = to_url(options.labels) if options.labels is not None else base
    pattern = options.label_pattern
    return {entry.url: join_url(folder, expand_pattern(pattern, relative_url(entry.url, base))) for entry in images}


def labels_by_pattern(
    base: str,
    images: Sequence[Entry],
    everything: Mapping[str, Entry],
    options: InputOptions,
    store: Store,
    findings: Findings,
    *,
    whole: bool,
) -> tuple[list[Entry], dict[str, Entry]]:
    """Return the images that are not labels themselves, and label entries by image URL.

    A label may have any name that the pattern gives, such as a hidden one or one without an image suffix.

    Args:
        base: URL of the input's folder.
        images: the images below it.
        everything: all objects of the input by URL.
        options: with a label pattern.
        store: where labels outside the input are looked up.
        findings: collects warnings and what is left out.
        whole: whether `everything` holds all objects below `base`, so that no others are looked up there.

    Raises:
        UsageError: no image has a label.
    """
    folder = to_url(options.labels) if options.labels is not None else base
    pattern = options.label_pattern or ""
    wanted = wanted_labels(base, images, options)
    listed = {} if folder == base else {entry.url: entry for entry in store.list(folder)}
    elsewhere = [
        url
        for url in dict.fromkeys(wanted.values())
        if url not in everything and url not in listed and not (_below(url, folder) and (whole or folder != base))
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
    # Objects in both listings are counted with the input, unless the labels are below it.
    idle = [e for url, e in listed.items() if is_label(url) and (_below(folder, base) or url not in everything)]
    _report_unmatched(kept, labels, idle, folder, base, findings)
    return kept, labels


def _below(url: str, folder: str) -> bool:
    return url.startswith(folder + "/")
