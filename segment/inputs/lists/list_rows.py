"""Parse the rows of a list file, text, CSV, TSV, JSON lines or JSON: one after the other each time they are read."""

import csv
import io
import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any, BinaryIO

from segment.errors import UsageError
from segment.inputs.shards import Remade

_PATH_KEYS = ("path", "url", "uri", "file_name", "filename", "file", "src", "name")  # of an image given as an object
_DEEPEST = 3  # depth of nested objects that become columns
_EXAMPLE = '[{"image": "a.png", "label": "b.png"}]'

Opened = Callable[[], BinaryIO]  # opens a list, anew each time
Cells = Iterator[tuple[int, dict[str, str]]]  # with the number of their row


@dataclass(frozen=True, slots=True)
class Row:
    """One line or object of a list.

    Attributes:
        number: from 1, for messages: the line of the file where it ends, or the item of an array.
        cells: text by column; an empty cell is absent.
    """

    number: int
    cells: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a list.

    Attributes:
        names: column names, in order; `1`, `2` and so on while it is open whether the first row is a header.
        each: the rows, in order; may be read several times.
        positional: whether columns have numbers instead of names.
    """

    names: Sequence[str]
    number: int
    each: Iterable[Row]
    positional: bool

    def head(self, number: int) -> list[Row]:
        """Return the first rows."""
        return list(islice(self.each, number))


def parse_rows(opened: Opened, suffix: str, name: str) -> Rows:
    """Parse a list file, from its first to its last row. Only a `.json` is kept in memory.

    Args:
        opened: opens the file, which holds UTF-8.
        suffix: `.csv` (with commas, semicolons or tabs), `.tsv`, `.jsonl` (an object per line), `.json` (an array of
            objects or paths), else lines of one or two words; there a name with spaces is quoted, or a tab separates.
            In text, CSV and TSV a line that begins with `#` is a comment; such a name is written `./#name`.

    Raises:
        UsageError: the file is not UTF-8, is empty, or has an invalid line.
    """
    cells = _reader(opened, suffix, name)
    names: dict[str, str] = {}
    number = 0
    for number, (_, row) in enumerate(cells(), 1):  # noqa: B007
        names.update(row)
    if not number:
        raise UsageError(f"{name} lists no images")
    filled = Remade(lambda: (Row(at, {key: cell for key, cell in row.items() if cell.strip()}) for at, row in cells()))
    return Rows(list(names), number, filled, positional=suffix not in (".jsonl", ".json"))


def _reader(opened: Opened, suffix: str, name: str) -> Callable[[], Cells]:
    """Return what yields the cells of each row, empty ones, too."""
    if suffix == ".json":
        values = _json_values("".join(_lines(opened, name)), name)
        return lambda: _json_objects(values, name)
    if suffix == ".jsonl":
        return lambda: _jsonl_objects(_lines(opened, name), name)
    if suffix not in (".csv", ".tsv"):
        return lambda: _text_cells(_lines(opened, name), name)
    delimiter = "\t" if suffix == ".tsv" else _delimiter(_lines(opened, name))
    return lambda: _csv_cells(_lines(opened, name, newline=""), name, delimiter)


def _lines(opened: Opened, name: str, newline: str = "\n") -> Iterator[str]:
    """Yield the lines of a file, with their ends; `newline` as in `open`."""
    with opened() as file:
        try:
            yield from io.TextIOWrapper(file, "utf-8-sig", newline=newline)
        except UnicodeDecodeError:
            raise UsageError(f"{name} is not UTF-8 text (byte {_undecodable(opened)})") from None


def _undecodable(opened: Opened) -> int:
    """Return the offset of the first byte that is not UTF-8."""
    place = 0
    with opened() as file:
        for line in file:
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return place + error.start
            place += len(line)
    return place


def with_header(rows: Rows, name: str) -> Rows:
    """Use the first row as the column names.

    Raises UsageError: there are no other rows, or a row has more cells than the header.
    """
    (first,) = rows.head(1)
    header = [first.cells.get(position, "").strip() for position in rows.names]
    while header and not header[-1]:
        header.pop()
    if rows.number < 2:
        raise UsageError(f"{name} lists no images")
    others = Remade(lambda: islice(rows.each, 1, None))
    for row in others if len(rows.names) > len(header) else ():
        width = max((int(position) for position in row.cells), default=0)
        if width > len(header):
            raise UsageError(
                f"{name}, line {row.number} has {width} fields; its header names {len(header)}. A name with the "
                "separator in it goes in quotes"
            )
    times = Counter(header)
    names = [f"{title or 'column'} ({n})" if times[title] > 1 or not title else title
             for n, title in enumerate(header, 1)]  # fmt: skip
    title = dict(zip(rows.names, names, strict=False))
    named = Remade(lambda: (Row(row.number, {title[at]: cell for at, cell in row.cells.items()}) for row in others))
    return Rows(names, rows.number - 1, named, positional=False)


@cache
def _positions(width: int) -> tuple[str, ...]:
    return tuple(map(str, range(1, width + 1)))


def _by_position(row: Sequence[str]) -> dict[str, str]:
    return dict(zip(_positions(len(row)), row, strict=True))


def _text_cells(lines: Iterable[str], name: str) -> Cells:
    for number, line in enumerate(lines, 1):
        words = [] if line.startswith("#") else _words(line.removesuffix("\n").rstrip("\r"), f"{name}, line {number}")
        if len(words) > 2:
            raise UsageError(
                f"{name}, line {number} has {len(words)} words; expected an image and perhaps a label. "
                "Quote names with spaces, or separate image and label by a tab; a list with more columns is a .csv file"
            )
        if words:
            yield number, _by_position(words)


def _words(line: str, where: str) -> list[str]:
    if "\t" in line:
        return [word for word in line.split("\t") if word.strip()]
    if '"' not in line and "'" not in line:
        return [word for word in line.split(" ") if word]  # not at other white space, which names may hold
    if len(line) > csv.field_size_limit():  # shlex takes a time that grows with its square
        raise UsageError(f"{where} is longer than any name")
    try:
        return [word for word in shlex.split(line) if word]
    except ValueError:
        raise UsageError(f"{where}: a quote is not closed; quote a name with a quote in it by the other kind") from None


def _delimiter(lines: Iterable[str]) -> str:
    """Return the delimiter of a CSV. Spreadsheets write a semicolon or tab where the comma is the decimal mark."""
    each = (line for some in lines for line in some.splitlines())
    first_line = next((line for line in each if line.strip() and line[0] != "#"), "")
    return next((mark for mark in (",", ";", "\t") if mark in first_line), ",")


def _csv_cells(lines: Iterable[str], name: str, delimiter: str) -> Cells:
    reader = csv.reader(lines, strict=True, skipinitialspace=True, delimiter=delimiter)
    try:
        for row in reader:
            if any(cell.strip() for cell in row) and not row[0].startswith("#"):
                yield reader.line_num, _by_position(row)
    except csv.Error as error:
        raise UsageError(f"{name}, line {reader.line_num} is no CSV: {error}") from None


def _jsonl_objects(lines: Iterable[str], name: str) -> Cells:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            raise UsageError(f"{where} is no JSON") from None
        yield number, _object(value, where)


def _json_values(text: str, name: str) -> list[object]:
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
    return values


def _json_objects(values: Iterable[object], name: str) -> Cells:
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
