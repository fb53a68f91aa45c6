"""The directories of TIFF files: read from a file by few requests, and encoded anew."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import BinaryIO

import numpy as np

from segment.errors import SampleError
from segment.images.raster import Georeference

ASCII, SHORT, LONG, DOUBLE, LONG8 = 2, 3, 4, 12, 16  # types of values
_CODES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_FRACTIONS = (5, 10)  # of two numbers of 4 bytes
_SIZES = {2: 1, 5: 8, 7: 1, 10: 8, **{kind: struct.calcsize(f"<{code}") for kind, code in _CODES.items()}}

# The tags that say where an image lies (OGC 19-008, GeoTIFF 1.1, 7.1): pixel scale, tie points, transformation, keys
# of the coordinate system and their parameters; and the rational polynomials (RPC) of satellite images.
GEOREFERENCE = {33550: DOUBLE, 33922: DOUBLE, 34264: DOUBLE, 34735: SHORT, 34736: DOUBLE, 34737: ASCII, 50844: DOUBLE}

_WIDTH, _HEIGHT, _SUBFILE = 256, 257, 254
_SECONDARY = 1 | 4  # bits of `_SUBFILE`: a page of reduced resolution, a transparency mask
_BLOCK = 1 << 16  # bytes read at once: as a rule a directory and its values
_GAP = 1 << 16  # bytes between pieces that are read with them, to save a request
_REQUEST = 1 << 25  # bytes of a request
MOST_ENTRIES = 4096  # of a directory
_MOST_TOTAL = 1 << 16  # entries of all directories that are examined
_MOST_BYTES = 1 << 28  # of the values of a tag
_MOST_NUMBERS = 1 << 20  # of a tag whose values are read one by one
_MOST_ROWS = (1 << 32) - 1  # and columns: what a TIFF can say that is no BigTIFF
MOST_PAGES = 1000  # that are examined


class TiffError(ValueError):
    """A TIFF that cannot be read. The text says why, and depends on the bytes of the file only."""


@contextmanager
def told_as(code: str) -> Iterator[None]:
    """Raise a `TiffError` as a `SampleError` of this code."""
    try:
        yield
    except TiffError as error:
        raise SampleError(code, str(error)) from error


@dataclass(frozen=True)
class Tag:
    """Where the values of a tag are: their type and number, and their first byte in the file."""

    kind: int
    count: int
    at: int

    @property
    def size(self) -> int:
        return self.count * _SIZES[self.kind]


class TiffDirectories:
    """Reads the directories of a TIFF or BigTIFF.

    Args:
        file: seekable; best without a buffer, for a read is one request of a store.

    Raises (every method):
        TiffError: no TIFF, or a damaged one.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, 2)
        self._block, self._block_at = b"", 0
        head = self.block(0, min(16, self.size))
        self.order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        version = struct.unpack(f"{self.order}H", head[2:4])[0] if self.order and len(head) >= 16 else 0
        if version not in (42, 43):
            raise TiffError("it does not begin as a TIFF")
        self.big = version == 43
        self._first = self._unpack("Q", head[8:16]) if self.big else self._unpack("I", head[4:8])

    def _unpack(self, code: str, data: bytes) -> int:
        return int(struct.unpack(self.order + code, data)[0])

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes of the file, by one request of the file if it does not return less than is asked for."""
        if not 0 <= start <= stop <= self.size:
            raise TiffError("it is cut short: it names bytes beyond its end")
        self._file.seek(start)
        data = bytearray()
        while len(data) < stop - start:
            more = self._file.read(stop - start - len(data))
            if not more:
                raise TiffError("it is cut short")
            data += more
        return bytes(data)

    def gather(self, starts: Sequence[int], sizes: Sequence[int]) -> list[bytes]:
        """Return some pieces of the file, which may be empty; those close to each other are read by one request."""
        found = [b""] * len(starts)
        order = [i for i in sorted(range(len(starts)), key=starts.__getitem__) if sizes[i]]
        while order:
            first, end, held = starts[order[0]], starts[order[0]] + sizes[order[0]], 1
            for i in order[1:]:
                stop = starts[i] + sizes[i]
                if starts[i] > end + _GAP or stop > first + _REQUEST:
                    break
                end, held = max(end, stop), held + 1
            data = self.read(first, end)
            for i in order[:held]:
                found[i] = data[starts[i] - first : starts[i] + sizes[i] - first]
            order = order[held:]
        return found

    def block(self, start: int, size: int) -> bytes:
        """Return some bytes, which are kept together with those that follow: directories stand close to each other."""
        if not self._block_at <= start <= start + size <= self._block_at + len(self._block):
            self._block = self.read(start, min(max(start + size, start + _BLOCK), max(self.size, start + size)))
            self._block_at = start
        return self._block[start - self._block_at : start - self._block_at + size]

    def entries(self) -> int:
        """Return the number of entries of the first directory."""
        number = "Q" if self.big else "H"
        return self._unpack(number, self.block(self._first, struct.calcsize(f"<{number}")))

    def pages(self) -> Iterator[Mapping[int, Tag]]:
        """Yield the tags of each page, at most `MOST_PAGES`. Too many tags end them, and a page that is named twice."""
        number, entry, offset, inline = ("Q", 20, "Q", 8) if self.big else ("H", 12, "I", 4)
        width = struct.calcsize(f"<{number}")
        at, seen, total = self._first, set[int](), 0
        while at and at not in seen and len(seen) < MOST_PAGES and total < _MOST_TOTAL:
            seen.add(at)
            count = self._unpack(number, self.block(at, width))
            if not 0 < count <= MOST_ENTRIES:
                raise TiffError("a directory has no entries, or more than any has")
            total += count
            table = self.block(at + width, count * entry + inline)
            yield dict(self._tags(table, at + width, count, inline))
            at = self._unpack(offset, table[count * entry :])
        if not seen:
            raise TiffError("it has no page")

    def _tags(self, table: bytes, at: int, count: int, inline: int) -> Iterator[tuple[int, Tag]]:
        code = "Q" if self.big else "I"
        for start in range(0, count * (4 + 2 * inline), 4 + 2 * inline):
            tag, kind = struct.unpack_from(self.order + "HH", table, start)
            number = self._unpack(code, table[start + 4 : start + 4 + inline])
            if kind in _SIZES:
                found = Tag(kind, number, at + start + 4 + inline)
                pointer = self._unpack(code, table[start + 4 + inline : start + 4 + 2 * inline])
                yield tag, found if found.size <= inline else replace(found, at=pointer)

    def encoded(self, tag: Tag, order: str | None = None) -> bytes:
        """Return the values of a tag as they are stored, or in another byte order."""
        if tag.size > _MOST_BYTES:
            raise TiffError("a tag has more values than any needs")
        stored = self.block(tag.at, tag.size) if tag.size < _BLOCK else self.read(tag.at, tag.at + tag.size)
        if order in (None, self.order):
            return stored
        word = 4 if tag.kind in _FRACTIONS else _SIZES[tag.kind]
        return np.frombuffer(stored, f"{self.order}u{word}").astype(f"{order}u{word}").tobytes()

    def numbers(self, tag: Tag) -> tuple[int | float, ...]:
        """Return the values of a tag of numbers; those of a text or of fractions as nothing."""
        if tag.kind not in _CODES:
            return ()
        if tag.count > _MOST_NUMBERS:
            raise TiffError("a tag has more values than any needs")
        return struct.unpack(f"{self.order}{tag.count}{_CODES[tag.kind]}", self.encoded(tag))

    def whole_number(self, tags: Mapping[int, Tag], number: int, default: int) -> int:
        """Return the first value of a tag as a whole number; `default` without such a tag."""
        found = self.numbers(tags[number])[:1] if number in tags else (default,)
        if not found or not isinstance(found[0], int):
            raise TiffError("a tag has no whole number for its value")
        return found[0]


@dataclass(frozen=True)
class Field:
    """A tag to write: values of the type `kind` as numbers, or as bytes that are encoded already."""

    tag: int
    kind: int
    values: Sequence[int | float] | bytes

    @property
    def count(self) -> int:
        return len(self.values) // (_SIZES[self.kind] if isinstance(self.values, bytes) else 1)

    def encode(self, order: str) -> bytes:
        """Return the values in a byte order: `<` or `>`."""
        if isinstance(self.values, bytes):
            return self.values
        return struct.pack(f"{order}{len(self.values)}{_CODES[self.kind]}", *self.values)


def file_header(first: int, *, big: bool, order: str = "<") -> bytes:
    """Return the header of a TIFF, or BigTIFF, whose first directory is at byte `first`."""
    mark = b"II" if order == "<" else b"MM"
    return struct.pack(f"{order}2sHHHQ", mark, 43, 8, 0, first) if big else struct.pack(f"{order}2sHI", mark, 42, first)


def directory_size(fields: Sequence[Field], *, big: bool) -> int:
    """Return the bytes of a directory with the values that it points to."""
    return len(encode_directory(fields, 0, 0, big=big))


def encode_directory(fields: Sequence[Field], at: int, following: int, *, big: bool, order: str = "<") -> bytes:
    """Return a directory, and behind it the values that do not fit in its entries.

    Args:
        fields: in any order; they are written in that of their tags, as TIFF demands.
        at: the byte of the file where it will stand; a multiple of 8.
        following: the byte where the next directory begins; 0 if there is none.
        big: whether the file is a BigTIFF, of 64-bit offsets.
        order: byte order, `<` or `>`.
    """
    number, entry, offset, inline = ("Q", "HHQ", "Q", 8) if big else ("H", "HHI", "I", 4)
    table = struct.calcsize(f"<{number}") + len(fields) * (struct.calcsize(f"<{entry}") + inline) + inline
    head, values = bytearray(struct.pack(order + number, len(fields))), bytearray()
    for field in sorted(fields, key=lambda field: field.tag):
        encoded = field.encode(order)
        head += struct.pack(order + entry, field.tag, field.kind, field.count)
        if len(encoded) <= inline:
            head += encoded.ljust(inline, b"\0")
        else:
            values += bytes(-(at + table + len(values)) % 8)
            head += struct.pack(order + offset, at + table + len(values))
            values += encoded
    head += struct.pack(order + offset, following)
    return bytes(head + values + bytes(-(at + table + len(values)) % 8))


class TiffPage:
    """The first page of a TIFF.

    Args:
        file: seekable; see `TiffDirectories`.

    Attributes:
        tags: by number.
        height, width: as stored, before it is turned upright.

    Raises:
        TiffError: no TIFF, or a damaged one.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = TiffDirectories(file)
        self._pages = self.file.pages()
        self.tags = next(self._pages)
        self.height, self.width = self.number(_HEIGHT, 0), self.number(_WIDTH, 0)
        if min(self.height, self.width) < 1:
            raise TiffError("it has no height or no width")
        if max(self.height, self.width) > _MOST_ROWS:
            raise TiffError("it has more rows or columns than any image has")

    @cached_property
    def has_more(self) -> bool:
        """Whether further pages show something else, neither overviews nor masks: they are read when it is asked."""
        with suppress(TiffError):  # what is behind the first page is not read
            return any(not self.file.whole_number(tags, _SUBFILE, 0) & _SECONDARY for tags in self._pages)
        return False

    def number(self, tag: int, default: int) -> int:
        """Return the first value of a tag as a whole number; `default` without such a tag. Raises TiffError."""
        return self.file.whole_number(self.tags, tag, default)

    def numbers(self, tag: int, default: int) -> tuple[int | float, ...]:
        """Return all values of a tag. Raises TiffError."""
        return self.file.numbers(self.tags[tag]) if tag in self.tags else (default,)

    @property
    def georeference(self) -> Georeference | None:
        """Where the page lies on the Earth, as stored; None if it does not say."""
        found: dict[int, tuple[int | float, ...] | bytes] = {}
        for number, kind in GEOREFERENCE.items():
            if tag := self.tags.get(number):
                found[number] = self.file.encoded(tag) if kind == ASCII else self.file.numbers(tag)
        return Georeference(found) if found else None
