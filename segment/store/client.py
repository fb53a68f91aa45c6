"""The store: reads, writes and lists objects in local folders and at any fsspec URL, with one retry policy.

No other module opens objects.
"""

import contextlib
import io
import logging
from pathlib import Path
from typing import Any, BinaryIO

from segment.errors import NotAFile, StoreError, input_changed
from segment.store.access import Access
from segment.store.bounds import MOST_BYTES, READ_SECONDS, Bounds
from segment.store.entries import Entries, Entry
from segment.store.filesystems import CorruptUpload, entry_of, open_filesystem, put, put_file
from segment.store.listing import list_entries
from segment.store.local_files import NoNewFolders, entry_of_local, open_local, read_given, read_local, write_local
from segment.store.names import shown
from segment.store.object_reads import get, ignores_ranges
from segment.store.ranges import RangeReader
from segment.store.request_errors import error_message, is_absent, is_taken, is_unsupported

__all__ = ["Entry", "Store"]

log = logging.getLogger("segment.store.client")


class Store(Access):
    """Reads, writes and lists objects by URL. Thread-safe and picklable.

    Args:
        options: fsspec storage options for every URL that is not local (credentials, `anon`, `endpoint_url`).
        signed: signed URLs, which requests use in place of the unsigned ones; see `add_signed_urls`.
        seconds: what one read may take in all, from `--stall-timeout`; None for the default.
        scope: what the input of a run may name; see `limit_inputs`.

    Raises (every method):
        StoreError: permanent failure, or transient failures that outlasted the retries.
    """

    @property
    def calls(self) -> int:
        """Number of completed requests, failed ones included."""
        return self._requests.calls

    @property
    def steps(self) -> int:
        """Number of completed requests, and of pieces of bodies that have arrived: a measure of progress."""
        return self._requests.steps

    def take_retries(self) -> dict[str, int]:
        """Return the number of retries since the last call, by verb (`read`, `write`, `list` and so on)."""
        return self._requests.take_retries()

    def __repr__(self) -> str:
        return f"Store(options={sorted(self._options)})"  # keys only: values may be secrets

    def read(
        self, url: str, start: int | None = None, stop: int | None = None, etag: str = "", most: int = MOST_BYTES
    ) -> bytes:
        """Return an object's bytes, or its bytes `start` to `stop` (exclusive).

        Args:
            start, stop: byte range.
            etag: expected etag; `""` accepts any. The check costs no request on local, S3 and http stores.
            most: greatest number of bytes of a whole object, also where its server declares another size, or none.

        Raises:
            TooManyBytes, TooSlow: the object has more bytes, or came too slowly.
            FileNotFoundError: there is no such object, and no etag was given.
            NotAFile: it is a local device, pipe or socket, and no etag was given.
            InputChanged: the object has another etag, or is gone.
        """
        if start is not None and start == stop:  # HTTP has no empty range
            return b""

        def attempt() -> bytes:
            data, found = self._get(url, start, stop, most)
            if etag and (self._etag(url) if found is None else found) not in (etag, ""):
                raise input_changed(shown(url), "has changed")
            if start is not None and stop is not None and len(data) > stop - start:
                raise ignores_ranges(url)
            if start is not None and stop is not None and len(data) != stop - start:
                raise ConnectionError(f"received {len(data)} of {stop - start} bytes")
            return data

        try:
            return self._requests.send("read", url, attempt)
        except FileNotFoundError:
            if etag:
                raise input_changed(shown(url), "has vanished") from None
            raise
        except NotAFile:
            if etag:
                raise input_changed(shown(url), "has changed") from None
            raise

    def _get(self, url: str, start: int | None, stop: int | None, most: int) -> tuple[bytes, str | None]:
        bounds = Bounds(url, most, self._seconds or READ_SECONDS, self._requests.note_progress)
        if url.startswith("file://"):
            self._check(url)
            return read_local(Path(url.removeprefix("file://")), start, stop, bounds)
        return get(*self._open(url), start, stop, bounds)

    def _etag(self, url: str) -> str:
        entry = self.info(url)
        return entry.etag if entry else ""

    def read_if_exists(self, url: str, etag: str = "", most: int = MOST_BYTES) -> bytes | None:
        """Return an object's bytes, or None if there is no object. For `etag` and `most` see `read`."""
        try:
            return self.read(url, etag=etag, most=most)
        except FileNotFoundError:
            return None

    def read_given(self, url: str, most: int) -> bytes | None:
        """Return the bytes of what the user names on the command line, once; None if it does not exist.

        Locally that may be a pipe, unlike what an input or a plan names. For `most` see `read`.
        """
        if not url.startswith("file://"):
            return self.read_if_exists(url, most=most)
        bounds = Bounds(url, most, self._seconds or READ_SECONDS, self._requests.note_progress)
        with contextlib.suppress(FileNotFoundError):
            return self._requests.send("read", url, lambda: read_given(Path(url.removeprefix("file://")), bounds))
        return None

    def open(
        self, url: str, block_size: int = 1 << 20, size: int | None = None, etag: str = "", ahead: int = 0
    ) -> BinaryIO:
        """Open an object as a seekable file. Remote objects are read in ranges.

        Args:
            block_size: minimum size of a range, in bytes.
            size: the object's size in bytes, if known: saves a request.
            etag: expected etag of every range; see `read`.
            ahead: bytes to read ahead at most where ranges follow each other.

        Raises:
            FileNotFoundError: there is no such object.
        """
        if url.startswith("file://") and not etag:
            self._check(url)
            return self._requests.send("open", url, lambda: open_local(Path(url.removeprefix("file://"))))
        if size is None:
            entry = self.info(url)
            if entry is None:
                raise FileNotFoundError(url)
            size = entry.size
        if size < 0:  # a server that does not send the size does not serve ranges
            return io.BytesIO(self.read(url, etag=etag))
        reader = RangeReader(lambda start, stop: self.read(url, start, stop, etag), size, ahead)
        return io.BufferedReader(reader, block_size)

    def write(self, url: str, data: bytes | Path) -> None:
        """Write an object atomically: readers see the complete old or the complete new object.

        Args:
            data: its bytes, or the local file that holds them, which need not fit into memory.
        """

        def attempt() -> None:
            if url.startswith("file://"):
                _write_local(url, data)
            else:
                filesystem, path = open_filesystem(url, self._options)
                put_file(filesystem, path, data) if isinstance(data, Path) else put(filesystem, path, data)

        try:
            self._requests.send("write", url, attempt)
        except FileNotFoundError as error:  # for example, the container is missing
            raise StoreError(error_message("write", url, error)) from None

    def create(self, url: str, data: bytes) -> bytes:
        """Write an object unless it exists, and return the stored bytes: these, or the first writer's.

        With conditional writes exactly one writer wins. Without them, two simultaneous writers can both succeed;
        reading the object back shortens that window.
        """
        self.write_if_absent(url, data)
        return self.read(url)

    def write_if_absent(self, url: str, data: bytes | Path) -> bool:
        """Write an object unless it exists; return whether this call wrote it.

        After False, compare the stored bytes: they are this call's own if the store applied the write and the
        acknowledgement was lost.
        """

        corrupt = False  # our upload was corrupted; overwriting it is safe

        def send(filesystem: Any, path: str, **mode: str) -> None:
            if isinstance(data, Path):
                put_file(filesystem, path, data, **mode)
            else:
                put(filesystem, path, data, **mode)

        def attempt() -> bool:
            nonlocal corrupt
            try:
                if url.startswith("file://"):
                    _write_local(url, data, exclusive=True)
                    return True
                filesystem, path = open_filesystem(url, self._options)
                if corrupt:
                    send(filesystem, path)
                    return True
                if filesystem.exists(path):
                    return False
                try:
                    send(filesystem, path, mode="create")
                except (OSError, NotImplementedError) as error:
                    if not is_unsupported(error):
                        raise
                    log.warning("%s: no conditional writes in this store: wrote without one", shown(url))
                    send(filesystem, path)
            except CorruptUpload:
                corrupt = True
                raise
            except OSError as error:
                if isinstance(error, FileExistsError) or is_taken(error):
                    return False
                raise
            return True

        try:
            return self._requests.send("write", url, attempt)
        except FileNotFoundError as error:  # as in `write`
            raise StoreError(error_message("write", url, error)) from None

    def delete(self, url: str) -> None:
        """Delete an object; do nothing if there is none."""

        def attempt() -> None:
            filesystem, path = open_filesystem(url, self._options)
            with contextlib.suppress(FileNotFoundError):
                filesystem.rm_file(path)

        self._requests.send("delete", url, attempt)

    def info(self, url: str) -> Entry | None:
        """Return size and etag of an object; None if there is none, or a folder."""
        if url.startswith("file://"):
            self._check(url)
            return self._requests.send("look up", url, lambda: entry_of_local(url))
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

        return self._requests.send("look up", url, attempt)

    def exists(self, url: str) -> bool:
        """Whether there is an object at `url`. A folder is not an object."""
        found = self._look_up(url)
        # A web server redirects the URL of a folder to the same URL with a slash.
        return found is not None and found["type"] != "directory" and not str(found.get("url", "")).endswith("/")

    def is_folder(self, url: str) -> bool:
        """Whether there is a folder at `url`, empty or not. On S3 a bucket and a marker object are folders, too."""
        return (self._look_up(url) or {}).get("type") == "directory"

    def _list(self, prefix: str, recursive: bool) -> Entries:
        self._check(prefix)
        return list_entries(prefix, recursive, self._options, self._requests, self._limit)

    def list_folder(self, prefix: str, *, irregular: bool = False) -> Entries:
        """Return the objects directly in `prefix`, sorted by URL, if there are any; for `irregular` see `list`."""
        return _regular(self._list(prefix, recursive=False), irregular=irregular)

    def list(self, prefix: str, *, irregular: bool = False) -> Entries:
        """Return every object below `prefix`, recursively, sorted by URL; empty if there are none.

        Follows local symbolic links, to folders too, except in a cycle.

        Args:
            prefix: URL of a folder.
            irregular: include broken links, devices and pipes.
        """
        return _regular(self._list(prefix, recursive=True), irregular=irregular)


def _regular(entries: Entries, *, irregular: bool) -> Entries:
    if irregular or entries.are_plain:
        return entries
    return Entries(entry for entry in entries if not entry.irregular)


def _write_local(url: str, data: bytes | Path, *, exclusive: bool = False) -> None:
    """Write a local file. Raises StoreError: its folder cannot be made, or it, or a file that is needed, is gone."""
    path = Path(url.removeprefix("file://"))
    try:
        write_local(path, data, exclusive=exclusive)
    except NoNewFolders as error:
        above = next(folder for folder in path.parents if folder.exists())
        where = f"{shown(str(above))} is of a file system that takes no new folders"
        raise StoreError(f"could not write {shown(url)}: its folder cannot be created: {where}") from error
    except FileNotFoundError as error:  # the file to copy, or the unfinished one, which others may take for abandoned
        raise StoreError(error_message("write", url, error)) from error
