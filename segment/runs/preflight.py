"""Whether an output can do what a run will ask of it, tried with one small object before anything is begun."""

from __future__ import annotations

import secrets
from contextlib import nullcontext, suppress
from pathlib import Path

from segment.errors import StoreError
from segment.pipeline.resources import folders_undone
from segment.store.client import Store
from segment.store.names import shown
from segment.store.urls import join_url

_SIZE = 4096  # bytes of the object
_RANGE = (1000, 3000)  # of it that is read back: some stores have other checksums for a range


def probe_output(store: Store, output: str, *, deletes: bool) -> list[str]:
    """Create an object below an output, read a range of it, list and delete it; nothing is left behind.

    Args:
        store: how to reach it.
        output: absolute URL of the prefix.
        deletes: whether the run may have to delete what is committed. One that does not can do without the permission.

    Returns:
        What to tell the user, a line each: what will not be possible here.

    Raises:
        StoreError: the output refuses what a run needs, with what to do about it.
    """
    # a name that no reader of tables takes for data, in no folder of ours, and no other driver's
    url = join_url(output, f"_preflight-{secrets.token_hex(8)}")
    local = output.startswith("file://")
    with folders_undone(Path(output.removeprefix("file://"))) if local else nullcontext():
        try:
            _try(store, output, url)
        except StoreError as error:
            raise type(error)(f"{shown(output)} cannot take the output of a run: {error}") from None
        return _delete(store, output, url, deletes=deletes)


def _try(store: Store, output: str, url: str) -> None:
    data = bytes(range(256)) * (_SIZE // 256)
    store.write_if_absent(url, data)
    try:
        if store.read(url, *_RANGE) != data[slice(*_RANGE)]:
            raise StoreError(f"{shown(url)} has other bytes than were written to it")
        if all(entry.url != url for entry in store.list_folder(output)):
            raise StoreError(
                f"{shown(url)} was written, but is not in the listing of its folder, by which a run knows what is done"
            )
    except FileNotFoundError:
        raise StoreError(f"{shown(url)} was written, but is not there") from None
    except BaseException:
        with suppress(StoreError):
            store.delete(url)
        raise


def _delete(store: Store, output: str, url: str, *, deletes: bool) -> list[str]:
    try:
        store.delete(url)
    except StoreError as error:
        if deletes:
            raise type(error)(
                f"{error}. --update, --retry-errors and --verify take back what is done again, so they need it"
            ) from None
        return [
            f"warning: nothing can be deleted in {shown(output)}, so --update, --retry-errors and --verify are not "
            f"possible there, and {shown(url)} stays ({error})"
        ]
    return []
