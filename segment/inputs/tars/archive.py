"""Tar archives by their headers alone: where each file lies, what is no file, where it is damaged or goes on."""

from __future__ import annotations

import os
import posixpath
import tarfile
from dataclasses import dataclass, field
from typing import BinaryIO

from segment.errors import SegmentError, UsageError
from segment.inputs.tars.tar_damage import BLOCK, is_zero, legible, next_header
from segment.store.client import Entry, Store
from segment.store.names import as_text, basename, shown

# Headers lie between the data. Reading 1 MiB at a time passes small images without a request for each and
# still skips what is larger.
_BLOCK = 1 << 20
_HEADER_BYTES = 1 << 17  # the largest header tarfile may ask for: a long name or a set of attributes
_MAX_MEMBERS = 2_000_000  # the names of so many are half a gigabyte in the driver
_MAX_SEARCHES = 10_000  # for members behind damage: what is hostile looks damaged everywhere
_MAX_LINKS = 8  # links to links
_LABELS = (b"V", b"D")  # GNU's name of a volume, and its list of a folder: no data
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
        files: name, first byte and size of each regular file, in order; then links to one of them.
        special: names of other links, devices, sparse files and paths that lead out of the archive.
        damage: what is wrong with it, as in `"is damaged at byte 512"`, or `""`; `files` are those before.
        lost: names of files behind the damage, or behind the end mark.
        doubtful: those of them whose header is damaged, too: what it says may be wrong.
        is_open: whether there may be more than `lost` behind the damage.
    """

    files: list[tuple[str, int, int]] = field(default_factory=list)
    special: list[str] = field(default_factory=list)
    damage: str = ""
    lost: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)
    is_open: bool = False


def read_headers(entry: Entry, store: Store) -> Archive:
    """Read the headers of a tar, skipping the data. Where it is damaged, the rest is searched for what is lost there.

    Raises:
        UsageError: it is compressed, or has too many members.
    """
    with store.open(entry.url, _BLOCK, entry.size) as file:
        start = file.read(6)
        for magic, kind in _COMPRESSED.items():
            if start.startswith(magic):
                raise UsageError(_compressed(entry.url, kind))
        size = entry.size if entry.size >= 0 else file.seek(0, os.SEEK_END)
        headers = _Headers(file)
        members = _Members()
        end, cut_off = _walk(headers, 0, size, members)
        if len(members) > _MAX_MEMBERS:
            raise UsageError(f"{shown(entry.url)} has more than {_MAX_MEMBERS:,} members: split it into smaller tars")
        archive = _resolved(members)
        if cut_off:
            archive.damage, archive.lost, archive.is_open = f"is cut off within {shown(cut_off)}", [cut_off], True
        else:
            archive.damage = _end(headers, end, size)
            _search_behind(headers, end, size, archive)
    return archive


@dataclass(slots=True)
class _Members:
    """Files, links (name and target) and everything else that is no folder."""

    files: list[tuple[str, int, int]] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)
    special: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.files) + len(self.links) + len(self.special)

    def add(self, member: tarfile.TarInfo, name: str) -> None:
        if member.isdir() or member.type in _LABELS:
            return
        if _leads_out(name) or member.issparse():
            self.special.append(name)
        elif member.isreg():
            self.files.append((name, member.offset_data, member.size))
        elif member.islnk():
            self.links.append((name, _clean(member.linkname)))
        elif member.issym():
            self.links.append((name, posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))))
        else:
            self.special.append(name)


def _walk(headers: _Headers, start: int, size: int, members: _Members) -> tuple[int, str]:
    """Add the members from `start` on, as far as they are sound, in a tar of `size` bytes.

    Returns:
        Where there is no further member, and the name of one that the end of the tar cuts off, or `""`.
    """
    end = start
    try:
        headers.seek(start)
        tar = tarfile.open(fileobj=headers, mode="r:")  # type: ignore[call-overload]  # noqa: SIM115
        while (member := tar.next()) is not None:
            tar.members.clear()  # it keeps every header otherwise
            if tar.offset <= end or member.size < 0:
                break  # tarfile would go in circles
            name = _clean(member.name)
            whole = member.isreg() and not member.issparse()
            data_end = member.offset_data + member.size if whole else tar.offset - BLOCK + 1
            if data_end > size:
                return end, name
            end = tar.offset
            members.add(member, name)
            if len(members) > _MAX_MEMBERS:
                break
    except SegmentError:
        raise
    except Exception:  # hostile headers make tarfile raise whatever its arithmetic meets
        pass
    return end, ""


def _resolved(members: _Members) -> Archive:
    """Take links to files of the same archive for these files; no name is followed that two files have."""
    archive = Archive(members.files, members.special)
    if not members.links:
        return archive
    places: dict[str, tuple[int, int] | None] = {}
    for name, start, size in members.files:
        places[name] = None if name in places else (start, size)
    targets = dict(members.links)
    for name, link in members.links:
        target = link
        for _ in range(_MAX_LINKS):
            if target in places or target not in targets:
                break
            target = targets[target]
        if place := places.get(target):
            archive.files.append((name, *place))
        else:
            archive.special.append(name)
    return archive


def _leads_out(name: str) -> bool:
    return name.startswith("/") or ".." in name.split("/")


def _clean(name: str) -> str:
    """Return a member's name as valid Unicode without `./` in front."""
    name = as_text(name)
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name


def _end(headers: _Headers, offset: int, size: int) -> str:
    """Say what is wrong where the walk ended: tarfile takes damage for the end, too."""
    headers.seek(offset)
    block = headers.read(BLOCK)
    if not block and 0 < offset == size:
        return f"ends at byte {offset} without an end mark"
    if is_zero(block) and block:
        return ""
    whole = len(block) == BLOCK or not size
    return f"is damaged at byte {offset}" if whole else f"is cut off at byte {min(offset, size)}"


def _search_behind(headers: _Headers, end: int, size: int, archive: Archive) -> None:
    """Look for members behind `end`, where the archive ends or is damaged: they are not read, but counted.

    They may be stale, or be those of another archive. Between sound ones a damaged header may still tell name and size.
    """
    for _ in range(_MAX_SEARCHES):
        if end > size:  # the padding of the last member is cut off
            archive.is_open = True
        if end >= size and size:
            return
        start, only_zeros = next_header(headers.file, end)
        if not only_zeros:
            name = legible(headers.file, end, start)
            archive.is_open |= not name
            archive.doubtful += [name] if name else []
            archive.lost += [name] if name else []
            archive.damage = archive.damage or f"has bytes behind its end mark, at byte {end}, that are no tar member"
        if start >= size:
            archive.is_open |= not size
            return
        archive.damage = archive.damage or f"goes on behind its end mark, at byte {start}, as joined tars do"
        found = _Members()
        end, cut_off = _walk(headers, start, size, found)
        archive.lost += [name for name, *_ in found.files] + [name for name, _ in found.links]
        if cut_off:
            archive.lost.append(cut_off)
            break
        if len(archive.lost) > _MAX_MEMBERS:
            break
        if end == start:  # no member, though its own header is sound: pass what was read of it
            archive.is_open = True
            end = max(start + BLOCK, headers.tell() // BLOCK * BLOCK)
    archive.is_open = True


class _Headers:
    """The file that tarfile reads headers from; refuses what no sound archive asks for."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        file.seek(0)

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self.file.read(size)

    def seek(self, offset: int) -> int:
        if not 0 <= offset < 1 << 62:
            raise tarfile.ReadError(f"an offset of {offset}")
        return self.file.seek(offset)

    def tell(self) -> int:
        return self.file.tell()
