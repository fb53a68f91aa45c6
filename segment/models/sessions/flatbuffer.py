"""Tables of a flatbuffer, read without its schema. Damaged bytes raise struct.error, IndexError or ValueError."""

from __future__ import annotations

import struct

MOST = 1 << 20  # elements or bytes; more are not read
_TIMES = 16  # so often a file is read: its tables may share vectors, and a small one could stand for a huge one


class Table:
    """A table of a flatbuffer: fields by their place in its schema."""

    def __init__(self, data: bytes, position: int, left: list[int]) -> None:
        self._data = data
        self._position = position
        self._left = left  # bytes of vectors that may still be read, of all tables of the buffer
        self._index = position - self._unpacked("i", position)

    @classmethod
    def root(cls, data: bytes) -> Table:
        """The table that a buffer begins with."""
        return cls(data, struct.unpack_from("<I", data)[0], [_TIMES * len(data)])

    def number(self, place: int, kind: str) -> int:
        """A number, 0 by default; `kind` is a letter of `struct`."""
        at = self._field(place)
        return self._unpacked(kind, at) if at else 0

    def table(self, place: int) -> Table | None:
        """A table within."""
        at = self._field(place)
        return Table(self._data, self._pointed(at), self._left) if at else None

    def truth(self, place: int) -> bool:
        """A truth value, False by default."""
        return bool(self.number(place, "B"))

    def tables(self, place: int) -> list[Table]:
        """A vector of tables."""
        start, count = self._vector(place, 4)
        return [Table(self._data, self._pointed(start + 4 * i), self._left) for i in range(min(count, MOST))]

    def text(self, place: int) -> bytes:
        """A text, or a vector of bytes."""
        start, count = self._vector(place, 1)
        return self._data[start : start + count]

    def floats(self, place: int) -> tuple[float, ...]:
        """A vector of 32-bit numbers."""
        start, count = self._vector(place, 4)
        return struct.unpack_from(f"<{count}f", self._data, start) if count <= MOST else ()

    def integers(self, place: int, kind: str = "i") -> tuple[int, ...]:
        """A vector of whole numbers; `kind` is a letter of `struct`."""
        start, count = self._vector(place, struct.calcsize(kind))
        return struct.unpack_from(f"<{min(count, MOST)}{kind}", self._data, start)

    def place_of(self, place: int) -> int:
        """Where a vector begins: its length, 4 bytes, then its elements; 0 if there is none."""
        start, _ = self._vector(place, 0)
        return start - 4 if start else 0

    def _vector(self, place: int, width: int) -> tuple[int, int]:
        at = self._field(place)
        if not at:
            return 0, 0
        start = self._pointed(at)
        count = self._unpacked("I", start)
        self._left[0] -= min(count * width, len(self._data))
        if self._left[0] < 0:
            raise ValueError
        return start + 4, count

    def _field(self, place: int) -> int:
        slot = 4 + 2 * place
        if slot >= self._unpacked("H", self._index):
            return 0
        offset = self._unpacked("H", self._index + slot)
        return self._position + offset if offset else 0

    def _pointed(self, at: int) -> int:
        return at + self._unpacked("I", at)

    def _unpacked(self, kind: str, at: int) -> int:
        if at < 0:
            raise IndexError
        return int(struct.unpack_from(f"<{kind}", self._data, at)[0])
