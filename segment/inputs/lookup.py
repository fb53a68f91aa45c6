"""Look up many objects concurrently, by listing folders where that saves requests."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from functools import partial
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import Any, TypeVar

from segment.errors import BadReference, NotAFile, SegmentError, StoreError, input_changed
from segment.inputs.parts import Part
from segment.store.client import Entry, Store
from segment.store.names import shown
from segment.store.sorted_rows import beside
from segment.store.urls import is_http

_THREADS = 16
_AT_ONCE = 1 << 16  # objects of a list that are looked up at once
_FEW = 64  # up to so many objects of a folder are looked up one by one: the folder may hold millions of others

A = TypeVar("A")
B = TypeVar("B")


def in_threads(
    function: Callable[[A], B], items: Sequence[A], *, stopped: Callable[[], bool] = lambda: False
) -> list[B]:
    """Return `[function(item) for item in items]`, computed in up to 16 threads.

    Raises CancelledError: it was `stopped`, so that the function was not called for all items.
    """

    def call(item: A) -> B:
        if stopped():
            raise CancelledError
        return function(item)

    if len(items) < 2:
        return [call(item) for item in items]
    with ThreadPoolExecutor(min(_THREADS, len(items)), thread_name_prefix="inputs") as pool:
        return list(pool.map(call, items))


def look_up(wanted: Iterable[tuple[str, str, Any]], store: Store) -> Iterator[tuple[Any, Entry]]:
    """Yield value and entry of those that exist; see `look_up_sorted`. A device, pipe or socket does not count.

    Raises StoreError, UsageError: the look-up of one of them fails.
    """
    for _, value, found in look_up_sorted(wanted, store):
        if isinstance(found, Entry):
            yield value, found
        elif not isinstance(found, NotAFile):
            raise found


def look_up_sorted(
    wanted: Iterable[tuple[str, str, Any]], store: Store
) -> Iterator[tuple[str, Any, Entry | SegmentError]]:
    """Yield URL and value of those that exist or have an error that concerns a single object, with what is found.

    Args:
        wanted: folder (`parent_url`), URL and any value of each, sorted; more than fit into memory.

    Raises:
        StoreError, UsageError: an error that concerns other objects, too.
    """
    some: list[tuple[str, str, Any]] = []
    for folder, rows in groupby(wanted, key=itemgetter(0)):
        left = iter(rows)
        while few := list(islice(left, _AT_ONCE)):
            if len(few) < _AT_ONCE or is_http(folder):
                some += few
            else:
                yield from _look_up_beside(folder, chain(few, left), store)
            if len(some) >= _AT_ONCE:
                yield from _look_up_some(some, store)
                some = []
    yield from _look_up_some(some, store)


def _look_up_some(
    rows: Sequence[tuple[str, str, Any]], store: Store
) -> Iterator[tuple[str, Any, Entry | SegmentError]]:
    """Look up some objects: by the listing of a folder of which many are wanted, else one by one."""
    folders: dict[str, set[str]] = defaultdict(set)
    for folder, url, _ in rows:
        folders[folder].add(url)
    listed = [folder for folder, wanted in folders.items() if len(wanted) > _FEW and not is_http(folder)]
    listing = partial(store.list_folder, irregular=True)
    found: dict[str, Entry | SegmentError | None] = {}
    for folder, entries in zip(listed, in_threads(partial(_result_or_error, listing), listed), strict=True):
        if not isinstance(entries, SegmentError):  # permission to read does not imply permission to list
            found.update((entry.url, entry) for entry in entries if entry.url in folders[folder])
            del folders[folder]
    single = sorted(url for wanted in folders.values() for url in wanted)
    found.update(zip(single, in_threads(partial(_result_or_error, store.info), single), strict=True))
    for _, url, value in rows:
        if result := found.get(url):
            yield url, value, _file_or_error(result)


def _look_up_beside(
    folder: str, rows: Iterable[tuple[str, str, Any]], store: Store
) -> Iterator[tuple[str, Any, Entry | SegmentError]]:
    """Look up very many objects of one folder: its listing is read beside them."""
    entries = _result_or_error(partial(store.list_folder, irregular=True), folder)
    if isinstance(entries, SegmentError):  # permission to read does not imply permission to list
        left = iter(rows)
        while some := list(islice(left, _AT_ONCE)):
            yield from _look_up_some(some, store)
        return
    named = ((url, value) for _, url, value in rows)
    for url, value, entry in beside(named, ((entry.url, entry) for entry in entries)):
        if entry:
            yield url, value, _file_or_error(entry)


def _file_or_error(found: Entry | SegmentError) -> Entry | SegmentError:
    if isinstance(found, Entry) and found.irregular and found.url.startswith("file://"):
        return NotAFile(f"{shown(found.url)} is no regular file: a device, pipe or socket")
    return found


def _result_or_error(request: Callable[[str], B], url: str) -> B | SegmentError:
    """Send a request to the store; return an error that concerns only this object."""
    try:
        return request(url)
    except BadReference as error:
        return error
    except StoreError as error:
        if not error.object_specific:
            raise
        return error


def refuse_changed(part: Part, store: Store) -> None:
    """Check that the tar or Parquet file of a part is the planned one where the store has no etags.

    Every read compares etags where there are any; without them this takes one look-up per part.

    Raises InputChanged: the object does not exist any more, or has another size.
    """
    if part.etag:
        return
    entry = store.info(part.url)
    if entry is None:
        raise input_changed(shown(part.url), "has vanished")
    if entry.size != part.size:
        raise input_changed(shown(part.url), "has changed")
