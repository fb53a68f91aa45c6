"""JSON files that grow in a folder, as their arrays need not fit into memory."""

import io
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def to_line(value: Any) -> str:
    """Return a value as compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class JsonArray:
    """A JSON array in a file, an item a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: io.TextIOBase = path.open("w", encoding="utf-8", newline="\n")
        self._before = "[\n"

    def add(self, items: Iterable[Any]) -> None:
        """Add items."""
        for item in items:
            self._file.write(self._before + to_line(item))
            self._before = ",\n"

    def finish(self) -> Path:
        """Return the complete file."""
        self._file.write("[]\n" if self._before == "[\n" else "\n]\n")
        self._file.close()
        return self.path


class JsonObject:
    """A JSON object in a file: short values, which are given first, and arrays that grow.

    Args:
        path: of the file; its arrays grow beside it.
        values: the short values.
        arrays: names of the arrays.
    """

    def __init__(self, path: Path, values: Mapping[str, Any], arrays: Sequence[str]) -> None:
        self._path, self._values = path, values
        self.arrays = {name: JsonArray(path.with_name(f"{path.name}.{name}")) for name in arrays}

    def finish(self) -> Path:
        """Return the complete file."""
        with self._path.open("wb") as file:
            file.write(b"{")
            for name, value in self._values.items():
                file.write(f"{to_line(name)}:{to_line(value)},\n".encode())
            for number, (name, array) in enumerate(self.arrays.items()):
                file.write(f"{',' if number else ''}{to_line(name)}:".encode())
                part = array.finish()
                with part.open("rb") as lines:
                    shutil.copyfileobj(lines, file, 1 << 20)
                part.unlink()
            file.write(b"}\n")
        return self._path
