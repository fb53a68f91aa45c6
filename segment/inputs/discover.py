"""Discover an input and read its parts: the entry point of this package for all formats."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from segment.errors import UsageError
from segment.inputs.changes import Known
from segment.inputs.detection import Kind, detect_kind, entries_of_kind
from segment.inputs.findings import Findings, Reason
from segment.inputs.lists.list_file import LIST_SUFFIXES, listed_urls, plan_list
from segment.inputs.loose.files import plan_files, read_files
from segment.inputs.loose.label_files import wanted_labels
from segment.inputs.own_scope import scope_of
from segment.inputs.parquet.footers import has_label_column, plan_parquet
from segment.inputs.parquet.row_groups import read_parquet, read_row_ids
from segment.inputs.parquet.table_formats import current_files
from segment.inputs.parts import Discovery, Member, Part, Sample, ShardFormat, Span, Unindexed, image_uri
from segment.inputs.patterns import Found, find_objects, sign_input
from segment.inputs.selection import select_images
from segment.inputs.shards import Planned, cut, mark_repeated
from segment.inputs.tars.instalments import Spread, index_more, plan_first_tars, unindexed_of
from segment.inputs.tars.webdataset import plan_webdataset, read_webdataset
from segment.job import InputFormat, InputOptions
from segment.store.client import Entry, Store
from segment.store.names import basename, is_image, shown, skip_reason, suffix_of
from segment.store.urls import parent_url, relative_url, to_url

__all__ = [
    "Discovery",
    "InputFormat",
    "InputOptions",
    "Known",
    "Member",
    "Part",
    "Sample",
    "ShardFormat",
    "Span",
    "Spread",
    "Unindexed",
    "discover",
    "has_label_column",
    "image_uri",
    "index_more",
    "read_ids",
    "read_part",
    "sign_again",
]


def discover(
    input: str,  # noqa: A002
    options: InputOptions,
    store: Store,
    known: Known | None = None,
    without: str | None = None,
    alone: int | None = None,
    *,
    early: bool = False,
) -> Discovery:
    """Find the images of an input and cut them into parts. Only listings, headers and footers are read.

    Args:
        input: a folder or prefix of images, tars or Parquet files; one of these files; a glob or brace range
            of them; a list file. A local path or any fsspec URL.
        options: how to read it.
        store: where to read it. It gets the signatures of the signed URLs that are found (`Store.add_signed_urls`),
            and what the input may name (`Store.limit_inputs`).
        known: the input that is already planned. Its images are left out, except those of changed parts; it collects
            the changes.
        without: URL of a folder to leave out, such as an output below the input.
        alone: encoded bytes from which on an image is a part by itself; see `cut`.
        early: index only the first tars of a large input, and return the others in `Discovery.unindexed`.

    Raises:
        UsageError: nothing is found, no image is found, or the options do not fit.
        StoreError: the store refused.
    """
    findings = Findings()
    store.limit_inputs(scope_of(input, options))
    store = store.inputs
    found = find_objects(input, store, findings)
    everything = {entry.url: entry for entry in found.entries}  # a label pattern may name any of them
    whole = found.whole
    if without:
        found = _outside(found, [without])
    found = _visible(_without_runs(found, store, findings), options, findings)
    kind = detect_kind(found, options, findings)
    entries = entries_of_kind(kind, found, store, findings)
    if kind == "parquet" and not found.single:
        entries = current_files(found.base, entries, everything, store.within(None), findings)  # a log may be above
    if known and kind in ("webdataset", "parquet"):
        entries = known.objects_to_plan(entries)
        if not entries:
            return Discovery([], 0, 0, findings.warnings, findings.notes, findings.left_out)
    is_selection = options.limit is not None or options.sample is not None
    by_instalments = options.limit is not None or (early and not is_selection)
    plans: dict[Kind, Callable[[], Planned]] = {
        "files": lambda: plan_files(found.base, entries, everything, options, store, findings, known, whole=whole),
        "webdataset": lambda: (
            plan_first_tars(entries, options, store, findings)
            if by_instalments and not known
            else plan_webdataset(entries, options, store, findings, known)
        ),
        "parquet": lambda: plan_parquet(entries, options, store, findings),
        "list": lambda: plan_list(entries[0], options, store, findings, known),
    }
    planned = plans[kind]()
    selected = select_images(planned.shards, options, found.base, findings, whole=not planned.not_indexed)
    if is_selection and findings.warnings:
        cover = "the indexed tars" if planned.not_indexed else "the whole input"
        findings.notes.append(f"warnings cover {cover}, from which --limit and --sample select")
    planned.warn(selected if is_selection else None)
    shards = mark_repeated(selected, findings.warnings)
    unindexed = None if is_selection else unindexed_of(planned, entries, options)
    if unindexed:
        options = options.model_copy(update={"part_size": unindexed.part_size})
    parts = cut(shards, options, alone)
    images = sum(len(part) for part in parts)
    labelled = sum(member.label is not None for part in parts for member in part.members)
    counted = labelled if planned.labels_known else None
    return Discovery(parts, images, counted, findings.warnings, findings.notes, findings.left_out, unindexed)


def sign_again(
    input: str,  # noqa: A002
    options: InputOptions,
    store: Store,
    listed: bool,
) -> None:
    """Give a store the signed URLs of an input that is already planned. The plan does not store signatures.

    Args:
        input, options: as in `discover`.
        store: gets the signatures.
        listed: whether the input is a list that names signed URLs. The list is then read again.

    Raises:
        StoreError: the list cannot be read.
        UsageError: it is no list any more.
    """
    store = store.inputs
    url = sign_input(input, store)
    if listed and (options.format == "list" or suffix_of(url) in LIST_SUFFIXES):
        store.add_signed_urls(listed_urls(url, store))


def read_part(part: Part, options: InputOptions, store: Store, *, windowed: bool = False) -> list[Sample]:
    """Read the samples of a part: exactly `len(part)` of them, in order.

    Args:
        part: the part.
        options: how its input is read.
        store: where it is.
        windowed: do not read TIFFs of `segment.inputs.large_files.LARGE_BYTES` or more, which have no limit then, but
            say where they are (`Sample.large_image`); `open_image_file` opens them. Not in Parquet files, whose cells
            are read as a whole.

    Raises:
        InputChanged: an object is not the planned one any more.
        NotAllowed: the tar or Parquet file of the part is outside of the scope of the run.
        StoreError: the store refused, or failed too often.
    """
    store = _limited(part, options, store)
    if part.format == "files":
        return read_files(part, options, store, windowed=windowed)
    if part.format == "parquet":
        return read_parquet(part, options, store)
    return read_webdataset(part, options, store, windowed=windowed)


def read_ids(part: Part, options: InputOptions, store: Store) -> list[str]:
    """Read the ids of the rows of a part of a Parquet file, equal to those of `read_part`.

    Raises:
        InputChanged: the file is not the planned one.
        SegmentError: the ids cannot be read.
    """
    return read_row_ids(part, options, _limited(part, options, store))


def _limited(part: Part, options: InputOptions, store: Store) -> Store:
    """Return a store that reads what the run may read; where no run is known, what the part's own shard may name.

    Raises:
        NotAllowed: the tar or Parquet file of the part is outside of that.
    """
    scope = store.scope or scope_of(part.url, options)
    if part.format != "files":
        scope.check(part.url)
    return store.within(scope)


def _visible(found: Found, options: InputOptions, findings: Findings) -> Found:
    """Leave out hidden, system and irregular objects, links to other entries, and a labels folder below the input."""
    if found.single:
        return found
    labels = to_url(options.labels) + "/" if options.labels is not None else ""
    if not labels.startswith(found.base + "/") or labels == found.base + "/":
        labels = ""
    kept: list[Entry] = []
    left: dict[Reason, list[Entry]] = defaultdict(list)
    for entry in found.entries:
        if labels and entry.url.startswith(labels):
            continue  # the label search counts unused files there
        if reason := skip_reason(relative_url(entry.url, found.base), include_hidden=options.include_hidden):
            left[reason].append(entry)
        elif entry.irregular:
            left["irregular"].append(entry)
        else:
            kept.append(entry)
    own_names = {entry.url for entry in kept if not entry.link_to}
    left["linked"] = [entry for entry in kept if entry.link_to in own_names]
    kept = [entry for entry in kept if entry.link_to not in own_names]
    used = set(wanted_labels(found.base, [entry for entry in kept if is_image(entry.url)], options).values())
    for why, entries in left.items():
        findings.leave_out(why, [relative_url(entry.url, found.base) for entry in entries if entry.url not in used])
    return replace(found, entries=kept)


def _outside(found: Found, folders: Sequence[str]) -> Found:
    """Leave out the content of some folders."""
    prefixes = tuple(folder + "/" for folder in folders)
    return replace(found, entries=[entry for entry in found.entries if not entry.url.startswith(prefixes)])


def _without_runs(found: Found, store: Store, findings: Findings) -> Found:
    """Leave out the outputs of other runs of this program: their masks and tables are no input.

    Raises:
        UsageError: the input itself is the output of a run.
    """
    if found.single:
        return found
    records = [entry.url for entry in found.entries if basename(entry.url) == "run.json"]
    runs = [parent_url(url) for url in records if _is_run(store.read_if_exists(url))]
    if found.base in runs:
        raise UsageError(f"{shown(found.base)} is the output of a run, and no input; its masks are in masks/")
    for folder in runs:
        inside = [entry.url for entry in found.entries if entry.url.startswith(folder + "/")]
        name = relative_url(folder, found.base)
        findings.leave_out("run_output", [name] * len(inside), [suffix_of(url) or "no suffix" for url in inside])
    return _outside(found, runs)


def _is_run(data: bytes | None) -> bool:
    """Whether `data` is a `run.json` of this program."""
    try:
        run = json.loads(data or b"")
        return isinstance(run, dict) and bool(run["contract"]) and bool(run["fingerprint"])
    except (ValueError, KeyError, RecursionError):
        return False
