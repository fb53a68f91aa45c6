"""The images that a list names: packed, looked up, and those reported that cannot be read."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa

from segment.errors import BadReference, SegmentError, UsageError
from segment.inputs.findings import Findings
from segment.inputs.lookup import look_up_sorted
from segment.inputs.metadata import Values
from segment.inputs.parts import ABSENT, MISSING, NOT_ALLOWED, UNREACHABLE, Member, Span
from segment.inputs.references import Absent, reference_fault
from segment.store.client import Store
from segment.store.names import count, examples, shown, suffix_of
from segment.store.scope import MOST_ADVISED, OUTSIDE, advice
from segment.store.sorted_rows import SortedRows, beside
from segment.store.spooled_batches import SpooledRows
from segment.store.urls import parent_url, query_parameters

_SIZES: dict[Absent, int] = {fault: size for size, fault in ABSENT.items()}  # type: ignore[misc]
_SHARDS = (".tar", ".parquet", ".pq")

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
_QUERIES = pa.schema([("url", _TEXT), ("number", pa.int64()), ("given", _TEXT), ("id", _TEXT)])


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
        id: of the image.
        image, label: what the list names.
        meta: the values to keep.
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

    Args:
        images: the images.

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

    def look_up(self, store: Store) -> ListReport:
        """Find out which of the images and labels exist.

        Raises:
            StoreError, UsageError: an error that concerns other objects, too.
        """
        report = ListReport(self)
        found = SortedRows(self._found(SortedRows(self._wanted(), _WANTED), store), _FOUND)
        self._rows = SpooledRows(map(report.noting, self._looked_up(found)), _LISTED)
        return report

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
            protocol = _protocol(url)
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


class _Some:
    """A number of names, and the first of them."""

    def __init__(self) -> None:
        self.number, self.first = 0, list[str]()

    def add(self, name: str) -> None:
        self.number += 1
        if self.number <= MOST_ADVISED:
            self.first.append(name)


class _References:
    """The images of a list, or its labels, counted by what is wrong with them."""

    def __init__(self, noun: str) -> None:
        self.noun, self.number, self.usable = noun, 0, 0
        self.outside, self.missing, self.refused, self.invalid, self.errors, self.unread = (_Some() for _ in range(6))

    def add(self, item: Reference, line: int) -> None:
        url, size = item.span.url, item.span.size
        self.number += 1
        self.usable += size not in ABSENT
        if size == MISSING:
            self.missing.add(url)
        if is_outside := bool(item.fault) and size == NOT_ALLOWED:
            self.outside.add(url)
        if item.fault:
            self.invalid.add(f"line {line}: {item.fault}")
        if item.error:
            self.errors.add(item.error)
        if item.error and size == UNREACHABLE:
            self.refused.add(url)
        if item.fault + item.error and not is_outside:
            self.unread.add(f"line {line}: {item.fault or item.error}")

    def refuse_useless(self, refused: Mapping[str, SegmentError], name: str) -> None:
        """Refuse them if there are some, and none of them can be read."""
        if self.usable or not self.number:
            return
        total, outside = count(self.number, self.noun), self.outside.first
        if self.outside.number == self.number:
            raise UsageError(f"{name}: all of its {total} lie {OUTSIDE}, {examples(outside)}; {advice(outside)}")
        if self.missing.number == self.number:
            raise UsageError(f"{name}: none of its {total} exists, {examples(self.missing.first)}")
        if self.refused.number == self.number:
            raise refused[_protocol(self.refused.first[0])]
        raise UsageError(
            f"{name}: none of its {total} can be read, e.g. {[*self.invalid.first, *self.errors.first][0]}"
        )

    def warnings(self) -> Iterator[str]:
        """Yield a line on those outside of what the run may read, and one on all others that cannot be read."""
        total, outside = count(self.number, self.noun), self.outside.first
        if outside:
            yield (
                f"{self.outside.number} of {total} listed will be error rows, as they are {OUTSIDE}, "
                f"{examples(outside)}; {advice(outside)}"
            )
        if self.unread.number:
            yield (
                f"{self.unread.number} of {total} listed cannot be read and will be error rows, e.g. "
                f"{self.unread.first[0]}"
            )


class ListReport:
    """What is wrong with the images of a list, or with some of them.

    Args:
        listed: the images, each of which is to be noted; read again where they have URLs.

    Attributes:
        counts: numbers of images and of labelled ones.
    """

    def __init__(self, listed: Iterable[ListedImage]) -> None:
        self._listed = listed
        self._images, self._labels = _References("image"), _References("label")
        self._bare, self._shards, self._readable = _Some(), _Some(), set[str]()
        self._queries, self._has_http = Counter[str](), False

    @staticmethod
    def of(listed: Iterable[ListedImage]) -> ListReport:
        """Return the report of images that may be read again."""
        report = ListReport(listed)
        for item in listed:
            report.note(item)
        return report

    @property
    def counts(self) -> tuple[int, int]:
        return self._images.number, self._labels.number

    def noting(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """Take note of an image that is packed, and return it."""
        self.note(_listed(*row))
        return row

    def note(self, item: ListedImage) -> None:
        """Take note of an image."""
        self._images.add(item.image, item.line)
        self._queries.update(list(dict.fromkeys(query_parameters(item.image.span.url))))
        self._has_http |= bool(item.given)
        if item.label:
            self._labels.add(item.label, item.line)
        else:
            self._bare.add(item.id)
        if suffix_of(item.image.span.url) in _SHARDS:
            self._shards.add(item.image.span.url)
        for reference in filter(None, (item.image, item.label)):
            if not reference.fault and not reference.error:
                self._readable.add(_protocol(reference.span.url))

    def refuse_useless(self, refused: Mapping[str, SegmentError], name: str) -> None:
        """Refuse a list without any usable image, without any usable label, or with no access to one kind of store.

        Args:
            refused: of `ListedImages`.
            name: of the list, for messages.

        Raises:
            UsageError: none of them exists or has a valid reference; or the list names archives or tables.
            StoreError: a store refuses access to all of its objects.
        """
        if self._shards.number == self._images.number:
            raise UsageError(
                f"{name} names tars or Parquet files, {examples(self._shards.first)}, and a list names images: "
                "give the files' folder as input, or all of them at once, as in 'part-{000..099}.tar'"
            )
        self._images.refuse_useless(refused, name)
        self._labels.refuse_useless(refused, name)
        for protocol, error in refused.items():  # credentials are valid for a protocol
            is_whole = protocol not in ("http", "https", "file") and protocol not in self._readable
            if is_whole and not isinstance(error, BadReference):
                raise error

    def warn(self, findings: Findings) -> None:
        """Warn of images and labels that cannot be read, and of URLs that differ by their signature only."""
        total, warnings = count(self._images.number, "image"), findings.warnings
        if missing := self._images.missing.number:
            warnings.append(f"{missing} of {total} listed do not exist, {examples(self._images.missing.first)}")
        if absent := self._labels.missing.number:
            what = count(absent, "listed label does", "listed labels do")
            warnings.append(f"{what} not exist, {examples(self._labels.missing.first)}")
        warnings += [*self._images.warnings(), *self._labels.warnings()]
        if 0 < (bare := self._bare.number) < self._images.number:
            warnings.append(
                f"{bare} of {total} listed without a label: segmented, not scored; {examples(self._bare.first)}"
            )
        self._report_queries(findings)

    def _report_queries(self, findings: Findings) -> None:
        """Note which query parameters name an image; warn of URLs that differ in their signature only."""
        if not self._has_http:
            return
        if self._queries:
            names = ", ".join(f"{shown(name)} x {number}" for name, number in self._queries.most_common(6))
            findings.notes.append(f"queries of image URLs are part of the image's name and are kept: {names}")
        rows = ((item.image.span.url, number, item.given, item.id) for number, item in enumerate(self._listed))
        by_url = SortedRows(rows, _QUERIES)
        same = 0
        first: tuple[int, str] | None = None
        for url, users in groupby(by_url, key=itemgetter(0)):
            (_, _, given, own), *others = users
            for _, number, other, its in others:
                if given != other and own != its:
                    same += 1
                    first = min(first or (number, url), (number, url))
        if first:
            many = count(same, "image URL differs", "image URLs differ")
            findings.warnings.append(
                f"{many} from an earlier one by the signature alone, and {'is' if same == 1 else 'are'} taken for the "
                f"same image, {examples([first[1]])}"
            )


def _protocol(url: str) -> str:
    return url.partition("://")[0]
