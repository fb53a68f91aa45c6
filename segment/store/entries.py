"""Listed objects: what is known of each, and sequences of millions of them in little memory."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, islice, pairwise
from operator import itemgetter
from typing import Any, Self, overload

import pyarrow as pa
import pyarrow.compute as pc

from segment.store.sorted_rows import SortedRows
from segment.store.spooled_batches import SpooledBatches, batch_of, columns_of, texts_of

_BATCH = 4096  # entries that are kept as they are; more are packed
_SCHEMA = pa.schema([
    ("url", pa.binary()), ("size", pa.int64()), ("etag", pa.binary()), ("irregular", pa.bool_()),
    ("link_to", pa.binary()),
])  # fmt: skip
_LISTED = pa.schema([_SCHEMA.field(0), ("number", pa.int64()), *list(_SCHEMA)[1:]])  # in which place


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a store.

    Attributes:
        url: absolute URL.
        size: bytes; -1 if unknown.
        etag: changes with the content: the store's ETag, else the time of the last change, else `""`.
        irregular: whether it is not a file: a broken link, a device, a pipe, a name that ends with a slash.
        link_to: URL of the target if a local link points to a file in the listed folder; else `""`.
    """

    url: str
    size: int
    etag: str
    irregular: bool = False
    link_to: str = ""


class Entries(Sequence[Entry]):
    """Objects of a store, in some order; packed in columns. It can be read again and again.

    Args:
        entries: the objects; they are taken piece by piece.

    Attributes:
        are_plain: whether all are files, and none a link to another one.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.are_plain = True
        self._stops: list[int] = []  # of the packed batches, in their order
        self._order: list[int] = []
        self._packed = SpooledBatches(_SCHEMA)
        for piece in pieces_of(entries):
            self._add(piece)

    @classmethod
    def of_pieces(cls, pieces: Iterable[Sequence[Entry]]) -> Self:
        """Return entries sorted by URL, from pieces that come in any order, each of them sorted.

        A piece holds all that there is between its first and its last URL, as a page of a listing does. Where pieces
        overlap all the same, as a store may list in another order, or an object again where others come and go
        meanwhile, all entries are sorted, and each URL is kept once, as it was listed last.
        """
        found, bounds = cls(), list[tuple[str, str]]()
        for piece in pieces:
            if piece:
                found._add(piece)
                bounds.append((piece[0].url, piece[-1].url))
        order = sorted(range(len(bounds)), key=bounds.__getitem__)
        if any(bounds[one][1] >= bounds[other][0] for one, other in pairwise(order)):
            return cls(_sorted(found))
        if len(order) > 1:
            sizes = [stop - start for start, stop in zip([0, *found._stops], found._stops, strict=False)]
            found._order, found._stops = order, list(accumulate(sizes[number] for number in order))
        return found

    def _add(self, piece: Sequence[Entry]) -> None:
        self.are_plain = self.are_plain and not any(entry.irregular or entry.link_to for entry in piece)
        columns = ([getattr(entry, name) for entry in piece] for name in _SCHEMA.names)
        self._packed.append(batch_of(columns, _SCHEMA))
        self._order.append(len(self._order))
        self._stops.append(len(self) + len(piece))

    def urls(self) -> Iterator[str]:
        """Yield the URLs alone, which takes a third of the time."""
        for number in self._order:
            yield from texts_of(self._packed[number].column(0))

    def urls_ending(self, end: str) -> Iterator[str]:
        """Yield the few URLs that end so."""
        for number in self._order:
            urls = self._packed[number].column(0)
            yield from texts_of(urls.filter(pc.ends_with(urls, end)))

    def __len__(self) -> int:
        return self._stops[-1] if self._stops else 0

    def __iter__(self) -> Iterator[Entry]:
        for number in self._order:
            yield from map(Entry, *columns_of(self._packed[number]))

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | Sequence[Entry]:
        if isinstance(index, slice):
            return list(self)[index]
        return next(islice(self, range(len(self))[index], None))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and list(self) == list(other)

    def __reduce__(self) -> tuple[Any, ...]:
        return Entries, (list(self),)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Entries({list(self[:3])}{', ...' * (len(self) > 3)})"


def _sorted(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield entries by URL; of those of one URL the last."""
    rows = ((e.url, number, e.size, e.etag, e.irregular, e.link_to) for number, e in enumerate(entries))
    for _, same in groupby(SortedRows(rows, _LISTED), key=itemgetter(0)):
        *_, (url, _, *others) = same
        yield Entry(url, *others)


def pieces_of(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Yield lists of consecutive entries."""
    left = iter(entries)
    while piece := list(islice(left, _BATCH)):
        yield piece
