"""Inputs: discover what is there, cut it in shards and parts, read the samples of a part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from segment.errors import UsageError
from segment.formats.files import plan_files, read_files
from segment.parts import (
    Discovery,
    InputFormat,
    InputOptions,
    Member,
    Part,
    Sample,
    ShardFormat,
    Span,
    count,
    cut,
    is_hidden,
    is_image,
    shown,
    suffix_of,
)
from segment.store import Entry, Store, parent_url, relative_url, to_url

__all__ = [
    "Discovery",
    "InputFormat",
    "InputOptions",
    "Member",
    "Part",
    "Sample",
    "ShardFormat",
    "Span",
    "discover",
    "read_part",
]


def discover(input: str, options: InputOptions, store: Store) -> Discovery:  # noqa: A002
    """Find the images of an input and cut them in parts. Nothing is read but listings, headers and footers.

    Args:
        input: a folder or prefix of images, tars or Parquet files; one of these files; a glob or brace range
            of them; a list file. A local path or any fsspec URL.

    Raises:
        UsageError: nothing there, no image there, or the options do not fit.
        StoreError: the store refused.
    """
    url = to_url(input)
    entries = store.list(url)
    base = url
    if not entries:
        entry = store.info(url)
        if entry is None:
            raise UsageError(f"nothing at {shown(url)}")
        entries, base = [entry], parent_url(url)
    entries = _without_labels(base, entries, options)
    warnings: list[str] = []
    if not any(is_image(entry.url) for entry in entries):
        raise UsageError(_no_images(base, entries))
    shards, labelled = plan_files(base, entries, options, store, warnings)
    parts = cut(shards, options)
    return Discovery(parts, sum(len(part) for part in parts), labelled, warnings)


def read_part(part: Part, options: InputOptions, store: Store) -> list[Sample]:
    """Read the samples of a part: exactly `len(part)` of them, in order.

    Raises:
        InputChanged: an object is not the one the plan was made from.
        StoreError: the store refused, or failed too often.
    """
    return read_files(part, options, store)


def _without_labels(base: str, entries: Sequence[Entry], options: InputOptions) -> list[Entry]:
    """Leave out hidden files and the labels folder, where that lies below the input."""
    below = to_url(options.labels) + "/" if options.labels is not None else ""
    if not below.startswith(base + "/") or below == base + "/":
        below = ""
    return [
        entry
        for entry in entries
        if not is_hidden(relative_url(entry.url, base)) and not (below and entry.url.startswith(below))
    ]


def _no_images(base: str, entries: Sequence[Entry]) -> str:
    """Say what a prefix holds instead of images."""
    if not entries:
        return f"{shown(base)} holds no images"
    suffixes = Counter(suffix_of(entry.url) or "no suffix" for entry in entries)
    kinds = ", ".join(f"{suffix} x {number}" for suffix, number in suffixes.most_common(4))
    return f"{shown(base)}: {count(len(entries), 'file')}, none of them an image ({kinds})"
