"""Labels of loose images by a label pattern: what the images want is sorted, and read beside the listings."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from segment.errors import UsageError
from segment.inputs.findings import Findings
from segment.inputs.label_patterns import expand_pattern
from segment.inputs.lookup import look_up
from segment.inputs.loose.label_files import FOUND, Labels, Matches, report
from segment.inputs.parts import MISSING
from segment.job import InputOptions
from segment.store.client import Entry, Store
from segment.store.entries import Entries
from segment.store.names import count, is_label, shown
from segment.store.sorted_rows import SortedRows, beside, not_in
from segment.store.urls import join_url, parent_url, relative_url, to_url

_WANTED = pa.schema([("url", pa.binary()), ("image", pa.int64())])
_ELSEWHERE = pa.schema([("folder", pa.binary()), *_WANTED])


def wanted_labels(base: str, images: Iterable[Entry], options: InputOptions) -> Iterator[str]:
    """Yield the URL of each image's label by the label pattern; nothing without a pattern."""
    if options.label_pattern is None:
        return
    folder = to_url(options.labels) if options.labels is not None else base
    for image in images:
        yield join_url(folder, expand_pattern(options.label_pattern, relative_url(image.url, base)))


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
        images: the images below it, sorted by URL.
        everything: all objects of the input, sorted by URL.
        options: with a label pattern.
        store: where labels outside the input are looked up.
        whole: whether `everything` holds all objects below `base`, so that no others are looked up there.

    Raises:
        UsageError: no image has a label.
    """
    folder = to_url(options.labels) if options.labels is not None else base
    listed: Sequence[Entry] = () if folder == base else store.list(folder)

    def is_complete(url: str) -> bool:
        return _below(url, folder) and (whole or folder != base)

    wanted = SortedRows(((url, number) for number, url in enumerate(wanted_labels(base, images, options))), _WANTED)
    found = _found(wanted, everything, listed, is_complete, store)
    kept = _kept(found, images)
    rows = ((url, *label) for url, label, own in _with_own(found, images) if kept[label[0]] and own != label[0])
    matches = Matches(rows)
    labels = Labels(
        images if kept.all() else Entries(image for image, is_kept in zip(images, kept, strict=True) if is_kept),
        Entries(matches.labels(map(int, np.flatnonzero(kept)))),
        matches.urls,
    )
    if len(labels.images) and not labels.number:
        image = labels.images[0]
        looked = next(wanted_labels(base, [image], options))
        raise UsageError(
            f"none of the {count(len(labels.images), 'image')} has a label: with --label-pattern "
            f"'{options.label_pattern}' looked for {shown(looked)} as the label of {shown(image.url)}"
        )
    report(matches, labels, base, folder, findings)
    # Objects in both listings are counted with the input, unless the labels are below it.
    idle = not_in((entry.url for entry in listed), matches.urls())
    if not _below(folder, base):
        idle = not_in(idle, (entry.url for entry in everything))
    findings.leave_out("unused_label", (relative_url(url, folder) for url in idle if is_label(url)))
    return labels


def _found(
    wanted: SortedRows,
    everything: Sequence[Entry],
    listed: Sequence[Entry],
    is_complete: Callable[[str], bool],
    store: Store,
) -> SortedRows:
    """Return the labels that exist, each with an image that wants it.

    One that is in no listing is looked up, unless the listings have all that there may be.
    """

    def in_listings() -> Iterator[tuple[str, int, int, str]]:
        pairs = ((url, number) for url, number in wanted)
        known = beside(pairs, ((entry.url, entry) for entry in everything if not entry.irregular))
        both = beside(((url, (number, entry)) for url, number, entry in known), ((e.url, e) for e in listed))
        for url, (number, entry), other in both:
            if label := other or entry:
                yield url, number, label.size, label.etag
            elif not is_complete(url):
                yield url, number, MISSING, ""

    found = SortedRows(in_listings(), FOUND)
    elsewhere = SortedRows(
        ((parent_url(url), url, number) for url, number, size, _ in found if size == MISSING), _ELSEWHERE
    )
    if next(iter(elsewhere), None) is None:
        return found
    there = ((entry.url, number, entry.size, entry.etag) for number, entry in look_up(elsewhere, store))
    return SortedRows(chain((row for row in found if row[2] != MISSING), there), FOUND)


def _kept(found: SortedRows, images: Sequence[Entry]) -> NDArray[np.bool_]:
    """Return of each image whether it is no label of another one."""
    kept = np.ones(len(images), np.bool_)
    for _, (image, _, _), own in _with_own(found, images):
        if own is not None and own != image:
            kept[own] = False
    return kept


def _with_own(found: SortedRows, images: Sequence[Entry]) -> Iterator[tuple[str, tuple[int, int, str], int | None]]:
    """Yield URL and facts of found labels, and the number of the image of this URL, if it is one."""
    numbered = ((image.url, number) for number, image in enumerate(images))
    return beside(((url, (image, size, etag)) for url, image, size, etag in found), numbered)


def _below(url: str, folder: str) -> bool:
    return url.startswith(folder + "/")
