"""WebDataset tars: planned from their headers alone, read by byte range, never extracted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from segment.errors import UsageError
from segment.inputs.changes import Known
from segment.inputs.cutting import Planned, Shard, shard_hash
from segment.inputs.findings import Findings
from segment.inputs.lookup import in_threads, refuse_changed
from segment.inputs.parts import SEGMENTED, Member, Part, Sample, Span, image_uri, planned_fault, settle
from segment.inputs.tars.archive import read_headers
from segment.inputs.tars.samples import Fields, Group, choose_grouping
from segment.inputs.tars.tar_findings import (
    Tar,
    count_members,
    of_samples,
    refuse_useless,
    tell_apart,
    tell_damage,
    tell_labels,
)
from segment.job import InputOptions
from segment.store.client import Entry, Store
from segment.store.names import basename, slug

_GAP = 1 << 20  # bytes between two wanted ranges that are cheaper to read than another request


def plan_webdataset(
    entries: Sequence[Entry], options: InputOptions, store: Store, findings: Findings, known: Known | None = None
) -> Planned:
    """Plan the samples of tars. What else is in them is counted, and so are images behind damage.

    Args:
        known: what is planned already, of the same input: `entries` are what has changed since.

    Raises:
        UsageError: a tar is compressed; no tar holds an image; or a key was given and no member has it.
    """
    if options.image_key is not None and options.image_key == options.label_key:
        raise UsageError(
            f"--image-key and --label-key are the same ({options.image_key}): an image is not its own label"
        )
    fields = Fields.of(options)
    archives = in_threads(lambda entry: read_headers(entry, store), entries)
    tars = [
        Tar(entry, archive, of_samples(archive.files, entry.url, options, findings))
        for entry, archive in zip(entries, archives, strict=True)
    ]
    found, note = choose_grouping([tar.files for tar in tars], fields, dotted=known is not None and _dotted(known))
    findings.notes += [note] if note else []
    suffixes = Counter(suffix for groups in found.tars for held in groups for suffix in held.members)
    for tar, groups in zip(tars, found.tars, strict=True):
        images = [held for held in groups if held.image]
        tar.members = [_member(held) for held in images]
        findings.leave_out("special_member", tar.archive.special, place=tar.entry.url)
        count_members(groups, suffixes, tar.entry.url, findings)
    if known is None:
        refuse_useless(tars, suffixes, options, findings)
    tell_damage(tars, found, fields, options, findings)
    tell_apart(found, findings)
    tell_labels(tars, found, options, findings)
    return Planned([_shard(tar) for tar in tars if tar.members])


def _shard(tar: Tar) -> Shard:
    entry = tar.entry
    return Shard(
        name=slug(basename(entry.url)),
        hash=shard_hash(entry.url, entry.etag, entry.size),
        format="webdataset",
        url=entry.url,
        size=entry.size,
        etag=entry.etag,
        members=tar.members,
        runs=[(-1, 0, len(tar.members), 0)],
    )


def _member(held: Group) -> Member:
    return Member(held.key, held.span(held.image), held.span(held.label) if held.label else None)


def _dotted(known: Known) -> bool:
    """Whether tars are planned whose keys do not end at the first dot."""
    parts = (part for part in known.parts if part.format == "webdataset")
    return any("." in member.id.rpartition("/")[2].lstrip(".") for part in parts for member in part.members)


def read_webdataset(part: Part, options: InputOptions, store: Store) -> list[Sample]:
    """Read the samples of a part of a tar: its byte ranges, joined where they are close.

    Raises:
        InputChanged: the tar is not the planned one.
    """
    refuse_changed(part, store)
    faults = [planned_fault(member, options.max_image_bytes) for member in part.members]
    usable = [member for member, fault in zip(part.members, faults, strict=True) if fault in SEGMENTED]
    read = _read_spans(part, [s for m in usable for s in (m.image, m.label) if s], store)
    samples = []
    for index, (member, known) in enumerate(zip(part.members, faults, strict=True), part.start):
        image = read.get(member.image, b"")
        label = read.get(member.label) if member.label else None
        settled = settle(known, image, label, options.max_image_bytes)
        samples.append(Sample(member.id, image_uri(part, member.id), index, *settled))
    return samples


def _read_spans(part: Part, spans: Sequence[Span], store: Store) -> dict[Span, bytes]:
    """Read byte ranges of one object in few requests."""
    groups: list[list[Span]] = []
    end = 0
    for span in sorted((span for span in spans if span.size), key=lambda span: span.start):
        if groups and span.start - end <= _GAP:
            groups[-1].append(span)
        else:
            groups.append([span])
        end = span.start + span.size
    ranges = [(near[0].start, near[-1].start + near[-1].size) for near in groups]
    blocks = in_threads(lambda range_: store.read(part.url, *range_, part.etag), ranges)
    read = dict.fromkeys(spans, b"")
    for near, block in zip(groups, blocks, strict=True):
        for span in near:
            first = span.start - near[0].start
            read[span] = block[first : first + span.size]
    return read
