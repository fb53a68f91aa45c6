"""Labels of loose images: find them by relative path or by a label pattern."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from itertools import groupby, islice, repeat

from segment.errors import UsageError
from segment.inputs.findings import Findings, by_reason
from segment.inputs.label_names import infer_pattern
from segment.inputs.label_patterns import expand_pattern, stem_of
from segment.inputs.lookup import look_up
from segment.job import InputOptions
from segment.store.client import Entry, Store
from segment.store.entries import Entries
from segment.store.local_files import with_hint
from segment.store.names import count, examples, is_image, is_label, shown, skip_reason, suffix_of
from segment.store.urls import join_url, relative_url, to_url

_TRIED = 100_000  # names that a pattern is sought in


class Labels:
    """The images of an input, and the label of each.

    Args:
        images: the images, in order.
        labels: the label of each image, in the order of the images; one without a URL stands for none. None: no image
            has one.
        used: URLs of images and labels, where the input holds labels, too.

    Attributes:
        images, used: as given.
        number: of images with a label.
    """

    def __init__(
        self, images: Sequence[Entry], labels: Entries | None = None, used: Container[str] | None = None
    ) -> None:
        self.images, self._labels, self.used = images, labels, used
        self.number = sum(map(bool, labels.urls())) if labels else 0

    def pairs(self) -> Iterator[tuple[Entry, Entry | None]]:
        """Yield each image with its label."""
        if self._labels is None:
            return zip(self.images, repeat(None))
        return ((image, label if label.url else None) for image, label in zip(self.images, self._labels, strict=True))

    def leaves(self, url: str) -> bool:
        """Return whether an object of the input is neither an image nor a label."""
        return not is_image(url) if self.used is None else url not in self.used


_NONE = Entry("", -1, "")


def labels_by_stem(
    base: str, images: Sequence[Entry], folder: str, options: InputOptions, store: Store, findings: Findings
) -> Labels:
    """Return labels matched by relative path without suffix. Both listings are sorted, and read side by side.

    Args:
        base: URL of the input's folder.
        images: the images below it, sorted by URL.
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
    found = Entries(_label_files(base, folder, options, store, findings))
    matches = _Matches(lambda idle: findings.leave_out("unused_label", (relative_url(e.url, folder) for e in idle)))
    labels = Labels(images, Entries(matches.of(images, base, found, folder)))
    if len(images) and not labels.number:
        looked = join_url(folder, stem_of(relative_url(images[0].url, base)))
        have = f"{count(len(found), 'image')} there, {examples(e.url for e in found)}" if found else "no images there"
        odd = "".join(f"; {item}" for item in by_reason(findings.left_out) if item.reason == "label_format")
        pattern = infer_pattern(
            [relative_url(image.url, base) for image in islice(images, _TRIED)],
            [relative_url(entry.url, folder) for entry in islice(found, _TRIED)],
        )
        advice = f". If these are the labels, add --label-pattern '{pattern}'" if pattern else ""
        message = (
            f"none of the {count(len(images), 'image')} has a label: looked for {shown(looked)}.png "
            f"(or another image suffix); {have}{odd}{advice}"
        )
        raise UsageError(with_hint(message, folder))
    bare = (relative_url(image.url, base) for image, label in labels.pairs() if not label)
    _report_bare(len(images) - labels.number, len(images), bare, folder, findings)
    _report_shared(matches.shared, matches.first_shared, findings)
    return labels


class _Matches:
    """Matches images with labels by stem, and counts labels that several use.

    Args:
        leave_out: takes labels that no image uses.

    Attributes:
        shared: images that have the label of an image before.
        first_shared: URL of the label that most images share.
    """

    def __init__(self, leave_out: Callable[[Iterable[Entry]], None]) -> None:
        self._leave_out = leave_out
        self.shared, self.first_shared, self._most = 0, "", 1

    def of(self, images: Iterable[Entry], base: str, labels: Iterable[Entry], folder: str) -> Iterator[Entry]:
        """Yield the label of each image, or `_NONE`."""
        left = _by_beginning(labels, folder)
        beginning, held = next(left, _END)
        for wanted, some in _by_beginning(images, base):
            while beginning < wanted:
                self._leave_out(held)
                beginning, held = next(left, _END)
            fitting: list[Entry] = []
            if beginning == wanted:
                fitting = list(held)
                beginning, held = next(left, _END)
            yield from self._of_same(some, base, fitting, folder)
        while beginning < _END[0]:
            self._leave_out(held)
            beginning, held = next(left, _END)

    def _of_same(self, images: Iterable[Entry], base: str, labels: Sequence[Entry], folder: str) -> Iterator[Entry]:
        # PNG first: of several files with one stem it is the lossless one.
        by_stem: dict[str, Entry] = {}
        for label in sorted(labels, key=lambda entry: suffix_of(entry.url) != ".png"):
            by_stem.setdefault(stem_of(relative_url(label.url, folder)), label)
        used: Counter[str] = Counter()
        for image in images:
            label = by_stem.get(stem_of(relative_url(image.url, base)), _NONE) if by_stem else _NONE
            if label.url:
                used[label.url] += 1
            yield label
        self._leave_out(label for label in labels if label.url not in used)
        for url, number in used.items():
            self.shared += number - 1
            if number > self._most:
                self.first_shared, self._most = url, number


_END: tuple[str, Iterator[Entry]] = ("\U0010ffff" * 4096, iter(()))  # after every name: none is as long


def _by_beginning(entries: Iterable[Entry], folder: str) -> Iterator[tuple[str, Iterator[Entry]]]:
    """Group entries, sorted by URL, by the beginning of their path up to its first dot, which goes before a suffix.

    No beginning is that of another, so groups are sorted whatever suffixes follow. Names without suffix have no place
    here.
    """
    last = ""
    for beginning, held in groupby(entries, key=lambda entry: relative_url(entry.url, folder).partition(".")[0] + "."):
        if beginning < last:
            raise AssertionError(f"{shown(folder)} is not listed in order")
        yield beginning, held
        last = beginning


def _label_files(base: str, folder: str, options: InputOptions, store: Store, findings: Findings) -> Iterator[Entry]:
    """Yield the label images of a folder; count its other files."""
    for entry in store.list(folder):
        name = relative_url(entry.url, folder)
        if base.startswith(folder + "/") and entry.url.startswith(base + "/"):
            continue
        if reason := skip_reason(name, include_hidden=options.include_hidden):
            findings.leave_out(reason, [name])
        elif is_label(name):
            yield entry
        else:
            findings.leave_out("label_format", [name])


def _report_bare(number: int, images: int, bare: Iterable[str], folder: str, findings: Findings) -> None:
    if number:
        findings.warnings.append(
            f"{number} of {count(images, 'image')} {'has' if number == 1 else 'have'} no label in "
            f"{shown(folder)}: segmented, not scored; {examples(bare)}"
        )


def _report_shared(number: int, first: str, findings: Findings) -> None:
    if number:
        findings.warnings.append(
            f"{count(number, 'image has', 'images have')} the label file of another image, {examples([first])}"
        )


def wanted_labels(base: str, images: Iterable[Entry], options: InputOptions) -> dict[str, str]:
    """Return the URL of each image's label by the label pattern, by image URL; empty without a pattern."""
    if options.label_pattern is None:
        return {}
    folder = to_url(options.labels) if options.labels is not None else base
    pattern = options.label_pattern
    return {entry.url: join_url(folder, expand_pattern(pattern, relative_url(entry.url, base))) for entry in images}


def labels_by_pattern(
    base: str,
    images: Sequence[Entry],
    everything: Sequence[Entry],
    options: InputOptions,
    store: Store,
    findings: Findings,
    *,
    whole: bool,
) -> Labels:
    """Return the images that are not labels themselves, and their labels.

    A label may have any name that the pattern gives, such as a hidden one or one without an image suffix.

    Args:
        base: URL of the input's folder.
        images: the images below it.
        everything: all objects of the input.
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
    known = {entry.url: entry for entry in everything}
    listed = {} if folder == base else {entry.url: entry for entry in store.list(folder)}
    elsewhere = [
        url
        for url in dict.fromkeys(wanted.values())
        if url not in known and url not in listed and not (_below(url, folder) and (whole or folder != base))
    ]
    there = {**known, **listed, **look_up(elsewhere, store)}
    taken = {url for image, url in wanted.items() if url in there and url != image}
    kept = [entry for entry in images if entry.url not in taken]
    labels = {entry.url: there[wanted[entry.url]] for entry in kept if wanted[entry.url] in there}
    labels = {image: label for image, label in labels.items() if image != label.url}
    if kept and not labels:
        raise UsageError(
            f"none of the {count(len(kept), 'image')} has a label: with --label-pattern '{pattern}' looked "
            f"for {shown(wanted[kept[0].url])} as the label of {shown(kept[0].url)}"
        )
    times = Counter(label.url for label in labels.values())
    bare = (relative_url(image.url, base) for image in kept if image.url not in labels)
    _report_bare(len(kept) - len(labels), len(kept), bare, folder, findings)
    _report_shared(len(labels) - len(times), times.most_common(1)[0][0] if times else "", findings)
    # Objects in both listings are counted with the input, unless the labels are below it.
    idle = (url for url in listed if is_label(url) and (_below(folder, base) or url not in known) and url not in times)
    findings.leave_out("unused_label", (relative_url(url, folder) for url in idle))
    used = {*(image.url for image in kept), *times}
    return Labels(kept, Entries(labels.get(image.url, _NONE) for image in kept), used)


def _below(url: str, folder: str) -> bool:
    return url.startswith(folder + "/")
