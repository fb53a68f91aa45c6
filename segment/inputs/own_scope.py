"""The scope of an input: where the objects may be that its lists, its Parquet cells and its plan name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from segment.errors import UsageError
from segment.inputs.patterns import FILE_SUFFIXES, buckets_of_pattern, folder_of_pattern, is_pattern
from segment.job import InputOptions
from segment.store.names import shown, suffix_of
from segment.store.scope import Scope, prefix_of
from segment.store.urls import parent_url, to_url, unsigned


def scope_of(input: str, options: InputOptions) -> Scope:  # noqa: A002
    """Return what an input may name: its own prefix, that of its labels, and what the user allows beside.

    The prefix of a remote input is its bucket, container or host; that of a local one is its folder, and of a list or
    another file the folder that holds it.

    Args:
        input: path or URL, as `Job.input`.
        options: `labels`, `label_pattern` and `allow_input` count.
    """
    named = [input] if options.labels is None else [input, options.labels]
    own = [prefix for text in named for prefix in _own_prefixes(unsigned(to_url(text)))]
    own.append(_pattern_prefix(own[-1], options.label_pattern or ""))
    return Scope.of([*own, *(unsigned(to_url(text)) for text in options.allow_input)])


def scope_of_run(run: Mapping[str, Any], output: str) -> Scope:
    """Return what the input of a run may name, by its `run.json`.

    Raises:
        UsageError: the file does not say it.
    """
    try:
        return scope_of(run["contract"]["input"]["url"], InputOptions.of_run(run))
    except (LookupError, TypeError, ValueError, AttributeError):
        raise UsageError(f"{shown(output)}/run.json does not say what was segmented: restore it") from None


def _own_prefixes(url: str) -> set[str]:
    if url.startswith("file://"):
        return {_local_folder(url)}
    return {prefix_of(each) for each in buckets_of_pattern(url)}


def _pattern_prefix(folder: str, pattern: str) -> str:
    """Return the folder that holds all labels of a pattern, which the user writes, too."""
    if pattern.startswith("/"):
        return to_url(folder_of_pattern(pattern) or "/")
    if folder.startswith("file://"):
        for _ in range(pattern.split("/").count("..")):
            folder = parent_url(folder)
    return folder


def _local_folder(url: str) -> str:
    """Return the folder of a local input, also of one that is gone since its run."""
    path = url.removeprefix("file://")
    if os.path.isdir(path):  # noqa: PTH112  # Path.is_dir raises for a name too long
        return url
    if os.path.isfile(path):  # noqa: PTH113
        return parent_url(url)
    if is_pattern(url):
        return folder_of_pattern(url)
    return parent_url(url) if suffix_of(url) in FILE_SUFFIXES else url
