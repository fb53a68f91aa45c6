"""List files: SegNet's `image label` lines (.txt), .csv, .tsv, .jsonl and .json; paths are relative to the list."""

import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import BinaryIO

from segment.errors import BadReference, StoreError, UsageError
from segment.inputs.changes import Known
from segment.inputs.findings import Findings
from segment.inputs.lists.list_columns import Exists, ListColumns, find_header, find_list_columns
from segment.inputs.lists.list_lookup import ListedImage, ListedImages, Reference, digest_of
from segment.inputs.lists.list_report import ListReport
from segment.inputs.lists.list_rows import Row, Rows, parse_rows
from segment.inputs.metadata import kept_values, value_lines
from segment.inputs.parts import Member
from segment.inputs.references import absolute_url, redact_reference, reference_fault, resolve_reference
from segment.inputs.shards import Planned, Remade, Shard, file_shards
from segment.job import InputOptions
from segment.store.client import Entry, Store
from segment.store.names import shown, suffix_of
from segment.store.scope import NotAllowed, Scope
from segment.store.urls import is_http, parent_url, relative_url, unsigned

MAX_LIST_BYTES = 2 << 30
_BLOCK = 16 << 20  # bytes of a list that are read at once

_NUMBER = re.compile(r"[-+]?[0-9]*\.?[0-9]+(e[-+]?[0-9]+)?|true|false|nan", re.IGNORECASE)
_LONGEST = 2000  # characters of a path or URL
_MOST_TRIED = 100  # cells of some rows, of which there may be a million in one: each costs a request


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
    remarks, given = Counter[str](), list[str]()
    packed = (_listed_image(row, columns, url, folder, scope, remarks, given) for row in rows.each)
    listed = ListedImages(packed)
    findings.warnings += value_lines(remarks)
    store.add_signed_urls(given)
    report = ListReport(listed)
    listed.look_up(store, report.note)
    report.refuse_useless(listed.refused, name)

    def warn(selected: Iterable[Shard] | None) -> None:
        only = report if selected is None else ListReport.of(Remade(lambda: _of(selected, listed)))
        only.warn(findings)

    members: Iterable[Member] = Remade(listed.members)
    planned = known.images_to_plan(members) if known else members
    return Planned(Remade(lambda: file_shards(url, planned)), warn=warn, counts=None if known else report.counts)


def _of(shards: Iterable[Shard], listed: ListedImages) -> Iterator[ListedImage]:
    """Yield the images of these shards; of equal ones the first is the selected one."""
    left = (member for shard in shards for member in shard.members)
    wanted = next(left, None)
    for item, member in zip(listed, listed.members(), strict=True):
        if member == wanted:
            yield item
            wanted = next(left, None)


def listed_urls(url: str, store: Store) -> Iterator[str]:
    """Yield every http(s) URL of a list, from all of its columns, with its signature.

    Raises StoreError: the list cannot be read; UsageError: the list does not exist or cannot be parsed.
    """
    entry = store.info(url)
    if entry is None:
        raise _lost(url)
    folder = parent_url(url)
    for row in _read_rows(entry, store).each:
        for cell in row.cells.values():
            try:
                yield from filter(is_http, [absolute_url(cell, folder)])
            except BadReference:
                continue


def _lost(url: str) -> UsageError:
    return UsageError(f"there is no list at {shown(url)} any more")


def _read_rows(entry: Entry, store: Store) -> Rows:
    if entry.size > MAX_LIST_BYTES:
        raise UsageError(f"{shown(entry.url)}: a list of {entry.size} bytes is too large; at most {MAX_LIST_BYTES}")

    def opened() -> BinaryIO:
        return store.open(entry.url, _BLOCK, entry.size, entry.etag)

    if entry.size <= _BLOCK or is_http(entry.url):  # whose server may serve no ranges
        data = store.read_if_exists(entry.url, most=MAX_LIST_BYTES)
        if data is None:
            raise _lost(entry.url)
        return parse_rows(lambda: io.BytesIO(data), suffix_of(entry.url), shown(entry.url))
    return parse_rows(opened, suffix_of(entry.url), shown(entry.url))


def _existence_check(folder: str, scope: Scope, store: Store) -> Exists:
    """Return a function that tells whether any of some references exists. Numbers and long texts do not count."""

    def exists(references: Sequence[str]) -> bool:
        likely = (text for text in references if len(text) <= _LONGEST and not _NUMBER.fullmatch(text))
        return any(_exists(reference, folder, scope, store) for reference in islice(likely, _MOST_TRIED))

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
    row: Row,
    columns: ListColumns,
    url: str,
    folder: str,
    scope: Scope,
    remarks: Counter[str],
    given: list[str],
) -> ListedImage:
    """Return an image; collect remarks on its metadata, and http(s) URLs as given, with their signatures."""
    image, label = row.cells.get(columns.image), row.cells.get(columns.label or "")
    own_id = row.cells.get(columns.id or "")
    empty = Reference.invalid(f"{url}#{row.number}", "it is empty")
    meta, odd = kept_values(columns.kept, [row.cells.get(column) for column in columns.kept])
    remarks.update(odd)
    first = len(given)
    found = _reference(image, row, folder, scope, given) if image else empty
    digest, name = digest_of(*given[first:]), found.span.url
    return ListedImage(
        line=row.number,
        id=redact_reference(own_id)
        if own_id
        else relative_url(name, folder)
        if name.startswith(folder + "/")
        else name,
        image=found,
        label=_reference(label, row, folder, scope, given) if label else None,
        meta=meta,
        given=digest,
    )


def _reference(text: str, row: Row, folder: str, scope: Scope, given: list[str]) -> Reference:
    try:
        full = resolve_reference(text, folder, scope)
    except NotAllowed as error:
        return Reference.invalid(unsigned(absolute_url(text, folder)), str(error), reference_fault(error))
    except BadReference as error:
        name = redact_reference(text)
        own = name if name == text else f"{name}#{row.number}"  # without the number it could be the name of an image
        return Reference.invalid(own, str(error))
    if is_http(full):
        given.append(full)
    return Reference.to_object(unsigned(full), full)
