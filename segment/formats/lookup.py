"""Look at many objects without asking for each; and at one again: is it still what was planned?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from segment.errors import input_changed
from segment.names import shown
from segment.parts import Part
from segment.store import Entry, Store
from segment.urls import parent_url

_THREADS = 16
_FEW = 64  # objects of one folder that are asked for one by one: the folder may hold millions of others

A = TypeVar("A")
B = TypeVar("B")


def in_threads(function: Callable[[A], B], items: Sequence[A]) -> list[B]:
    """Return `[function(item) for item in items]`, with the waiting done in threads."""
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(_THREADS, len(items)), thread_name_prefix="inputs") as pool:
        return list(pool.map(function, items))


def look_up(urls: Iterable[str], store: Store) -> dict[str, Entry]:
    """Return the entries of those `urls` that exist: one listing per folder where many are wanted from it."""
    folders: dict[str, set[str]] = defaultdict(set)
    for url in urls:
        folders[parent_url(url)].add(url)
    listed = [folder for folder, wanted in folders.items() if len(wanted) > _FEW and not folder.startswith("http")]
    single = sorted(url for folder, wanted in folders.items() if folder not in listed for url in wanted)
    found = {url: entry for url, entry in zip(single, in_threads(store.info, single), strict=True) if entry}
    for folder, entries in zip(listed, in_threads(store.list_folder, listed), strict=True):
        found.update({entry.url: entry for entry in entries if entry.url in folders[folder]})
    return found


def refuse_changed(part: Part, store: Store) -> None:
    """Refuse a part whose tar or Parquet file is not the planned one, where the store has no etags.

    Where it has, every read compares them; here it is one look-up a part.

    Raises:
        InputChanged: it has vanished, or has another size.
    """
    if part.etag:
        return
    entry = store.info(part.url)
    if entry is None:
        raise input_changed(shown(part.url), "has vanished")
    if entry.size != part.size:
        raise input_changed(shown(part.url), "has changed")
