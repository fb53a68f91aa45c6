"""Parse the rows of a list file: text, CSV, TSV, JSON lines or JSON."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segment.errors import UsageError

_PATH_KEYS = ("path", "url", "uri", "file_name", "filename", "file", "src", "name")  # of an image given as an object
_DEEPEST = 3  # depth of nested objects that become columns
_EXAMPLE = '[{"image": "a.png", "label": "b.png"}]'


@dataclass(frozen=True, slots=True)
class Row:
    """One line or object of a list.

    Attributes:
        number: from 1, for messages: the line of the file where it ends, or the item of an array.
        cells: text by column; an empty cell may be absent.
    """

    number: int
    cells: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a list.

    Attributes:
        names: column names, in order; `1`, `2` and so on while it is open whether the first row is a header.
        rows: the rows, in order.
        positional: whether columns have numbers instead of names.
    """

    names: Sequence[str]
    rows: Sequence[Row]
    positional: bool


def parse_rows(data: bytes, suffix: str, name: str) -> Rows:
    """Parse a list file.

    Args:
        data: the file as UTF-8 bytes.
        suffix: `.csv` (with commas, semicolons or tabs), `.tsv`, `.jsonl` (an object per line), `.json` (an array of
            objects or paths), else lines of one or two words; there a name with spaces is quoted, or a tab separates.
            In text, CSV and TSV a line that begins with `#` is a comment; such a name is written `./#name`.
        name: name of the list for messages.

    Raises:
        UsageError: the file is not UTF-8, is empty, or has an invalid line.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is not UTF-8 text (byte {error.start})") from None
    if suffix in (".jsonl", ".json"):
        objects = list(_jsonl_objects(text, name) if suffix == ".jsonl" else _json_objects(text, name))
        names = list(dict.fromkeys(key for _, cells in objects for key in cells))
        filled = [Row(number, {key: cell for key, cell in cells.items() if cell.strip()}) for number, cells in objects]
        rows = Rows(names, filled, positional=False)
    else:
        delimiter = "\t" if suffix == ".tsv" else _delimiter(text)
        lines = list(_csv_cells(text, name, delimiter) if suffix in (".csv", ".tsv") else _text_cells(text, name))
        widest = max((len(row) for _, row in lines), default=0)
        names = [str(position) for position in range(1, widest + 1)]
        rows = Rows(names, [Row(number, _named(names, row)) for number, row in lines], positional=True)
    if not rows.rows:
        raise UsageError(f"{name} lists no images")
    return rows


def with_header(rows: Rows, name: str) -> Rows:
    """Use the first row as the column names.

    Raises:
        UsageError: there are no other rows, or a row has more cells than the header.
    """
    first, *others = rows.rows
    header = [first.cells.get(position, "").strip() for position in rows.names]
    while header and not header[-1]:
        header.pop()
    if not others:
        raise UsageError(f"{name} lists no images")
    for row in others:
        width = max((int(position) for position in row.cells), default=0)
        if width > len(header):
            raise UsageError(
                f"{name}, line {row.number} has {width} fields; its header names {len(header)}. A name with the "
                "separator in it goes in quotes"
            )
    names = [f"{title or 'column'} ({n})" if header.count(title) > 1 or not title else title
             for n, title in enumerate(header, 1)]  # fmt: skip
    named = [Row(row.number, {names[int(place) - 1]: cell for place, cell in row.cells.items()}) for row in others]
    return Rows(names, named, positional=False)


def _named(names: Sequence[str], row: Sequence[str]) -> dict[str, str]:
    return {name: cell for name, cell in zip(names, row, strict=False) if cell.strip()}


def _text_cells(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.split("\n"), 1):
        words = [] if line.startswith("#") else _words(line.rstrip("\r"), f"{name}, line {number}")
        if len(words) > 2:
            raise UsageError(
                f"{name}, line {number} has {len(words)} words; expected an image and perhaps a label. "
                "Quote names with spaces, or separate image and label by a tab; a list with more columns is a .csv file"
            )
        if words:
            yield number, words


def _words(line: str, where: str) -> list[str]:
    if "\t" in line:
        return [word for word in line.split("\t") if word.strip()]
    if '"' not in line and "'" not in line:
        return [word for word in line.split(" ") if word]  # not at other white space, which names may hold
    try:
        return [word for word in shlex.split(line) if word]
    except ValueError:
        raise UsageError(f"{where}: a quote is not closed; quote a name with a quote in it by the other kind") from None


def _delimiter(text: str) -> str:
    """Return the delimiter of a CSV. Spreadsheets write a semicolon or tab where the comma is the decimal mark."""
    first_line = next((line for line in text.splitlines() if line.strip() and line[0] != "#"), "")
    return next((mark for mark in (",", ";", "\t") if mark in first_line), ",")


def _csv_cells(text: str, name: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True, delimiter=delimiter)
    try:
        for row in reader:
            if any(cell.strip() for cell in row) and not row[0].startswith("#"):
                yield reader.line_num, row
    except csv.Error as error:
        raise UsageError(f"{name}, line {reader.line_num} is no CSV: {error}") from None


def _jsonl_objects(text: str, name: str) -> Iterator[tuple[int, dict[str, str]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            raise UsageError(f"{where} is no JSON") from None
        yield number, _object(value, where)


def _json_objects(text: str, name: str) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError(f"{name} is no JSON; a file with an object per line is named .jsonl") from None
    if isinstance(values, dict) and {"images", "annotations"} <= values.keys():
        raise UsageError(
            f"{name} is a COCO file, whose annotations are polygons or run lengths and no label images. Draw them as "
            f"PNGs of class indices, and name image and label in an array as {_EXAMPLE}"
        )
    if not isinstance(values, list):
        raise UsageError(f"{name} is no list of images: expected an array as {_EXAMPLE}")
    for number, value in enumerate(values, 1):
        where = f"{name}, item {number}"
        yield number, _object({"image": value} if isinstance(value, str) else value, where)


def _object(value: object, where: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise UsageError(f'{where} is no object with an "image", as in {_EXAMPLE[1:-1]}')
    return dict(_cells(value, "", _DEEPEST))


def _cells(value: Mapping[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, str]]:
    """Yield the columns of an object. A nested object gives its path if it has one, as Hugging Face writes it."""
    for key, item in value.items():
        column = f"{prefix}{key}"
        if isinstance(item, dict):
            path = next((item[name] for name in _PATH_KEYS if isinstance(item.get(name), str)), None)
            if path is None and depth > 1:
                yield from _cells(item, f"{column}.", depth - 1)
                continue
            item = item if path is None else path
        yield column, item if isinstance(item, str) else "" if item is None else _json(item)


def _json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "..."
