"""Suggest labels: find files that may be labels where no labels are configured, and name the option that uses them."""

import posixpath
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, islice

from segment.errors import SegmentError
from segment.inputs.findings import Findings
from segment.inputs.label_names import infer_pattern, pairs_by_ending, pairs_by_folder, pairs_by_subject, plainness
from segment.inputs.label_patterns import expand_pattern
from segment.inputs.lookup import in_threads
from segment.inputs.roles import IMAGE_FOLDERS, LABEL_FOLDERS
from segment.store.client import Entry, Store
from segment.store.names import basename, count, examples, is_image, is_label, shown
from segment.store.urls import join_url, parent_url, relative_url

_WHOLE = 100_000  # names that are compared; as many more are some of each folder
_OF_FOLDER = 1000

_SAME_STEM = "{dir}/{stem}.png"


def suggest_labels(base: str, entries: Sequence[Entry], store: Store, findings: Findings) -> None:
    """Warn of files that may be the labels of an input without label options, and name the option that uses them.

    Args:
        store: where label folders beside the input are looked up.
    """
    names = list(_some_of_each_folder(relative_url(entry.url, base) for entry in entries if is_label(entry.url)))
    found = _by_ending(names) or _by_folder(names, base) or _by_subject(names, base) or _beside(base, entries, store)
    if found:
        findings.warnings.append(f"no labels are used, but {found}")


def _some_of_each_folder(names: Iterable[str]) -> Iterator[str]:
    """Yield all names of an input of usual size; of a larger one the first of each folder, where pairs begin alike."""
    held = islice(names, _WHOLE)
    yield from held
    folders = (islice(some, _OF_FOLDER) for _, some in groupby(names, key=posixpath.dirname))
    yield from islice(chain.from_iterable(folders), _WHOLE)


def _by_ending(names: Sequence[str]) -> str:
    end, suffix, labels = pairs_by_ending(names)
    if not labels:
        return ""
    return (
        f"{count(len(labels), 'file is', 'files are')} named like the label of an image beside it, {examples(labels)}. "
        f"If so, use --label-pattern '{{dir}}/{{stem}}{end}{suffix}'"
    )


def _by_folder(names: Sequence[str], base: str) -> str:
    image, labels = pairs_by_folder(names)
    if not labels:
        return ""
    image_folder, label_folder = _without_shared_end(posixpath.dirname(image), posixpath.dirname(labels[0]))
    return (
        f"{count(len(labels), 'file')} in {shown(label_folder)}/ {'has' if len(labels) == 1 else 'have'} the name of "
        f"an image elsewhere in the input, {examples(labels)}. If these are labels, "
        f"{f'name {shown(join_url(base, image_folder))} as input and ' if image_folder else ''}use --labels "
        f"{shown(join_url(base, label_folder))}"
    )


def _by_subject(names: Sequence[str], base: str) -> str:
    pairs = pairs_by_subject(names)
    if not pairs:
        return ""
    image, label = min(pairs, key=lambda pair: plainness(pair[1]))
    image_folder, label_folder = _without_shared_end(posixpath.dirname(image), posixpath.dirname(label))
    images = [relative for name, _ in pairs if (relative := _below(name, image_folder))]
    labels = [relative for _, name in pairs if (relative := _below(name, label_folder))]
    pattern = infer_pattern(images, labels)
    text = f"{count(len(pairs), 'file is', 'files are')} named like the label of an image, {examples([label])}. If so, "
    if not pattern:
        return f"{text}describe by --label-pattern how their names differ"
    if image_folder == label_folder:
        return f"{text}use --label-pattern '{pattern}'"
    return (
        f"{text}name {shown(join_url(base, image_folder))} as input and use --labels "
        f"{shown(join_url(base, label_folder))} --label-pattern '{pattern}'"
    )


def _below(name: str, folder: str) -> str:
    """Return the path of a file below a folder; `""` if it is elsewhere."""
    return name if not folder else name[len(folder) + 1 :] if name.startswith(folder + "/") else ""


def _without_shared_end(one: str, other: str) -> tuple[str, str]:
    """Cut off the folders that two paths share at their ends: `a/val/x` and `b/val/x` give `a` and `b`."""
    ones, others = one.split("/"), other.split("/")
    while one != other and len(ones) > 1 and len(others) > 1 and ones[-1] == others[-1]:
        ones, others = ones[:-1], others[:-1]
    return "/".join(ones), "/".join(others)


def _beside(base: str, entries: Sequence[Entry], store: Store) -> str:
    """Look for the label of the first image in the usual label folders beside the image folder."""
    first = next((entry for entry in entries if is_image(entry.url)), None)
    if not first or base.startswith(("http://", "https://")) or parent_url(base) == base:
        return ""
    image = relative_url(first.url, base)

    def label_at(place: tuple[str, str]) -> Entry | None:
        try:
            return store.info(join_url(place[0], expand_pattern(place[1], image)))
        except SegmentError:  # a store may refuse access to keys that do not exist
            return None

    places = [(folder, pattern) for folder, pattern in _usual_places(base) if folder != base]
    for (folder, pattern), label in zip(places, in_threads(label_at, places), strict=True):
        if label is not None:
            by = "" if pattern == _SAME_STEM else f" --label-pattern '{pattern}'"
            return (
                f"{shown(label.url)} could be the label of {shown(first.url)}. If so, use --labels {shown(folder)}{by}"
            )
    return ""


def _usual_places(base: str) -> Iterator[tuple[str, str]]:
    """Yield the usual label folders of the images in `base`, each with its label pattern."""
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
