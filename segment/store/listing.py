"""Lists what is below a prefix: local folders, pages of S3, and any other file system by its driver."""

import gc
import threading
from bisect import bisect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from operator import attrgetter
from typing import Any

from segment.errors import StoreError
from segment.store.entries import Entries, Entry, pieces_of
from segment.store.filesystems import Info, entry_of, is_folder_entry, list_page, lists_pages, open_filesystem
from segment.store.local_files import TEMPORARY, list_local
from segment.store.paged_listing import Page, PageRequest, list_pages
from segment.store.request_errors import error_message, is_absent
from segment.store.retries import Requests
from segment.store.scope import Scope
from segment.store.urls import is_http

_RARELY = (50_000, 20, 1000)
_lock = threading.Lock()
_inside = 0
_usual: tuple[int, int, int] = gc.get_threshold()

_url = attrgetter("url")


def list_entries(
    prefix: str, recursive: bool, options: Mapping[str, Any], requests: Requests, scope: Scope | None = None
) -> Entries:
    """Return the objects below `prefix`, or directly in it, sorted by URL; empty if there are none.

    A local folder and a store that answers in pages are listed in little memory.
    """
    if prefix.startswith("file://"):
        path = prefix.removeprefix("file://")
        return requests.send("list", prefix, lambda: Entries.of_pieces(pieces_of(list_local(path, recursive))))
    if lists_pages(prefix, options):
        with rare_collections():
            return Entries.of_pieces(_pages(prefix, recursive, options, requests))
    infos = requests.send("list", prefix, lambda: _list_by_driver(prefix, recursive, options, scope))
    return Entries.of_pieces(pieces_of(sorted(_entries(prefix, infos), key=_url)))


def _entries(prefix: str, infos: Mapping[str, Info]) -> Iterator[Entry]:
    """Yield the entries of objects named below `prefix`, without folders and what is being written."""
    below = prefix.rstrip("/") + "/"
    for name, info in infos.items():
        if not is_folder_entry(below + name, info) and not TEMPORARY.search(name):
            yield entry_of(below + name, info)


def _list_by_driver(prefix: str, recursive: bool, options: Mapping[str, Any], scope: Scope | None) -> dict[str, Info]:
    filesystem, path = open_filesystem(prefix, options, scope)
    root = path.rstrip("/") + "/"  # the driver's own form: `bucket/key`, `container/key`, `/key`
    try:
        if recursive:
            # By default fsspec's walk, which http:// uses, silently skips what it may not read.
            strict = {"on_error": "raise"} if is_http(prefix) else {}
            found = filesystem.find(path, detail=True, **strict)
        else:
            found = {info["name"]: info for info in filesystem.ls(path, detail=True)}
    except FileNotFoundError as error:
        if is_absent(error):
            return {}
        raise
    return {name.removeprefix(root): info for name, info in found.items() if name.startswith(root)}


def _pages(prefix: str, recursive: bool, options: Mapping[str, Any], requests: Requests) -> Iterator[list[Entry]]:
    """Yield sorted entries page by page, in any order; a page is cut where a folder is that is listed by itself.

    Every page is a request of its own, repeated where it fails; the pages before are kept.
    """
    below = prefix.rstrip("/") + "/"

    def send(request: PageRequest) -> Page[Info]:
        try:
            return requests.send("list", prefix, lambda: list_page(prefix, options, request))
        except FileNotFoundError as error:
            if request.token:  # the pages before would be taken for all
                raise StoreError(error_message("list", prefix, error)) from None
            return Page({}, [], "")

    for page in list_pages(send, recursive=recursive):
        folders = sorted(below + folder for folder in page.folders)
        entries: Iterable[Entry] = sorted(_entries(prefix, page.objects), key=_url)
        for _, piece in groupby(entries, key=lambda entry: bisect(folders, entry.url)) if folders else [(0, entries)]:
            yield list(piece)


@contextmanager
def rare_collections() -> Iterator[None]:
    """Collect after 50,000 new objects instead of some hundreds; by default whole heaps are searched again and again.

    Holds for the process, until the last of those that are inside at once leaves.
    """
    global _inside, _usual
    with _lock:
        if not _inside:
            _usual = gc.get_threshold()
            gc.set_threshold(*_RARELY)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                gc.set_threshold(*_usual)
