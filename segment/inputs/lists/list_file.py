"""List files: SegNet's `image label` lines (.txt), .csv, .tsv, .jsonl and .json; paths are relative to the list."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from segment.errors import BadReference, StoreError, UsageError
from segment.inputs.changes import Known
from segment.inputs.findings import Findings
from segment.inputs.lists.list_columns import Exists, ListColumns, find_header, find_list_columns
from segment.inputs.lists.list_lookup import ListedImage, LookupResult, Reference, refuse_useless, warn_listed
from segment.inputs.lists.list_rows import Row, Rows, parse_rows
from segment.inputs.lookup import look_up_each
from segment.inputs.metadata import kept_values, value_lines
from segment.inputs.parts import Member
from segment.inputs.references import absolute_url, redact_reference, reference_fault, resolve_reference
from segment.inputs.shards import Planned, Shard, file_shards
from segment.job import InputOptions
from segment.store.client import Entry, Store
from segment.store.names import shown, suffix_of
from segment.store.scope import NotAllowed, Scope
from segment.store.urls import is_http, parent_url, relative_url, unsigned

LIST_SUFFIXES = frozenset({".txt", ".csv", ".tsv", ".jsonl", ".json"})
MAX_LIST_BYTES = 2 << 30

_NUMBER = re.compile(r"[-+]?[0-9]*\.?[0-9]+(e[-+]?[0-9]+)?|true|false|nan", re.IGNORECASE)
_LONGEST = 2000  # characters of a path or URL


def plan_list(
    entry: Entry, options: InputOptions, store: Store, findings: Findings, known: Known | None = None
) -> Planned:
    """Plan the images that a list file names, in its order, except those of `known` that have not changed.

    An image or label that cannot be read becomes an error row.

    Raises:
        UsageError: the list cannot be parsed or is empty; its columns cannot be determined; or none of its images or
            labels exists.
        StoreError: a store fails, or refuses access to all of them.
    """
    url, name = entry.url, shown(entry.url)
    folder = parent_url(url)
    scope = store.scope or Scope()
    exists = _existence_check(folder, scope, store)
    rows = find_header(_read_rows(entry, store), options, exists, findings, name)
    columns = find_list_columns(rows, options, exists, findings, name)
    read = [_listed_image(row, columns, url, folder, scope) for row in rows.rows]
    listed = [image for image, _ in read]
    findings.warnings += value_lines(Counter(remark for _, remarks in read for remark in remarks))
    references = [item for image in listed for item in (image.image, image.label) if item]
    store.add_signed_urls(item.given for item in references)
    result = LookupResult(*look_up_each({item.url for item in references if not item.fault}, store))
    members = [_member(image, result, folder) for image in listed]
    refuse_useless(listed, result, name)
    pairs = list(zip(listed, members, strict=True))

    def warn(selected: Iterable[Shard] | None) -> None:
        own = None if selected is None else {id(member) for shard in selected for member in shard.members}
        warn_listed([pair for pair in pairs if own is None or id(pair[1]) in own], result, findings)

    if known:
        members = known.images_to_plan(members)
    return Planned(list(file_shards(url, members)), warn=warn)


def listed_urls(url: str, store: Store) -> Iterator[str]:
    """Yield every http(s) URL of a list, from all of its columns, with its signature.

    Raises:
        StoreError: the list cannot be read.
        UsageError: the list does not exist or cannot be parsed.
    """
    entry = store.info(url)
    if entry is None:
        raise UsageError(f"there is no list at {shown(url)} any more")
    folder = parent_url(url)
    for row in _read_rows(entry, store).rows:
        for cell in row.cells.values():
            try:
                yield from filter(is_http, [absolute_url(cell, folder)])
            except BadReference:
                continue


def _read_rows(entry: Entry, store: Store) -> Rows:
    if entry.size > MAX_LIST_BYTES:
        raise UsageError(f"{shown(entry.url)}: a list of {entry.size} bytes is too large; at most {MAX_LIST_BYTES}")
    return parse_rows(store.read(entry.url, most=MAX_LIST_BYTES), suffix_of(entry.url), shown(entry.url))


def _existence_check(folder: str, scope: Scope, store: Store) -> Exists:
    """Return a function that tells whether any of some references exists. Numbers and long texts do not count."""

    def exists(references: Sequence[str]) -> bool:
        likely = (text for text in references if len(text) <= _LONGEST and not _NUMBER.fullmatch(text))
        return any(_exists(reference, folder, scope, store) for reference in likely)

    return exists


def _exists(reference: str, folder: str, scope: Scope, store: Store) -> bool:
    try:
        given = resolve_reference(reference, folder, scope)
        if given != unsigned(given):
            store.add_signed_urls([given])
        return store.exists(unsigned(given))
    except UsageError:  # it is reported when the line is read
        return False
    except StoreError as error:
        if not error.object_specific:
            raise
        return False


def _listed_image(
    row: Row, columns: ListColumns, url: str, folder: str, scope: Scope
) -> tuple[ListedImage, tuple[str, ...]]:
    """Return an image, and remarks on its metadata."""
    image, label = row.cells.get(columns.image), row.cells.get(columns.label or "")
    own_id = row.cells.get(columns.id or "")
    empty = Reference(f"{url}#{row.number}", "", row.number, "it is empty")
    meta, remarks = kept_values(columns.kept, [row.cells.get(column) for column in columns.kept])
    found = ListedImage(
        id=redact_reference(own_id) if own_id else None,
        image=_reference(image, row, folder, scope) if image else empty,
        label=_reference(label, row, folder, scope) if label else None,
        meta=meta,
    )
    return found, remarks


def _reference(text: str, row: Row, folder: str, scope: Scope) -> Reference:
    try:
        given = resolve_reference(text, folder, scope)
        return Reference(unsigned(given), given, row.number)
    except NotAllowed as error:
        return Reference(unsigned(absolute_url(text, folder)), "", row.number, str(error), reference_fault(error))
    except BadReference as error:
        name = redact_reference(text)
        own = name if name == text else f"{name}#{row.number}"  # without the number it could be the name of an image
        return Reference(own, "", row.number, str(error))


def _member(listed: ListedImage, result: LookupResult, folder: str) -> Member:
    url = listed.image.url
    return Member(
        id=listed.id or (relative_url(url, folder) if url.startswith(folder + "/") else url),
        image=result.span(listed.image),
        label=result.span(listed.label) if listed.label else None,
        meta=listed.meta,
    )
