"""Plan the loose image files below a prefix."""

from collections.abc import Iterable, Iterator, Sequence

from segment.errors import UsageError
from segment.inputs.changes import Known
from segment.inputs.findings import Findings
from segment.inputs.loose.label_files import Labels, labels_by_stem
from segment.inputs.loose.label_hints import suggest_labels
from segment.inputs.loose.pattern_labels import labels_by_pattern
from segment.inputs.parts import Member, Span
from segment.inputs.shards import Planned, Remade, file_shards
from segment.job import InputOptions
from segment.store.client import Entry, Store
from segment.store.entries import Entries
from segment.store.names import as_text, count, examples, is_image, is_storable, listed
from segment.store.urls import relative_url, to_url


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
        known: the input that is already planned.
        whole: whether `everything` holds all objects below `base`.

    Raises:
        UsageError: labels are configured and no image has one; a name is not UTF-8; or columns are to be kept.
    """
    if options.keep:
        raise UsageError(
            f"keep = {listed(options.keep)}: loose files come without metadata. `segment score --by` slices "
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


def _refuse_undecodable_names(urls: Iterable[str]) -> None:
    """Refuse names that are not UTF-8: Parquet could not store them as ids."""
    odd = [url for url in urls if not is_storable(url)]
    if odd:
        names = examples(as_text(name) for name in odd)
        number = count(len(odd), "file name is", "file names are")
        raise UsageError(f"{number} not UTF-8, {names}: rename them")
