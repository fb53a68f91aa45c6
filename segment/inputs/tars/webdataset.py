"""WebDataset tars, planned from their headers."""

from collections import Counter
from collections.abc import Sequence
from functools import partial

from segment.errors import UsageError, did_you_mean
from segment.inputs.changes import Known
from segment.inputs.findings import Findings
from segment.inputs.lookup import in_threads
from segment.inputs.metadata import json_keys, json_values
from segment.inputs.parts import TARS, KeyRule, Member, ShardFormat
from segment.inputs.shards import Planned, Shard
from segment.inputs.tars.archive import Archive, read_headers
from segment.inputs.tars.grouping import METADATA_KEY, Fields, Group, choose_grouping, group_by_rule
from segment.inputs.tars.tar_findings import (
    Tar,
    count_members,
    of_samples,
    refuse_useless,
    report_damage,
    report_labels,
    report_scattered,
)
from segment.job import InputOptions
from segment.store.bounds import MOST_JSON
from segment.store.client import Entry, Store
from segment.store.names import count, listed, shown

_SAMPLED = 8  # samples that are read


def plan_webdataset(
    entries: Sequence[Entry], options: InputOptions, store: Store, findings: Findings, known: Known | None = None
) -> Planned:
    """Plan the samples of tars; count unused members, and images after damage.

    Args:
        entries: the tars; with `known` the new and replaced ones.
        options: keys of image and label.
        known: the input that is already planned.

    Raises:
        UsageError: a tar is compressed; no tar holds an image; no member has a key that an option names; or there is
            no metadata to keep.
    """
    refuse_same_keys(options)
    archives = in_threads(partial(read_headers, store=store), entries)
    return plan_archives(entries, archives, options, store, findings, known)


def refuse_same_keys(options: InputOptions) -> None:
    """Refuse one key for image and label. Raises UsageError: they are the same."""
    if options.image_key is not None and options.image_key == options.label_key:
        raise UsageError(
            f"--image-key and --label-key are the same ({options.image_key}): an image is not its own label"
        )


def plan_archives(
    entries: Sequence[Entry],
    archives: Sequence[Archive],
    options: InputOptions,
    store: Store,
    findings: Findings,
    known: Known | None = None,
    rule: KeyRule | None = None,
) -> Planned:
    """Plan the samples of tars whose headers are read; as `plan_webdataset`.

    Args:
        entries, archives: the tars and their headers.
        options, store, findings, known: as in `plan_webdataset`.
        rule: where keys end, if earlier tars of the input have decided it. These tars may be without an image then, and
            what is found does not depend on which tars are planned at once.
    """
    fields = Fields.of(options)
    tars = [
        Tar(entry, archive, of_samples(archive.files, entry.url, options, findings))
        for entry, archive in zip(entries, archives, strict=True)
    ]
    files = [tar.files for tar in tars]
    if rule is None:
        found, note = choose_grouping(files, fields, dotted=known is not None and _dotted(known))
    else:
        found, note = group_by_rule(rule, files, fields)
    findings.notes += [note] if note else []
    if by_index := sum(archive.by_index for archive in archives):
        of = f"{by_index} of {count(len(archives), 'tar')} indexed by the .idx file beside it"
        findings.notes.append(f"{of}, as DALI's wds2idx writes them; damage within such a tar is not looked for")
    suffixes = Counter(suffix for groups in found.tars for held in groups for suffix in held.members)
    for tar, groups in zip(tars, found.tars, strict=True):
        images = [held for held in groups if held.image]
        tar.members = [_member(held, keep=bool(options.keep)) for held in images]
        findings.leave_out("special_member", tar.archive.special, place=tar.entry.url)
        counted = suffixes if rule is None else Counter(suffix for held in groups for suffix in held.members)
        count_members(groups, counted, tar.entry.url, findings)
    if known is None and rule is None:
        refuse_useless(tars, suffixes, options, findings)
    report_damage(tars, found, fields, options, findings)
    report_scattered(found, findings)
    report_labels(tars, found, options, findings)
    if rule is None:
        check_metadata(tars, options.keep, store, findings)
    kinds: dict[bool, ShardFormat] = {False: "webdataset", True: "webdataset-index"}
    shards = [Shard.of_object(tar.entry, kinds[tar.archive.by_index], tar.members) for tar in tars if tar.members]
    return Planned(shards, key_rule=found.rule)


def _member(held: Group, *, keep: bool) -> Member:
    metadata = held.span(METADATA_KEY) if keep and METADATA_KEY in held.members else None
    label = held.span(held.label) if held.label else None
    return Member(held.key, held.span(held.image), label, meta_span=metadata)


def _dotted(known: Known) -> bool:
    """Return whether tars are planned whose keys do not end at the first dot."""
    parts = (part for part in known.parts if part.format in TARS)
    return any("." in member.id.rpartition("/")[2].lstrip(".") for part in parts for member in part.members)


def check_metadata(tars: Sequence[Tar], keep: Sequence[str], store: Store, findings: Findings) -> None:
    """Refuse metadata of tars without any; warn of keys to keep that no sampled member has.

    Raises:
        UsageError: no sample has a .json member.
    """
    if not keep:
        return
    held = [(tar, member.meta_span) for tar in tars for member in tar.members if member.meta_span]
    if not held and any(tar.members for tar in tars):
        where = shown(tars[0].entry.url) if len(tars) == 1 else f"{len(tars)} tars"
        raise UsageError(f"keep = {listed(keep)}: no sample of {where} has a .{METADATA_KEY} member to keep it from")
    some = [(tar, span) for tar, span in held[:: max(1, len(held) // _SAMPLED)][:_SAMPLED] if span.size <= MOST_JSON]
    read = [store.read(tar.entry.url, span.start, span.start + span.size, tar.entry.etag) for tar, span in some]
    found = [json_values(keep, data)[0] for data in read]
    known = list(dict.fromkeys(key for data in read for key in json_keys(data)))
    for index, column in enumerate(keep):
        if found and all(values[index] is None for values in found):
            sampled = count(len(found), f"sampled .{METADATA_KEY} member")
            have = f" They have {listed(known)}" if known else ""
            findings.warnings.append(
                f"no value of '{shown(column)}' to keep in {sampled}.{did_you_mean(column, known)}{have}"
            )
