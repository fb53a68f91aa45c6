"""The scope of an input: where the objects may be that its lists, its Parquet cells and its plan name."""

import os
from collections.abc import Mapping
from typing import Any

from segment.errors import UsageError
from segment.inputs.patterns import FILE_SUFFIXES, LIST_SUFFIXES, buckets_of_pattern, folder_of_pattern, is_pattern
from segment.job import InputOptions
from segment.store.names import shown, suffix_of
from segment.store.scope import Scope, prefix_of
from segment.store.urls import parent_url, to_url, unsigned


def scope_of(input: str, options: InputOptions) -> Scope:  # noqa: A002
    """Return what an input may name: its own prefix, that of its labels, and what the user allows beside.

    The prefix of a remote input is its bucket, container or host; that of a local one is its folder, and of a list or
    another file the folder that holds it. Links are followed where the objects are found by listing; a list names them,
    and no link leads outside, but for the list itself.

    Args:
        options: `labels`, `label_pattern` and `allow_input` count.
    """
    url, *labels = (unsigned(to_url(text)) for text in (input, options.labels) if text is not None)
    is_list = options.format == "list" or (suffix_of(url) in LIST_SUFFIXES and not _is_local_folder(url))
    own = [prefix for each in (url, *labels) for prefix in _own_prefixes(each)]
    own.append(_pattern_prefix(own[-1], options.label_pattern or ""))
    allowed = (unsigned(to_url(text)) for text in options.allow_input)
    return Scope.of([*own, *allowed, *([url] if is_list else [])], follow_links=not is_list)


def scope_of_run(run: Mapping[str, Any], output: str) -> Scope:
    """Return what the input of a run may name, by its `run.json`, which whoever may write to the output can change.

    An output in a store leads no reader to the reader's own machine: neither to its files, nor to addresses of it, of
    its link or of metadata services.

    Raises UsageError: the file does not say it.
    """
    try:
        scope = scope_of(run["contract"]["input"]["url"], InputOptions.of_run(run))
    except (LookupError, TypeError, ValueError, AttributeError):
        raise UsageError(f"{shown(output)}/run.json does not say what was segmented: restore it") from None
    return scope if output.startswith("file://") else scope.elsewhere


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
    if _is_local_folder(url):
        return url
    if os.path.isfile(path):  # noqa: PTH113
        return parent_url(url)
    if is_pattern(url):
        return folder_of_pattern(url)
    return parent_url(url) if suffix_of(url) in FILE_SUFFIXES else url


def _is_local_folder(url: str) -> bool:
    return url.startswith("file://") and os.path.isdir(url.removeprefix("file://"))  # noqa: PTH112  # Path raises
