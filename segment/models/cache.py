"""Transfers: files in ranges, and a cache of published files that survives breaks and is verified at every use."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import urlsplit

from segment.errors import ModelError, StoreError, UsageError
from segment.models.card import WeightsFile
from segment.store.client import Store
from segment.store.urls import redact_url

Progress = Callable[[str, int, int], None]  # name of the file, bytes done, bytes in total

_CHUNK = 4 << 20  # bytes of one request: a transfer that breaks off loses no more, and none runs into a time limit


def cache_folder() -> Path:
    """Return the folder that downloads are kept in: `$SEGMENT_CACHE`, else below the user's cache folder.

    Raises:
        UsageError: there is no home folder.
    """
    if chosen := os.environ.get("SEGMENT_CACHE"):
        return Path(chosen).expanduser().absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # the XDG specification: relative ones are to be ignored
        try:
            base = Path.home() / ".cache"
        except RuntimeError:
            raise UsageError("no home folder to keep weights in: set SEGMENT_CACHE to a folder") from None
    return base / "segment" / "weights"


def read_whole(url: str, store: Store, report: Progress) -> bytes | None:
    """Return a file's bytes, or None where there is none; remote files come in ranges."""
    entry = store.info(url)
    if entry is None:
        return None
    if url.startswith("file://") or entry.size < 0:
        return store.read(url)
    data = bytearray()
    for chunk in _chunks(url, 0, entry.size, store):
        data += chunk
        report(name_of(url), len(data), entry.size)
    if store.info(url) != entry:
        raise StoreError(f"{redact_url(url)} changed while it was being read: run the same command again")
    return bytes(data)


def _chunks(url: str, start: int, size: int, store: Store) -> Iterator[bytes]:
    """Yield a file's bytes from `start` on, a range at a time."""
    while start < size:
        stop = min(start + _CHUNK, size)
        try:
            chunk = store.read(url, start, stop)
        except UsageError:  # the server ignores ranges; any other reason fails the whole read the same way
            yield store.read(url)[start:]
            return
        yield chunk
        start = stop


def verify(data: bytes, file: WeightsFile) -> None:
    """Raise ModelError unless the bytes are those the card describes."""
    url = redact_url(file.url)
    if len(data) != file.size:
        raise ModelError(f"{url} has {len(data)} bytes, the model card says {file.size}: it is another file")
    digest = hashlib.sha384(data).hexdigest()
    if digest != file.sha384:
        raise ModelError(
            f"{url}: its SHA-384 begins {digest[:12]}, the model card says {file.sha384[:12]}: it is another file"
        )


def fetch_once(file: WeightsFile, target: Path, store: Store, report: Progress) -> bytes:
    """Return a published file's bytes from the cache, downloaded to there if need be.

    Any number of processes may do this at once: one of them downloads.

    Args:
        file: URL, size and digest.
        target: where the cache has it. Verified again at each call, and fetched anew if damaged.

    Raises:
        FileNotFoundError: there is nothing at the URL.
        ModelError: what is there is not the file that the card describes; it is not kept.
        StoreError: the transfer failed for good; what has come so far is kept, the next call goes on there.
        UsageError: the cache cannot be written.
    """
    try:
        data = _intact(target, file)
        if data is not None:
            return data
        target.parent.mkdir(parents=True, exist_ok=True)
        return _fetch(file, target, store, report)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UsageError(
            f"the weights cache {target.parent} cannot be used: {error.strerror or error}. Set SEGMENT_CACHE to a "
            "folder that can"
        ) from None


def _intact(path: Path, file: WeightsFile) -> bytes | None:
    """Return a cached file's bytes if they are those the card describes."""
    try:
        data = path.read_bytes()
        verify(data, file)
    except (FileNotFoundError, ModelError):
        return None
    return data


def _fetch(file: WeightsFile, target: Path, store: Store, report: Progress) -> bytes:
    part = target.with_name(f"{target.name}.part")
    with _locked(part, lambda done: report(name_of(file.url), done, file.size)) as growing:
        data = _intact(target, file)  # by now another process may have fetched it
        if data is not None:
            part.unlink()
            return data
        try:
            data = _complete(file, growing, store, report)
        except (FileNotFoundError, ModelError):
            part.unlink()
            raise
        except StoreError:
            if part.stat().st_size == 0:
                part.unlink()
            raise
        part.replace(target)
        return data


def _complete(file: WeightsFile, growing: BinaryIO, store: Store, report: Progress) -> bytes:
    """Append what is missing to a partial download and return the verified whole."""
    entry = store.info(file.url)
    if entry is None:
        raise FileNotFoundError(file.url)
    if entry.size not in (-1, file.size):
        raise ModelError(
            f"{redact_url(file.url)} has {entry.size} bytes, the model card says {file.size}: it is another file"
        )
    resumed = _append(file, growing, store, report)
    try:
        return _verified(file, growing)
    except ModelError:
        if not resumed:
            raise
    growing.truncate(0)  # what was resumed may have been the damaged half
    _append(file, growing, store, report)
    return _verified(file, growing)


def _append(file: WeightsFile, growing: BinaryIO, store: Store, report: Progress) -> bool:
    """Append the rest of a file; return whether a part of it was there already."""
    start = growing.seek(0, os.SEEK_END)
    done = start
    report(name_of(file.url), done, file.size)
    for chunk in _chunks(file.url, start, file.size, store):
        growing.write(chunk)
        growing.flush()
        done += len(chunk)
        report(name_of(file.url), done, file.size)
    return start > 0


def _verified(file: WeightsFile, growing: BinaryIO) -> bytes:
    growing.seek(0)
    data = growing.read()
    verify(data, file)
    return data


@contextmanager
def _locked(part: Path, waiting: Callable[[int], None]) -> Iterator[BinaryIO]:
    """Open a partial download for appending, for one process and thread alone.

    The lock is the kernel's: it ends with the process, however that ends.

    Args:
        part: the file; made if missing.
        waiting: called with the bytes there are, again and again while another holds the lock.
    """
    while True:
        with part.open("a+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting(os.fstat(file.fileno()).st_size)
                time.sleep(0.1)
                continue
            if _is_at(file, part):
                yield file
                return


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether an open file is still the one at `path`: who held the lock may have renamed or deleted it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def path_of(url: str) -> str:
    """Return a URL without the query that http:// may have."""
    return urlsplit(url).path if url.startswith(("http://", "https://")) else url


def name_of(url: str) -> str:
    """Return a URL's last name."""
    return PurePosixPath(path_of(url)).name


def suffix_of(url: str) -> str:
    """Return a URL's file suffix in lower case, with its dot."""
    return PurePosixPath(path_of(url)).suffix.lower()
