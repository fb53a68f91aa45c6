"""Tags of TIFF files: their numbers, and the directories that hold them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

ASCII, SHORT, LONG, DOUBLE, LONG8 = 2, 3, 4, 12, 16  # types of values
_CODES = {SHORT: "H", LONG: "I", DOUBLE: "d", LONG8: "Q"}

# The tags that say where an image lies (OGC 19-008, GeoTIFF 1.1, 7.1): pixel scale, tie points, transformation, keys
# of the coordinate system and their parameters. The tag of rational polynomials (RPC) is an addition of satellites'.
GEOREFERENCE = {33550: DOUBLE, 33922: DOUBLE, 34264: DOUBLE, 34735: SHORT, 34736: DOUBLE, 34737: ASCII, 50844: DOUBLE}


class Field(NamedTuple):
    """A tag with its values: numbers of the type `kind`, or the bytes of a text."""

    tag: int
    kind: int
    values: Sequence[int | float] | bytes

    def encode(self) -> bytes:
        """Return the values in little-endian order."""
        if isinstance(self.values, bytes):
            return self.values
        return struct.pack(f"<{len(self.values)}{_CODES[self.kind]}", *self.values)


def file_header(first: int, *, big: bool) -> bytes:
    """Return the header of a little-endian TIFF, or BigTIFF, whose first directory is at byte `first`."""
    return struct.pack("<2sHHHQ", b"II", 43, 8, 0, first) if big else struct.pack("<2sHI", b"II", 42, first)


def directory_size(fields: Sequence[Field], *, big: bool) -> int:
    """Return the bytes of a directory with the values that it points to."""
    return len(encode_directory(fields, 0, 0, big=big))


def encode_directory(fields: Sequence[Field], at: int, following: int, *, big: bool) -> bytes:
    """Return a directory, and behind it the values that do not fit in its entries.

    Args:
        fields: in ascending order of their tags, as TIFF demands.
        at: the byte of the file where it will stand; even.
        following: the byte where the next directory begins; 0 if there is none.
        big: whether the file is a BigTIFF, of 64-bit offsets.
    """
    number, entry, offset, inline = ("<Q", "<HHQ", "<Q", 8) if big else ("<H", "<HHI", "<I", 4)
    table = struct.calcsize(number) + len(fields) * (struct.calcsize(entry) + inline) + struct.calcsize(offset)
    head, values = bytearray(struct.pack(number, len(fields))), bytearray()
    for field in fields:
        encoded = field.encode()
        head += struct.pack(entry, field.tag, field.kind, len(field.values))
        if len(encoded) <= inline:
            head += encoded.ljust(inline, b"\0")
        else:
            values += bytes(-(at + table + len(values)) % 8)
            head += struct.pack(offset, at + table + len(values))
            values += encoded
    size = table + len(values)
    return bytes(head + struct.pack(offset, following) + values + bytes(-size % 8))
