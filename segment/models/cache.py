"""Downloads: files read in ranges, and a cache of published files, which resumes transfers and verifies every use."""

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from segment.errors import ModelError, StoreError, UsageError
from segment.models.card import WeightsFile
from segment.store.bounds import MOST_BYTES
from segment.store.client import Store
from segment.store.names import basename, shown

Progress = Callable[[str, int, int], None]  # name of the file, bytes done, bytes in total

_CHUNK = 4 << 20  # bytes of one request: an interrupted transfer loses no more, and no request hits a time limit


def cache_folder() -> Path:
    """Return the folder of downloaded files: `$SEGMENT_CACHE`, else a folder in the user's cache folder.

    Raises UsageError: there is no home folder.
    """
    if chosen := os.environ.get("SEGMENT_CACHE"):
        return Path(chosen).expanduser().absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # the XDG specification ignores relative paths
        try:
            base = Path.home() / ".cache"
        except RuntimeError:
            raise UsageError("there is no home folder for downloaded weights: set SEGMENT_CACHE to a folder") from None
    return base / "segment" / "weights"


def read_whole(url: str, store: Store, report: Progress) -> bytes | None:
    """Return a file's bytes, or None if there is no file; remote files are read in ranges."""
    entry = store.info(url)
    if entry is None:
        return None
    if url.startswith("file://") or entry.size < 0:
        return store.read_if_exists(url, most=max(entry.size, MOST_BYTES))
    data = bytearray()
    try:
        for chunk in _chunks(url, 0, entry.size, store):
            data += chunk
            report(basename(url), len(data), entry.size)
        is_same = store.info(url) == entry
    except FileNotFoundError:  # deleted meanwhile
        is_same = False
    if not is_same:
        raise StoreError(f"{shown(url)} changed while it was being read: run the same command again")
    return bytes(data)


def _chunks(url: str, start: int, size: int, store: Store) -> Iterator[bytes]:
    """Yield a file's bytes from `start` on, range by range."""
    while start < size:
        stop = min(start + _CHUNK, size)
        try:
            chunk = store.read(url, start, stop)
        except UsageError:  # the server ignores ranges; for any other reason the read of the whole file fails, too
            yield store.read(url, most=size)[start:]
            return
        yield chunk
        start = stop


def verify(data: bytes, file: WeightsFile) -> None:
    """Raise ModelError if size or digest of the bytes differ from the card's."""
    url = shown(file.url)
    if len(data) != file.size:
        raise ModelError(f"{url} has {len(data)} bytes, the model card says {file.size}: it is another file")
    digest = hashlib.sha384(data).hexdigest()
    if digest != file.sha384:
        raise ModelError(
            f"{url}: its SHA-384 begins {digest[:12]}, the model card says {file.sha384[:12]}: it is another file"
        )


def fetch_once(file: WeightsFile, target: Path, store: Store, report: Progress) -> bytes:
    """Return a published file's bytes from the cache; download the file if the cache lacks it.

    If several processes call this at once, one of them downloads.

    Args:
        target: path in the cache. Its content is verified at each call, and downloaded again if it is damaged.

    Raises:
        FileNotFoundError: there is no file at the URL.
        ModelError: the file at the URL is not the one that the card describes; it is not kept.
        StoreError: the transfer failed permanently; the next call resumes it.
        UsageError: the cache cannot be written.
    """
    try:
        data = _read_verified(target, file)
        if data is not None:
            return data
        target.parent.mkdir(parents=True, exist_ok=True)
        return _fetch(file, target, store, report)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UsageError(
            f"the weights cache {target.parent} cannot be used: {error.strerror or error}. Set SEGMENT_CACHE to a "
            "writable folder"
        ) from None


def _read_verified(path: Path, file: WeightsFile) -> bytes | None:
    """Return a cached file's bytes; None if the file is missing or not the one that the card describes."""
    try:
        data = path.read_bytes()
        verify(data, file)
    except (FileNotFoundError, ModelError):
        return None
    return data


def _fetch(file: WeightsFile, target: Path, store: Store, report: Progress) -> bytes:
    part = target.with_name(f"{target.name}.part")
    with _locked(part, lambda done: report(basename(file.url), done, file.size)) as partial:
        data = _read_verified(target, file)  # another process may have downloaded it meanwhile
        if data is not None:
            part.unlink()
            return data
        try:
            data = _complete(file, partial, store, report)
        except (FileNotFoundError, ModelError):
            part.unlink()
            raise
        except StoreError:
            if part.stat().st_size == 0:
                part.unlink()
            raise
        part.replace(target)
        return data


def _complete(file: WeightsFile, partial: BinaryIO, store: Store, report: Progress) -> bytes:
    """Complete a partial download and return the verified bytes of the whole file."""
    entry = store.info(file.url)
    if entry is None:
        raise FileNotFoundError(file.url)
    if entry.size not in (-1, file.size):
        raise ModelError(
            f"{shown(file.url)} has {entry.size} bytes, the model card says {file.size}: it is another file"
        )
    resumed = _append(file, partial, store, report)
    try:
        return _verified(file, partial)
    except ModelError:
        if not resumed:
            raise
    partial.truncate(0)  # the part that was resumed may be damaged
    _append(file, partial, store, report)
    return _verified(file, partial)


def _append(file: WeightsFile, partial: BinaryIO, store: Store, report: Progress) -> bool:
    """Download the rest of a file; return whether the partial download had any bytes."""
    start = partial.seek(0, os.SEEK_END)
    done = start
    report(basename(file.url), done, file.size)
    for chunk in _chunks(file.url, start, file.size, store):
        partial.write(chunk)
        partial.flush()
        done += len(chunk)
        report(basename(file.url), done, file.size)
    return start > 0


def _verified(file: WeightsFile, partial: BinaryIO) -> bytes:
    partial.seek(0)
    data = partial.read()
    verify(data, file)
    return data


@contextmanager
def _locked(part: Path, waiting: Callable[[int], None]) -> Iterator[BinaryIO]:
    """Open a partial download for appending, under an exclusive lock, which the kernel releases if the process dies.

    Args:
        part: the file; created if missing.
        waiting: called with the file's size in bytes, every 0.1 s while another process or thread holds the lock.
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
    """Whether an open file is still at `path`: the previous owner of the lock may have renamed or deleted it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
