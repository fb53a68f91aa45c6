"""What is wrong with the images that a list names: refused where nothing can be read, else reported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter

import pyarrow as pa

from segment.errors import BadReference, SegmentError, UsageError
from segment.inputs.findings import Findings
from segment.inputs.lists.list_lookup import ListedImage, Reference
from segment.inputs.parts import ABSENT, MISSING, NOT_ALLOWED, UNREACHABLE
from segment.store.names import count, examples, shown, suffix_of
from segment.store.scope import MOST_ADVISED, OUTSIDE, advice
from segment.store.sorted_rows import SortedRows
from segment.store.urls import query_parameters

_SHARDS = (".tar", ".parquet", ".pq")
_QUERIES = pa.schema([("url", pa.binary()), ("number", pa.int64()), ("given", pa.binary()), ("id", pa.binary())])


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
