"""The one door to every store: local folders and any fsspec URL, with one retry policy.

Nothing else opens objects: `filesystems` and `local_files` are its hands.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from segment.errors import StoreError, input_changed
from segment.store.filesystems import Damaged, Entry, entry_of, get, ignores_ranges, is_folder, open_filesystem, put
from segment.store.local_files import TEMPORARY, list_local, read_local, write_local
from segment.store.names import shown
from segment.store.ranges import Ranges
from segment.store.request_errors import advice, is_absent, is_taken, is_unknown
from segment.store.retries import Requests
from segment.store.signatures import SignedUrls
from segment.store.urls import is_http, redact_url, unsigned

__all__ = ["Entry", "Store"]

log = logging.getLogger("segment.store.client")

T = TypeVar("T")


class Store:
    """Reads, writes and lists objects by URL. Safe to share between threads; picklable.

    Args:
        options: fsspec storage options for every URL that is not local (credentials, `anon`, `endpoint_url`).
        signed: URLs to ask for in place of what they name; see `add_signed_urls`.

    Raises (every method):
        StoreError: permanent failure, or transient failures that outlasted the retries.
    """

    def __init__(self, options: Mapping[str, Any] | None = None, signed: SignedUrls | None = None) -> None:
        self._options = dict(options or {})
        self._requests = Requests()
        self._signed = signed or SignedUrls()

    def __reduce__(self) -> tuple[type[Store], tuple[dict[str, Any], SignedUrls]]:
        return Store, (self._options, self._signed)  # a copy counts for itself

    def add_signed_urls(self, urls: Iterable[str]) -> None:
        """From now on read what these http(s) URLs name by them: by signed URLs, which are kept nowhere else.

        Every other method takes and returns what a URL names (`segment.store.urls.unsigned`).
        """
        new = [url for url in urls if is_http(url) and self._signed.get(unsigned(url)) != url]
        if new:
            self._signed = SignedUrls([*self._signed, *new])

    def lacks_signature(self, url: str) -> bool:
        """Whether other objects have signed URLs, and this one has not even an unsigned one."""
        return len(self._signed) > 0 and self._signed.get(url) is None

    def _open(self, url: str) -> tuple[Any, str]:
        """Return the file system of an object that is to be read, and what it calls the object."""
        return open_filesystem(self._signed.get(url) or url, self._options)

    @property
    def calls(self) -> int:
        """Requests that ended, well or not."""
        return self._requests.calls

    def take_retries(self) -> dict[str, int]:
        """Return how often requests were repeated since the last call, by kind (`read`, `write`, `list` and so on)."""
        return self._requests.take_retries()

    def __repr__(self) -> str:
        return f"Store(options={sorted(self._options)})"  # keys only: the values may be secrets

    def read(self, url: str, start: int | None = None, stop: int | None = None, etag: str = "") -> bytes:
        """Return an object's bytes, or its bytes `start` to `stop` (exclusive).

        Args:
            url: what to read.
            start, stop: a range of it.
            etag: what it must have; `""` where that does not matter. No more requests on local, S3 and http stores.

        Raises:
            FileNotFoundError: there is no such object, and no etag was given.
            InputChanged: it has another etag, or is gone.
        """
        if start is not None and start == stop:  # an impossible range
            return b""

        def attempt() -> bytes:
            data, found = self._get(url, start, stop)
            if etag and (self._etag(url) if found is None else found) not in (etag, ""):
                raise input_changed(shown(url), "has changed")
            if start is not None and stop is not None and len(data) > stop - start:
                raise ignores_ranges(url)
            if start is not None and stop is not None and len(data) != stop - start:
                raise ConnectionError(f"{len(data)} bytes came of {stop - start}")
            return data

        try:
            return self._retry("read", url, attempt)
        except FileNotFoundError:
            if etag:
                raise input_changed(shown(url), "has vanished") from None
            raise

    def _get(self, url: str, start: int | None, stop: int | None) -> tuple[bytes, str | None]:
        if url.startswith("file://"):
            return read_local(Path(url.removeprefix("file://")), start, stop)
        return get(*self._open(url), start, stop)

    def _etag(self, url: str) -> str:
        entry = self.info(url)
        return entry.etag if entry else ""

    def read_if_exists(self, url: str, etag: str = "") -> bytes | None:
        """Return an object's bytes, or None where there is none; with an etag as in `read`."""
        try:
            return self.read(url, etag=etag)
        except FileNotFoundError:
            return None

    def read_many(self, urls: Sequence[str], etags: Sequence[str] | None = None) -> list[bytes | None]:
        """Return the bytes of many objects, fetched at once; None for those that do not exist. Etags as in `read`."""
        etags = etags or [""] * len(urls)
        if len(urls) < 2 or all(url.startswith("file://") for url in urls):
            return [self.read_if_exists(url, etag) for url, etag in zip(urls, etags, strict=True)]
        with ThreadPoolExecutor(min(16, len(urls)), thread_name_prefix="read") as pool:
            return list(pool.map(self.read_if_exists, urls, etags))

    def open(self, url: str, block_size: int = 1 << 20, size: int | None = None, etag: str = "") -> BinaryIO:
        """Open an object for seeking reads; remote objects are read in ranges of `block_size` bytes.

        Args:
            url: what to open.
            block_size: bytes of the least range that is fetched.
            size: the object's bytes, where known: saves a request.
            etag: as in `read`, for every range that is fetched.

        Raises:
            FileNotFoundError: there is no such object.
        """
        if url.startswith("file://") and not etag:
            return self._retry("open", url, lambda: Path(url.removeprefix("file://")).open("rb"))
        if size is None:
            entry = self.info(url)
            if entry is None:
                raise FileNotFoundError(url)
            size = entry.size
        if size < 0:  # no server that hides the size serves ranges
            return io.BytesIO(self.read(url, etag=etag))
        return io.BufferedReader(Ranges(lambda start, stop: self.read(url, start, stop, etag), size), block_size)

    def write(self, url: str, data: bytes) -> None:
        """Write an object in one atomic step: readers see the old one or the new one, whole."""

        def attempt() -> None:
            if url.startswith("file://"):
                write_local(Path(url.removeprefix("file://")), data)
            else:
                filesystem, path = open_filesystem(url, self._options)
                put(filesystem, path, data)

        try:
            self._retry("write", url, attempt)
        except FileNotFoundError as error:  # of a container, say
            raise StoreError(advice("write", url, error)) from None

    def create(self, url: str, data: bytes) -> bytes:
        """Write an object unless there is one, and return the bytes that are there: ours, or the first writer's.

        Stores that honour conditional writes let exactly one writer win. On others two that write in the same moment
        may both believe they did; reading back makes that moment short.
        """
        self.write_if_absent(url, data)
        return self.read(url)

    def write_if_absent(self, url: str, data: bytes) -> bool:
        """Write an object unless there is one. False if there was: then read it, for it may be ours.

        So it is where our own write was applied and its acknowledgement lost.
        """

        damaged = False  # what is there is ours, but not as it was sent: no one else's win in any attempt to come

        def attempt() -> bool:
            nonlocal damaged
            try:
                if url.startswith("file://"):
                    write_local(Path(url.removeprefix("file://")), data, exclusive=True)
                    return True
                filesystem, path = open_filesystem(url, self._options)
                if damaged:
                    put(filesystem, path, data)
                    return True
                if filesystem.exists(path):
                    return False
                try:
                    put(filesystem, path, data, mode="create")
                except (OSError, NotImplementedError) as error:
                    if not is_unknown(error):
                        raise
                    log.warning("%s: this store knows no conditional writes: written without", redact_url(url))
                    put(filesystem, path, data)
            except Damaged:
                damaged = True
                raise
            except OSError as error:
                if isinstance(error, FileExistsError) or is_taken(error):
                    return False
                raise
            return True

        try:
            return self._retry("write", url, attempt)
        except FileNotFoundError as error:
            raise StoreError(f"could not write {redact_url(url)}: its folder cannot be made") from error

    def delete(self, url: str) -> None:
        """Delete an object; one that is not there is deleted already."""

        def attempt() -> None:
            filesystem, path = open_filesystem(url, self._options)
            with contextlib.suppress(FileNotFoundError):
                filesystem.rm_file(path)

        self._retry("delete", url, attempt)

    def info(self, url: str) -> Entry | None:
        """Return size and etag of an object, or None where there is none (or a folder)."""

        found = self._look_up(url)
        return None if found is None or found["type"] == "directory" else entry_of(url, found)

    def _look_up(self, url: str) -> dict[str, Any] | None:
        def attempt() -> dict[str, Any] | None:
            filesystem, path = self._open(url)
            try:
                return dict(filesystem.info(path))
            except OSError as error:
                if is_absent(error):
                    return None
                raise

        return self._retry("look up", url, attempt)

    def exists(self, url: str) -> bool:
        """Whether there is an object at `url`. A folder is none; web servers redirect to its name with a slash."""
        found = self._look_up(url)
        return found is not None and found["type"] != "directory" and not str(found.get("url", "")).endswith("/")

    def is_folder(self, url: str) -> bool:
        """Whether there is a folder at `url`, empty or not; on S3 a bucket is one, and a marker object."""
        return (self._look_up(url) or {}).get("type") == "directory"

    def _list(self, prefix: str, recursive: bool) -> list[Entry]:
        below = prefix.rstrip("/") + "/"

        def attempt() -> list[Entry]:
            if prefix.startswith("file://"):
                return list(list_local(prefix.removeprefix("file://"), recursive))
            filesystem, path = open_filesystem(prefix, self._options)
            root = path.rstrip("/") + "/"  # drivers have names of their own: `bucket/key`, `container/key`, `/key`
            try:
                if recursive:
                    # fsspec's own walk, which http:// uses, leaves out what it may not read without a word
                    strict = {"on_error": "raise"} if is_http(prefix) else {}
                    found = filesystem.find(path, detail=True, **strict)
                else:
                    found = {info["name"]: info for info in filesystem.ls(path, detail=True)}
            except FileNotFoundError as error:
                if is_absent(error):
                    return []
                raise
            return [
                entry_of(below + name.removeprefix(root), info)
                for name, info in found.items()
                if name.startswith(root) and not is_folder(name, info) and not TEMPORARY.search(name)
            ]

        return sorted(self._retry("list", prefix, attempt), key=lambda entry: entry.url)

    def list_folder(self, prefix: str) -> list[Entry]:
        """Return the objects directly in `prefix`, sorted by URL; empty where there is nothing."""
        return [entry for entry in self._list(prefix, recursive=False) if not entry.irregular]

    def list(self, prefix: str, *, irregular: bool = False) -> list[Entry]:
        """Return every object below `prefix`, recursively, sorted by URL; empty where there is nothing.

        Local links are followed, to folders too, unless that leads in a circle.

        Args:
            prefix: URL of a folder.
            irregular: return what is no file, too: links to nothing, devices, pipes.
        """
        return [entry for entry in self._list(prefix, recursive=True) if irregular or not entry.irregular]

    def _retry(self, verb: str, url: str, attempt: Callable[[], T]) -> T:
        return self._requests.send(verb, url, attempt)
