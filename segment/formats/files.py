"""Loose image files below a prefix, or named by a list: shards of 4096 consecutive images."""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence

from segment.errors import UsageError, input_changed
from segment.formats.cutting import Shard, mark_repeated, shard_hash
from segment.formats.known import Known
from segment.formats.lookup import look_up
from segment.names import basename, count, examples, is_hidden, is_image, is_storable, shown, slug, suffix_of
from segment.parts import MISSING, SEGMENTED, UNKNOWN, InputOptions, Member, Part, Sample, Span, planned_fault, settle
from segment.store import Entry, Store
from segment.urls import join_url, relative_url, to_url, without_query

SHARD_IMAGES = 4096


def plan_files(
    base: str,
    entries: Sequence[Entry],
    options: InputOptions,
    store: Store,
    warnings: list[str],
    known: Known | None = None,
) -> tuple[list[Shard], int]:
    """Plan the images among `entries`, which lie below `base`; not those that are `known`.

    Returns:
        The shards, and how many images have a label.

    Raises:
        UsageError: labels were asked for and no image has one; or a name cannot be stored.
    """
    images = [entry for entry in entries if is_image(entry.url) and not is_hidden(relative_url(entry.url, base))]
    _refuse_odd_names(images)
    labels: dict[str, Entry] = {}
    if options.label_pattern is not None:
        images, labels = _labels_by_pattern(base, images, options, store, warnings)
    elif options.labels is not None:
        labels = _labels_by_stem(base, images, to_url(options.labels), store, warnings)
    members = []
    for entry in images:
        label = labels.get(entry.url)
        span = file_span(label) if label else None
        members.append(Member(relative_url(entry.url, base), file_span(entry), span))
    etags = {entry.url: entry.etag for entry in [*images, *labels.values()]}
    if known:
        members = known.images_to_plan(members)
    return list(file_shards(base, members, etags)), sum(member.label is not None for member in members)


def file_shards(url: str, members: Sequence[Member], etags: Mapping[str, str]) -> Iterator[Shard]:
    """Cut members in shards of `SHARD_IMAGES`; `etags` by the URLs of images and labels."""
    for number, first in enumerate(range(0, len(members), SHARD_IMAGES)):
        held = mark_repeated(members[first : first + SHARD_IMAGES])
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
            runs=[(-1, len(held), 0)],
        )


def read_files(part: Part, options: InputOptions, store: Store) -> list[Sample]:
    """Read the images and labels of a part, all at once.

    Raises:
        InputChanged: a file has vanished, or is another one than was planned: its etag or size is.
    """
    faults = [planned_fault(member, options.max_image_bytes) for member in part.members]
    usable = [member for member, fault in zip(part.members, faults, strict=True) if fault in SEGMENTED]
    wanted = [span for member in usable for span in (member.image, member.label) if span and span.size != MISSING]
    found = store.read_many([span.url for span in wanted], [span.etag for span in wanted])
    read = {span: _unchanged(span, data) for span, data in zip(wanted, found, strict=True)}
    return [
        _sample(member, fault, part.start + offset, read, options.max_image_bytes)
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


def _sample(member: Member, fault: str | None, index: int, read: Mapping[Span, bytes], max_bytes: int) -> Sample:
    image = read.get(member.image, b"")
    label = read.get(member.label) if member.label else None
    return Sample(member.id, without_query(member.image.url), index, *settle(fault, image, label, max_bytes))


def _refuse_odd_names(entries: Sequence[Entry]) -> None:
    """Refuse names that are not UTF-8: Parquet could not store them, and ids must survive."""
    odd = [entry.url for entry in entries if not is_storable(entry.url)]
    if odd:
        names = examples(os.fsencode(name).decode("utf-8", "backslashreplace") for name in odd)
        number = count(len(odd), "file name is", "file names are")
        raise UsageError(f"{number} not UTF-8, {names}: rename them")


def _stem(relative: str) -> str:
    return relative[: len(relative) - len(suffix_of(relative))]


def _labels_by_stem(
    base: str, images: Sequence[Entry], folder: str, store: Store, warnings: list[str]
) -> dict[str, Entry]:
    """Return label entries by image URL, matched by path below the two folders, without suffix."""
    if folder == base:
        raise UsageError(
            f"{shown(folder)}: the labels are in the input's own folder, so every image would be its own "
            "label. Say how their names differ with --label-pattern, for example '{dir}/{stem}_L.png'"
        )
    found = [
        entry for entry in store.list(folder) if is_image(entry.url) and not is_hidden(relative_url(entry.url, folder))
    ]
    if base.startswith(folder + "/"):
        found = [entry for entry in found if not entry.url.startswith(base + "/")]
    _refuse_odd_names(found)
    # PNG first: of several files with one stem it is the one that holds exact indices.
    by_stem: dict[str, Entry] = {}
    for entry in sorted(found, key=lambda entry: suffix_of(entry.url) != ".png"):
        by_stem.setdefault(_stem(relative_url(entry.url, folder)), entry)
    labels = {}
    for image in images:
        label = by_stem.get(_stem(relative_url(image.url, base)))
        if label:
            labels[image.url] = label
    if images and not labels:
        looked = join_url(folder, _stem(relative_url(images[0].url, base)))
        have = f"{count(len(found), 'image')} there, {examples(e.url for e in found)}" if found else "no images there"
        raise UsageError(
            f"none of the {count(len(images), 'image')} has a label: looked for {shown(looked)}.png "
            f"(or another image suffix); {have}"
        )
    _warn_unmatched(images, labels, found, folder, base, warnings)
    return labels


def _warn_unmatched(
    images: Sequence[Entry],
    labels: Mapping[str, Entry],
    found: Sequence[Entry],
    folder: str,
    base: str,
    warnings: list[str],
) -> None:
    bare = [relative_url(image.url, base) for image in images if image.url not in labels]
    if bare:
        warnings.append(
            f"{len(bare)} of {count(len(images), 'image')} {'has' if len(bare) == 1 else 'have'} no label in "
            f"{shown(folder)}: segmented, not scored; {examples(bare)}"
        )
    used = {label.url for label in labels.values()}
    idle = [relative_url(label.url, folder) for label in found if label.url not in used]
    if idle:
        warnings.append(f"{count(len(idle), 'label has', 'labels have')} no image, {examples(idle)}")


def _labels_by_pattern(
    base: str, images: Sequence[Entry], options: InputOptions, store: Store, warnings: list[str]
) -> tuple[list[Entry], dict[str, Entry]]:
    """Return the images that are no labels, and label entries by image URL."""
    folder = to_url(options.labels) if options.labels is not None else base
    pattern = options.label_pattern or ""
    here = {entry.url: entry for entry in images}
    wanted = {entry.url: _expand(pattern, relative_url(entry.url, base), folder) for entry in images}
    found = {} if folder == base else {entry.url: entry for entry in store.list(folder) if is_image(entry.url)}
    elsewhere = [url for url in wanted.values() if url not in here and url not in found and not _below(url, folder)]
    known = {**here, **found, **look_up(elsewhere, store)}
    taken = {url for image, url in wanted.items() if url in known and url != image}
    kept = [entry for entry in images if entry.url not in taken]
    labels = {entry.url: known[wanted[entry.url]] for entry in kept if wanted[entry.url] in known}
    labels = {image: label for image, label in labels.items() if image != label.url}
    if kept and not labels:
        raise UsageError(
            f"none of the {count(len(kept), 'image')} has a label: with --label-pattern '{pattern}' looked "
            f"for {shown(wanted[kept[0].url])} as the label of {shown(kept[0].url)}"
        )
    _refuse_odd_names(list(labels.values()))
    _warn_unmatched(kept, labels, [e for e in found.values() if e.url not in here], folder, base, warnings)
    return kept, labels


def _below(url: str, folder: str) -> bool:
    return url.startswith(folder + "/")


def _expand(pattern: str, relative: str, folder: str) -> str:
    """Return the URL that a label pattern gives for an image; `{dir}` of a top-level image is `.`."""
    directory, name = posixpath.split(relative)
    path = pattern.format(stem=_stem(name), dir=directory or ".", name=name)
    return join_url(folder, posixpath.normpath(path))
