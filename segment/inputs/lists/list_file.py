"""List files: SegNet's `image label` lines (.txt), .csv, .tsv, .jsonl and .json; paths relative to the list."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from segment.errors import BadReference, StoreError, UsageError
from segment.inputs.changes import Known
from segment.inputs.cutting import Planned, Shard
from segment.inputs.findings import Findings
from segment.inputs.lists.list_answers import Answers, Line, Place, refuse_useless, warn_listed
from segment.inputs.lists.list_columns import Exists, ListColumns, find_header, find_list_columns
from segment.inputs.lists.list_rows import Row, Rows, parse_rows
from segment.inputs.lookup import look_up_each
from segment.inputs.loose.files import file_shards
from segment.inputs.parts import Member
from segment.inputs.references import cleaned, resolve_reference
from segment.job import InputOptions
from segment.store.client import Entry, Store
from segment.store.names import shown, suffix_of
from segment.store.urls import is_http, parent_url, relative_url, unsigned

LIST_SUFFIXES = frozenset({".txt", ".csv", ".tsv", ".jsonl", ".json"})
MAX_LIST_BYTES = 2 << 30

_NUMBER = re.compile(r"[-+]?[0-9]*\.?[0-9]+(e[-+]?[0-9]+)?|true|false|nan", re.IGNORECASE)
_LONGEST = 2000  # characters of what may be a path or URL


def plan_list(
    entry: Entry, options: InputOptions, store: Store, findings: Findings, known: Known | None = None
) -> Planned:
    """Plan the images that a list file names, in its order; not those that are `known`.

    An image or label that cannot be had becomes an error row, unless that is so of every one.

    Raises:
        UsageError: the list cannot be parsed, is empty, its columns cannot be told, or none of its images or labels
            exists.
        StoreError: a store refuses all of them, or fails.
    """
    url, name = entry.url, shown(entry.url)
    folder = parent_url(url)
    exists = _asking(folder, store)
    rows = find_header(_read_rows(entry, store), options, exists, findings, name)
    columns = find_list_columns(rows, options, exists, findings, name)
    lines = [_line(row, columns, url, folder) for row in rows.rows]
    places = [place for line in lines for place in (line.image, line.label) if place]
    store.add_signed_urls(place.given for place in places)
    found = Answers(*look_up_each({place.url for place in places if not place.fault}, store))
    members = [_member(line, found, folder) for line in lines]
    refuse_useless(lines, found, name)
    listed = list(zip(lines, members, strict=True))

    def warn(taken: Sequence[Shard] | None) -> None:
        own = None if taken is None else {id(member) for shard in taken for member in shard.members}
        warn_listed([pair for pair in listed if own is None or id(pair[1]) in own], found, findings)

    if known:
        members = known.images_to_plan(members)
    etags = {entry.url: entry.etag for entry in found.there.values()}
    return Planned(list(file_shards(url, members, etags)), warn=warn)


def listed_urls(url: str, store: Store) -> Iterator[str]:
    """Return every http(s) URL of a list, whatever its column, as it is given there.

    Raises:
        StoreError: the list cannot be read.
        UsageError: there is none, or it cannot be parsed.
    """
    entry = store.info(url)
    if entry is None:
        raise UsageError(f"there is no list at {shown(url)} any more")
    folder = parent_url(url)
    for row in _read_rows(entry, store).rows:
        for cell in row.cells.values():
            try:
                yield from filter(is_http, [resolve_reference(cell, folder)])
            except BadReference:
                continue


def _read_rows(entry: Entry, store: Store) -> Rows:
    if entry.size > MAX_LIST_BYTES:
        raise UsageError(f"{shown(entry.url)}: a list of {entry.size} bytes is too large; at most {MAX_LIST_BYTES}")
    return parse_rows(store.read(entry.url), suffix_of(entry.url), shown(entry.url))


def _asking(folder: str, store: Store) -> Exists:
    """Return what tells whether one of some references of a list exists. Numbers and long texts are not asked for."""

    def exists(references: Sequence[str]) -> bool:
        likely = (text for text in references if len(text) <= _LONGEST and not _NUMBER.fullmatch(text))
        return any(_is_there(reference, folder, store) for reference in likely)

    return exists


def _is_there(reference: str, folder: str, store: Store) -> bool:
    try:
        given = resolve_reference(reference, folder)
        if given != unsigned(given):
            store.add_signed_urls([given])
        return store.exists(unsigned(given))
    except UsageError:  # it is told when the line is read
        return False
    except StoreError as error:
        if not error.object_specific:
            raise
        return False


def _line(row: Row, columns: ListColumns, url: str, folder: str) -> Line:
    image, label = row.cells.get(columns.image), row.cells.get(columns.label or "")
    listed = row.cells.get(columns.id or "")
    place = _place(image, row, folder) if image else Place(f"{url}#{row.number}", "", row.number, "it is empty")
    return Line(cleaned(listed) if listed else None, place, _place(label, row, folder) if label else None)


def _place(reference: str, row: Row, folder: str) -> Place:
    try:
        given = resolve_reference(reference, folder)
        return Place(unsigned(given), given, row.number)
    except BadReference as error:
        name = cleaned(reference)
        own = name if name == reference else f"{name}#{row.number}"  # else it could be that of an image
        return Place(own, "", row.number, str(error))


def _member(line: Line, found: Answers, folder: str) -> Member:
    url = line.image.url
    own = relative_url(url, folder) if url.startswith(folder + "/") else url
    return Member(
        id=line.id or own,
        image=found.span(line.image),
        label=found.span(line.label) if line.label else None,
    )
