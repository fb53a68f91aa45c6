"""Slices and groups of images: by the folder of their id, or by what a pattern finds in it."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from segment.errors import UsageError
from segment.store.names import count, shown

FOLDER = "folder"
_MOST = 1000  # slices


@dataclass(frozen=True, eq=False)
class Slices:
    """A value for each of n images.

    Attributes:
        values: the different values, sorted.
        of_image: `int64[n]`, index of the value of each image; -1 where there is none.
    """

    values: tuple[str, ...]
    of_image: NDArray[np.intp]


def slices_of(ids: pa.ChunkedArray, by: str, option: str) -> Slices:
    """Divide images by their ids.

    Args:
        ids: of n images.
        by: `folder`, the part of the id before its last `/`; or a regular expression whose first group is the value,
            such as `^([^_]+)_`.
        option: its name in errors.

    Raises:
        UsageError: neither of the two, no id matches, or there are too many slices.
    """
    value = _reader(by, option)
    found = pa.chunked_array(
        [pa.array(map(value, chunk.to_pylist()), pa.string()) for chunk in ids.chunks], pa.string()
    )
    encoded = found.combine_chunks().dictionary_encode()
    values = encoded.dictionary.to_pylist()
    if len(values) > _MOST and option == "by":
        some = ", ".join(repr(shown(value)) for value in values[:3])
        raise UsageError(f"by = {by!r} has {len(values):,} values, such as {some}: slices are {_MOST:,} at most")
    if not values:
        first = shown(ids[0].as_py()) if len(ids) else "none"
        raise UsageError(f"{option} = {by!r}: no id of an image matches; the first is {first!r}")
    rank = np.empty(len(values), np.intp)
    rank[sorted(range(len(values)), key=values.__getitem__)] = np.arange(len(values))
    numbers = np.asarray(encoded.indices.fill_null(-1)).astype(np.intp)
    return Slices(tuple(sorted(values)), np.where(numbers < 0, -1, rank[numbers]))


def groups_of(ids: pa.ChunkedArray, by: str) -> Slices:
    """Divide images into the groups that a resample draws; see `slices_of`.

    Raises:
        UsageError: as `slices_of`, or an id does not match, so that its group is not known.
    """
    found = slices_of(ids, by, "group_by")
    if len(without := np.flatnonzero(found.of_image < 0)):
        name = shown(ids[int(without[0])].as_py())
        raise UsageError(
            f"group_by = {by!r}: {count(len(without), 'id')} of {len(ids):,} do not match, such as {name!r}: images "
            "without a group cannot be resampled with it"
        )
    return found


def _reader(by: str, option: str) -> Callable[[str], str | None]:
    if by == FOLDER:
        return posixpath.dirname
    try:
        pattern = re.compile(by)
    except re.error as error:
        raise UsageError(f"{option} = {by!r} is no regular expression: {error}") from None
    if not pattern.groups:
        how = f"write {FOLDER!r}, or a regular expression whose first group is the value, such as '^([^_]+)_'"
        raise UsageError(f"{option} = {by!r} says nothing about what is taken from an id: {how}")

    def first_group(name: str) -> str | None:
        match = pattern.search(name)
        return match[1] if match else None

    return first_group
