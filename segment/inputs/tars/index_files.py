"""Index files beside tars (`a.idx` of `a.tar`), as DALI's `wds2idx` writes them: they save reading the whole tar.

The first line is `v1.2` and the number of samples. A line of a sample holds four words for each member: its suffix, the
first byte of its data, its size and its name.
"""

from __future__ import annotations

import tarfile
from collections.abc import Sequence

from segment.errors import StoreError
from segment.inputs.lookup import in_threads
from segment.inputs.tars.tar_damage import BLOCK
from segment.store.client import Entry, Store
from segment.store.urls import is_http

File = tuple[str, int, int]  # name, first byte, size

_LEAST_BYTES = 16 << 20  # of a tar whose index file is looked for: a smaller one is read as fast
_MOST_BYTES = 256 << 20  # of an index file
_CHECKED = 4  # members whose headers are compared with the tar


def index_url(tar: str) -> str:
    """Return the URL of the index file of a tar.

    >>> index_url("s3://b/train/0001.tar")
    's3://b/train/0001.idx'
    """
    return f"{tar.removesuffix('.tar')}.idx"


def read_index(entry: Entry, store: Store) -> list[File] | None:
    """Return the files of a tar by its index file; None if there is none, or if the tar says otherwise.

    Headers of the first and the last member and of some between are read, so that the index of another tar, or of an
    earlier version, is not taken for that of this one. Damage of the tar between them is not found.
    """
    if entry.size < _LEAST_BYTES or not entry.url.endswith(".tar") or is_http(entry.url):
        return None
    try:
        data = store.read_if_exists(index_url(entry.url))
        files = _parse(data, entry.size) if data and len(data) <= _MOST_BYTES else None
        return files if files and _matches(files, entry, store) else None
    except StoreError:  # such as one that forbids to read it: the tar itself tells
        return None


def _parse(data: bytes, size: int) -> list[File] | None:
    """Parse an index file of a tar of `size` bytes; None if it is none."""
    try:
        first, *lines = data.decode().splitlines()
        version, samples = first.split(" ")
        if version != "v1.2" or int(samples) != len(lines):
            return None
        files = [file for line in lines for file in _members(line.split(" "))]
    except ValueError:
        return None
    files.sort(key=lambda file: file[1])
    ends = [0, *(start + length for _, start, length in files)]
    is_sound = all(start >= end + BLOCK for (_, start, _), end in zip(files, ends, strict=False))
    return files if is_sound and ends[-1] <= size else None


def _members(words: Sequence[str]) -> list[File]:
    """Return the members of a sample.

    Raises:
        ValueError: it is no line of an index, or a name contains spaces.
    """
    if len(words) % 4:
        raise ValueError
    members = [(words[i + 3], int(words[i + 1]), int(words[i + 2])) for i in range(0, len(words), 4)]
    suffixes = words[::4]
    if any(size < 0 or not name.endswith(suffix) for (name, _, size), suffix in zip(members, suffixes, strict=True)):
        raise ValueError
    return members


def _matches(files: Sequence[File], entry: Entry, store: Store) -> bool:
    """Return whether headers of some files are where the index says."""
    last = len(files) - 1
    some = sorted({last * number // (_CHECKED - 1) for number in range(_CHECKED)})

    def is_there(number: int) -> bool:
        name, start, size = files[number]
        try:
            data = store.read(entry.url, start - BLOCK, start, entry.etag)
            header = tarfile.TarInfo.frombuf(data, "utf-8", "surrogateescape")
        except tarfile.TarError:
            return False
        return header.isreg() and header.size == size and name.startswith(header.name)  # a long one is cut off there

    return all(in_threads(is_there, some))
