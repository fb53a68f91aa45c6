"""Images that rows of a table name by path or URL."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from typing import Literal

from segment.errors import BadReference, StoreError, UsageError
from segment.formats.lookup import in_threads
from segment.names import is_storable
from segment.store import Store
from segment.urls import is_url, join_url, parent_url

Absent = Literal["missing", "unreachable", "bad_reference"]


def place_of(reference: str, table: str) -> str:
    """Return the URL that a row of a table names; `""` if that cannot be one.

    A path is relative to the table. Files of this machine are read for tables on this machine only: elsewhere they
    are others on every node.
    """
    if not is_storable(reference) or "\0" in reference:
        return ""
    if not is_url(reference) and not reference.startswith("/") and not table.startswith(("http://", "https://")):
        reference = posixpath.normpath(reference)
    try:
        url = join_url(parent_url(table), reference)
    except UsageError:  # a secret in it
        return ""
    return "" if url.startswith("file://") and not table.startswith("file://") else url


def read_references(references: Iterable[str], table: str, store: Store) -> dict[str, bytes | Absent]:
    """Read what rows of a table name, each once: its bytes, or the fault of the rows that name it.

    Raises:
        StoreError, UsageError: trouble that concerns other images, too: a store that refuses us, or fails too often.
    """
    places = {reference: place_of(reference, table) for reference in references}
    urls = sorted({url for url in places.values() if url})
    if all(url.startswith("file://") for url in urls):
        read = [_read(url, store) for url in urls]
    else:
        read = in_threads(lambda url: _read(url, store), urls)
    found = dict(zip(urls, read, strict=True))
    return {reference: found[url] if url else "bad_reference" for reference, url in places.items()}


def _read(url: str, store: Store) -> bytes | Absent:
    try:
        data = store.read_if_exists(url)
    except BadReference:
        return "bad_reference"
    except StoreError as error:
        if not error.of_object:
            raise
        return "unreachable"
    return "missing" if data is None else data
