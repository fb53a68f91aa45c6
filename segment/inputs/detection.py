"""Detect the format of an input and select the objects of that format."""

from collections import Counter
from typing import Literal

from segment.errors import UsageError
from segment.inputs.findings import Findings, by_reason
from segment.inputs.lookup import in_threads
from segment.inputs.patterns import LIST_SUFFIXES, Found
from segment.inputs.tars.archive import compressed_tar, refuse_compressed
from segment.inputs.tars.index_files import index_url
from segment.job import InputOptions
from segment.store.client import Entry, Store
from segment.store.entries import Entries
from segment.store.names import IMAGE_SUFFIXES, count, examples, is_image, shown, suffix_of
from segment.store.urls import relative_url, to_url, unsigned

Kind = Literal["files", "webdataset", "parquet", "list"]

_SUFFIXES: dict[str, Kind] = {".tar": "webdataset", ".parquet": "parquet", ".pq": "parquet"}
_NOUNS: dict[Kind, str] = {
    "files": "image", "webdataset": "tar", "parquet": "Parquet file", "list": "list file"
}  # fmt: skip
# The kinds of input that each option applies to. For another kind it is refused instead of ignored.
_OPTIONS: dict[str, tuple[Kind, ...]] = {
    "labels": ("files",),
    "label_pattern": ("files",),
    "image_key": ("webdataset",),
    "label_key": ("webdataset",),
    "image_column": ("parquet", "list"),
    "label_column": ("parquet", "list"),
    "id_column": ("parquet", "list"),
}


def detect_kind(found: Found, options: InputOptions, findings: Findings) -> Kind:
    """Return the kind of an input: the format option, or what the file names indicate.

    Raises UsageError: the input holds nothing to segment, or several kinds; or an option does not apply to its kind.
    """
    kind = _kind(found, options, findings)
    _refuse_foreign_options(kind, options)
    return kind


def _kind(found: Found, options: InputOptions, findings: Findings) -> Kind:
    if options.format != "auto":
        return options.format
    if found.single and suffix_of(found.entries[0].url) in LIST_SUFFIXES:
        return "list"
    kinds = Counter(kind for url in found.entries.urls() if (kind := _kind_of(url)))
    if not kinds:
        raise UsageError(_nothing_usable(found, "image", findings))
    if len(kinds) > 1:
        what = " and ".join(count(number, _NOUNS[kind]) for kind, number in kinds.most_common())
        choices = ", ".join(f"--format {kind}" for kind, _ in kinds.most_common())
        raise UsageError(f"{shown(found.base)} holds {what}: select one kind ({choices})")
    return next(iter(kinds))


def _kind_of(url: str) -> Kind | None:
    suffix = suffix_of(url)
    if suffix in IMAGE_SUFFIXES:
        return "files"
    return "webdataset" if compressed_tar(url) else _SUFFIXES.get(suffix)


def _refuse_foreign_options(kind: Kind, options: InputOptions) -> None:
    for name, owners in _OPTIONS.items():
        if getattr(options, name) is not None and kind not in owners:
            flag = "--" + name.replace("_", "-")
            them = " and ".join(f"{_NOUNS[owner]}s" for owner in owners)
            raise UsageError(f"{flag} is for {them}; this input is {_NOUNS[kind]}s ({kind})")
    if options.labels is not None and unsigned(to_url(options.labels)) != to_url(options.labels):
        raise UsageError(
            f"--labels {shown(to_url(options.labels))}: a signature is for one object, and this is a folder. Name each "
            "label by its signed URL in a list"
        )


def entries_of_kind(kind: Kind, found: Found, store: Store, findings: Findings) -> Entries:
    """Return the objects of one kind; a single object is returned whatever its name.

    For loose images all objects are returned: which of them are labels is known after the label search.

    Raises UsageError: there is none, or it is a compressed tar.
    """
    entries = found.entries
    if kind == "list":
        if not found.single:
            raise UsageError(
                f"{shown(found.base)}: --format list takes one list file (.txt, .csv, .tsv, .jsonl or .json)"
            )
        return entries
    if kind == "files":
        if not any(is_image(url) for url in entries.urls()):
            raise UsageError(_nothing_usable(found, _NOUNS[kind], findings))
        return entries  # labels may have other suffixes
    if not found.single:
        others = [entry.url for entry in entries if _kind_of(entry.url) != kind]
        if kind == "webdataset":
            indexes = {index_url(entry.url) for entry in entries if _kind_of(entry.url) == kind}
            others = [url for url in others if url not in indexes]
        findings.leave_out_files([relative_url(url, found.base) for url in others])
        entries = Entries(entry for entry in entries if _kind_of(entry.url) == kind)
    if not entries:
        raise UsageError(_nothing_usable(found, _NOUNS[kind], findings))
    for entry in entries:
        refuse_compressed(entry.url)
    return Entries(in_threads(lambda entry: _with_size(entry, store), entries))


def _with_size(entry: Entry, store: Store) -> Entry:
    """Return the entry with size and etag, which a listing over HTTP lacks."""
    return entry if entry.size >= 0 else store.info(entry.url) or entry


def _nothing_usable(found: Found, noun: str, findings: Findings) -> str:
    """Return the message of an input without images (or tars, or Parquet files): what it holds instead."""
    where = shown(found.entries[0].url if found.single else found.base)
    left = "".join(f"; {item}" for item in by_reason(findings.left_out))
    if not found.entries:
        return f"{where} holds no {noun}{left or ', nothing but labels'}"
    suffixes = Counter(suffix_of(entry.url) or "no suffix" for entry in found.entries)
    kinds = ", ".join(f"{suffix} x {number}" for suffix, number in suffixes.most_common(4))
    them = "them an image" if noun == "image" else f"them a {noun}"
    if found.single:
        return f"{where} is no {noun} by its name; if it is one, use --format"
    files = count(len(found.entries), "file")
    return f"{where}: {files}, none of {them} ({kinds}), {examples([found.entries[0].url])}{left}"
