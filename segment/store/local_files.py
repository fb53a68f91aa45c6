"""Local files: complete listings, reads of regular files with an etag, atomic writes."""

import contextlib
import errno
import fcntl
import functools
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from segment.errors import LinkToItself, NotAFile, UsageError, did_you_mean
from segment.store.bounds import Bounds
from segment.store.entries import Entry
from segment.store.foreign_text import visible
from segment.store.names import shown
from segment.store.request_errors import is_absent
from segment.store.urls import is_url

TEMPORARY = re.compile(r"\.tmp-[0-9a-f]{16}$")
_MOST_FOLDERS = 100  # times that a folder is made for one file
_PIECE = 1 << 20  # bytes of a file of unknown size that are read at once
_MOST_AGAIN = 10_000  # entries that come again by links of links, or so many times those of all folders:
_TIMES_AGAIN = 8


class NoNewFolders(FileNotFoundError):
    """A folder cannot be made, though nothing forbids it: /proc and its like take none."""


def local_etag(status: os.stat_result) -> str:
    """Return the etag of a local file: its time of modification."""
    return f"mtime-{status.st_mtime:.6f}"


def read_local(path: Path, start: int | None, stop: int | None, bounds: Bounds) -> tuple[bytes, str]:
    """Return a file's bytes, or its bytes `start` to `stop` (exclusive), and its etag after the read; see `Bounds`."""
    with open_local(path) as file:
        file.seek(start or 0)
        if stop is None:
            size = os.fstat(file.fileno()).st_size
            bounds.check(size)
            data = file.read(size + 1)  # a file that grows, or has no size, has one byte more
            if len(data) > size:
                data += _read_up_to(file, bounds.most + 1 - len(data))
                bounds.check(len(data))
        else:
            data = file.read(stop - (start or 0))
        return data, local_etag(os.fstat(file.fileno()))


def read_given(path: Path, bounds: Bounds) -> bytes:
    """Return the bytes of a file that the user names, or of a pipe: `<(command)`. Raises TooManyBytes: it is larger."""
    with path.open("rb") as file:
        data = _read_up_to(file, bounds.most + 1)
    bounds.check(len(data))
    return data


def _read_up_to(file: BinaryIO, most: int) -> bytes:
    """Read to the end, but no more than so many bytes; `read(most)` makes room for all of them beforehand."""
    held = bytearray()
    while len(held) < most and (more := file.read(min(_PIECE, most - len(held)))):
        held += more
    return bytes(held)


def open_local(path: Path) -> BinaryIO:
    """Open a regular file for reading.

    Raises:
        NotAFile: it is a folder, a device, a pipe or a socket, or made by the kernel as it is read.
        LinkToItself: it is one.
    """
    try:
        _refuse_irregular(path, path.stat())  # opening some devices has effects already
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        told = f"{shown(str(path))}: a symbolic link of its path leads to itself; delete the link"
        raise LinkToItself(told) from None
    # Of a pipe that replaces the file now, an open without O_NONBLOCK would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        _refuse_irregular(path, os.fstat(descriptor))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def entry_of_local(url: str) -> Entry | None:
    """Return the entry of a local file or of something irregular; None if there is nothing, or a folder."""
    try:
        status = Path(url.removeprefix("file://")).stat()
    except OSError as error:
        if is_absent(error):
            return None
        raise
    if stat.S_ISDIR(status.st_mode):
        return None
    if not _is_regular(status):
        return Entry(url, 0, "", irregular=True)
    return Entry(url, status.st_size, local_etag(status))


def is_link(url: str) -> bool:
    """Whether a URL is that of a symbolic link; there are none but local ones."""
    return url.startswith("file://") and Path(url.removeprefix("file://")).is_symlink()


def with_hint(message: str, url: str) -> str:
    """Return a message on a path that is not there, and which name beside it was likely meant."""
    path = Path(url.removeprefix("file://"))
    if is_url(url.removeprefix("file://")) or path.exists() or not path.parent.is_dir():
        return message
    hint = did_you_mean(visible(path.name), (visible(beside.name) for beside in path.parent.iterdir()), alike=0.7)
    return f"{message}.{hint}" if hint else message


def _refuse_irregular(path: Path, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise NotAFile(f"{shown(str(path))}: it is a folder, and a file is expected")
    if not _is_regular(status):
        raise NotAFile(f"{shown(str(path))} is no regular file: a device, pipe or socket, or of the kernel")


def _is_regular(status: os.stat_result) -> bool:
    """Whether something is a file on a disk: those of /proc and /sys are made as they are read, of any length."""
    return stat.S_ISREG(status.st_mode) and status.st_dev not in _kernel_devices()


@functools.cache
def _kernel_devices() -> frozenset[int]:
    return frozenset(Path(folder).stat().st_dev for folder in ("/proc", "/sys") if os.path.ismount(folder))


def list_local(folder: str, recursive: bool) -> Iterator[Entry]:
    """Yield the files of a local folder, and its irregular entries (`Entry.irregular`), sorted by URL.

    fsspec's walk is not used: it silently skips unreadable folders.

    Raises UsageError: folders hold links to each other, whose number of paths grows without bound.
    """
    root = folder.rstrip("/")
    for entry, links in _walk(folder, recursive, frozenset(), 0, _Linked()):
        if links:
            target = os.path.realpath(entry.url.removeprefix("file://"))
            own = os.path.relpath(target, os.path.realpath(root))
            if not own.startswith("../"):
                entry = replace(entry, link_to=f"file://{root}/{own}")
        yield entry


class _Linked:
    """Counts entries that come again: by one link as often as there are links, by links of links without bound."""

    def __init__(self) -> None:
        self._seen: set[tuple[int, int]] = set()
        self._first = self._again = 0

    def count(self, folder: str, place: tuple[int, int], entries: int, links: int) -> None:
        """Count the entries of a folder behind so many links; refuse it if by far most have come before."""
        if links < 2 or place not in self._seen:
            self._first += entries
        else:
            self._again += entries + 1
        if links:
            self._seen.add(place)
        if self._again > max(_MOST_AGAIN, _TIMES_AGAIN * self._first):
            raise UsageError(
                f"{shown(folder)}: links lead to the same folders again and again: delete links of its path"
            )


def _walk(
    folder: str, recursive: bool, parents: frozenset[tuple[int, int]], links: int, met: _Linked
) -> Iterator[tuple[Entry, int]]:
    """Yield each entry, and the number of symbolic links through which it is reached."""
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
    met.count(folder, (status.st_dev, status.st_ino), len(found), links)
    for item in sorted(found, key=_place):
        through = links + item.is_symlink()
        if _is_folder(item):
            if recursive:
                yield from _walk(item.path, recursive, parents, through, met)
        elif _leads_to(item.is_file) and not TEMPORARY.search(item.name):
            with contextlib.suppress(FileNotFoundError):  # deleted since the scan
                status = item.stat()
                if not _is_regular(status):
                    yield Entry(f"file://{item.path}", 0, "", irregular=True), 0
                    continue
                yield Entry(f"file://{item.path}", status.st_size, local_etag(status)), through
        elif not TEMPORARY.search(item.name) and os.path.lexists(item.path):  # else deleted since the scan
            yield Entry(f"file://{item.path}", 0, "", irregular=True), 0


def _place(item: os.DirEntry[str]) -> str:
    """Return what sorts the entries of a folder as the URLs below them are sorted."""
    return f"{item.name}/" if _is_folder(item) else item.name


def _is_folder(item: os.DirEntry[str]) -> bool:
    return _leads_to(item.is_dir)


def _leads_to(kind: Callable[[], bool]) -> bool:
    """Return what `kind`, a method of an entry, says; False for a link that leads nowhere or to itself."""
    try:
        return kind()
    except OSError as error:
        if error.errno == errno.ELOOP or is_absent(error):
            return False
        raise  # what cannot be looked up now may be an image


def _link(temporary: Path, path: Path) -> None:
    """Give a file a name, but raise FileExistsError instead of replacing another one; it may keep its own as well."""
    try:
        path.hardlink_to(temporary)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        # exFAT and some network drives have no hard links. Of two simultaneous writers the last one wins there.
        if path.exists():
            raise FileExistsError(errno.EEXIST, "the file exists", str(path)) from None
        temporary.replace(path)


def _new_file(path: Path) -> BinaryIO:
    """Open a file for writing, and create its folder: again if another run's probe removes the empty folder meanwhile.

    Raises NotADirectoryError: something else is in the place of the folder; FileNotFoundError: the folder cannot be
    made.
    """
    folder = path.parent
    for _ in range(_MOST_FOLDERS):
        with contextlib.suppress(FileNotFoundError):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except FileExistsError:  # of the folder; a caller would take it for the file's
                if os.path.lexists(folder) and not folder.is_dir():
                    raise NotADirectoryError(errno.ENOTDIR, "it is no folder", str(folder)) from None
                continue
            return path.open("wb")
    raise NoNewFolders(errno.ENOENT, "the folder cannot be made", str(folder))


def _locked_file(path: Path) -> BinaryIO:
    """Open a file for writing that no other process removes while it is open; see `remove_unfinished`."""
    while True:
        file = _new_file(path)
        with contextlib.suppress(OSError):  # the file system has no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # removed before it was locked


def remove_unfinished(url: str) -> int:
    """Delete what writers that were killed left below a local folder; return the number of files.

    A writer holds a lock on its file until it has its name; the lock ends with its process. NFS knows the locks of
    other machines unless it is mounted with `nolock` or `local_lock`. There the writer of another run into the same
    folder may lose its file, which fails its part, and the part is done again.
    """
    removed, root = 0, url.removeprefix("file://")
    for folder, _, names in os.walk(root) if root != url else ():  # unlike rglob, it passes a folder that goes
        for path in (Path(folder, name) for name in names if TEMPORARY.search(name)):
            with contextlib.suppress(OSError), path.open("r+b") as file:  # renamed since, being written, or not ours
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # NFS locks no file that is open for reading only
                path.unlink()
                removed += 1
    return removed


def write_local(path: Path, data: bytes | Path, *, exclusive: bool = False) -> None:
    """Write a file atomically, and create its folders; `data` are its bytes, or a file to copy.

    Raises FileExistsError: the file exists, and `exclusive` is set.
    """
    # A hidden name, so that readers of the folder skip it, also after a kill.
    temporary = path.with_name(f".{path.name}.tmp-{secrets.token_hex(8)}")
    try:
        with _locked_file(temporary) as file:
            if isinstance(data, Path):
                with data.open("rb") as source:
                    shutil.copyfileobj(source, file, 1 << 20)
            else:
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if exclusive:
                _link(temporary, path)
            else:
                temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
