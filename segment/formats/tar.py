"""Tar archives by their headers alone: where each file lies, what is ignored, what is damaged."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass, field
from typing import BinaryIO

from segment.errors import SegmentError, UsageError
from segment.names import basename, shown
from segment.store import Entry, Store

# Headers lie between the data. Reading 1 MiB at a time passes small images without a request for each and
# still skips what is larger.
_BLOCK = 1 << 20
_HEADER_BYTES = 1 << 17  # the largest header tarfile may ask for: a long name or a set of attributes
_MAX_MEMBERS = 2_000_000  # the names of so many are half a gigabyte in the driver
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def compressed_tar(url: str) -> str:
    """Return the compression that a tar's name tells, or `""`."""
    name = basename(url).lower()
    if name.endswith(".tgz"):
        return "gzip"
    stem, _, last = name.rpartition(".")
    return {"gz": "gzip", "bz2": "bzip2", "xz": "xz", "zst": "zstd"}.get(last, "") if stem.endswith(".tar") else ""


def refuse_compressed(url: str) -> None:
    """Refuse a tar whose name says that it is compressed.

    Raises:
        UsageError: it is.
    """
    if compressed_tar(url):
        raise UsageError(_compressed(url, compressed_tar(url)))


def _compressed(url: str, kind: str) -> str:
    return (
        f"{shown(url)} is compressed ({kind}), so no range of it can be read. Images hardly compress: store it as a "
        "plain .tar"
    )


@dataclass(slots=True)
class Archive:
    """What the headers of a tar say.

    Attributes:
        files: name, first byte and size of each regular file, in order.
        ignored: names of links, devices, sparse files and paths that lead out of the archive.
        damage: what is wrong with it, or `""`; `files` are those before the damage.
    """

    files: list[tuple[str, int, int]] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    damage: str = ""


def read_headers(entry: Entry, store: Store) -> Archive:
    """Read the headers of a tar, skipping the data.

    Raises:
        UsageError: it is compressed, or has too many members.
    """
    archive = Archive()
    with store.open(entry.url, _BLOCK, entry.size) as file:
        start = file.read(6)
        for magic, kind in _COMPRESSED.items():
            if start.startswith(magic):
                raise UsageError(_compressed(entry.url, kind))
        headers = _Headers(file)
        try:
            archive.damage = _walk(headers, entry.url, entry.size, archive)
        except SegmentError:
            raise
        except Exception:  # hostile headers make tarfile raise whatever its arithmetic meets
            archive.damage = f"damaged at byte {headers.tell()}"
    return archive


def _walk(headers: _Headers, url: str, size: int, archive: Archive) -> str:
    """Fill `archive` from a tar of `size` bytes; return the damage that tarfile does not raise, or `""`."""
    offset = -1
    tar = tarfile.open(fileobj=headers, mode="r:")  # type: ignore[call-overload]  # noqa: SIM115
    while (member := tar.next()) is not None:
        tar.members.clear()  # it keeps every header otherwise
        if tar.offset <= offset or member.size < 0:
            raise tarfile.ReadError("a size is negative")  # and tarfile would go in circles
        offset = tar.offset
        name = _name(member)
        if member.offset_data + member.size > size:
            return f"cut off within {shown(name)}"
        if member.isreg() and not member.issparse() and not _leads_out(name):
            archive.files.append((name, member.offset_data, member.size))
        elif not member.isdir():
            archive.ignored.append(name)
        if len(archive.files) + len(archive.ignored) > _MAX_MEMBERS:
            raise UsageError(f"{shown(url)} has more than {_MAX_MEMBERS:,} members: split it into smaller tars")
    return _damaged_end(headers, tar.offset)


def _leads_out(name: str) -> bool:
    return name.startswith("/") or ".." in name.split("/")


def _name(member: tarfile.TarInfo) -> str:
    """Return a member's name as valid Unicode without `./` in front."""
    name = member.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name


def _damaged_end(headers: _Headers, offset: int) -> str:
    """Say what is wrong where tarfile saw the end: it takes damage for the end, too."""
    headers.seek(offset)
    block = headers.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        return f"cut off at byte {offset} (the end mark is missing)"
    return f"damaged at byte {offset}" if block.strip(b"\0") else ""


class _Headers:
    """The file that tarfile reads headers from; refuses what no sound archive asks for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        file.seek(0)

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)

    def seek(self, offset: int) -> int:
        if not 0 <= offset < 1 << 62:
            raise tarfile.ReadError(f"an offset of {offset}")
        return self._file.seek(offset)

    def tell(self) -> int:
        return self._file.tell()
