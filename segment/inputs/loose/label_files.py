"""Labels of loose images: find them by relative path."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice, repeat
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
from segment.store.sorted_rows import Row, SortedRows, beside, not_in
from segment.store.urls import join_url, relative_url

_TRIED = 100_000  # names that a pattern is sought in
_WANTED = pa.schema([("stem", pa.binary()), ("image", pa.int64())])
_USES = pa.schema([("image", pa.int64()), ("url", pa.binary()), ("size", pa.int64()), ("etag", pa.binary())])
FOUND = pa.schema([_USES.field(name) for name in ("url", "image", "size", "etag")])
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


class Matches:
    """Which image has which label.

    Args:
        rows: URL, number of an image, size and etag of the labels of images, as in `FOUND`, in any order.

    Attributes:
        shared: images that have the label of another one.
        first_shared: URL of the label that most images have; of several the one whose first image comes first.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self._by_url = SortedRows(rows, FOUND)
        self.shared, self.first_shared = 0, ""
        most = (1, 0)
        for url, same in groupby(self._by_url, key=itemgetter(0)):
            users = [image for _, image, *_ in same]
            self.shared += len(users) - 1
            if (rank := (len(users), -users[0])) > most:
                self.first_shared, most = url, rank

    def labels(self, images: Iterable[int]) -> Iterator[Entry]:
        """Yield the label of each image, by its number, as `Labels` takes it."""
        rows = ((image, url, size, etag) for url, image, size, etag in self._by_url)
        uses = ((image, (url, size, etag)) for image, url, size, etag in SortedRows(rows, _USES))
        for _, _, label in beside(((image, None) for image in images), uses):
            yield Entry(*label) if label else _NO_LABEL

    def urls(self) -> Iterator[str]:
        """Yield the URL of each label, in order."""
        return (url for url, _ in groupby(self._by_url, key=itemgetter(0)))


_NO_LABEL = Entry("", -1, "")


def labels_by_stem(
    base: str, images: Sequence[Entry], folder: str, options: InputOptions, store: Store, findings: Findings
) -> Labels:
    """Return labels matched by relative path without suffix.

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
    matches = Matches(_by_stem(images, base, found, folder))
    labels = Labels(images, Entries(matches.labels(range(len(images)))))
    idle = not_in(found.urls(), matches.urls())
    findings.leave_out("unused_label", (relative_url(url, folder) for url in idle))
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
    report(matches, labels, base, folder, findings)
    return labels


def _by_stem(images: Iterable[Entry], base: str, labels: Iterable[Entry], folder: str) -> Iterator[Row]:
    """Yield rows as `Matches` takes them: of several labels of one stem the PNG, which is the lossless one."""
    named = ((relative_url(e.url, folder), e) for e in labels)
    ranked = ((stem_of(name), suffix_of(name) != ".png", e.url, e.size, e.etag) for name, e in named)
    by_stem = groupby(SortedRows(ranked, _LABELS), key=itemgetter(0))
    firsts: Iterator[tuple[str, Row]] = ((stem, next(same)[2:]) for stem, same in by_stem)
    wanted = SortedRows(((stem_of(relative_url(e.url, base)), number) for number, e in enumerate(images)), _WANTED)
    for _, image, label in beside(((stem, number) for stem, number in wanted), firsts):
        if label:
            yield (label[0], image, *label[1:])


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


def report(matches: Matches, labels: Labels, base: str, folder: str, findings: Findings) -> None:
    """Warn of images without a label, and of labels that several have."""
    if number := len(labels.images) - labels.number:
        bare = (relative_url(image.url, base) for image, label in labels.pairs() if not label)
        findings.warnings.append(
            f"{number} of {count(len(labels.images), 'image')} {'has' if number == 1 else 'have'} no label in "
            f"{shown(folder)}: segmented, not scored; {examples(bare)}"
        )
    if matches.shared:
        findings.warnings.append(
            f"{count(matches.shared, 'image has', 'images have')} the label file of another image, "
            f"{examples([matches.first_shared])}"
        )
