"""Loose image files below a prefix: plan them, and read the parts of loose and listed files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from segment.errors import InputChanged, OverLimit, TooSlow, UsageError, input_changed
from segment.inputs.changes import Known
from segment.inputs.findings import Findings
from segment.inputs.large_files import large_spans, select_tiffs
from segment.inputs.lookup import in_threads
from segment.inputs.loose.label_files import Labels, labels_by_stem
from segment.inputs.loose.label_hints import suggest_labels
from segment.inputs.loose.pattern_labels import labels_by_pattern
from segment.inputs.parts import (
    NOT_ALLOWED,
    UNKNOWN,
    Member,
    Part,
    Sample,
    Span,
    fault_of,
    samples_of_members,
    spans_to_read,
)
from segment.inputs.shards import Planned, Remade, file_shards
from segment.job import InputOptions
from segment.store.client import Entry, Store
from segment.store.entries import Entries
from segment.store.names import as_text, count, examples, is_image, is_storable, listed, shown
from segment.store.scope import NotAllowed, Scope
from segment.store.urls import is_http, relative_url, to_url


def plan_files(
    base: str,
    entries: Entries,
    everything: Sequence[Entry],
    options: InputOptions,
    store: Store,
    findings: Findings,
    known: Known | None = None,
    *,
    whole: bool,
) -> Planned:
    """Plan the images among `entries`, except those of `known` that have not changed.

    Args:
        base: URL of the folder that ids are relative to.
        entries: objects below `base`: images and other files.
        everything: all objects of the input, hidden ones too: a label pattern may name any of them.
        options: label options of the job.
        store: where labels are looked up.
        findings: collects notes, warnings and what is left out.
        known: the input that is already planned.
        whole: whether `everything` holds all objects below `base`.

    Raises:
        UsageError: labels are configured and no image has one; a name is not UTF-8; or columns are to be kept.
    """
    if options.kept_columns:
        raise UsageError(
            f"keep = {listed(options.kept_columns)}: loose files come without metadata. `segment score --by` slices "
            "them by folder or by what a pattern finds in their ids; for other values give a list of them as input, a "
            ".csv with a column of images and others to keep"
        )
    are_images = all(map(is_image, entries.urls()))
    images = entries if are_images else Entries(entry for entry in entries if is_image(entry.url))
    _refuse_undecodable_names(images.urls())
    labels = Labels(images)
    if options.label_pattern is not None:
        labels = labels_by_pattern(base, images, everything, options, store, findings, whole=whole)
    elif options.labels is not None:
        labels = labels_by_stem(base, images, to_url(options.labels), options, store, findings)
    if labels.may_be_inside or not are_images:
        findings.leave_out_files(relative_url(url, base) for url in labels.left_over(entries.urls()))
    if labels.number:
        _refuse_undecodable_names(label.url for _, label in labels.pairs() if label)
    if not labels.number:
        suggest_labels(base, entries, store.within(None), findings)  # it looks beside the input

    def members() -> Iterator[Member]:
        for image, label in labels.pairs():
            yield Member(relative_url(image.url, base), Span.of(image), Span.of(label) if label else None)

    if known:
        changed = known.images_to_plan(Remade(members))
        return Planned(Remade(lambda: file_shards(base, changed)))
    counts = len(labels.images), labels.number
    return Planned(Remade(lambda: file_shards(base, members())), counts=counts, ids_are_unique=True)


def read_files(part: Part, options: InputOptions, store: Store, *, windowed: bool = False) -> list[Sample]:
    """Read the images and labels of a part concurrently. One outside of the scope of the store is a fault of its row.

    Args:
        part, options, store: as in `segment.inputs.discover.read_part`.
        windowed: leave large TIFFs to the caller.

    Raises:
        InputChanged: a file does not exist any more, or its etag or size differs from the plan.
    """
    scope = store.scope or Scope()
    part = _without(part, lambda span: not scope.allows(span.url))
    try:
        return _read_files(part, options, store, windowed=windowed)
    except NotAllowed:  # the target of a redirect, which only a request shows
        part = _without(part, lambda span: _is_refused(span, options.max_image_bytes, store))
        return _read_files(part, options, store, windowed=windowed)


def _without(part: Part, is_refused: Callable[[Span], bool]) -> Part:
    """Mark what may not be read as a fault of its image, which names it all the same."""

    def marked(span: Span) -> Span:
        return span if span.is_absent or not is_refused(span) else replace(span, size=NOT_ALLOWED)

    members = [replace(m, image=marked(m.image), label=marked(m.label) if m.label else None) for m in part.members]
    return replace(part, members=members)


def _is_refused(span: Span, most: int, store: Store) -> bool:
    try:
        store.read_if_exists(span.url, span.etag, most)
    except NotAllowed:
        return True
    except OverLimit:  # another fault of this image, found when it is read again
        pass
    return False


def _read_files(part: Part, options: InputOptions, store: Store, *, windowed: bool) -> list[Sample]:
    large = large_spans(part) if windowed else {}
    for span in [*spans_to_read(part, options.max_image_bytes, large), *large]:
        if span.signed and store.lacks_signature(span.url):
            raise InputChanged(
                f"{shown(span.url)} is not in its list any more, so its signature is unknown. Put its signed URL back "
                "into the list, or start a new run to plan the list as it is now"
            )
    large = select_tiffs(large, store)
    wanted = spans_to_read(part, options.max_image_bytes, large)
    found = _read_each(wanted, options.max_image_bytes, store)
    given_up = {span: fault_of(data) for span, data in found.items() if isinstance(data, OverLimit)}
    read = {span: _unchanged(span, data) for span, data in found.items() if not isinstance(data, OverLimit)}
    return samples_of_members(part, read, options.max_image_bytes, large, given_up=given_up)


def _read_each(spans: Sequence[Span], most: int, store: Store) -> dict[Span, bytes | OverLimit | None]:
    """Return the bytes of objects, read concurrently where they are remote; None for a missing one.

    A read that is given up is a fault of its own image: other images may be on other servers. A store that is too slow
    is trouble of all.
    """

    def read(span: Span) -> bytes | OverLimit | None:
        try:
            return store.read_if_exists(span.url, span.etag, most)
        except OverLimit as error:
            if isinstance(error, TooSlow) and not is_http(span.url):
                raise
            return error

    if all(span.url.startswith("file://") for span in spans):
        return {span: read(span) for span in spans}
    return dict(zip(spans, in_threads(read, spans), strict=True))


def _unchanged(span: Span, data: bytes | None) -> bytes:
    if data is None:
        raise input_changed(shown(span.url), "has vanished")
    if span.size not in (UNKNOWN, len(data)):
        raise input_changed(shown(span.url), "has changed")
    return data


def _refuse_undecodable_names(urls: Iterable[str]) -> None:
    """Refuse names that are not UTF-8: Parquet could not store them as ids."""
    odd = [url for url in urls if not is_storable(url)]
    if odd:
        names = examples(as_text(name) for name in odd)
        number = count(len(odd), "file name is", "file names are")
        raise UsageError(f"{number} not UTF-8, {names}: rename them")
