"""The one door to every store: local folders and any fsspec URL, with one retry policy.

Nothing outside this module calls fsspec.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import fsspec
import tenacity

from segment.errors import StoreError, UsageError
from segment.retries import advice, is_absent, is_taken, is_transient
from segment.urls import PROTOCOL, redact_url

log = logging.getLogger("segment.store")

_MD5 = re.compile(r"[0-9a-f]{32}")
_TEMPORARY = re.compile(r"\.tmp-[0-9a-f]{16}$")
_ATTEMPTS = 7
_DEADLINE = 180.0  # seconds after which no further attempt begins: less than the stall time-out of a worker
# s3fs and botocore would each retry five times on their own: a store that answers nothing would hold a run for half an
# hour. One policy is enough, ours.
_S3_CONFIG = {"connect_timeout": 10, "read_timeout": 30, "retries": {"total_max_attempts": 1}}
_EXTRAS = {"gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure", "adl": "azure"}
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a store.

    Attributes:
        url: absolute URL.
        size: bytes; -1 where the store does not say.
        etag: changes when the content does: the store's ETag, else last-modified time, else `""`.
    """

    url: str
    size: int
    etag: str


def parse_storage_option(text: str) -> tuple[str, Any]:
    """Parse `key=value`; `true`, `false` and JSON objects are taken as such.

    Raises:
        UsageError: there is no `=` in it. The text is not repeated: it may be a secret.
    """
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise UsageError("--storage-option takes key=value, for example --storage-option anon=true")
    if value in ("true", "false") or value.startswith("{"):
        with contextlib.suppress(json.JSONDecodeError):
            return key, json.loads(value)
    return key, value


class Store:
    """Reads, writes and lists objects by URL. Safe to share between threads; picklable.

    Args:
        options: fsspec storage options for every URL that is not local (credentials, `anon`, `endpoint_url`).

    Raises (every method):
        StoreError: permanent failure, or transient failures that outlasted the retries.
    """

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self._options = dict(options or {})

    def __repr__(self) -> str:
        return f"Store(options={sorted(self._options)})"  # keys only: the values may be secrets

    def _open(self, url: str) -> tuple[Any, str]:
        match = PROTOCOL.match(url)
        protocol = match.group(1) if match else "file"
        if protocol == "file":
            return fsspec.filesystem("file"), url.removeprefix("file://")
        options = self._options
        if protocol in ("http", "https"):
            options = _http_options(options)
        elif protocol in ("s3", "s3a"):
            options = {**options, "config_kwargs": {**_S3_CONFIG, **(options.get("config_kwargs") or {})}}
        try:
            filesystem = fsspec.filesystem(protocol, use_listings_cache=False, **options)
        except ImportError as error:
            extra = _EXTRAS.get(protocol)
            mend = f"pip install 'segment-job[{extra}]'" if extra else str(error)
            raise UsageError(f"{redact_url(url)}: {protocol}:// needs another package: {mend}") from None
        except ValueError:
            raise UsageError(f"{redact_url(url)}: no store is known for {protocol}://") from None
        if protocol in ("s3", "s3a"):
            filesystem.retries = 1
        return filesystem, cast(str, filesystem._strip_protocol(url))

    def read(self, url: str, start: int | None = None, stop: int | None = None) -> bytes:
        """Return an object's bytes, or its bytes `start` to `stop` (exclusive).

        Raises:
            FileNotFoundError: there is no such object.
        """

        if start is not None and start == stop:  # s3fs would ask for an impossible range
            return b""

        def attempt() -> bytes:
            filesystem, path = self._open(url)
            data = cast(bytes, filesystem.cat_file(path, start=start, end=stop))
            if start is not None and stop is not None and len(data) > stop - start:
                raise UsageError(f"{redact_url(url)}: this server ignores ranges. Copy the file, or serve it otherwise")
            if start is not None and stop is not None and len(data) != stop - start:
                raise ConnectionError(f"{len(data)} bytes came of {stop - start}")
            return data

        return self._retry("read", url, attempt)

    def read_if_exists(self, url: str) -> bytes | None:
        """Return an object's bytes, or None where there is none."""
        try:
            return self.read(url)
        except FileNotFoundError:
            return None

    def read_many(self, urls: Sequence[str]) -> list[bytes | None]:
        """Return the bytes of many objects, fetched at once; None for those that do not exist."""
        if len(urls) < 2 or all(url.startswith("file://") for url in urls):
            return [self.read_if_exists(url) for url in urls]
        with ThreadPoolExecutor(min(16, len(urls)), thread_name_prefix="read") as pool:
            return list(pool.map(self.read_if_exists, urls))

    def open(self, url: str, block_size: int = 1 << 20, size: int | None = None) -> BinaryIO:
        """Open an object for seeking reads; remote objects are read in ranges of `block_size` bytes.

        Args:
            url: what to open.
            block_size: bytes of the least range that is fetched.
            size: the object's bytes, where known: saves a request.

        Raises:
            FileNotFoundError: there is no such object.
        """
        if url.startswith("file://"):
            return self._retry("open", url, lambda: Path(url.removeprefix("file://")).open("rb"))
        if size is None:
            entry = self.info(url)
            if entry is None:
                raise FileNotFoundError(url)
            size = entry.size
        if size < 0:  # no server that hides the size serves ranges
            return io.BytesIO(self.read(url))
        return io.BufferedReader(_Ranges(self, url, size), block_size)

    def write(self, url: str, data: bytes) -> None:
        """Write an object in one atomic step: readers see the old one or the new one, whole."""

        def attempt() -> None:
            if url.startswith("file://"):
                _write_local(Path(url.removeprefix("file://")), data)
            else:
                filesystem, path = self._open(url)
                _put(filesystem, path, data)

        try:
            self._retry("write", url, attempt)
        except FileNotFoundError as error:  # of a container, say
            raise StoreError(advice("write", url, error)) from None

    def create(self, url: str, data: bytes) -> bytes:
        """Write an object unless there is one, and return the bytes that are there: ours, or the first writer's.

        Stores that honour conditional writes let exactly one writer win. On others two that write in the same moment
        may both believe they did; reading back makes that moment short.
        """

        def attempt() -> None:
            if url.startswith("file://"):
                with contextlib.suppress(FileExistsError):
                    _write_local(Path(url.removeprefix("file://")), data, exclusive=True)
                return
            filesystem, path = self._open(url)
            try:
                if not filesystem.exists(path):
                    _put(filesystem, path, data, mode="create")
            except FileExistsError:
                pass
            except _Damaged:  # what is there is ours, but not as it was sent
                _put(filesystem, path, data)
            except OSError as error:
                if not is_taken(error):
                    raise

        try:
            self._retry("write", url, attempt)
        except FileNotFoundError as error:
            raise StoreError(f"could not write {redact_url(url)}: its folder cannot be made") from error
        return self.read(url)

    def delete(self, url: str) -> None:
        """Delete an object; one that is not there is deleted already."""

        def attempt() -> None:
            filesystem, path = self._open(url)
            with contextlib.suppress(FileNotFoundError):
                filesystem.rm_file(path)

        self._retry("delete", url, attempt)

    def info(self, url: str) -> Entry | None:
        """Return size and etag of an object, or None where there is none (or a folder)."""

        def attempt() -> Entry | None:
            filesystem, path = self._open(url)
            try:
                found = filesystem.info(path)
            except OSError as error:
                if is_absent(error):
                    return None
                raise
            return None if found["type"] == "directory" else _entry(url, found)

        return self._retry("look up", url, attempt)

    def exists(self, url: str) -> bool:
        """Whether there is an object at `url` (a folder is none)."""
        return self.info(url) is not None

    def _list(self, prefix: str, recursive: bool) -> list[Entry]:
        below = prefix.rstrip("/") + "/"

        def attempt() -> list[Entry]:
            if prefix.startswith("file://"):
                return list(_list_local(prefix.removeprefix("file://"), recursive, frozenset()))
            filesystem, path = self._open(prefix)
            root = path.rstrip("/") + "/"  # drivers have names of their own: `bucket/key`, `container/key`, `/key`
            try:
                if recursive:
                    # fsspec's own walk, which http:// uses, leaves out what it may not read without a word
                    strict = {"on_error": "raise"} if prefix.startswith(("http://", "https://")) else {}
                    found = filesystem.find(path, detail=True, **strict)
                else:
                    found = {info["name"]: info for info in filesystem.ls(path, detail=True)}
            except FileNotFoundError as error:
                if is_absent(error):
                    return []
                raise
            return [
                _entry(below + name.removeprefix(root), info)
                for name, info in found.items()
                if name.startswith(root) and not _is_folder(name, info) and not _TEMPORARY.search(name)
            ]

        return sorted(self._retry("list", prefix, attempt), key=lambda entry: entry.url)

    def list_folder(self, prefix: str) -> list[Entry]:
        """Return the objects directly in `prefix`, sorted by URL; empty where there is nothing."""
        return self._list(prefix, recursive=False)

    def list(self, prefix: str) -> list[Entry]:
        """Return every object below `prefix`, recursively, sorted by URL; empty where there is nothing.

        Local links are followed, to folders too, unless that leads in a circle.
        """
        return self._list(prefix, recursive=True)

    def _retry(self, verb: str, url: str, attempt: Callable[[], T]) -> T:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: is_transient(error, url)),
            stop=tenacity.stop_after_attempt(_ATTEMPTS) | tenacity.stop_before_delay(_DEADLINE),
            wait=tenacity.wait_exponential_jitter(multiplier=0.2, max=10),
            reraise=True,
            before_sleep=lambda state: log.warning(
                "retrying to %s %s (attempt %d): %s",
                verb,
                redact_url(url),
                state.attempt_number,
                type(state.outcome.exception()).__name__ if state.outcome else "",
            ),
        )
        try:
            return retrying(attempt)
        except (UsageError, StoreError):
            raise
        except Exception as error:
            if isinstance(error, FileNotFoundError) and is_absent(error):
                raise FileNotFoundError(errno.ENOENT, "there is no such object", redact_url(url)) from None
            raise StoreError(advice(verb, url, error)) from None


class _Damaged(ConnectionError):
    """An object was stored, but other bytes than were sent."""


def _put(filesystem: Any, path: str, data: bytes, **mode: str) -> None:
    """Store an object and compare the checksum that the store answers with, where it does.

    On S3 the ETag of an object that was sent in one piece is its MD5, but not under every encryption: so where it is
    another one, the object itself is asked.
    """
    answer = filesystem.pipe_file(path, data, **mode)
    etag = str(answer.get("ETag", "")).strip('"') if isinstance(answer, Mapping) else ""
    if not _MD5.fullmatch(etag) or etag == hashlib.md5(data, usedforsecurity=False).hexdigest():
        return
    if filesystem.cat_file(path) != data:
        raise _Damaged("the store has other bytes than were sent")


_HTTP_OPTIONS = {"auth", "block_size", "client_kwargs", "cookies", "encoded", "headers", "proxy", "ssl", "timeout"}


def _http_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what http:// and https:// are opened with: not another store's options, nor its secrets.

    A job has one set of options, while its images may be on s3:// and its weights on https://.
    """
    own = {key: value for key, value in options.items() if key in _HTTP_OPTIONS}
    client = own.get("client_kwargs") or {}
    if "endpoint_url" in client:  # s3fs has an option of this name too
        client = {}
    # Without trust_env, aiohttp passes by the proxy that HTTPS_PROXY names.
    return {**own, "client_kwargs": {"trust_env": True, **client}}


class _Ranges(io.RawIOBase):
    """A remote object as a raw file: every read is one ranged `Store.read`, with its retries.

    Not fsspec's file: a read that fails there is outside our retries and raises the driver's own errors.
    """

    def __init__(self, store: Store, url: str, size: int) -> None:
        self._store, self._url, self._size = store, url, size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        stop = min(self._size, self._position + len(buffer))
        if stop <= self._position:
            return 0
        data = self._store.read(self._url, self._position, stop)
        buffer[: len(data)] = data
        self._position = stop
        return len(data)


def _entry(url: str, info: Mapping[str, Any]) -> Entry:
    etag = info.get("ETag") or info.get("etag") or info.get("md5Hash") or ""
    if not etag and "mtime" in info:
        etag = f"mtime-{info['mtime']:.6f}"
    if not etag:
        etag = _modified(info)
    size = info.get("size")
    return Entry(url, -1 if size is None else int(size), str(etag).strip('"'))


def _is_folder(name: str, info: Mapping[str, Any]) -> bool:
    """Whether a listed name is a folder, or the empty object that S3's console makes for one."""
    return info["type"] == "directory" or name.endswith("/")


def _list_local(folder: str, recursive: bool, parents: frozenset[tuple[int, int]]) -> Iterator[Entry]:
    """Walk a local folder. Not fsspec's walk: that one skips unreadable folders without a word."""
    try:
        status = Path(folder).stat()
        found = list(os.scandir(folder))
    except OSError as error:
        if is_absent(error):
            return
        raise
    if (status.st_dev, status.st_ino) in parents:
        return
    parents |= {(status.st_dev, status.st_ino)}
    for item in found:
        if item.is_dir():
            if recursive:
                yield from _list_local(item.path, recursive, parents)
        elif item.is_file() and not _TEMPORARY.search(item.name):
            with contextlib.suppress(FileNotFoundError):  # deleted since
                status = item.stat()
                yield Entry(f"file://{item.path}", status.st_size, f"mtime-{status.st_mtime:.6f}")
        elif item.is_symlink():
            log.warning("%s is a link to nothing: left out", item.path)


def _modified(info: Mapping[str, Any]) -> str:
    names = ("LastModified", "Last-Modified", "last_modified", "updated")
    return next((str(info[name]) for name in names if info.get(name)), "")


def _write_local(path: Path, data: bytes, *, exclusive: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # hidden, or whoever reads the folder meanwhile (or after a kill) would take it for data
    temporary = path.with_name(f".{path.name}.tmp-{secrets.token_hex(8)}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if exclusive:
            path.hardlink_to(temporary)  # fails where there is one; a rename would replace it
            temporary.unlink()
        else:
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
