"""The headers of Parquet pages, by which the size of a column is bounded before it is unpacked.

A footer may say what it likes of sizes, and pyarrow believes the headers of pages: it allocates what they declare. What
they declare in all, and how large a value can be that rows share, is known from them alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_MOST_PAGES = 1 << 18  # of a column in a row group
_MOST_DEPTH = 8  # of structs, lists and maps in a header; four are in use
_MOST_FIELD = (1 << 15) - 1  # number of a field
_PADDING = 128  # bytes that pyarrow may read beyond a column, as old writers declare too few

# Of the fields of a page's header: their numbers, by the Thrift definition of Parquet.
_KIND, _UNPACKED, _PACKED, _DATA, _DATA_V2 = 1, 2, 3, 5, 8
_VALUES = 1
_IS_DATA, _IS_DICTIONARY, _IS_DATA_V2 = 0, 2, 3  # kinds of pages
_ROWS = {_IS_DATA: _DATA, _IS_DATA_V2: _DATA_V2}  # by kind, what tells about its rows
_ENCODING = {_DATA: 2, _DATA_V2: 4}
_SHARING = (2, 8)  # encodings by which rows share the values of the dictionary
_CONTINUING = 7  # an encoding by which a value begins as the one before
_LEAST_BYTES = 4  # of a value, of which a page may hold millions in a few bytes

_TRUE, _FALSE, _BYTE, _INT32, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = (
    1,
    2,
    3,
    5,
    7,
    8,
    9,
    10,
    11,
    12,
)  # of Thrift

# The header that pyarrow writes, found at one stroke, as each page of a run is looked at: kind, bytes unpacked and
# packed, maybe a checksum; then of a dictionary whether it is sorted, or of rows their number, encoding and statistics.
# Any other is read field by field. Numbers have 32 bits here, and texts at most 127 bytes, each behind its length.
_NUMBER = rb"(?:[\x80-\xff]{0,3}[\x00-\x7f]|[\x80-\xff]{4}[\x00-\x0f])"
_TEXT = b"(?:" + b"|".join(re.escape(bytes([size])) + b".{%d}" % size for size in range(128)) + b")"
_STATISTICS = rb"(?:[\x18\x28\x38\x48\x58]" + _TEXT + rb"|[\x16\x26\x36\x46]" + _NUMBER + rb"|[\x11\x12\x21\x22])*\x00"
_OF_DICTIONARY = rb"(?:\x15%s\x3c|\x4c)\x15%s\x15%s[\x11\x12]?\x00" % (*[_NUMBER] * 3,)
_OF_ROWS = rb"(?:\x15%s\x1c|\x2c)\x15(%s)\x15(%s)\x15%s\x15%s(?:\x1c%s)?\x00" % (*[_NUMBER] * 5, _STATISTICS)
_USUAL = re.compile(rb"\x15(%s)\x15(%s)\x15(%s)(?:%s|%s)\x00" % (*[_NUMBER] * 3, _OF_DICTIONARY, _OF_ROWS), re.DOTALL)
_LONGEST = 1 << 12  # bytes of such a header


class PageError(ValueError):
    """The headers of a column's pages are damaged."""


@dataclass
class ColumnSize:
    """What the pages of a column unpack to.

    Attributes:
        unpacked: bytes of all pages, or of the numbers and nulls that they say to hold, if these are more.
        most: the same, if every row has the largest value that its page can hold.
        shared: the same, if rows share the values of the dictionary instead of having each its own copy.
        largest: bytes of the largest value that rows can share; 0 if they share none.
        values: of all pages, in lists each by itself.
    """

    unpacked: int = 0
    most: int = 0
    shared: int = 0
    largest: int = 0
    values: int = 0


def column_size(data: bytes | bytearray, width: int = 0) -> ColumnSize:
    """Return what the pages of a column unpack to, by their headers alone.

    Args:
        data: the column in a row group, from its first page on.
        width: bytes of each value, where its type tells; 0 where it does not.

    Raises:
        PageError: damaged headers, or too many pages.
    """
    found, dictionary = ColumnSize(), 0
    for page in _pages(data):
        if page.is_dictionary:
            dictionary = page.unpacked
        own = max(page.unpacked, page.values * _LEAST_BYTES)
        continued = page.unpacked if page.encoding == _CONTINUING else 0
        largest = max(continued, dictionary if page.encoding in _SHARING else 0)
        largest = min(largest, width or largest)
        found.largest = max(found.largest, largest)
        found.values += page.values
        found.unpacked += own
        found.most += max(own, page.values * largest)
        found.shared += max(own, page.values * min(largest, continued))
    return found


class _Page(NamedTuple):
    """A page by its header: bytes unpacked and packed; number and encoding of values, where it holds rows."""

    is_dictionary: bool
    unpacked: int
    packed: int
    values: int = 0
    encoding: int = 0


def _pages(data: bytes | bytearray) -> Iterator[_Page]:
    reader = _Reader(data)
    for _ in range(_MOST_PAGES):
        start = reader.at
        if start >= len(data):
            return
        try:
            page = _usual_page(reader) or _page(reader.struct())
        except (IndexError, TypeError, KeyError) as error:
            if len(data) - start <= _PADDING:
                return
            raise PageError("the header of a page is damaged") from error
        yield page
        reader.at += page.packed
    raise PageError(f"a column has more than {_MOST_PAGES} pages in a row group")


def _usual_page(reader: _Reader) -> _Page | None:
    """Return a page whose header is as pyarrow writes it, and go behind the header; None, and stay, if it is not."""
    if not (header := _USUAL.match(reader.data, reader.at, reader.at + _LONGEST)):
        return None
    kind, unpacked, packed, values, encoding = (_decoded(number) for number in header.groups(b"\0"))
    if kind != (_IS_DICTIONARY if header[4] is None else _IS_DATA) or min(unpacked, packed, values, encoding) < 0:
        return None
    reader.at = header.end()
    return _Page(header[4] is None, unpacked, packed, values, encoding)


def _decoded(varint: bytes) -> int:
    """Return a signed number of Thrift's compact protocol."""
    value = varint[0]
    if len(varint) > 1:
        value = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(varint))
    return value >> 1 ^ -(value & 1)


def _page(header: Mapping[int, Any]) -> _Page:
    """Return a page. Raises KeyError or TypeError: the header is damaged."""
    sizes = header[_KIND] == _IS_DICTIONARY, header[_UNPACKED], header[_PACKED]
    rows = _ROWS.get(header[_KIND])
    about = () if rows is None else (header[rows][_VALUES], header[rows][_ENCODING[rows]])
    if any(type(number) is not int or number < 0 for number in (*sizes[1:], *about)):
        raise TypeError
    return _Page(*sizes, *about)


@dataclass
class _Reader:
    """Reads structs of Thrift's compact protocol; of lists and texts only the place behind them."""

    data: bytes | bytearray
    at: int = field(default=0)

    def struct(self, depth: int = 0) -> dict[int, Any]:
        found: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._signed()
            if number in found or not 0 <= number <= _MOST_FIELD:  # pyarrow would take the last one, or cut the number
                raise PageError("the header of a page is damaged: a field that is told twice, or that cannot be")
            found[number] = self._value(head & 15, depth, in_list=False)
        return found

    def _value(self, kind: int, depth: int, *, in_list: bool) -> Any:
        if depth > _MOST_DEPTH:
            raise PageError("the header of a page is damaged: nested too deep")
        if kind in (_TRUE, _FALSE):  # as a field its type is its value
            return self._byte() if in_list else kind == _TRUE
        if kind == _BYTE:
            return self._byte()
        if kind < _DOUBLE:
            value = self._signed()
            if kind == _INT32 and not -(1 << 31) <= value < 1 << 31:  # which pyarrow would cut
                raise PageError("the header of a page is damaged: a number too large")
            return value if kind == _INT32 else None  # no other is wanted, and pyarrow skips it
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind == _DOUBLE:
            self._skip(8)
        elif kind == _BINARY:
            self._skip(self._number())
        elif kind in (_LIST, _SET):
            head = self._byte()
            for _ in range(self._number() if head >> 4 == 15 else head >> 4):
                self._value(head & 15, depth + 1, in_list=True)
        elif kind == _MAP:
            size = self._number()
            kinds = self._byte() if size else 0
            for _ in range(size):
                self._value(kinds >> 4, depth + 1, in_list=True)
                self._value(kinds & 15, depth + 1, in_list=True)
        else:
            raise PageError("the header of a page is damaged: a type that Thrift does not know")
        return None

    def _skip(self, size: int) -> None:
        self.at += size
        if self.at > len(self.data):
            raise IndexError

    def _byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def _number(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > 63:
                raise PageError("the header of a page is damaged: a number too large")
        return value | byte << shift

    def _signed(self) -> int:
        value = self._number()
        return value >> 1 ^ -(value & 1)
