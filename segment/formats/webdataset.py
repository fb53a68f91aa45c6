"""WebDataset tars: planned from their headers alone, read by byte range, never extracted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from segment.errors import UsageError
from segment.findings import Findings, Reason, by_reason
from segment.formats.cutting import Shard, mark_repeated, shard_hash, warn_repeated
from segment.formats.known import Known
from segment.formats.lookup import in_threads, refuse_changed
from segment.formats.samples import (
    Fields,
    File,
    Group,
    Grouping,
    choose_grouping,
    field_of,
    first_key,
    group,
    is_like_label,
    may_be_label,
)
from segment.formats.tar import Archive, read_headers
from segment.names import DATA_SUFFIXES, LABEL_SUFFIXES, basename, count, examples, no_data, shown, slug, suffix_of
from segment.parts import SEGMENTED, InputOptions, Member, Part, Sample, Span, planned_fault, settle
from segment.store import Entry, Store
from segment.urls import without_query

_GAP = 1 << 20  # bytes between two wanted ranges that are cheaper to read than another request
_MOST_LINES = 5  # on damaged tars
_MOST_KEYS = 3  # of labels that are not used


@dataclass(slots=True)
class _Tar:
    """One tar.

    Attributes:
        entry: where it is.
        archive: what its headers say.
        files: those of its files that belong to a sample.
        members: its images, in order.
    """

    entry: Entry
    archive: Archive
    files: list[File]
    members: list[Member] = field(default_factory=list)


def plan_webdataset(
    entries: Sequence[Entry], options: InputOptions, store: Store, findings: Findings, known: Known | None = None
) -> tuple[list[Shard], int]:
    """Plan the samples of tars. What else is in them is counted, and so are images behind damage.

    Args:
        known: what is planned already, of the same input: `entries` are what has changed since.

    Returns:
        The shards, and how many images have a label.

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
        _Tar(entry, archive, _of_samples(archive.files, entry.url, options, findings))
        for entry, archive in zip(entries, archives, strict=True)
    ]
    found, note = choose_grouping([tar.files for tar in tars], fields, dotted=known is not None and _dotted(known))
    findings.notes += [note] if note else []
    suffixes = Counter(suffix for groups in found.tars for held in groups for suffix in held.members)
    for tar, groups in zip(tars, found.tars, strict=True):
        images = [held for held in groups if held.image]
        tar.members = mark_repeated([_member(held) for held in images])
        findings.leave_out("special_member", tar.archive.special, place=tar.entry.url)
        _count_members(groups, suffixes, tar.entry.url, findings)
    if known is None:
        _refuse_useless(tars, suffixes, options, findings)
    _tell_damage(tars, found, fields, options, findings)
    _tell_apart(found, findings)
    _tell_labels(tars, found, options, findings)
    shards = [_shard(tar) for tar in tars if tar.members]
    warn_repeated(shards, findings.warnings)
    return shards, sum(member.label is not None for tar in tars for member in tar.members)


def _shard(tar: _Tar) -> Shard:
    entry = tar.entry
    return Shard(
        name=slug(basename(entry.url)),
        hash=shard_hash(entry.url, entry.etag, entry.size),
        format="webdataset",
        url=entry.url,
        size=entry.size,
        etag=entry.etag,
        members=tar.members,
        runs=[(-1, len(tar.members), 0)],
    )


def _member(held: Group) -> Member:
    return Member(held.key, held.span(held.image), held.span(held.label) if held.label else None)


def _dotted(known: Known) -> bool:
    """Whether tars are planned whose keys do not end at the first dot."""
    parts = (part for part in known.parts if part.format == "webdataset")
    return any("." in member.id.rpartition("/")[2].lstrip(".") for part in parts for member in part.members)


def _of_samples(files: Sequence[File], url: str, options: InputOptions, findings: Findings) -> list[File]:
    """Return the files that belong to a sample by their names, and count the others."""
    kept: list[File] = []
    others: dict[Reason, list[str]] = {}
    for file in files:
        name = file[0]
        if reason := no_data(name, include_hidden=options.include_hidden):
            others.setdefault("hidden_member" if reason == "hidden" else "system", []).append(name)
        elif not first_key(name):
            others.setdefault("keyless_member", []).append(name)
        else:
            kept.append(file)
    for why, names in others.items():
        findings.leave_out(why, names, place=url)
    return kept


def _count_members(groups: Sequence[Group], suffixes: Counter[str], url: str, findings: Findings) -> None:
    """Count what belongs to samples without an image; and what of the others may be data and is not used."""
    for reason, held_ones in (
        ("sample_without_image", [held for held in groups if not held.image]),
        ("unused_member", [held for held in groups if held.image]),
    ):
        unused = [
            (suffix, name)
            for held in held_ones
            for suffix, name in held.unused()
            if not held.image or suffix_of(f"x.{suffix}") in DATA_SUFFIXES
        ]
        kinds = [_kind(suffix, suffixes) for suffix, _ in unused]
        findings.leave_out(reason, [name for _, name in unused], kinds, url)  # type: ignore[arg-type]


def _kind(suffix: str, suffixes: Counter[str]) -> str:
    """What a suffix is counted as: `depth.png`; one that occurs once, as `0001.jpg`, without its number."""
    return suffix if suffixes[suffix] > 1 else field_of(suffix)


def _refuse_useless(tars: Sequence[_Tar], suffixes: Counter[str], options: InputOptions, findings: Findings) -> None:
    where = shown(tars[0].entry.url) if len(tars) == 1 else f"the {len(tars)} tars"
    by_kind: Counter[str] = Counter()
    for suffix, number in suffixes.items():
        by_kind[_kind(suffix, suffixes)] += number
    kinds = ", ".join(f".{kind} x {number}" for kind, number in by_kind.most_common(5)) or "no files"
    for flag, key in (("image", options.image_key), ("label", options.label_key)):
        names = (held_name.lower() for tar in tars for held_name, *_ in tar.files)
        if key is not None and not any(name.endswith(f".{key}") for name in names):
            raise UsageError(f"no member of {where} ends in .{key} (--{flag}-key): there are {kinds}")
    if not any(tar.members for tar in tars):
        told: tuple[Reason, ...] = ("hidden_member", "system", "keyless_member", "special_member")
        left = "".join(f"; {item}" for item in by_reason(findings.left_out) if item.reason in told)
        damaged = [tar for tar in tars if tar.archive.damage]
        damage = f"; {shown(damaged[0].entry.url)} {damaged[0].archive.damage}" if damaged else ""
        pictures = any(suffix_of(f"x.{kind}") in LABEL_SUFFIXES for kind in by_kind)
        advice = ". --image-key names the member that is the image" if pictures else ""
        raise UsageError(f"no image in {where}: there are {kinds}{left}{damage}{advice}")


def _tell_damage(
    tars: Sequence[_Tar], found: Grouping, fields: Fields, options: InputOptions, findings: Findings
) -> None:
    """Count the images behind the damage of tars; what belongs to an image that is read is none."""
    lines = []
    for tar, groups in zip(tars, found.tars, strict=True):
        archive = tar.archive
        names = [name for name in archive.lost if not no_data(name, include_hidden=options.include_hidden)]
        read = {held.key: held.image for held in groups if held.image}
        lost, _ = group([(name, 0, 0) for name in names if first_key(name)], found.rule, fields)
        images = [held for held in lost if held.image and read.get(held.key, held.image) == held.image]
        sound = [*(name for name, *_ in tar.files), *(name for name in archive.lost if name not in archive.doubtful)]
        suffixes = DATA_SUFFIXES.union(map(suffix_of, sound)) if archive.doubtful else ()
        is_open = archive.is_open or any(suffix_of(name) not in suffixes for name in archive.doubtful)
        if images or is_open:
            examples_ = [held.members[held.image][0] for held in images]
            findings.lose(len(images), examples_, tar.entry.url, exact=not is_open)
        if archive.damage:
            lost_images = f"{'at least ' if is_open else ''}{len(images)} lost"
            if is_open and not images:
                lost_images = "nobody can tell how many are lost"
            before = f"{count(len(tar.members), 'image')} before that"
            lines.append(f"{shown(tar.entry.url)} {archive.damage}: {before}, {lost_images}")
    findings.warnings += lines[:_MOST_LINES]
    if len(lines) > _MOST_LINES:
        findings.warnings.append(f"{count(len(lines) - _MOST_LINES, 'more tar is', 'more tars are')} damaged, too")


def _tell_apart(found: Grouping, findings: Findings) -> None:
    if found.apart:
        many = count(found.apart, "sample has members", "samples have members")
        findings.notes.append(f"{many} apart from each other in the tar: joined by key")


def _tell_labels(tars: Sequence[_Tar], found: Grouping, options: InputOptions, findings: Findings) -> None:
    """Say which images have no label, and which members could be one."""
    images = [held for groups in found.tars for held in groups if held.image]
    bare = [held for held in images if not held.label]
    if bare and (len(bare) < len(images) or options.label_key is not None):
        findings.warnings.append(
            f"{len(bare)} of {count(len(images), 'image')} without a label: segmented, not scored; "
            f"{examples(held.key for held in bare)}"
        )
    if options.label_key is not None:
        return
    candidates = Counter(suffix for held in bare for suffix, _ in held.unused() if may_be_label(suffix))
    kinds = Counter[str]()
    for suffix, number in candidates.items():
        kinds[_kind(suffix, candidates)] += number
    ordered = [kind for kind, _ in kinds.most_common()]
    named = [kind for kind in ordered if is_like_label(kind)]
    likely = [kind for kind in (named or ordered)[:_MOST_KEYS] if _labelled_by(kind, tars, options) > found.labelled]
    if likely:
        findings.warnings.append(
            f"labels there, not used: {', '.join(f'{kind} x {kinds[kind]}' for kind in likely)} could be the labels of "
            f"images that have none. If so, use --label-key {likely[0]}"
        )


def _labelled_by(key: str, tars: Sequence[_Tar], options: InputOptions) -> int:
    """How many images would have labels by this key: nothing is advised that does not work."""
    fields = Fields.of(options.model_copy(update={"label_key": key}))
    return choose_grouping([tar.files for tar in tars], fields)[0].labelled


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
    ranges = [(near[0].start, near[-1].start + near[-1].size) for near in groups]
    blocks = in_threads(lambda range_: store.read(part.url, *range_, part.etag), ranges)
    read = dict.fromkeys(spans, b"")
    for near, block in zip(groups, blocks, strict=True):
        for span in near:
            first = span.start - near[0].start
            read[span] = block[first : first + span.size]
    return read
