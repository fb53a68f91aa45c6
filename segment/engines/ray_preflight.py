"""Checks before a Ray cluster is joined or started: where they fail, Ray itself would wait for ever or crash."""

import logging
import os
import resource
import shutil
import socket
import sys
from pathlib import Path

from segment.errors import UsageError
from segment.pipeline.resources import folders_undone
from segment.process.temporaries import LENGTH, TemporaryFolder
from segment.store.names import shown

log = logging.getLogger("segment.engines.ray")

_LISTEN_SECONDS = 10.0  # for the head to accept a connection
_FILES, _FILES_A_CPU = (
    128,
    8,
)  # open in each of Ray's processes: 60, and 3 a worker, when idle (measured)
_LEAST_TEMPORARY = 20 << 20  # bytes for logs and sockets
_LEAST_OBJECTS = 256 << 20  # bytes for the object store: model, results, decoded images
_SHARED_MEMORY = Path("/dev/shm")
# `session_<date>_<microseconds>_<pid>/sockets/plasma_store` in a folder of the cluster's own
_SOCKET_NAME = 1 + LENGTH + len("/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store")
_SOCKET_PATH = 103 if sys.platform == "darwin" else 107  # bytes that the system allows
_INSTEAD = "or use --engine local"


def refuse_silence(address: str) -> None:
    """Refuse an address at which nothing listens; one without a port, such as `auto`, is left to Ray.

    Raises UsageError: nobody accepts the connection.
    """
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _LISTEN_SECONDS).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"no Ray cluster answers at {address}: {reason}. Check --address and RAY_ADDRESS: it is HOST:PORT of a "
            "running head (`ray start --head` prints it), or `auto` on one of its nodes. Without a cluster drop both, "
            f"{_INSTEAD}"
        ) from None


def refuse_machine(cpus: int) -> None:
    """Refuse to start a cluster on a machine with too few open files, or no room for its files or objects.

    Raises UsageError: says what is missing, and how to mend it.
    """
    _refuse_few_files(cpus)
    folder = temporary_folder()
    free = _refuse_temporary_folder(folder)
    _refuse_no_object_store(folder, free)


def temporary_folder() -> Path:
    """Return the folder for sockets and logs that Ray would choose, too."""
    for name in ("RAY_TMPDIR", *(("TMPDIR",) if sys.platform == "linux" else ())):
        if name in os.environ:
            return Path(os.environ[name])
    return Path("/tmp")


def _refuse_few_files(cpus: int) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # Ray raises the soft limit to this one
    need = _FILES + _FILES_A_CPU * cpus
    if most != resource.RLIM_INFINITY and most < need:
        raise UsageError(
            f"a process may have only {most} files open here (`ulimit -n`), Ray on {cpus} CPUs needs {need}: raise it "
            f"(`ulimit -n 8192`), {_INSTEAD}"
        )


def _refuse_temporary_folder(folder: Path) -> int:
    """Check that Ray can use a folder; return its free bytes."""
    mend = f"Set RAY_TMPDIR to a short path on a disk with room that you may write to, such as /tmp, {_INSTEAD}"
    path = os.fsencode(folder)
    if not folder.is_absolute() or not path.isascii():
        what = "ASCII letters only" if folder.is_absolute() else "an absolute path"
        raise UsageError(f"Ray cannot put its sockets and logs in '{shown(str(folder))}': it needs {what}. {mend}")
    if len(path) + _SOCKET_NAME > _SOCKET_PATH:
        most = _SOCKET_PATH - _SOCKET_NAME
        raise UsageError(
            f"Ray cannot put its sockets in {folder}: the path has {len(path)} bytes, and may have {most}. {mend}"
        )
    try:
        with folders_undone(folder):
            with TemporaryFolder(folder) as own:
                (own.path / "probe").write_bytes(bytes(4096))
            free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UsageError(f"Ray cannot put its sockets and logs in {folder}: {error.strerror}. {mend}") from None
    if free < _LEAST_TEMPORARY:
        raise UsageError(f"Ray cannot put its sockets and logs in {folder}: {free >> 20} MiB are free. {mend}")
    return free


def _refuse_no_object_store(folder: Path, free: int) -> None:
    """Warn if Ray will keep its objects on a disk; refuse if there is no room either."""
    try:
        shared = shutil.disk_usage(_SHARED_MEMORY).free
    except OSError:  # as on macOS, where there is none
        return
    if shared >= _LEAST_OBJECTS:
        return
    short = f"{_SHARED_MEMORY} has only {shared / (1 << 20):.0f} MiB free"
    mend = "give it more (docker run --shm-size=2g; on Kubernetes an emptyDir of medium Memory)"
    if free < _LEAST_OBJECTS:
        raise UsageError(
            f"Ray has no room for its objects: {short}, {folder} {free >> 20} MiB. For the one {mend}; for the other "
            f"set RAY_TMPDIR; {_INSTEAD}"
        )
    log.warning("%s, so Ray keeps its objects in %s, which is slower: %s", short, folder, mend)
