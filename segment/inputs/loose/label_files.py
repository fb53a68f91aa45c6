"""Labels of loose images: find them by relative path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby, islice, repeat
from operator import itemgetter

import pyarrow as pa

from segment.errors import UsageError
from segment.inputs.findings import Findings, by_reason
from segment.inputs.label_names import infer_pattern
from segment.inputs.label_patterns import stem_of
from segment.job import InputOptions
from segment.store.client import Entry, Store
from segment.store.entries import Entries
from segment.store.local_files import with_hint
from segment.store.names import count, examples, is_image, is_label, shown, skip_reason, suffix_of
from segment.store.sorted_rows import SortedRows, beside, not_in
from segment.store.urls import join_url, relative_url

_TRIED = 100_000  # names that a pattern is sought in
_FEW = 10_000  # labels whose names begin alike, that are in memory at once
_URLS = pa.schema([("url", pa.binary())])
_WANTED = pa.schema([("stem", pa.binary()), ("image", pa.int64())])
_USES = pa.schema([("image", pa.int64()), ("url", pa.binary()), ("size", pa.int64()), ("etag", pa.binary())])
_LABELS = pa.schema([("stem", pa.binary()), ("is_other", pa.bool_()), *list(_USES)[1:]])


class Labels:
    """The images of an input, and the label of each.

    Args:
        labels: the label of each image, in the order of the images; one without a URL stands for none. None: no image
            has one.
        used: yields the URLs of the labels, sorted, where the input may hold them, too.

    Attributes:
        may_be_inside: whether the input may hold the labels, too.
    """

    def __init__(
        self, images: Sequence[Entry], labels: Entries | None = None, used: Callable[[], Iterator[str]] | None = None
    ) -> None:
        self.images, self._labels, self._used = images, labels, used
        self.may_be_inside = used is not None
        self.number = sum(map(bool, labels.urls())) if labels else 0

    def pairs(self) -> Iterator[tuple[Entry, Entry | None]]:
        """Yield each image with its label."""
        if self._labels is None:
            return zip(self.images, repeat(None))
        return ((image, label if label.url else None) for image, label in zip(self.images, self._labels, strict=True))

    def left_over(self, urls: Iterable[str]) -> Iterator[str]:
        """Yield those objects of the input, sorted by URL, that are neither image nor label."""
        if self._used is None:
            return (url for url in urls if not is_image(url))
        return not_in(not_in(urls, (image.url for image in self.images)), self._used())


NO_LABEL = Entry("", -1, "")


def labels_by_stem(
    base: str, images: Sequence[Entry], folder: str, options: InputOptions, store: Store, findings: Findings
) -> Labels:
    """Return labels matched by relative path without suffix. Both listings are sorted, and read side by side.

    Args:
        images: the images below it, sorted by URL.
        options: whether hidden labels count.

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
    report_bare(len(images) - labels.number, len(images), bare, folder, findings)
    report_shared(matches.shared, matches.first_shared, findings)
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
        """Yield the label of each image, or `NO_LABEL`."""
        left = _by_beginning(labels, folder)
        beginning, held = next(left, _END)
        for wanted, some in _by_beginning(images, base):
            while beginning < wanted:
                self._leave_out(held)
                beginning, held = next(left, _END)
            fitting: list[Entry] = []
            if beginning == wanted:
                fitting = list(islice(held, _FEW + 1))
            if len(fitting) > _FEW:
                yield from self._of_many(some, base, chain(fitting, held), folder)
            else:
                yield from self._of_same(some, base, fitting, folder)
            if beginning == wanted:
                beginning, held = next(left, _END)
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
            label = by_stem.get(stem_of(relative_url(image.url, base)), NO_LABEL) if by_stem else NO_LABEL
            if label.url:
                used[label.url] += 1
            yield label
        self._leave_out(label for label in labels if label.url not in used)
        for url, number in used.items():
            self._count(url, number)

    def _of_many(self, images: Iterable[Entry], base: str, labels: Iterable[Entry], folder: str) -> Iterator[Entry]:
        """Do the same for too many labels for memory, as in a folder with a dot in its name: sort both by stem."""
        by_stem = SortedRows(((*_stem_and_rank(e, folder), e.url, e.size, e.etag) for e in labels), _LABELS)
        wanted = SortedRows(((_stem_and_rank(e, base)[0], number) for number, e in enumerate(images)), _WANTED)

        def matches() -> Iterator[tuple[str, list[tuple[str, int, str]], list[int] | None]]:
            held = ((stem, [row[2:] for row in same]) for stem, same in groupby(by_stem, key=itemgetter(0)))
            users = ((stem, [number for _, number in same]) for stem, same in groupby(wanted, key=itemgetter(0)))
            return beside(held, users)

        uses = SortedRows(((number, *held[0]) for _, held, users in matches() for number in users or ()), _USES)
        numbers = ((number, None) for number in range(sum(1 for _ in wanted)))
        for _, _, label in beside(numbers, ((number, (url, size, etag)) for number, url, size, etag in uses)):
            yield Entry(*label) if label else NO_LABEL
        idle = SortedRows(((row[0],) for _, held, users in matches() for row in held[bool(users) :]), _URLS)
        self._leave_out(Entry(url, -1, "") for (url,) in idle)
        firsts = ((users[0], held[0][0], len(users)) for _, held, users in matches() if users and len(users) > 1)
        for _, url, number in sorted(firsts):
            self._count(url, number)

    def _count(self, url: str, users: int) -> None:
        self.shared += users - 1
        if users > self._most:
            self.first_shared, self._most = url, users


def _stem_and_rank(entry: Entry, folder: str) -> tuple[str, bool]:
    """Return the stem of a label below a folder, and what sorts a PNG before others of its stem: it is lossless."""
    name = relative_url(entry.url, folder)
    return stem_of(name), suffix_of(name) != ".png"


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


def report_bare(number: int, images: int, bare: Iterable[str], folder: str, findings: Findings) -> None:
    if number:
        findings.warnings.append(
            f"{number} of {count(images, 'image')} {'has' if number == 1 else 'have'} no label in "
            f"{shown(folder)}: segmented, not scored; {examples(bare)}"
        )


def report_shared(number: int, first: str, findings: Findings) -> None:
    if number:
        findings.warnings.append(
            f"{count(number, 'image has', 'images have')} the label file of another image, {examples([first])}"
        )
