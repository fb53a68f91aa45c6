"""References: paths and URLs by which lines of a list or rows of a table name images."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from typing import Literal
from urllib.parse import urlsplit

from segment.errors import BadReference, StoreError, TooManyBytes, TooSlow, UsageError
from segment.inputs.lookup import in_threads
from segment.store.client import Store
from segment.store.names import is_storable, shown
from segment.store.urls import is_http, is_signed, is_url, join_url, parent_url, redact_credentials, unsigned_name

Absent = Literal["missing", "unreachable", "bad_reference", "too_many_bytes", "too_slow"]


def resolve_reference(reference: str, folder: str) -> str:
    """Return the absolute URL of a reference, with its signature if it has one.

    A path is relative to the list or table. A local list or table may name files of this machine by absolute path. A
    remote one may not: the path means another file on every node, and a stranger's list must not read local files.

    Args:
        reference: text of the cell.
        folder: URL of the folder of the list or table.

    Raises:
        BadReference: the reference cannot be read as an object: it holds credentials, a signature on a URL that is
            not http(s), invalid text, or no host.
    """
    if not is_storable(reference) or "\0" in reference:  # JSON can encode both
        raise BadReference(f"{shown(redact_reference(reference))}: a name with a NUL byte or half a surrogate pair")
    if is_url(reference) or reference.startswith("/") or is_http(folder):
        name = reference
    else:
        name = posixpath.normpath(reference)
    try:
        url = join_url(folder, name)
    except UsageError as error:  # it holds credentials
        raise BadReference(str(error)) from None
    if url.startswith("file://") and not folder.startswith("file://"):
        raise BadReference(f"{shown(reference)}: a local file, named by a list or table that is not local")
    if not is_http(url):
        if is_signed(reference):
            raise BadReference(f"{shown(unsigned_name(reference))}: a signature on a URL that is not http(s)")
        return url
    try:
        if not urlsplit(url).hostname:
            raise ValueError
    except ValueError:
        raise BadReference(f"{shown(url)}: a URL without a host") from None
    return url.partition("#")[0]


def redact_reference(reference: str) -> str:
    """Return a reference fit to store and to show: valid Unicode, without signature and password."""
    text = reference.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    return redact_credentials(unsigned_name(text))


def read_references(references: Iterable[str], table: str, store: Store, most: int) -> dict[str, bytes | Absent]:
    """Read the objects that rows of the table at URL `table` name, each once, of at most `most` bytes.

    Returns:
        The bytes, or the fault, by reference.

    Raises:
        StoreError, UsageError: an error that concerns other images, too, such as refused credentials.
    """
    folder = parent_url(table)
    places = {reference: _url_or_empty(reference, folder) for reference in references}
    urls = sorted({url for url in places.values() if url})
    if all(url.startswith("file://") for url in urls):
        read = [_read(url, store, most) for url in urls]
    else:
        read = in_threads(lambda url: _read(url, store, most), urls)
    found = dict(zip(urls, read, strict=True))
    return {reference: found[url] if url else "bad_reference" for reference, url in places.items()}


def _url_or_empty(reference: str, folder: str) -> str:
    try:
        return resolve_reference(reference, folder)
    except BadReference:
        return ""


def _read(url: str, store: Store, most: int) -> bytes | Absent:
    try:
        data = store.read_if_exists(url, most=most)
    except BadReference:
        return "bad_reference"
    except TooManyBytes:
        return "too_many_bytes"
    except TooSlow:
        if not is_http(url):
            raise
        return "too_slow"
    except StoreError as error:
        if not error.object_specific:
            raise
        return "unreachable"
    return "missing" if data is None else data
