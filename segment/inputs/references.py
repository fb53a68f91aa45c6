"""Images that lines of a list or rows of a table name by path or URL."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from typing import Literal
from urllib.parse import urlsplit

from segment.errors import BadReference, StoreError, UsageError
from segment.inputs.lookup import in_threads
from segment.store.client import Store
from segment.store.names import is_storable, shown
from segment.store.urls import is_http, is_signed, is_url, join_url, parent_url, redact_credentials, unsigned_name

Absent = Literal["missing", "unreachable", "bad_reference"]


def resolve_reference(reference: str, folder: str) -> str:
    """Return the URL that a line of a list or a row of a table names, as given there: with its signature, if any.

    A path is relative to the list or table. A list or table on this machine may name files of this machine by their
    whole path; one elsewhere may not: they are others on every node, and nobody's business.

    Args:
        reference: the cell.
        folder: URL of the folder of the list or table.

    Raises:
        BadReference: it can be no object that may be read, for this or for what is in it: a secret; a signature, where
            it would be part of a name; no valid text; no host.
    """
    if not is_storable(reference) or "\0" in reference:  # JSON can spell both
        raise BadReference(f"{shown(cleaned(reference))}: a name with a NUL byte or half a surrogate pair in it")
    if is_url(reference) or reference.startswith("/") or is_http(folder):
        name = reference
    else:
        name = posixpath.normpath(reference)
    try:
        url = join_url(folder, name)
    except UsageError as error:  # a secret in it
        raise BadReference(str(error)) from None
    if url.startswith("file://") and not folder.startswith("file://"):
        raise BadReference(f"{shown(reference)}: a file of this machine, named by a list or table elsewhere")
    if not is_http(url):
        if is_signed(reference):
            raise BadReference(f"{shown(unsigned_name(reference))}: a signature behind what is no http(s) URL")
        return url
    try:
        if not urlsplit(url).hostname:
            raise ValueError
    except ValueError:
        raise BadReference(f"{shown(url)}: a URL without a host") from None
    return url.partition("#")[0]


def cleaned(reference: str) -> str:
    """Return any text as it can be stored and shown: no invalid Unicode, no signature, no password."""
    text = reference.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    return redact_credentials(unsigned_name(text))


def read_references(references: Iterable[str], table: str, store: Store) -> dict[str, bytes | Absent]:
    """Read what rows of a table name, each once: its bytes, or the fault of the rows that name it.

    Raises:
        StoreError, UsageError: trouble that concerns other images, too: a store that refuses us, or fails too often.
    """
    folder = parent_url(table)
    places = {reference: _place(reference, folder) for reference in references}
    urls = sorted({url for url in places.values() if url})
    if all(url.startswith("file://") for url in urls):
        read = [_read(url, store) for url in urls]
    else:
        read = in_threads(lambda url: _read(url, store), urls)
    found = dict(zip(urls, read, strict=True))
    return {reference: found[url] if url else "bad_reference" for reference, url in places.items()}


def _place(reference: str, folder: str) -> str:
    try:
        return resolve_reference(reference, folder)
    except BadReference:
        return ""


def _read(url: str, store: Store) -> bytes | Absent:
    try:
        data = store.read_if_exists(url)
    except BadReference:
        return "bad_reference"
    except StoreError as error:
        if not error.object_specific:
            raise
        return "unreachable"
    return "missing" if data is None else data
