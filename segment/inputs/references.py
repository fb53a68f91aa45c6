"""References: paths and URLs by which lines of a list or rows of a table name images."""

import posixpath
from collections.abc import Iterable
from typing import Literal
from urllib.parse import urlsplit

from segment.errors import BadReference, NotAFile, SegmentError, StoreError, TooManyBytes, TooSlow, UsageError
from segment.inputs.lookup import in_threads
from segment.store.client import Store
from segment.store.filesystems import is_store
from segment.store.names import is_storable, shown
from segment.store.scope import NotAllowed, Scope
from segment.store.urls import is_http, is_signed, is_url, join_url, parent_url, redact_credentials, unsigned_name

# What is wrong with a reference: ends of `SampleError` codes.
Absent = Literal["missing", "unreachable", "bad_reference", "not_allowed", "not_a_file", "too_many_bytes", "too_slow"]


def resolve_reference(reference: str, folder: str, scope: Scope) -> str:
    """Return the absolute URL of a reference, with its signature if it has one.

    Args:
        reference: text of the cell; a path is relative to the list or table.
        folder: URL of the folder of the list or table.
        scope: what the list or table may name.

    Raises:
        NotAllowed: the object is outside of the scope.
        BadReference: the reference cannot be read as an object: it holds credentials, a signature on a URL that is
            not http(s), invalid text, or no host.
    """
    url = absolute_url(reference, folder)
    scope.named.check(url)
    return url


def absolute_url(reference: str, folder: str) -> str:
    """Return the absolute URL of a reference, whether it may be read or not; see `resolve_reference`."""
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
    is_local = url.startswith("file://")
    if not is_local and not is_store(url):
        raise BadReference(f"{shown(unsigned_name(url))}: unknown protocol {url.partition('://')[0]}://")
    if is_local or not is_http(url):
        if is_signed(reference):
            raise BadReference(f"{shown(unsigned_name(reference))}: a signature on a URL that is not http(s)")
        if not is_local and "/" not in url.partition("://")[2].lstrip("/"):
            raise BadReference(f"{shown(url)}: a bucket or host, and no object in it")
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

    Only what is in the scope of the store is read.

    Returns:
        The bytes, or the fault, by reference.

    Raises:
        StoreError, UsageError: an error that concerns other images, too, such as refused credentials.
    """
    folder = parent_url(table)
    scope = (store.scope or Scope()).named
    store = store.within(scope)
    found: dict[str, bytes | Absent] = {}
    places: dict[str, str] = {}
    for reference in references:
        try:
            places[reference] = resolve_reference(reference, folder, scope)
        except BadReference as error:
            found[reference] = reference_fault(error)
    urls = sorted({*places.values()})
    if all(url.startswith("file://") for url in urls):
        read = [_read(url, store, most) for url in urls]
    else:
        read = in_threads(lambda url: _read(url, store, most), urls)
    held = dict(zip(urls, read, strict=True))
    return found | {reference: held[url] for reference, url in places.items()}


def reference_fault(error: SegmentError) -> Absent:
    """Return the fault that an error of one reference is."""
    if isinstance(error, NotAllowed):
        return "not_allowed"
    if isinstance(error, NotAFile):
        return "not_a_file"
    return "bad_reference" if isinstance(error, BadReference) else "unreachable"


def _read(url: str, store: Store, most: int) -> bytes | Absent:
    try:
        data = store.read_if_exists(url, most=most)
    except BadReference as error:
        return reference_fault(error)
    except TooManyBytes:
        return "too_many_bytes"
    except TooSlow:
        if not is_http(url):
            raise
        return "too_slow"
    except StoreError as error:
        if not error.object_specific:
            raise
        return reference_fault(error)
    return "missing" if data is None else data
