"""Inputs: discover what is there, cut it in shards and parts, read the samples of a part."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from segment.errors import UsageError
from segment.inputs.changes import Known
from segment.inputs.choosing import choose
from segment.inputs.cutting import Planned, cut, mark_repeated
from segment.inputs.findings import Findings, Reason, by_reason
from segment.inputs.lists.list_file import LIST_SUFFIXES, listed_urls, plan_list
from segment.inputs.lookup import in_threads
from segment.inputs.loose.files import count_others, plan_files, read_files
from segment.inputs.loose.label_files import wanted_labels
from segment.inputs.parquet.lake import current_files
from segment.inputs.parquet.row_groups import has_label_column, plan_parquet, read_ids, read_parquet
from segment.inputs.parts import Discovery, Member, Part, Sample, ShardFormat, Span, image_uri
from segment.inputs.patterns import Found, find_objects, sign_input
from segment.inputs.tars.archive import compressed_tar, refuse_compressed
from segment.inputs.tars.webdataset import plan_webdataset, read_webdataset
from segment.job import InputOptions
from segment.store.client import Entry, Store
from segment.store.names import basename, count, examples, is_image, shown, skip_reason, suffix_of
from segment.store.urls import parent_url, relative_url, to_url, unsigned

__all__ = [
    "Discovery",
    "Known",
    "Member",
    "Part",
    "Sample",
    "ShardFormat",
    "Span",
    "discover",
    "has_label_column",
    "image_uri",
    "read_ids",
    "read_part",
    "sign_again",
]

Kind = Literal["files", "webdataset", "parquet", "list"]

_SUFFIXES: dict[str, Kind] = {".tar": "webdataset", ".parquet": "parquet", ".pq": "parquet"}
_NOUNS: dict[Kind, str] = {
    "files": "image", "webdataset": "tar", "parquet": "Parquet file", "list": "list file"
}  # fmt: skip
# Which options belong to which kind of input. Given to another one they would be ignored without a word.
_OPTIONS: dict[str, tuple[Kind, ...]] = {
    "labels": ("files",),
    "label_pattern": ("files",),
    "image_key": ("webdataset",),
    "label_key": ("webdataset",),
    "image_column": ("parquet", "list"),
    "label_column": ("parquet", "list"),
    "id_column": ("parquet", "list"),
}


def discover(
    input: str,  # noqa: A002
    options: InputOptions,
    store: Store,
    known: Known | None = None,
    without: str | None = None,
) -> Discovery:
    """Find the images of an input and cut them in parts. Nothing is read but listings, headers and footers.

    Args:
        input: a folder or prefix of images, tars or Parquet files; one of these files; a glob or brace range
            of them; a list file. A local path or any fsspec URL.
        options: how to read it.
        store: where to read it; learns the signatures of the URLs that it finds (`Store.add_signed_urls`).
        known: what is planned already. It is left out, but for the parts whose input has changed, and told what has.
        without: URL of a folder to leave out: an output below the input is no input.

    Raises:
        UsageError: nothing there, no image there, or the options do not fit.
        StoreError: the store refused.
    """
    findings = Findings()
    found = find_objects(input, store, findings)
    everything = {entry.url: entry for entry in found.entries}  # a label may have any name that a pattern gives
    whole = found.whole
    if without:
        found = _outside(found, [without])
    found = _visible(_without_runs(found, store, findings), options, findings)
    kind = _kind(found, options, findings)
    _refuse_foreign_options(kind, options)
    entries = _of_kind(kind, found, store, findings)
    if kind == "parquet" and not found.single:
        entries = current_files(found.base, entries, everything, store, findings)
    if known and kind in ("webdataset", "parquet"):
        entries = known.objects_to_plan(entries)
        if not entries:
            return Discovery([], 0, 0, findings.warnings, findings.notes, findings.left_out)
    plans: dict[Kind, Callable[[], Planned]] = {
        "files": lambda: plan_files(found.base, entries, everything, options, store, findings, known, whole=whole),
        "webdataset": lambda: plan_webdataset(entries, options, store, findings, known),
        "parquet": lambda: plan_parquet(entries, options, store, findings),
        "list": lambda: plan_list(entries[0], options, store, findings, known),
    }
    planned = plans[kind]()
    chosen = choose(planned.shards, options, found.base, findings)
    is_choice = options.limit is not None or options.sample is not None
    if is_choice and findings.warnings:
        findings.notes.append("warnings are of the whole input: --limit and --sample choose from its images afterwards")
    planned.warn(chosen if is_choice else None)
    shards = mark_repeated(chosen, findings.warnings)
    parts = cut(shards, options)
    images = sum(len(part) for part in parts)
    labelled = sum(member.label is not None for part in parts for member in part.members)
    counted = labelled if planned.labels_known else None
    return Discovery(parts, images, counted, findings.warnings, findings.notes, findings.left_out)


def sign_again(
    input: str,  # noqa: A002
    options: InputOptions,
    store: Store,
    listed: bool,
) -> None:
    """Let a store know the signed URLs of an input that is planned already: no plan keeps them.

    Args:
        input, options: as in `discover`.
        store: that is to read it.
        listed: whether the input is a list that names signed URLs: it is read again.

    Raises:
        StoreError: the list cannot be read.
        UsageError: it is no list any more.
    """
    url = sign_input(input, store)
    if listed and (options.format == "list" or suffix_of(url) in LIST_SUFFIXES):
        store.add_signed_urls(listed_urls(url, store))


def read_part(part: Part, options: InputOptions, store: Store) -> list[Sample]:
    """Read the samples of a part: exactly `len(part)` of them, in order.

    Raises:
        InputChanged: an object is not the one the plan was made from.
        StoreError: the store refused, or failed too often.
    """
    readers = {"files": read_files, "webdataset": read_webdataset, "parquet": read_parquet}
    return readers[part.format](part, options, store)


def _visible(found: Found, options: InputOptions, findings: Findings) -> Found:
    """Leave out what is no data by its name, what is read by another name, and the labels folder below the input."""
    if found.single:
        return found
    labels = to_url(options.labels) + "/" if options.labels is not None else ""
    if not labels.startswith(found.base + "/") or labels == found.base + "/":
        labels = ""
    kept: list[Entry] = []
    left: dict[Reason, list[Entry]] = defaultdict(list)
    for entry in found.entries:
        if labels and entry.url.startswith(labels):
            continue  # what is there and is not used is counted by who looks for labels
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
    """Leave out what is in some folders."""
    prefixes = tuple(folder + "/" for folder in folders)
    return replace(found, entries=[entry for entry in found.entries if not entry.url.startswith(prefixes)])


def _without_runs(found: Found, store: Store, findings: Findings) -> Found:
    """Leave out the outputs of other runs of this program: their masks and tables are no input.

    Raises:
        UsageError: the input itself is one.
    """
    if found.single:
        return found
    records = [entry.url for entry in found.entries if basename(entry.url) == "run.json"]
    runs = [parent_url(url) for url in records if is_run(store.read_if_exists(url))]
    if found.base in runs:
        raise UsageError(f"{shown(found.base)} is the output of a run, and no input; its masks are in masks/")
    for folder in runs:
        inside = [entry.url for entry in found.entries if entry.url.startswith(folder + "/")]
        name = relative_url(folder, found.base)
        findings.leave_out("run_output", [name] * len(inside), [suffix_of(url) or "no suffix" for url in inside])
    return _outside(found, runs)


def is_run(data: bytes | None) -> bool:
    """Whether these are the bytes of a `run.json` of this program."""
    try:
        run = json.loads(data or b"")
        return isinstance(run, dict) and bool(run["contract"]) and bool(run["fingerprint"])
    except (ValueError, KeyError, RecursionError):
        return False


def _kind(found: Found, options: InputOptions, findings: Findings) -> Kind:
    """Decide what an input is.

    Raises:
        UsageError: it holds nothing to segment, or several kinds of things.
    """
    if options.format != "auto":
        return options.format
    if found.single and suffix_of(found.entries[0].url) in LIST_SUFFIXES:
        return "list"
    kinds = Counter(kind for entry in found.entries if (kind := _kind_of(entry.url)))
    if not kinds:
        raise UsageError(_nothing_usable(found, "image", findings))
    if len(kinds) > 1:
        what = " and ".join(count(number, _NOUNS[kind]) for kind, number in kinds.most_common())
        choices = ", ".join(f"--format {kind}" for kind, _ in kinds.most_common())
        raise UsageError(f"{shown(found.base)} holds {what}: say which are meant ({choices})")
    return next(iter(kinds))


def _kind_of(url: str) -> Kind | None:
    if compressed_tar(url):
        return "webdataset"
    return "files" if is_image(url) else _SUFFIXES.get(suffix_of(url))


def _of_kind(kind: Kind, found: Found, store: Store, findings: Findings) -> list[Entry]:
    """Return the objects of one kind; whatever its name for a single object with `--format`.

    For loose images all objects: which are labels, and which are left out, is known when labels have been looked for.
    """
    entries = list(found.entries)
    if kind == "list":
        if not found.single:
            raise UsageError(
                f"{shown(found.base)}: --format list takes one list file (.txt, .csv, .tsv, .jsonl or .json)"
            )
        return entries
    if kind == "files":
        if not any(is_image(entry.url) for entry in entries):
            raise UsageError(_nothing_usable(found, _NOUNS[kind], findings))
        return entries  # labels may have other suffixes
    if not found.single:
        entries = [entry for entry in entries if _kind_of(entry.url) == kind]
        _count_others(kind, found, findings)
    if not entries:
        raise UsageError(_nothing_usable(found, _NOUNS[kind], findings))
    for entry in entries:
        refuse_compressed(entry.url)
    return in_threads(lambda entry: _complete(entry, store), entries)


def _count_others(kind: Kind, found: Found, findings: Findings) -> None:
    """Count the files of a folder that are not of the kind that is read."""
    names = [relative_url(entry.url, found.base) for entry in found.entries if _kind_of(entry.url) != kind]
    count_others(names, findings)


def _complete(entry: Entry, store: Store) -> Entry:
    """Ask for size and etag where the listing did not tell, as over http."""
    return entry if entry.size >= 0 else store.info(entry.url) or entry


def _refuse_foreign_options(kind: Kind, options: InputOptions) -> None:
    for name, owners in _OPTIONS.items():
        if getattr(options, name) is not None and kind not in owners:
            flag = "--" + name.replace("_", "-")
            them = " and ".join(f"{_NOUNS[owner]}s" for owner in owners)
            raise UsageError(f"{flag} is for {them}; this input is {_NOUNS[kind]}s ({kind})")
    if options.labels is not None and unsigned(to_url(options.labels)) != to_url(options.labels):
        raise UsageError(
            f"--labels {shown(to_url(options.labels))}: a signature is of one object, and this is a folder. Name each "
            "label by its signed URL in a list"
        )


def _nothing_usable(found: Found, noun: str, findings: Findings) -> str:
    """Say what an input holds instead of images (or tars, or Parquet files)."""
    where = shown(found.entries[0].url if found.single else found.base)
    left = "".join(f"; {item}" for item in by_reason(findings.left_out))
    if not found.entries:
        return f"{where} holds no {noun}{left or ', nothing but labels'}"
    suffixes = Counter(suffix_of(entry.url) or "no suffix" for entry in found.entries)
    kinds = ", ".join(f"{suffix} x {number}" for suffix, number in suffixes.most_common(4))
    them = "them an image" if noun == "image" else f"them a {noun}"
    if found.single:
        return f"{where} is no {noun} by its name; if it is one, say so with --format"
    files = count(len(found.entries), "file")
    return f"{where}: {files}, none of {them} ({kinds}), {examples([found.entries[0].url])}{left}"
