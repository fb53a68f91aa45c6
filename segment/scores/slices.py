"""Slices and groups of images: by kept metadata, id (folder, or what a pattern finds), size, or share of a class."""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from segment.errors import UsageError, did_you_mean
from segment.metrics.regroup import class_index
from segment.scores.image_counts import ImageCounts
from segment.store.names import count, listed, shown

FOLDER, SIZE, LABEL, META = "folder", "size", "label:", "meta:"
_MOST = 1000  # slices
_MOST_NUMBERS = 50  # slices of numbers, which bounds can divide into fewer
_MEGAPIXELS = (0.25, 1, 4, 16)  # bounds of slices by size
_SHARES = (0.01, 0.1)  # bounds of slices by share of a class
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


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
    """Divide images by `size` (pixels), `label:CLASS` (its share of the labelled pixels), kept metadata, or id.

    Args:
        counts: of the images.
        by: one of these; metadata in `counts` by its name (`meta:NAME` where the name has another meaning), with bounds
            where slices are ranges of its numbers (`speed:30,60`); or see `slices_of`.
        names: of the classes of `counts`.

    Raises:
        UsageError: there is no such class or metadata, there are too many slices, or see `slices_of`.
    """
    if by == SIZE:
        bounds = [f"{bound:g} MP" for bound in _MEGAPIXELS]
        return _binned(counts.pixels / 1e6, _MEGAPIXELS, _ranges(bounds))
    if by.startswith(LABEL):
        index, bounds = class_index(by.removeprefix(LABEL), names, "by"), [f"{100 * bound:g} %" for bound in _SHARES]
        name, smallest = names[index], np.nextafter(0, 1)
        values = [f"no {name}", *(f"{name} {words}" for words in _ranges(bounds))]
        return _binned(counts.label_share(index), (smallest, *_SHARES), values)
    if kept := kept_name(by, counts.meta, "by"):
        return _slices_of_kept(counts.meta[kept], by, kept)
    return slices_of(counts.ids, by, "by")


def kept_name(by: str, kept: Iterable[str], option: str) -> str | None:
    """Return the name of the kept metadata that a slice or group asks for; None if it asks for something else.

    Args:
        by: see `slices_by`.
        kept: the names of all metadata that the run keeps.
        option: its name in errors.

    Raises:
        UsageError: it asks for metadata that is not kept.
    """
    if by in (FOLDER, SIZE) or by.startswith(LABEL):
        return None
    known, name = list(kept), by.removeprefix(META)
    for asked in (name, name.rpartition(":")[0]):
        if asked in known:
            return asked
    if by.startswith(META) or (known and "(" not in by):
        raise UsageError(
            f"{option} = {by!r}: the run keeps no such metadata (segment run --keep)."
            + (f"{did_you_mean(name, known)} It keeps: {listed(known)}" if known else "")
        )
    return None


def _slices_of_kept(texts: pa.ChunkedArray, by: str, name: str) -> Slices:
    bounds = by.removeprefix(META)[len(name) + 1 :]
    if bounds:
        return _ranges_of_numbers(texts, by, name, bounds)
    found = _ranked(texts)
    number, numeric = len(found.values), _are_numbers(found.values)
    some = ", ".join(repr(shown(value)) for value in found.values[:3])
    if not number:
        raise UsageError(f"by = {by!r}: no image has a value of it")
    if numeric and number > _MOST_NUMBERS:
        distinct = list({float(value): value for value in found.values}.values())
        thirds = ",".join(distinct[len(distinct) * third // 3] for third in (1, 2))
        raise UsageError(
            f"by = {by!r} has {number:,} distinct values, such as {some}: give bounds between slices, as --by "
            f"'{by}:{thirds}'"
        )
    if number > _MOST:
        raise UsageError(f"by = {by!r} has {number:,} distinct values, such as {some}: slices are {_MOST:,} at most")
    return found


def _ranges_of_numbers(texts: pa.ChunkedArray, by: str, name: str, text: str) -> Slices:
    limits = text.split(",")
    if not _are_numbers(limits) or [*map(float, limits)] != sorted({*map(float, limits)}):
        raise UsageError(f"by = {by!r}: {text!r} are no bounds; give ascending numbers, as --by '{name}:30,60'")
    values = texts.to_pylist()
    if odd := next((value for value in values if value is not None and not _are_numbers([value])), None):
        raise UsageError(f"by = {by!r}: the value {shown(odd)!r} of '{shown(name)}' is no number, and has no range")
    numbers = np.array([np.nan if value is None else float(value) for value in values])
    return _binned(numbers, [*map(float, limits)], _ranges(limits))


def _are_numbers(texts: Iterable[str]) -> bool:
    return all(map(_NUMBER.fullmatch, texts))


def _ranked(texts: pa.ChunkedArray) -> Slices:
    """Return the slices of texts, numbers in their order and other values by character; null is in none."""
    encoded = texts.combine_chunks().dictionary_encode()
    values = encoded.dictionary.to_pylist()
    numeric = _are_numbers(values)
    order = sorted(range(len(values)), key=lambda index: (float(values[index]) if numeric else 0, values[index]))
    rank = np.full(len(values) + 1, -1)
    rank[order] = np.arange(len(values))
    return Slices(tuple(values[index] for index in order), rank[np.asarray(encoded.indices.fill_null(len(values)))])


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
    slices = _ranked(found)
    if len(slices.values) > _MOST and option == "by":
        some = ", ".join(repr(shown(value)) for value in slices.values[:3])
        raise UsageError(f"by = {by!r} has {len(slices.values):,} values, such as {some}: slices are {_MOST:,} at most")
    if not slices.values:
        first = shown(ids[0].as_py()) if len(ids) else "none"
        raise UsageError(f"{option} = {by!r}: no id of an image matches; the first is {first!r}")
    return slices


def groups_of(ids: pa.ChunkedArray, by: str, meta: Mapping[str, pa.ChunkedArray] | None = None) -> Slices:
    """Divide images into the groups that a resample draws: by the value of kept metadata, or see `slices_of`.

    Args:
        ids: of n images.
        by: the name of metadata (`meta:NAME` where the name has another meaning), or see `slices_of`.
        meta: text of each image, by name.

    Raises:
        UsageError: as `slices_of`; there is no such metadata; or an image has no value or its id does not match, so
            that its group is not known.
    """
    meta = meta or {}
    if name := kept_name(by, meta, "group_by"):
        if by.removeprefix(META) != name:
            raise UsageError(f"group_by = {by!r}: a group has one value of {name!r}, and no bounds: leave them out")
        if missing := meta[name].null_count:
            raise UsageError(
                f"group_by = {by!r}: {count(missing, 'image')} of {len(ids):,} without a value: images without a group "
                "cannot be resampled with it"
            )
        return _ranked(meta[name])
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
        how = (
            f"write {FOLDER!r}, or a regular expression whose first group is the value, such as '^([^_]+)_'; metadata "
            "of the input is there only if the run keeps it (segment run --keep)"
        )
        raise UsageError(f"{option} = {by!r} says nothing about what is taken from an id: {how}")

    def first_group(name: str) -> str | None:
        match = pattern.search(name)
        return (match[1] or None) if match else None

    return first_group
