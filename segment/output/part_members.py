"""The members of the parts of a plan: packed, and unpacked some parts at a time."""

from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, pairwise
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from segment.inputs.large_files import LARGE_BYTES, OTHER_NAME
from segment.inputs.parts import Member, Span
from segment.store.spooled_batches import SpooledBatches

_SPAN = pa.struct([
    ("url", pa.string()), ("start", pa.int64()), ("size", pa.int64()), ("etag", pa.string()), ("signed", pa.bool_())
])  # fmt: skip
MEMBER = pa.struct([("id", pa.string()), ("image", _SPAN), ("label", _SPAN)])
WITH_METADATA = pa.struct([*MEMBER, ("meta", pa.list_(pa.string())), ("meta_span", _SPAN)])
MEMBERS = pa.list_(WITH_METADATA)
AT_ONCE = 256  # parts that are packed together

Facts = Mapping[str, NDArray[np.int64]]


class PartSizes(NamedTuple):
    """What parts hold.

    Attributes:
        images: `int64[n]`, number of images of each part.
        encoded: `float64[n]`, bytes of its images and labels.
        tiffs, others: `float64[n]`, bytes of the largest image that may be a TIFF by its name, and of any other; 0 if
            there is none.
    """

    images: NDArray[np.int64]
    encoded: NDArray[np.float64]
    tiffs: NDArray[np.float64]
    others: NDArray[np.float64]

    @property
    def largest(self) -> NDArray[np.float64]:
        """Bytes of the largest image of each part, `float64[n]`."""
        return np.maximum(self.tiffs, self.others)

    def read(self, most: int, *, windowed: bool) -> "PartSizes":
        """Return the same of what is read; beside an image of too many bytes there may be others of nearly as many.

        Args:
            most: bytes of an image that is read, and of a label.
            windowed: TIFFs of `LARGE_BYTES`, which are parts by themselves, are never read as a whole.
        """
        by_window = (self.tiffs >= LARGE_BYTES) & windowed
        is_over = (self.largest > most) & ~by_window
        bound = np.where(is_over & (self.images == 1), 0, most)
        left = np.where(is_over, self.encoded - self.largest, self.encoded)
        return PartSizes(
            self.images,
            np.where(by_window, 0.0, np.minimum(left, 2.0 * self.images * bound)),
            np.where(by_window, self.tiffs, np.minimum(self.tiffs, bound)),
            np.minimum(self.others, bound),
        )


class PackedMembers:
    """Members of many parts. Those of a part are found by its place, which is the number of parts before."""

    def __init__(self) -> None:
        self._batches = SpooledBatches(pa.schema([("members", MEMBERS)]))
        self._starts = [0]

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def nbytes(self) -> int:
        """Bytes of all of them, unpacked."""
        return self._batches.nbytes

    def append(self, members: pa.ListArray) -> None:
        """Add the members of at most `AT_ONCE` parts."""
        self._batches.append(pa.record_batch([members], schema=self._batches.schema))
        self._starts.append(self._starts[-1] + len(members))

    def extend(self, other: Self) -> None:
        """Add all members of others."""
        self._batches.extend(other._batches)
        self._starts += [len(self) + start for start in other._starts[1:]]

    def take(self, places: Sequence[int]) -> pa.ListArray:
        """Return the members of the parts at these places."""
        taken, numbers = [pa.array([], MEMBERS)], [bisect(self._starts, place) - 1 for place in places]
        bounds = [0, *(at for at, (one, other) in enumerate(pairwise(numbers), 1) if one != other), len(numbers)]
        for start, stop in pairwise(bounds if numbers else []):
            own = [place - self._starts[numbers[start]] for place in places[start:stop]]
            members = self._batches[numbers[start]].column(0)
            is_run = own == list(range(own[0], own[0] + len(own)))
            taken.append(members.slice(own[0], len(own)) if is_run else members.take(pa.array(own)))
        return pa.concat_arrays(taken)


def facts_of(members: pa.ListArray) -> Facts:
    """Return numbers for each part: of its members; with a label, a signed URL, metadata; bytes, see `PartSizes`."""
    lengths = pc.list_value_length(members).to_numpy(zero_copy_only=False)
    stops, flat = np.cumsum(lengths, dtype=np.int64), members.flatten()
    starts = stops - lengths

    def sums(values: pa.Array) -> NDArray[np.int64]:
        running = np.concatenate([[0], np.cumsum(values.to_numpy(zero_copy_only=False), dtype=np.int64)])
        return np.asarray(running[stops] - running[starts], np.int64)

    def most(values: pa.Array) -> NDArray[np.int64]:
        found = np.zeros(len(lengths), np.int64)
        if len(values):
            found[lengths > 0] = np.maximum.reduceat(values.to_numpy(zero_copy_only=False), starts[lengths > 0])
        return found

    def either(*values: pa.Array) -> pa.Array:
        return pc.fill_null(pc.or_kleene(*values), False)

    def known(name: str) -> pa.Array:
        return pc.fill_null(pc.max_element_wise(pc.struct_field(flat, [name, "size"]), 0), 0)

    signed = (pc.struct_field(flat, [name, "signed"]) for name in ("image", "label"))
    metadata = (pc.is_valid(pc.struct_field(flat, [name])) for name in ("meta", "meta_span"))
    sizes, is_other = known("image"), pc.match_substring_regex(pc.struct_field(flat, ["image", "url"]), OTHER_NAME)
    return {
        "members": lengths.astype(np.int64),
        "labels": sums(pc.is_valid(pc.struct_field(flat, ["label"]))),
        "signed": sums(either(*signed)),
        "metadata": sums(either(*metadata)),
        "bytes": sums(sizes) + sums(known("label")),
        "tiffs": most(pc.if_else(is_other, 0, sizes)),
        "others": most(pc.if_else(is_other, sizes, 0)),
    }


def members_array(parts: Sequence[Sequence[Member]]) -> pa.ListArray:
    """Return the members of parts as an array."""
    flat = list(chain.from_iterable(parts))
    columns = [
        pa.array([member.id for member in flat], pa.string()),
        _spans_array([member.image for member in flat]),
        _spans_array([member.label for member in flat]),
        pa.array([list(member.meta) or None for member in flat], pa.list_(pa.string())),
        _spans_array([member.meta_span for member in flat]),
    ]
    offsets = pa.array(np.cumsum([0, *map(len, parts)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(columns, fields=list(WITH_METADATA)))


def _spans_array(spans: Sequence[Span | None]) -> pa.StructArray:
    columns = [pa.array([span and getattr(span, f.name) for span in spans], f.type) for f in _SPAN]
    return pa.StructArray.from_arrays(
        columns, fields=list(_SPAN), mask=pa.array([span is None for span in spans], pa.bool_())
    )


def members_of(array: pa.ListArray) -> Iterator[tuple[Member, ...]]:
    """Yield the members of each part of an array."""
    flat = array.flatten()
    ids, metas = (pc.struct_field(flat, [name]).to_pylist() for name in ("id", "meta"))
    spans = (_spans(pc.struct_field(flat, [name])) for name in ("image", "label", "meta_span"))
    each = (
        Member(name, image, label, tuple(meta or ()), meta_span)
        for name, meta, image, label, meta_span in zip(ids, metas, *spans, strict=True)
    )
    for length in pc.list_value_length(array).to_pylist():
        yield tuple(member for _, member in zip(range(length), each, strict=False))


def _spans(array: pa.StructArray) -> list[Span | None]:
    if array.null_count == len(array):
        return [None] * len(array)
    columns: list[list[Any]] = [pc.struct_field(array, [field.name]).to_pylist() for field in _SPAN]
    spans = (Span(*values) for values in zip(*columns, strict=True))
    valid = array.is_valid().to_pylist()
    return [span if is_there else None for span, is_there in zip(spans, valid, strict=True)]
