"""The metadata of a TFLite file: labels and normalisation, as TensorFlow Lite's metadata writer leaves them."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from contextlib import suppress

_METADATA_NAME = b"TFLITE_METADATA"
_NORMALISATION = 1  # the place of NormalizationOptions in the union of process units
_MOST_BYTES = 1 << 20

# Places of fields in the schemas of a TFLite model and of its metadata.
_MODEL_BUFFERS, _MODEL_METADATA = 4, 6
_SUBGRAPHS, _INPUTS, _UNITS = 3, 2, 4


def tflite_metadata(data: bytes) -> dict[str, str]:
    """Return what the metadata of a TFLite file says.

    Returns:
        `labels`: class names, one a line; `mean` and `std`: numbers parted by blanks. Keys are missing where the file
        says nothing, or nothing that can be read.
    """
    found = {}
    if labels := _labels(data):
        found["labels"] = labels
    with suppress(struct.error, IndexError, ValueError):
        for key, numbers in _normalisation(data).items():
            found[key] = " ".join(f"{number:.7g}" for number in numbers)
    return found


def _labels(data: bytes) -> str:
    """Return the text of the only text file in the archive behind the model."""
    with suppress(zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError, EOFError, ValueError):
        archive = zipfile.ZipFile(io.BytesIO(data))
        texts = [item for item in archive.infolist() if item.filename.endswith(".txt") and item.file_size < _MOST_BYTES]
        return archive.read(texts[0]).decode() if len(texts) == 1 else ""
    return ""


def _normalisation(data: bytes) -> dict[str, tuple[float, ...]]:
    model = _Table.root(data)
    entry = next((item for item in model.tables(_MODEL_METADATA) if item.text(0) == _METADATA_NAME), None)
    if entry is None:
        return {}
    content = model.tables(_MODEL_BUFFERS)[entry.number(1, "I")].text(0)
    tensors = [tensor for graph in _Table.root(content).tables(_SUBGRAPHS)[:1] for tensor in graph.tables(_INPUTS)]
    for unit in tensors[0].tables(_UNITS) if len(tensors) == 1 else []:
        if unit.number(0, "B") == _NORMALISATION and (options := unit.table(1)):
            return {"mean": options.floats(0), "std": options.floats(1)}
    return {}


class _Table:
    """A table of a flatbuffer: fields by their place in its schema."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self._position = position
        self._index = position - self._unpacked("i", position)

    @classmethod
    def root(cls, data: bytes) -> _Table:
        """The table that a buffer begins with."""
        return cls(data, struct.unpack_from("<I", data)[0])

    def number(self, place: int, kind: str) -> int:
        """A number, 0 by default; `kind` is a letter of `struct`."""
        at = self._field(place)
        return self._unpacked(kind, at) if at else 0

    def table(self, place: int) -> _Table | None:
        """A table within."""
        at = self._field(place)
        return _Table(self._data, self._pointed(at)) if at else None

    def tables(self, place: int) -> list[_Table]:
        """A vector of tables."""
        start, count = self._vector(place)
        return [_Table(self._data, self._pointed(start + 4 * i)) for i in range(min(count, _MOST_BYTES))]

    def text(self, place: int) -> bytes:
        """A text, or a vector of bytes."""
        start, count = self._vector(place)
        return self._data[start : start + count]

    def floats(self, place: int) -> tuple[float, ...]:
        """A vector of 32-bit numbers."""
        start, count = self._vector(place)
        return struct.unpack_from(f"<{count}f", self._data, start) if count <= 16 else ()

    def _vector(self, place: int) -> tuple[int, int]:
        at = self._field(place)
        if not at:
            return 0, 0
        start = self._pointed(at)
        return start + 4, self._unpacked("I", start)

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
