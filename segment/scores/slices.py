"""Slices and groups of images: by kept metadata, id (folder, or what a pattern finds), size, or share of a class."""

import itertools
import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from segment.errors import UsageError, did_you_mean
from segment.metrics.regroup import class_index
from segment.scores.image_counts import BRIGHTNESS, ImageCounts
from segment.scores.matching import key_of
from segment.store.names import listed, shown

FOLDER, SIZE, LABEL, META = "folder", "size", "label:", "meta:"
_MOST = 1000  # slices
_MOST_NUMBERS = 50  # slices of numbers, which bounds can divide into fewer
_MEGAPIXELS = (0.25, 1, 4, 16)  # bounds of slices by size
_BRIGHTNESS = "50,100,150,200"  # bounds of slices by brightness
_SHARES = (0.01, 0.1)  # bounds of slices by share of a class
# A whole number, with or without zeros behind the point: of what is in its group all spellings are one.
_WHOLE = re.compile(r"(?:(-[1-9][0-9]*)|\+?([1-9][0-9]*)|[-+]?(0))(?:\.0+)?")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


class Slices(Protocol):
    """A division of images, which are asked for a block at a time; slices get numbers below `len` of it."""

    def __len__(self) -> int: ...

    def numbers_of(self, counts: ImageCounts) -> NDArray[np.intp]:
        """Return the number of the slice of each image, -1 where there is none. Raises UsageError."""
        ...

    def in_order(self) -> list[tuple[str, int]]:
        """Return value and number of the slices that have an image, in the order of the values. Raises UsageError."""
        ...


def slices_by(by: str, names: Sequence[str], kept: Collection[str]) -> Slices:
    """Divide images by size, brightness, share of a class, kept metadata, or id.

    Args:
        by: `size` (pixels), `brightness` (mean luma, 0-255), `label:CLASS` (its share of the labelled pixels), or
            kept metadata by its name (`meta:NAME` where the name has another meaning), with bounds where
            slices are ranges of its numbers (`speed:30,60`); `folder`, the part of an id before its last `/`, or `.`;
            or a regular expression whose first group, found in the id, is the value; an empty one is none.
        names: of the classes of the counts.
        kept: names of the metadata in the counts.

    Raises:
        UsageError: there is no such class or metadata, or an expression or bounds are none.
    """
    if by == SIZE:
        bounds = [f"{bound:g} MP" for bound in _MEGAPIXELS]
        return _Ranges(lambda counts: counts.pixels / 1e6, _MEGAPIXELS, _ranges(bounds))
    if by.startswith(LABEL):
        index, bounds = class_index(by.removeprefix(LABEL), names, "by"), [f"{100 * bound:g} %" for bound in _SHARES]
        name, smallest = names[index], float(np.nextafter(0, 1))
        values = [f"no {name}", *(f"{name} {words}" for words in _ranges(bounds))]
        return _Ranges(lambda counts: counts.label_share(index), (smallest, *_SHARES), values)
    if (column := kept_name(by, kept, "by")) == BRIGHTNESS:
        return _ranges_of_numbers(by, column, by.partition(":")[2] or _BRIGHTNESS)
    if column:
        limits = by.removeprefix(META)[len(column) + 1 :]
        return _ranges_of_numbers(by, column, limits) if limits else _Values(by, column)
    return _Values(by, None)


def kept_name(by: str, kept: Iterable[str], option: str) -> str | None:
    """Return the name of the kept metadata that a slice or group asks for; None if it asks for something else.

    Args:
        kept: the names of all metadata that the run keeps.
        option: its name in errors.

    Raises:
        UsageError: it asks for metadata that is not kept.
    """
    if by in (FOLDER, SIZE) or by.startswith(LABEL):
        return None
    known, name = list(kept), by.removeprefix(META)
    if found := name_in(by, known):
        return found
    if option == "by" and by.partition(":")[0] == BRIGHTNESS[1:]:
        return BRIGHTNESS
    if by.startswith(META) or (known and "(" not in by):
        raise UsageError(
            f"{option} = {by!r}: the run keeps no such metadata (segment run --keep)."
            + (f"{did_you_mean(name, known)} It keeps: {listed(known)}" if known else "")
        )
    return None


def name_in(by: str, kept: Collection[str]) -> str | None:
    """Return the name of the metadata that `by` asks for, maybe with bounds; None if it is not kept."""
    name = by.removeprefix(META)
    return next((asked for asked in (name, name.rpartition(":")[0]) if asked in kept), None)


class _Ranges:
    """Slices by the range between ascending bounds in which a number of the image is; NaN is in none."""

    def __init__(
        self, read: Callable[[ImageCounts], NDArray[np.float64]], bounds: Sequence[float], values: Sequence[str]
    ) -> None:
        self._read, self._bounds, self._values = read, bounds, values
        self._is_used = np.zeros(len(values), np.bool_)

    def __len__(self) -> int:
        return len(self._values)

    def numbers_of(self, counts: ImageCounts) -> NDArray[np.intp]:
        numbers = self._read(counts)
        found = np.where(np.isnan(numbers), -1, np.searchsorted(self._bounds, numbers, side="right"))
        self._is_used[found[found >= 0]] = True
        return found

    def in_order(self) -> list[tuple[str, int]]:
        return [(self._values[number], number) for number in np.flatnonzero(self._is_used).tolist()]


def _ranges(bounds: Sequence[str]) -> list[str]:
    """Name the ranges between bounds, of which the upper one belongs to the next range."""
    between = [f"{low} to {high}" for low, high in itertools.pairwise(bounds)]
    return [f"below {bounds[0]}", *between, f"{bounds[-1]} or more"]


def _ranges_of_numbers(by: str, name: str, text: str) -> _Ranges:
    limits = text.split(",")
    if not _are_numbers(limits) or [*map(float, limits)] != sorted({*map(float, limits)}):
        example = f"{name.removeprefix(BRIGHTNESS[0])}:30,60"
        raise UsageError(f"by = {by!r}: {text!r} are no bounds; give ascending numbers, as --by {example!r}")

    def read(counts: ImageCounts) -> NDArray[np.float64]:
        values = counts.meta[name].to_pylist()
        if odd := next((value for value in values if value is not None and not _are_numbers([value])), None):
            raise UsageError(f"by = {by!r}: the value {shown(odd)!r} of '{shown(name)}' is no number, and has no range")
        return np.array([np.nan if value is None else float(value) for value in values])

    return _Ranges(read, [*map(float, limits)], _ranges(limits))


def _are_numbers(texts: Iterable[str]) -> bool:
    return all(map(_NUMBER.fullmatch, texts))


class _Values:
    """Slices by a text of the image: kept metadata, or what is found in its id."""

    def __init__(self, by: str, kept: str | None) -> None:
        self._by, self._kept = by, kept
        self._texts = _texts(by, kept, "by")
        self._numbers: dict[str, int] = {}  # by what the texts of a slice have in common
        self._names: dict[str, str] = {}  # of slices, by the same
        self._first_id: str | None = None

    def __len__(self) -> int:
        return len(self._numbers)

    def numbers_of(self, counts: ImageCounts) -> NDArray[np.intp]:
        if self._first_id is None and len(counts):
            self._first_id = shown(counts.ids[0].as_py())
        encoded = self._texts(counts).dictionary_encode()
        numbers = [self._number_of(text) for text in encoded.dictionary.to_pylist()]
        if len(self._numbers) > _MOST:
            self._refuse_so_many(f"more than {_MOST:,}", f"slices are {_MOST:,} at most")
        return np.asarray(np.array([*numbers, -1])[np.asarray(encoded.indices.fill_null(len(numbers)))], np.intp)

    def _number_of(self, text: str) -> int:
        """Return the number of the slice of a text, which it names unless another spelling of its number is there."""
        value = _value_of(text) if self._kept else text
        if self._names.setdefault(value, text) != text:
            self._names[value] = value
        return self._numbers.setdefault(value, len(self._numbers))

    def _ranked(self) -> list[tuple[str, int]]:
        return _ranked({self._names[value]: number for value, number in self._numbers.items()})

    def in_order(self) -> list[tuple[str, int]]:
        if not self._numbers:
            what = (
                "no image has a value of it"
                if self._kept
                else f"no id of an image matches; the first is {self._first_id!r}"
            )
            raise UsageError(f"by = {self._by!r}: {what}")
        if self._kept and _are_numbers(self._numbers) and len(self._numbers) > _MOST_NUMBERS:
            self._refuse_so_many(f"{len(self._numbers):,}", "numbers want bounds")
        return self._ranked()

    def _refuse_so_many(self, number: str, why: str) -> None:
        values = [value for value, _ in self._ranked()]
        if self._kept and _are_numbers(values):
            distinct = list({float(value): value for value in values}.values())
            thirds = ",".join(distinct[len(distinct) * third // 3] for third in (1, 2))
            why = f"give bounds between slices, as --by '{self._by}:{thirds}'"
        some = ", ".join(repr(shown(value)) for value in values[:3])
        raise UsageError(f"by = {self._by!r} has {number} distinct values, such as {some}: {why}")


def _ranked(numbers: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return the values in order, and their numbers: numbers by size, and other values by character."""
    numeric = _are_numbers(numbers)
    return sorted(numbers.items(), key=lambda item: (float(item[0]) if numeric else 0, item[0]))


class Groups:
    """The groups that a resample draws, with all their images.

    Args:
        by: the name of kept metadata (`meta:NAME` where the name has another meaning), or what `slices_by` finds in
            ids.
        kept: names of the metadata in the counts.

    Raises:
        UsageError: there is no such metadata, or an expression is none.
    """

    def __init__(self, by: str, kept: Collection[str]) -> None:
        name = kept_name(by, kept, "group_by")
        if name and by.removeprefix(META) != name:
            raise UsageError(f"group_by = {by!r}: a group has one value of {name!r}, and no bounds: leave them out")
        self._by, self._kept = by, name
        self._texts = _texts(by, self._kept, "group_by")

    def units_of(self, counts: ImageCounts) -> NDArray[np.uint64]:
        """Return the group of each image, a number that follows from its name.

        Raises:
            UsageError: an image has no value or its id does not match, so that its group is not known.
        """
        encoded = self._texts(counts).dictionary_encode()
        if encoded.null_count:
            first = shown(counts.ids[int(np.flatnonzero(np.asarray(encoded.is_null()))[0])].as_py())
            what = f"image {first!r} has no value of it" if self._kept else f"the id {first!r} does not match"
            raise UsageError(f"group_by = {self._by!r}: {what}: images without a group cannot be resampled with it")
        texts = encoded.dictionary.to_pylist()
        numbers = np.array([key_of(_value_of(text) if self._kept else text) for text in texts], np.uint64)
        return np.asarray(numbers[np.asarray(encoded.indices)], np.uint64)


def _texts(by: str, kept: str | None, option: str) -> Callable[[ImageCounts], pa.Array]:
    """Return what reads a text of each image, null where there is none: kept metadata, or something of its id."""
    if kept:
        return lambda counts: counts.meta[kept].combine_chunks()
    value = _reader(by, option)
    return lambda counts: pa.array(map(value, counts.ids.to_pylist()), pa.string())


def _value_of(text: str) -> str:
    """Return what all spellings of a whole number have in common: where a column has gaps, pandas writes `1.0` for 1.

    So it is whatever else the column holds. Other texts are returned as they are: `01` and `1.0.0` are no numbers.
    """
    whole = _WHOLE.fullmatch(text)
    return str(whole[whole.lastindex or 0]) if whole else text


def _reader(by: str, option: str) -> Callable[[str], str | None]:
    if by == FOLDER:
        return lambda name: posixpath.dirname(name) or "."
    try:
        pattern = re.compile(by)
    except re.error as error:
        raise UsageError(f"{option} = {by!r} is no regular expression: {error}") from None
    if not pattern.groups:
        also = f"{SIZE!r}, 'brightness', 'label:CLASS', " if option == "by" else ""
        how = (
            f"write {also}{FOLDER!r}, or a regular expression whose first group is the value, such as '^([^_]+)_'; "
            "metadata of the input is there only if the run keeps it (segment run --keep NAME)"
        )
        raise UsageError(f"{option} = {by!r} says nothing about what is taken from an id: {how}")

    def first_group(name: str) -> str | None:
        match = pattern.search(name)
        return (match[1] or None) if match else None

    return first_group
