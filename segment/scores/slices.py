"""Slices and groups of images: by their id (folder, or what a pattern finds), by size, or by share of a class."""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from segment.errors import UsageError
from segment.metrics.regroup import class_index
from segment.scores.image_counts import ImageCounts
from segment.store.names import count, shown

FOLDER, SIZE, LABEL = "folder", "size", "label:"
_MOST = 1000  # slices
_MEGAPIXELS = (0.25, 1, 4, 16)  # bounds of slices by size
_SHARES = (0.01, 0.1)  # bounds of slices by share of a class


@dataclass(frozen=True, eq=False)
class Slices:
    """A value for each of n images.

    Attributes:
        values: the different values, in order.
        of_image: `int64[n]`, index of the value of each image; -1 where there is none.
    """

    values: tuple[str, ...]
    of_image: NDArray[np.intp]


def slices_by(counts: ImageCounts, by: str, names: Sequence[str]) -> Slices:
    """Divide images by `size` (pixels of the image), by `label:CLASS` (its share of the labelled pixels), or by id.

    Args:
        counts: of the images.
        by: one of these, or see `slices_of`.
        names: of the classes of `counts`.

    Raises:
        UsageError: there is no such class, or see `slices_of`.
    """
    if by == SIZE:
        bounds = [f"{bound:g} MP" for bound in _MEGAPIXELS]
        return _binned(counts.pixels / 1e6, _MEGAPIXELS, _ranges(bounds))
    if by.startswith(LABEL):
        index, bounds = class_index(by.removeprefix(LABEL), names, "by"), [f"{100 * bound:g} %" for bound in _SHARES]
        name, smallest = names[index], np.nextafter(0, 1)
        values = [f"no {name}", *(f"{name} {words}" for words in _ranges(bounds))]
        return _binned(counts.label_share(index), (smallest, *_SHARES), values)
    return slices_of(counts.ids, by, "by")


def _ranges(bounds: Sequence[str]) -> list[str]:
    """Name the ranges between bounds, of which the upper one belongs to the next range."""
    between = [f"{low} to {high}" for low, high in itertools.pairwise(bounds)]
    return [f"below {bounds[0]}", *between, f"{bounds[-1]} or more"]


def _binned(numbers: NDArray[np.float64], bounds: Sequence[float], values: Sequence[str]) -> Slices:
    """Return the ranges between bounds in which any number is; NaN is in none."""
    found = np.where(np.isnan(numbers), -1, np.searchsorted(bounds, numbers, side="right"))
    used = np.unique(found[found >= 0])
    rank = np.full(len(values) + 1, -1)
    rank[used] = np.arange(len(used))
    return Slices(tuple(values[index] for index in used.tolist()), rank[found])


def slices_of(ids: pa.ChunkedArray, by: str, option: str) -> Slices:
    """Divide images by their ids.

    Args:
        ids: of n images.
        by: `folder`, the part of the id before its last `/`, or `.`; or a regular expression whose first group is the
            value, such as `^([^_]+)_`; an empty one is none.
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
        return lambda name: posixpath.dirname(name) or "."
    try:
        pattern = re.compile(by)
    except re.error as error:
        raise UsageError(f"{option} = {by!r} is no regular expression: {error}") from None
    if not pattern.groups:
        how = f"write {FOLDER!r}, or a regular expression whose first group is the value, such as '^([^_]+)_'"
        raise UsageError(f"{option} = {by!r} says nothing about what is taken from an id: {how}")

    def first_group(name: str) -> str | None:
        match = pattern.search(name)
        return (match[1] or None) if match else None

    return first_group
