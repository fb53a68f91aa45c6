"""Temporary folders that outlive no process for long: what a killed one left, the next one removes.

A folder is locked while its process lives. The kernel ends the lock with the process, however that dies.
"""

import errno
import fcntl
import os
import secrets
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

PREFIX = "segment-"
LENGTH = len(PREFIX) + 6  # of a folder's name
_LOCK = ".segment-lock"
_MOST_FOLDERS = 100  # times that a folder is tried to be made


class TemporaryFolder:
    """An empty folder of this user alone, removed when it is closed; opening one removes those of killed processes.

    Args:
        parent: the folder to make it in; it is made, too. None takes the system's for temporary files.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, parent: Path | None = None) -> None:
        parent = parent or _system_folder()
        remove_abandoned(parent)
        self.path = _new_folder(parent)
        try:
            self._lock = _hold(self.path)
        except OSError:  # no room for another file
            self.path.rmdir()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self, *, remove: bool = True) -> None:
        """Give the folder up: remove it, or leave that to the next one that is opened beside it."""
        if remove:
            shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()


def remove_abandoned(parent: Path | None = None) -> int:
    """Remove the folders of this user in `parent` that no process holds any more; return their number."""
    removed, folders = 0, []
    with suppress(OSError):  # there is no folder for temporary files, and nobody may need one
        folders = list((parent or _system_folder()).glob(f"{PREFIX}*"))
    for folder in folders:
        # what has no lock is not ours, or its process is just making it
        with suppress(OSError), (folder / _LOCK).open("r+b") as lock:
            status = folder.lstat()  # of a link it is the link's own: links are not followed
            if status.st_uid != os.getuid() or folder.is_symlink():
                continue
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
    return removed


def _system_folder() -> Path:
    return Path(tempfile.gettempdir())


def _new_folder(parent: Path) -> Path:
    """Make a folder: again if its name is taken, or another process removes the empty parent that it has made."""
    for _ in range(_MOST_FOLDERS):
        folder = parent / f"{PREFIX}{secrets.token_hex(3)}"  # short: Ray's sockets lie in it
        with suppress(FileExistsError, FileNotFoundError):
            parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700)
            return folder
    raise FileNotFoundError(errno.ENOENT, "the folder cannot be made", str(parent))


def _hold(folder: Path) -> BinaryIO | None:
    """Lock a folder; None where the file system has no locks: nobody removes the folder then but its own process."""
    making = folder / f"{_LOCK}-new"
    lock = making.open("wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        making.rename(folder / _LOCK)  # not seen before it is locked
    except OSError:
        making.unlink(missing_ok=True)
        lock.close()
        return None
    return lock
