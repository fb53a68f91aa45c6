"""Rows in order of which there may be too many for memory: sorted piece by piece, and merged as they are read."""

import heapq
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import pyarrow as pa

from segment.store.spooled_batches import SpooledBatches, batch_of, rows_of

K = TypeVar("K", str, int)
L = TypeVar("L")
R = TypeVar("R")
Row = tuple[Any, ...]
_PIECE = 1 << 16  # rows that are sorted at a time
_BLOCK = 512  # rows of each sorted piece that are in memory as they are merged


class SortedRows:
    """Tuples in their order, each a value by column of a schema. They can be read again and again.

    Args:
        rows: the tuples, in any order; they are taken piece by piece.
    """

    def __init__(self, rows: Iterable[Row], schema: pa.Schema) -> None:
        self._packed = SpooledBatches(schema)
        self._pieces: list[range] = []  # of the packed batches
        left = iter(rows)
        while piece := sorted(islice(left, _PIECE)):
            first = len(self._packed)
            for start in range(0, len(piece), _BLOCK):
                self._packed.append(batch_of(zip(*piece[start : start + _BLOCK], strict=True), schema))
            self._pieces.append(range(first, len(self._packed)))

    def __iter__(self) -> Iterator[Row]:
        return heapq.merge(*map(self._unpacked, self._pieces))

    def _unpacked(self, piece: range) -> Iterator[Row]:
        for number in piece:
            yield from rows_of(self._packed[number])


def beside(rows: Iterable[tuple[K, L]], others: Iterable[tuple[K, R]]) -> Iterator[tuple[K, L, R | None]]:
    """Yield rows, sorted by their key, each with the other value of this key; others are sorted, each key once."""
    left = iter(others)
    other = next(left, None)
    last: K | None = None
    for key, value in rows:
        while other is not None and other[0] < key:
            following = next(left, None)
            if following is not None and following[0] <= other[0]:
                raise AssertionError(f"not in order: {following[0]!r} after {other[0]!r}")
            other = following
        if last is not None and key < last:
            raise AssertionError(f"not in order: {key!r} after {last!r}")
        yield key, value, other[1] if other is not None and other[0] == key else None
        last = key


def not_in(urls: Iterable[str], others: Iterable[str]) -> Iterator[str]:
    """Yield the sorted URLs that are not among others, which are sorted, too."""
    pairs = beside(((url, None) for url in urls), ((url, True) for url in others))
    return (url for url, _, is_there in pairs if not is_there)
