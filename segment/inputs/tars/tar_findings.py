"""Report what tars hold besides the segmented images: damage, unused members, labels that are not used."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from segment.errors import UsageError
from segment.inputs.findings import Findings, Reason, by_reason
from segment.inputs.label_names import labels_by_name
from segment.inputs.parts import Member
from segment.inputs.tars.archive import Archive
from segment.inputs.tars.grouping import (
    LABEL_KEYS,
    Fields,
    File,
    Group,
    Grouping,
    choose_grouping,
    first_key,
    group_files,
)
from segment.inputs.tars.suffixes import field_of, is_like_label, may_be_label
from segment.job import InputOptions
from segment.store.client import Entry
from segment.store.names import DATA_SUFFIXES, LABEL_SUFFIXES, basename, count, examples, shown, skip_reason, suffix_of

_MOST_LINES = 5  # warnings of damaged tars
_MOST_KEYS = 3  # label keys that are suggested
_MOST_REGROUPED = 2  # tars that are grouped again to verify a suggestion


@dataclass(slots=True)
class Tar:
    """One tar of the input.

    Attributes:
        archive: its headers.
        files: the files that belong to a sample.
        members: its images, in order.
    """

    entry: Entry
    archive: Archive
    files: list[File]
    members: list[Member] = field(default_factory=list)


def of_samples(files: Sequence[File], url: str, options: InputOptions, findings: Findings) -> list[File]:
    """Return the files whose names belong to a sample; count the others."""
    kept: list[File] = []
    others: dict[Reason, list[str]] = {}
    for file in files:
        name = file[0]
        if reason := skip_reason(name, include_hidden=options.include_hidden):
            others.setdefault("hidden_member" if reason == "hidden" else "system", []).append(name)
        elif not first_key(name):
            others.setdefault("keyless_member", []).append(name)
        else:
            kept.append(file)
    for why, names in others.items():
        findings.leave_out(why, names, place=url)
    return kept


def count_members(groups: Sequence[Group], suffixes: Counter[str], url: str, findings: Findings) -> None:
    """Count the members of samples without an image, and unused members of other samples that may hold data."""
    unused: dict[Reason, list[tuple[str, str]]] = {"sample_without_image": [], "unused_member": []}
    for held in groups:
        for suffix, name in held.unused():
            if not held.image:
                unused["sample_without_image"].append((suffix, name))
            elif suffix_of(f"x.{suffix}") in DATA_SUFFIXES:
                unused["unused_member"].append((suffix, name))
    for reason, found in unused.items():
        findings.leave_out(reason, [name for _, name in found], [_kind(suffix, suffixes) for suffix, _ in found], url)


def _kind(suffix: str, suffixes: Counter[str]) -> str:
    """Return what a suffix is counted as: `depth.png`; for one that occurs once, `0001.jpg`, without its number."""
    return suffix if suffixes[suffix] > 1 else field_of(suffix)


def refuse_useless(tars: Sequence[Tar], suffixes: Counter[str], options: InputOptions, findings: Findings) -> None:
    """Refuse keys that no member has, and tars without an image.

    Raises:
        UsageError: no member matches a key option, or there is no image; the message names what there is instead.
    """
    where = shown(tars[0].entry.url) if len(tars) == 1 else f"the {len(tars)} tars"
    by_kind: Counter[str] = Counter()
    for suffix, number in suffixes.items():
        by_kind[_kind(suffix, suffixes)] += number
    kinds = ", ".join(f".{kind} x {number}" for kind, number in by_kind.most_common(5)) or "no files"
    for flag, key in (("image", options.image_key), ("label", options.label_key)):
        if key is not None and not any(name.lower().endswith(f".{key}") for tar in tars for name, *_ in tar.files):
            raise UsageError(f"no member of {where} ends in .{key} (--{flag}-key): there are {kinds}")
    if not any(tar.members for tar in tars):
        reasons: tuple[Reason, ...] = ("hidden_member", "system", "keyless_member", "special_member")
        left = "".join(f"; {item}" for item in by_reason(findings.left_out) if item.reason in reasons)
        damaged = [tar for tar in tars if tar.archive.damage]
        damage = f"; {shown(damaged[0].entry.url)} {damaged[0].archive.damage}" if damaged else ""
        pictures = any(suffix_of(f"x.{kind}") in LABEL_SUFFIXES for kind in by_kind)
        advice = ". --image-key names the member that is the image" if pictures else ""
        raise UsageError(f"no image in {where}: there are {kinds}{left}{damage}{advice}")


def report_damage(
    tars: Sequence[Tar], found: Grouping, fields: Fields, options: InputOptions, findings: Findings
) -> None:
    """Warn of damaged tars and count the images lost in them, except members of images that are read."""
    lines = []
    for tar, groups in zip(tars, found.tars, strict=True):
        archive = tar.archive
        names = [name for name in archive.lost if not skip_reason(name, include_hidden=options.include_hidden)]
        read = {held.key: held.image for held in groups if held.image}
        lost, _ = group_files([(name, 0, 0) for name in names if first_key(name)], found.rule, fields)
        images = [held for held in lost if held.image and read.get(held.key, held.image) == held.image]
        is_open = archive.is_open or _may_hide_images(archive)
        if images or is_open:
            examples_ = [held.members[held.image][0] for held in images]
            findings.lose(len(images), examples_, tar.entry.url, exact=not is_open)
        if archive.damage:
            lost_images = f"{'at least ' if is_open else ''}{len(images)} lost"
            if is_open and not images:
                lost_images = "an unknown number is lost"
            before = f"{count(len(tar.members), 'image')} before that"
            lines.append(f"{shown(tar.entry.url)} {archive.damage}: {before}, {lost_images}")
    findings.warnings += lines[:_MOST_LINES]
    if len(lines) > _MOST_LINES:
        findings.warnings.append(f"{count(len(lines) - _MOST_LINES, 'more tar is', 'more tars are')} damaged")


def _may_hide_images(archive: Archive) -> bool:
    """Return whether a damaged header gives a suffix that no other member has: it may be a damaged image suffix."""
    doubtful = set(archive.doubtful)
    sound = [*(name for name, *_ in archive.files), *(name for name in archive.lost if name not in doubtful)]
    suffixes = DATA_SUFFIXES.union(map(suffix_of, sound)) if doubtful else DATA_SUFFIXES
    return any(suffix_of(name) not in suffixes for name in doubtful)


def report_scattered(found: Grouping, findings: Findings) -> None:
    """Note samples whose members are not adjacent, as WebDataset would write them."""
    if found.apart:
        many = count(found.apart, "sample has members", "samples have members")
        findings.notes.append(f"{many} apart from each other in the tar: joined by key")


def report_labels(tars: Sequence[Tar], found: Grouping, options: InputOptions, findings: Findings) -> None:
    """Warn of images without a label, and of members that may be one."""
    images = [held for groups in found.tars for held in groups if held.image]
    bare = [held for held in images if not held.label]
    if bare and (len(bare) < len(images) or options.label_key is not None):
        findings.warnings.append(
            f"{len(bare)} of {count(len(images), 'image')} without a label: segmented, not scored; "
            f"{examples(held.key for held in bare)}"
        )
    if options.label_key is not None:
        return
    if not found.labelled:
        _report_labels_elsewhere(tars, found, findings)
    candidates = Counter(suffix for held in bare for suffix, _ in held.unused() if may_be_label(suffix))
    kinds = Counter[str]()
    for suffix, number in candidates.items():
        kinds[_kind(suffix, candidates)] += number
    ordered = [kind for kind, _ in kinds.most_common()]
    named = [kind for kind in ordered if is_like_label(kind)]
    likely = [kind for kind in (named or ordered)[:_MOST_KEYS] if _is_label_of_more(kind, tars, found, options)]
    if likely:
        findings.warnings.append(
            f"labels not used: {', '.join(f'{kind} x {kinds[kind]}' for kind in likely)} could be the labels of "
            f"images that have none. If so, use --label-key {likely[0]}"
        )


def _report_labels_elsewhere(tars: Sequence[Tar], found: Grouping, findings: Findings) -> None:
    """Warn of images that are named like labels of others, by their folder, their tar or the ending of their name."""
    names = [
        f"{basename(tar.entry.url)}/{held.members[held.image][0]}"
        for tar, groups in zip(tars, found.tars, strict=True)
        for held in groups
        if held.image
    ]
    twins = labels_by_name(names)
    if twins:
        findings.warnings.append(
            f"labels not used: {count(len(twins), 'image is', 'images are')} named like the label of another "
            f"one and segmented like any image, {examples(twins)}. If these are labels, write each as member "
            f"{LABEL_KEYS[0]} of the sample of its image"
        )


def _is_label_of_more(key: str, tars: Sequence[Tar], found: Grouping, options: InputOptions) -> bool:
    """Return whether this label key gives more images a label: only options that help are suggested.

    Only the first tars with unlabelled images and such a member are examined. Grouping millions of samples again takes
    too long for a warning.
    """
    fields = Fields.of(options.model_copy(update={"label_key": key}))
    for tar, groups in islice(_bare(key, tars, found), _MOST_REGROUPED):
        labelled = sum(bool(held.image and held.label) for held in groups)
        if choose_grouping([tar.files], fields)[0].labelled > labelled:
            return True
    return False


def _bare(key: str, tars: Sequence[Tar], found: Grouping) -> Iterator[tuple[Tar, Sequence[Group]]]:
    """Yield the tars, with their groups, that hold a member with this key and an image without a label."""
    for tar, groups in zip(tars, found.tars, strict=True):
        is_there = any(name.lower().endswith(f".{key}") for name, *_ in tar.files)
        if is_there and any(held.image and not held.label for held in groups):
            yield tar, groups
