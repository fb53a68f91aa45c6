"""Lists what is below a prefix: local folders, pages of S3, and any other file system by its driver."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from segment.errors import StoreError
from segment.process.collector import rare_collections
from segment.store.filesystems import Entry, Info, entry_of, is_folder_entry, list_page, lists_pages, open_filesystem
from segment.store.local_files import TEMPORARY, list_local
from segment.store.paged_listing import Page, PageRequest, list_pages
from segment.store.request_errors import error_message, is_absent
from segment.store.retries import Requests
from segment.store.scope import Scope
from segment.store.urls import is_http


def list_entries(
    prefix: str, recursive: bool, options: Mapping[str, Any], requests: Requests, scope: Scope | None = None
) -> list[Entry]:
    """Return the objects below `prefix`, or directly in it, sorted by URL; empty if there are none."""
    if prefix.startswith("file://"):
        path = prefix.removeprefix("file://")
        found: Iterable[Entry] = requests.send("list", prefix, lambda: list(list_local(path, recursive)))
    elif recursive and lists_pages(prefix, options):
        found = _list_by_pages(prefix, options, requests)
    else:
        infos = requests.send("list", prefix, lambda: _list_by_driver(prefix, recursive, options, scope))
        found = _entries(prefix, infos).values()
    return sorted(found, key=lambda entry: entry.url)


def _entries(prefix: str, infos: Mapping[str, Info]) -> dict[str, Entry]:
    """Return the entries of objects by their names below `prefix`, without folders and what is being written."""
    below = prefix.rstrip("/") + "/"
    return {
        name: entry_of(below + name, info)
        for name, info in infos.items()
        if not is_folder_entry(below + name, info) and not TEMPORARY.search(name)
    }


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


def _list_by_pages(prefix: str, options: Mapping[str, Any], requests: Requests) -> Iterable[Entry]:
    """Every page is a request of its own, repeated where it fails; the pages before are kept."""

    def send(request: PageRequest) -> Page[Entry]:
        try:
            page = requests.send("list", prefix, lambda: list_page(prefix, options, request))
        except FileNotFoundError as error:
            if request.token:  # the pages before would be taken for all
                raise StoreError(error_message("list", prefix, error)) from None
            return Page({}, [], "")
        return Page(_entries(prefix, page.objects), page.folders, page.token)

    with rare_collections():
        return list_pages(send).values()
