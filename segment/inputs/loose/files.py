"""Loose image files below a prefix, or named by a list: shards of 4096 consecutive images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

from segment.errors import InputChanged, UsageError, input_changed
from segment.inputs.changes import Known
from segment.inputs.cutting import Planned, Shard, shard_hash
from segment.inputs.findings import Findings
from segment.inputs.loose.label_files import labels_by_pattern, labels_by_stem
from segment.inputs.loose.label_hints import suggest_labels
from segment.inputs.parts import SEGMENTED, UNKNOWN, Member, Part, Sample, Span, image_uri, planned_fault, settle
from segment.job import InputOptions
from segment.store.client import Entry, Store
from segment.store.names import (
    DATA_SUFFIXES,
    as_text,
    basename,
    count,
    examples,
    is_image,
    is_storable,
    shown,
    slug,
    suffix_of,
)
from segment.store.urls import relative_url, to_url

SHARD_IMAGES = 4096


def plan_files(
    base: str,
    entries: Sequence[Entry],
    everything: Mapping[str, Entry],
    options: InputOptions,
    store: Store,
    findings: Findings,
    known: Known | None = None,
    *,
    whole: bool,
) -> Planned:
    """Plan the images among `entries`, which lie below `base`; not those that are `known`.

    Args:
        everything: the objects of the input by URL, hidden ones too: where a label pattern may point.
        whole: whether these are all objects below `base`.

    Raises:
        UsageError: labels were asked for and no image has one; or a name cannot be stored.
    """
    images = [entry for entry in entries if is_image(entry.url)]
    _refuse_odd_names(images)
    labels: dict[str, Entry] = {}
    if options.label_pattern is not None:
        images, labels = labels_by_pattern(base, images, everything, options, store, findings, whole=whole)
    elif options.labels is not None:
        labels = labels_by_stem(base, images, to_url(options.labels), options, store, findings)
    used = {entry.url for entry in [*images, *labels.values()]}
    count_others([relative_url(entry.url, base) for entry in entries if entry.url not in used], findings)
    _refuse_odd_names(list(labels.values()))
    members = []
    for entry in images:
        label = labels.get(entry.url)
        span = file_span(label) if label else None
        members.append(Member(relative_url(entry.url, base), file_span(entry), span))
    if not labels:
        suggest_labels(base, entries, store, findings)
    etags = {entry.url: entry.etag for entry in [*images, *labels.values()]}
    if known:
        members = known.images_to_plan(members)
    return Planned(list(file_shards(base, members, etags)))


def count_others(names: Sequence[str], findings: Findings) -> None:
    """Count the files of an input that are not read: in formats that may hold images, and all others."""
    data = [name for name in names if suffix_of(name) in DATA_SUFFIXES]
    findings.leave_out("format", data)
    findings.leave_out("other_kind", [name for name in names if suffix_of(name) not in DATA_SUFFIXES])


def file_shards(url: str, members: Sequence[Member], etags: Mapping[str, str]) -> Iterator[Shard]:
    """Cut members in shards of `SHARD_IMAGES`; `etags` by the URLs of images and labels."""
    for number, first in enumerate(range(0, len(members), SHARD_IMAGES)):
        held = members[first : first + SHARD_IMAGES]
        digest = hashlib.sha256()
        for member in held:
            for span in (member.image, member.label):
                known = (span.url, span.size, etags.get(span.url, "")) if span else ("", 0, "")
                digest.update(repr(known).encode())
        etag = digest.hexdigest()
        yield Shard(
            name=f"{slug(basename(url))}-{number:05d}",
            hash=shard_hash(url, number, etag),
            format="files",
            url=url,
            size=sum(max(0, member.image.size) for member in held),
            etag=etag,
            members=held,
            runs=[(-1, 0, len(held), 0)],
        )


def read_files(part: Part, options: InputOptions, store: Store) -> list[Sample]:
    """Read the images and labels of a part, all at once.

    Raises:
        InputChanged: a file has vanished, or is another one than was planned: its etag or size is.
    """
    faults = [planned_fault(member, options.max_image_bytes) for member in part.members]
    usable = [member for member, fault in zip(part.members, faults, strict=True) if fault in SEGMENTED]
    wanted = [span for member in usable for span in (member.image, member.label) if span and not span.is_absent]
    for span in wanted:
        if span.signed and store.lacks_signature(span.url):
            raise InputChanged(
                f"{shown(span.url)} is not in its list any more, which is where its signed URL comes from. Put it back "
                "into the list, or plan what the list names now by a new run"
            )
    found = store.read_many([span.url for span in wanted], [span.etag for span in wanted])
    read = {span: _unchanged(span, data) for span, data in zip(wanted, found, strict=True)}
    return [
        _sample(part, member, fault, part.start + offset, read, options.max_image_bytes)
        for offset, (member, fault) in enumerate(zip(part.members, faults, strict=True))
    ]


def file_span(entry: Entry) -> Span:
    """Where a loose file is, and as which version."""
    return Span(entry.url, 0, entry.size, entry.etag)


def _unchanged(span: Span, data: bytes | None) -> bytes:
    if data is None:
        raise input_changed(shown(span.url), "has vanished")
    if span.size not in (UNKNOWN, len(data)):
        raise input_changed(shown(span.url), "has changed")
    return data


def _sample(
    part: Part, member: Member, fault: str | None, index: int, read: Mapping[Span, bytes], max_bytes: int
) -> Sample:
    image = read.get(member.image, b"")
    label = read.get(member.label) if member.label else None
    uri = image_uri(part, member.id, member.image)
    return Sample(member.id, uri, index, *settle(fault, image, label, max_bytes))


def _refuse_odd_names(entries: Sequence[Entry]) -> None:
    """Refuse names that are not UTF-8: Parquet could not store them, and ids must survive."""
    odd = [entry.url for entry in entries if not is_storable(entry.url)]
    if odd:
        names = examples(as_text(name) for name in odd)
        number = count(len(odd), "file name is", "file names are")
        raise UsageError(f"{number} not UTF-8, {names}: rename them")
