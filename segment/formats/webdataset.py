"""WebDataset tars: planned from their headers alone, read by byte range, never extracted.

A sample is a run of consecutive members with the same key: the path up to the first dot of the file name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from segment.errors import UsageError
from segment.findings import Findings
from segment.formats.cutting import Shard, mark_repeated, shard_hash, warn_repeated
from segment.formats.lookup import in_threads, refuse_changed
from segment.formats.tar import Archive, read_headers
from segment.names import IMAGE_SUFFIXES, basename, count, examples, no_data, shown, slug
from segment.parts import SEGMENTED, InputOptions, Member, Part, Sample, Span, planned_fault, settle
from segment.store import Entry, Store
from segment.urls import without_query

LABEL_KEYS = ("seg.png", "mask.png", "label.png")

_GAP = 1 << 20  # bytes between two wanted ranges that are cheaper to read than another request


@dataclass(slots=True)
class _Tar:
    """The samples of one tar.

    Attributes:
        archive: what its headers say.
        members: its samples, in order.
        suffixes: how often each member suffix occurs.
        imageless: keys of samples without an image.
    """

    archive: Archive
    members: list[Member] = field(default_factory=list)
    suffixes: Counter[str] = field(default_factory=Counter)
    imageless: list[str] = field(default_factory=list)


def plan_webdataset(
    entries: Sequence[Entry], options: InputOptions, store: Store, findings: Findings
) -> tuple[list[Shard], int]:
    """Plan the samples of tars. A damaged tar gives the samples before the damage, and a warning.

    Returns:
        The shards, and how many images have a label.

    Raises:
        UsageError: a tar is compressed; no tar holds an image; or `label_key` was given and nothing has it.
    """
    tars = in_threads(lambda entry: _samples(read_headers(entry, store), options), entries)
    shards = [
        Shard(
            name=slug(basename(entry.url)),
            hash=shard_hash(entry.url, entry.etag, entry.size),
            format="webdataset",
            url=entry.url,
            size=entry.size,
            etag=entry.etag,
            members=tar.members,
            runs=[(-1, len(tar.members), 0)],
        )
        for entry, tar in zip(entries, tars, strict=True)
        if tar.members
    ]
    _refuse_useless(entries, tars, options)
    _warn(entries, tars, findings.warnings)
    warn_repeated(shards, findings.warnings)
    return shards, sum(member.label is not None for tar in tars for member in tar.members)


def _refuse_useless(entries: Sequence[Entry], tars: Sequence[_Tar], options: InputOptions) -> None:
    suffixes = sum((tar.suffixes for tar in tars), Counter[str]())
    kinds = ", ".join(f".{suffix} x {number}" for suffix, number in suffixes.most_common(5)) or "no files"
    where = shown(entries[0].url) if len(entries) == 1 else f"the {len(entries)} tars"
    if not any(tar.members for tar in tars):
        damaged = [(e.url, t.archive.damage) for e, t in zip(entries, tars, strict=True) if t.archive.damage]
        damage = f"; {shown(damaged[0][0])} is {damaged[0][1]}" if damaged else ""
        raise UsageError(f"no image in {where}: there are {kinds}{damage}")
    if options.label_key is not None and options.label_key not in suffixes:
        raise UsageError(f"no member of {where} ends in .{options.label_key} (--label-key): there are {kinds}")


def _warn(entries: Sequence[Entry], tars: Sequence[_Tar], warnings: list[str]) -> None:
    for entry, tar in zip(entries, tars, strict=True):
        if tar.archive.damage:
            warnings.append(
                f"{shown(entry.url)} is {tar.archive.damage}: {count(len(tar.members), 'image')} before that"
            )
    ignored = [name for tar in tars for name in tar.archive.ignored]
    if ignored:
        what = "(links, devices, sparse files, paths that lead out)"
        warnings.append(f"{count(len(ignored), 'tar member')} ignored {what}, {examples(ignored)}")
    imageless = [key for tar in tars for key in tar.imageless]
    if imageless:
        warnings.append(f"{count(len(imageless), 'sample has', 'samples have')} no image, {examples(imageless)}")
    images = sum(len(tar.members) for tar in tars)
    bare = [member.id for tar in tars for member in tar.members if member.label is None]
    if bare and len(bare) < images:
        warnings.append(
            f"{len(bare)} of {count(images, 'image')} without a label: segmented, not scored; {examples(bare)}"
        )


def _samples(archive: Archive, options: InputOptions) -> _Tar:
    tar = _Tar(archive)
    keys = LABEL_KEYS if options.label_key is None else (options.label_key,)
    for key, group in _groups(archive.files):
        tar.suffixes.update(group.keys())
        image = _image_of(group, keys)
        label = next((group[suffix] for suffix in keys if suffix in group), None)
        if image is None:
            tar.imageless.append(key)
        else:
            tar.members.append(Member(key, image, label))
    tar.members = mark_repeated(tar.members)
    return tar


def _image_of(group: dict[str, Span], label_keys: Sequence[str]) -> Span | None:
    """Return the first image that is no label; one with a plain suffix (`jpg`) before one with two (`depth.png`)."""
    images = [name for name in group if name not in label_keys and f".{name.rpartition('.')[2]}" in IMAGE_SUFFIXES]
    return group[min(images, key=lambda name: "." in name)] if images else None


def _groups(files: Sequence[tuple[str, int, int]]) -> Iterator[tuple[str, dict[str, Span]]]:
    """Group consecutive files by key; a suffix that comes twice starts a new group, which is then a repeated one."""
    group: dict[str, Span] = {}
    last = ""
    for name, start, size in files:
        folder, slash, file_name = name.rpartition("/")
        stem, dot, suffix = file_name.partition(".")
        if not dot or not stem or no_data(name):
            continue
        key, suffix = f"{folder}{slash}{stem}", suffix.lower()
        if group and (key != last or suffix in group):
            yield last, group
            group = {}
        last = key
        group[suffix] = Span("", start, size)
    if group:
        yield last, group


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
        samples.append(Sample(member.id, f"{without_query(part.url)}#{member.id}", index, *settled))
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
    ranges = [(group[0].start, group[-1].start + group[-1].size) for group in groups]
    blocks = in_threads(lambda range_: store.read(part.url, *range_, part.etag), ranges)
    read = dict.fromkeys(spans, b"")
    for group, block in zip(groups, blocks, strict=True):
        for span in group:
            first = span.start - group[0].start
            read[span] = block[first : first + span.size]
    return read
