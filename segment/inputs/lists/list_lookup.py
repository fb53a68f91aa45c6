"""The images that a list names: packed, and looked up."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from segment.errors import SegmentError
from segment.inputs.lookup import look_up_sorted
from segment.inputs.metadata import Values
from segment.inputs.parts import ABSENT, MISSING, Member, Span
from segment.inputs.references import Absent, reference_fault
from segment.store.client import Store
from segment.store.sorted_rows import SortedRows, beside
from segment.store.spooled_batches import SpooledRows
from segment.store.urls import parent_url

_SIZES: dict[Absent, int] = {fault: size for size, fault in ABSENT.items()}  # type: ignore[misc]

_TEXT = pa.binary()
_REFERENCE = [("url", _TEXT), ("size", pa.int64()), ("etag", _TEXT), ("signed", pa.bool_()), ("fault", _TEXT),
              ("error", _TEXT)]  # fmt: skip
_LISTED = pa.schema([
    ("line", pa.int64()), ("id", _TEXT), ("given", _TEXT), ("meta", pa.list_(pa.string())), ("labelled", pa.bool_()),
    *((f"image_{name}", kind) for name, kind in _REFERENCE), *((f"label_{name}", kind) for name, kind in _REFERENCE),
])  # fmt: skip
_WIDTH = len(_REFERENCE)
_WANTED = pa.schema([("folder", _TEXT), ("url", _TEXT), ("place", pa.int64())])
_FOUND = pa.schema([("place", pa.int64()), ("size", pa.int64()), ("etag", _TEXT), ("error", _TEXT)])


@dataclass(frozen=True, slots=True)
class Reference:
    """A cell of a list that names an object.

    Attributes:
        span: the object, `MISSING` until it is found; of an invalid reference the text of the cell and its fault.
        fault: why the reference is invalid, or `""`.
        error: why the object cannot be looked up, or `""`.
    """

    span: Span
    fault: str = ""
    error: str = ""

    @staticmethod
    def to_object(url: str, given: str) -> Reference:
        """Return the reference to an object that was given by this URL, signature included."""
        return Reference(Span(url, 0, MISSING, signed=given != url))

    @staticmethod
    def invalid(text: str, fault: str, kind: Absent = "bad_reference") -> Reference:
        """Return a reference that names nothing."""
        return Reference(Span(text, 0, _SIZES[kind]), fault)


_NO_LABEL = Reference(Span("", 0, MISSING))


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One image of a list.

    Attributes:
        line: line of the list, for messages.
        image, label: what the list names.
        given: a digest of the image's URL as given, if it is http(s): signatures are not stored.
    """

    line: int
    id: str
    image: Reference
    label: Reference | None
    meta: Values = ()
    given: str = ""


def digest_of(*given: str) -> str:
    """Return what tells a URL from others of the same object, which have another signature; `""` without a URL."""
    return hashlib.blake2b(given[0].encode(), digest_size=16).hexdigest() if given else ""


class ListedImages:
    """The images of a list, in order; packed, so that there may be millions. They can be read again and again.

    Attributes:
        refused: an error of a look-up for each protocol that has one: that of the first URL by name.
    """

    def __init__(self, images: Iterable[ListedImage]) -> None:
        self.refused: dict[str, SegmentError] = {}
        self._rows = SpooledRows(map(_row, images), _LISTED)

    def __iter__(self) -> Iterator[ListedImage]:
        return (_listed(*row) for row in self._rows)

    def members(self) -> Iterator[Member]:
        """Yield the planned images."""
        for _, name, _, meta, labelled, *spans in self._rows:
            yield Member(name, _span(*spans), _span(*spans[_WIDTH:]) if labelled else None, tuple(meta))

    def look_up(self, store: Store, note: Callable[[ListedImage], None]) -> None:
        """Find out which of the images and labels exist.

        Args:
            note: is called with each image, when that is known of it.

        Raises:
            StoreError, UsageError: an error that concerns other objects, too.
        """
        found = SortedRows(self._found(SortedRows(self._wanted(), _WANTED), store), _FOUND)

        def looked_up() -> Iterator[tuple[Any, ...]]:
            for row in self._looked_up(found):
                note(_listed(*row))
                yield row

        self._rows = SpooledRows(looked_up(), _LISTED)

    def _wanted(self) -> Iterator[tuple[str, str, int]]:
        for number, (_, _, _, _, labelled, *row) in enumerate(self._rows):
            for start in range(0, _WIDTH * (1 + labelled), _WIDTH):
                url, *_, fault, _ = row[start : start + _WIDTH]
                if not fault:
                    yield parent_url(url), url, 2 * number + (start > 0)

    def _found(self, wanted: SortedRows, store: Store) -> Iterator[tuple[int, int, str, str]]:
        first: dict[str, str] = {}
        for url, place, found in look_up_sorted(wanted, store):
            if not isinstance(found, SegmentError):
                yield place, found.size, found.etag, ""
                continue
            protocol = url.partition("://")[0]
            if url <= first.setdefault(protocol, url):
                first[protocol], self.refused[protocol] = url, found
            yield place, _SIZES[reference_fault(found)], "", str(found)

    def _looked_up(self, found: SortedRows) -> Iterator[tuple[Any, ...]]:
        facts = ((place, row) for place, *row in found)
        places = ((place, row) for number, row in enumerate(self._rows) for place in (2 * number, 2 * number + 1))
        results = beside(places, facts)
        for (_, row, image), (_, _, label) in zip(results, results, strict=True):
            yield *row[: -2 * _WIDTH], *_with(row[-2 * _WIDTH : -_WIDTH], image), *_with(row[-_WIDTH:], label)


def _with(reference: Sequence[Any], facts: Sequence[Any] | None) -> Sequence[Any]:
    if facts is None:
        return reference
    (url, _, _, signed, fault, _), (size, etag, error) = reference, facts
    return url, size, etag, signed, fault, error


def _row(item: ListedImage) -> tuple[Any, ...]:
    spans = *_reference_row(item.image), *_reference_row(item.label or _NO_LABEL)
    return item.line, item.id, item.given, item.meta, item.label is not None, *spans


def _reference_row(item: Reference) -> tuple[Any, ...]:
    return item.span.url, item.span.size, item.span.etag, item.span.signed, item.fault, item.error


def _listed(line: int, name: str, given: str, meta: list[str | None], labelled: bool, *spans: Any) -> ListedImage:
    image, label = _reference(*spans[:_WIDTH]), _reference(*spans[_WIDTH:]) if labelled else None
    return ListedImage(line, name, image, label, tuple(meta), given)


def _reference(url: str, size: int, etag: str, signed: bool, fault: str, error: str) -> Reference:
    return Reference(Span(url, 0, size, etag, signed), fault, error)


def _span(url: str, size: int, etag: str, signed: bool, *_: Any) -> Span:
    return Span(url, 0, size, etag, signed)
