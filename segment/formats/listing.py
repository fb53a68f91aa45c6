"""List files: SegNet's `image label` lines (.txt), .csv, .tsv, .jsonl and .json; paths relative to the list."""

from __future__ import annotations

import csv
import io
import json
import posixpath
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from segment.errors import UsageError
from segment.findings import Findings
from segment.formats.cutting import Shard, warn_repeated
from segment.formats.files import file_shards, file_span
from segment.formats.known import Known
from segment.formats.lookup import look_up
from segment.names import count, examples, is_image, is_storable, shown, suffix_of
from segment.parts import MISSING, Member, Span
from segment.store import Entry, Store
from segment.urls import is_url, join_url, parent_url, relative_url, to_url, without_query

LIST_SUFFIXES = frozenset({".txt", ".csv", ".tsv", ".jsonl", ".json"})
MAX_LIST_BYTES = 2 << 30

_IMAGE_NAMES = ("image", "img", "image_path", "path", "file", "filename", "file_name", "url", "uri")
_LABEL_NAMES = ("label", "mask", "annotation", "label_path", "mask_path", "segmentation")
_ID_NAMES = ("id", "image_id", "key")


@dataclass(frozen=True, slots=True)
class Line:
    """One listed image.

    Attributes:
        number: line of the list file where it ends, from 1, for messages.
        image, label: paths or URLs as listed; label None or empty where there is none.
        id: as listed; None where the list gives none.
    """

    number: int
    image: str
    label: str | None = None
    id: str | None = None


def plan_list(entry: Entry, store: Store, findings: Findings, known: Known | None = None) -> tuple[list[Shard], int]:
    """Plan the images that a list file names, in its order; not those that are `known`.

    An image or label that does not exist becomes an error row, unless that is so of every image.

    Returns:
        The shards, and how many images have a label.

    Raises:
        UsageError: the list cannot be parsed, is empty, or none of its images exists.
    """
    url = entry.url
    if entry.size > MAX_LIST_BYTES:
        raise UsageError(f"{shown(url)}: a list of {entry.size} bytes is too large; at most {MAX_LIST_BYTES}")
    lines = parse_list(store.read(url), suffix_of(url), shown(url))
    folder = parent_url(url)
    places = [_places(line, folder, shown(url)) for line in lines]
    there = look_up({place for pair in places for place in pair if place}, store)
    members = _members(lines, places, there, folder)
    _check(members, url, findings.warnings)
    if known:
        members = known.images_to_plan(members)
    shards = list(file_shards(url, members, {found.url: found.etag for found in there.values()}))
    warn_repeated(shards, findings.warnings)
    return shards, sum(member.label is not None for member in members)


def _members(
    lines: Sequence[Line], places: Sequence[tuple[str, str]], known: dict[str, Entry], folder: str
) -> list[Member]:
    members: list[Member] = []
    for line, (image, label) in zip(lines, places, strict=True):
        below = image.startswith(folder + "/")
        members.append(
            Member(
                id=line.id or without_query(relative_url(image, folder) if below else image),
                image=_span(image, known),
                label=_span(label, known) if label else None,
            )
        )
    return members


def _span(url: str, known: dict[str, Entry]) -> Span:
    return file_span(known[url]) if url in known else Span(url, 0, MISSING)


def _check(members: Sequence[Member], url: str, warnings: list[str]) -> None:
    total = count(len(members), "image")
    missing = [member.image.url for member in members if member.image.size == MISSING]
    if len(missing) == len(members):
        raise UsageError(f"{shown(url)}: none of its {total} exists, {examples(missing)}")
    labels = [member.label.url for member in members if member.label and member.label.size == MISSING]
    if missing:
        warnings.append(f"{len(missing)} of {total} listed do not exist, {examples(missing)}")
    if labels:
        warnings.append(f"{count(len(labels), 'listed label does', 'listed labels do')} not exist, {examples(labels)}")
    bare = [member.id for member in members if member.label is None]
    if bare and len(bare) < len(members):
        warnings.append(f"{len(bare)} of {total} listed without a label: segmented, not scored; {examples(bare)}")


def _places(line: Line, folder: str, name: str) -> tuple[str, str]:
    """Return the absolute URLs of a line's image and label; `""` for no label."""
    try:
        return _absolute(line.image, folder), _absolute(line.label, folder) if line.label else ""
    except UsageError as error:
        raise UsageError(f"{name}, line {line.number}: {error}") from None


def _absolute(reference: str, folder: str) -> str:
    """Make a listed path absolute. A leading `/` is the root of this machine, whatever list it is in."""
    if not is_storable(reference) or "\0" in reference:  # JSON can spell both
        raise UsageError("a name with a NUL byte or half a surrogate pair in it")
    if is_url(reference) or reference.startswith("/"):
        return to_url(reference)
    if folder.startswith(("http://", "https://")):
        return join_url(folder, reference)
    return join_url(folder, posixpath.normpath(reference))


def parse_list(data: bytes, suffix: str, name: str) -> list[Line]:
    """Parse a list file.

    Args:
        data: its bytes, UTF-8.
        suffix: `.csv` (`image,label,id` or `image;label;id`, with or without a header), `.tsv`, `.jsonl` (objects with
            `image`, `label`, `id`), `.json` (an array of such objects or of paths), else lines of `image label`, where
            a name with spaces is quoted or a tab separates. In text, CSV and TSV a line that begins with `#` is a
            comment; a name that does is written `./#name`.
        name: for messages.

    Raises:
        UsageError: not UTF-8, empty, or a line that cannot be understood.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is not UTF-8 text (byte {error.start})") from None
    parse = {".csv": _csv_lines, ".tsv": _tsv_lines, ".jsonl": _jsonl_lines, ".json": _json_lines}.get(
        suffix, _txt_lines
    )
    lines = list(parse(text, name))
    if not lines:
        raise UsageError(f"{name} lists no images")
    return lines


def _txt_lines(text: str, name: str) -> Iterator[Line]:
    for number, line in enumerate(text.split("\n"), 1):
        words = [] if line.startswith("#") else _words(line.rstrip("\r"), f"{name}, line {number}")
        if len(words) > 2:
            raise UsageError(
                f"{name}, line {number} has {len(words)} words; expected an image and perhaps a label. "
                "Quote names with spaces, or separate image and label by a tab"
            )
        if words:
            yield Line(number, *words)


def _words(line: str, where: str) -> list[str]:
    if "\t" in line:
        return [word for word in line.split("\t") if word.strip()]
    if '"' not in line and "'" not in line:
        return [word for word in line.split(" ") if word]  # and no other kind of space: names may hold it
    try:
        return [word for word in shlex.split(line) if word]
    except ValueError:
        raise UsageError(f"{where}: a quote is not closed; a name with a quote in it goes in other quotes") from None


def _tsv_lines(text: str, name: str) -> Iterator[Line]:
    return _csv_lines(text, name, "\t")


def _csv_lines(text: str, name: str, delimiter: str | None = None) -> Iterator[Line]:
    if delimiter is None:  # spreadsheets write semicolons where the comma is the decimal point
        first_line = next((line for line in text.splitlines() if line.strip() and line[0] != "#"), "")
        delimiter = ";" if ";" in first_line and "," not in first_line else ","
    source = io.StringIO(text, newline="")
    reader = csv.reader(source, strict=True, skipinitialspace=True, delimiter=delimiter)
    columns = ["image", "label", "id"]
    first = True
    try:
        for row in reader:
            if not any(cell.strip() for cell in row) or row[0].startswith("#"):
                continue
            if first:
                first = False
                header = _header(row)
                if header:
                    columns = header
                    continue
            if len(row) > len(columns):
                raise UsageError(f"{name}, line {reader.line_num} has {len(row)} fields; expected {len(columns)}")
            fields = dict(zip(columns, row, strict=False))
            if not fields.get("image", "").strip():
                raise UsageError(f"{name}, line {reader.line_num} names no image")
            yield Line(reader.line_num, fields["image"], fields.get("label"), fields.get("id"))
    except csv.Error as error:
        raise UsageError(f"{name}, line {reader.line_num} is no CSV: {error}") from None


def _header(row: Sequence[str]) -> list[str] | None:
    """Return the columns as `image`, `label`, `id` or what else they are called; None if `row` is no header."""
    names = [cell.strip().lower() for cell in row]
    columns = list(names)
    for meaning, known in (("image", _IMAGE_NAMES), ("label", _LABEL_NAMES), ("id", _ID_NAMES)):
        position = next((names.index(word) for word in known if word in names), None)
        if position is not None:
            columns[position] = meaning
    return columns if "image" in columns and not is_image(row[columns.index("image")]) else None


def _jsonl_lines(text: str, name: str) -> Iterator[Line]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise UsageError(f"{where} is no JSON") from None
        yield _object(row, number, where)


def _json_lines(text: str, name: str) -> Iterator[Line]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError(f"{name} is no JSON; with an object a line it is a .jsonl file") from None
    if not isinstance(rows, list):
        raise UsageError(f'{name} is no list of images: expected an array as [{{"image": "a.png", "label": "b.png"}}]')
    for number, row in enumerate(rows, 1):
        yield _object({"image": row} if isinstance(row, str) else row, number, f"{name}, item {number}")


def _object(row: object, number: int, where: str) -> Line:
    if not isinstance(row, dict) or not isinstance(row.get("image"), str) or not row["image"]:
        raise UsageError(f'{where} is no object with an "image", as in {{"image": "a.png", "label": "b.png"}}')
    return Line(number, row["image"], _text(row, "label", where), _text(row, "id", where))


def _text(row: dict[str, Any], key: str, where: str) -> str | None:
    value = row.get(key)
    if value is None or (isinstance(value, str) and is_storable(value)):
        return value or None
    if key == "id" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise UsageError(f'{where}: "{key}" is no text')
