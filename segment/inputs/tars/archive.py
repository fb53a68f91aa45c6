"""Read the headers of a tar: the byte range of each file, special members, damage and trailing archives."""

from __future__ import annotations

import os
import posixpath
import tarfile
from dataclasses import dataclass, field
from typing import BinaryIO

from segment.errors import SegmentError, UsageError
from segment.inputs.tars.index_files import read_index
from segment.inputs.tars.tar_damage import BLOCK, is_zero, legible_name, next_header
from segment.inputs.tars.told_names import clean_name
from segment.store.client import Entry, Store
from segment.store.names import basename, shown

# Headers are between the data. Reads of 1 MiB pass small images without one request for each and skip larger data.
_BLOCK = 1 << 20
_AHEAD = 4 << 20  # in tars of small images, all of which are read: fewer requests, one after the other
_HEADER_BYTES = 1 << 17  # the largest header that tarfile may read: a long name or a set of attributes
_MAX_MEMBERS = 2_000_000  # their names take half a gigabyte in the driver
_MAX_SEARCHES = 10_000  # searches for members after damage: a hostile tar looks damaged everywhere
_MAX_LINKS = 8  # length of a chain of links
_LABELS = (b"V", b"D")  # GNU's volume name and folder listing hold no data
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def compressed_tar(url: str) -> str:
    """Return the compression that a tar's name indicates, or `""`."""
    name = basename(url).lower()
    if name.endswith(".tgz"):
        return "gzip"
    stem, _, last = name.rpartition(".")
    return {"gz": "gzip", "bz2": "bzip2", "xz": "xz", "zst": "zstd"}.get(last, "") if stem.endswith(".tar") else ""


def refuse_compressed(url: str) -> None:
    """Refuse a tar whose name indicates compression. Raises UsageError: the tar is compressed."""
    if compressed_tar(url):
        raise UsageError(_compressed(url, compressed_tar(url)))


def _compressed(url: str, kind: str) -> str:
    return (
        f"{shown(url)} is compressed ({kind}), so byte ranges cannot be read. Images hardly compress: store it as a "
        "plain .tar"
    )


@dataclass(slots=True)
class Archive:
    """The content of a tar by its headers.

    Attributes:
        files: name, first byte and size of each regular file, in order; then of links to one of them.
        special: names of other links, devices, sparse files and paths that lead out of the archive.
        damage: description of damage, as in `"is damaged at byte 512"`, or `""`; `files` are those before it.
        lost: names of files after the damage or after the end mark.
        doubtful: those of `lost` whose header is damaged, too: the name may be wrong.
        is_open: whether there may be more files than `lost` after the damage.
        by_index: whether an index file beside the tar told all this.
    """

    files: list[tuple[str, int, int]] = field(default_factory=list)
    special: list[str] = field(default_factory=list)
    damage: str = ""
    lost: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)
    is_open: bool = False
    by_index: bool = False


def read_headers(entry: Entry, store: Store) -> Archive:
    """Read the headers of a tar and skip the data. After damage the rest is searched for lost files.

    An index file beside a large tar takes the place of its headers, where both agree.

    Raises:
        UsageError: the tar is compressed or has too many members.
    """
    indexed = read_index(entry, store)
    if indexed is not None and len(indexed) <= _MAX_MEMBERS:
        members = _Members()
        for name, begin, length in indexed:
            members.add_file(clean_name(name), begin, length)
        return Archive(members.files, members.special, by_index=True)
    with store.open(entry.url, _BLOCK, entry.size, ahead=_AHEAD) as file:
        start = file.read(6)
        for magic, kind in _COMPRESSED.items():
            if start.startswith(magic):
                raise UsageError(_compressed(entry.url, kind))
        size = entry.size if entry.size >= 0 else file.seek(0, os.SEEK_END)
        headers = _Headers(file)
        members = _Members()
        end, truncated = _walk(headers, 0, size, members)
        if len(members) > _MAX_MEMBERS:
            raise UsageError(f"{shown(entry.url)} has more than {_MAX_MEMBERS:,} members: split it into smaller tars")
        archive = _resolved(members)
        if truncated:
            archive.damage, archive.lost, archive.is_open = f"is truncated within {shown(truncated)}", [truncated], True
        else:
            archive.damage = _end(headers, end, size)
            _search_after(headers, end, size, archive)
    return archive


@dataclass(slots=True)
class _Members:
    """Files, links (name and target) and all other members except folders."""

    files: list[tuple[str, int, int]] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)
    special: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.files) + len(self.links) + len(self.special)

    def add(self, member: tarfile.TarInfo, name: str) -> None:
        if member.isdir() or member.type in _LABELS:
            return
        if member.issparse():
            self.special.append(name)
        elif member.isreg():
            self.add_file(name, member.offset_data, member.size)
        elif _leads_out(name):
            self.special.append(name)
        elif member.islnk():
            self.links.append((name, clean_name(member.linkname)))
        elif member.issym():
            self.links.append((name, posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))))
        else:
            self.special.append(name)

    def add_file(self, name: str, start: int, size: int) -> None:
        if _leads_out(name):
            self.special.append(name)
        else:
            self.files.append((name, start, size))


def _walk(headers: _Headers, start: int, size: int, members: _Members) -> tuple[int, str]:
    """Add the valid members from offset `start` on, in a tar of `size` bytes.

    Returns:
        The offset at which there is no further member; and the name of a member that the end of the tar truncates,
        or `""`.
    """
    end = start
    try:
        headers.seek(start)
        tar = tarfile.open(fileobj=headers, mode="r:")  # type: ignore[call-overload]  # noqa: SIM115
        while (member := tar.next()) is not None:
            tar.members.clear()  # tarfile keeps every header otherwise
            if tar.offset <= end or member.size < 0:
                break  # tarfile would loop
            name = clean_name(member.name)
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
    except Exception:  # tarfile raises many types on hostile headers
        pass
    return end, ""


def _resolved(members: _Members) -> Archive:
    """Replace links to files of the same archive by these files. A name that two files have is no valid target."""
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


def _end(headers: _Headers, offset: int, size: int) -> str:
    """Describe the damage where the walk ended, or return `""`: tarfile takes damage for the end."""
    headers.seek(offset)
    block = headers.read(BLOCK)
    if not block and 0 < offset == size:
        return f"ends at byte {offset} without an end mark"
    if is_zero(block) and block:
        return ""
    whole = len(block) == BLOCK or not size
    return f"is damaged at byte {offset}" if whole else f"is truncated at byte {min(offset, size)}"


def _search_after(headers: _Headers, end: int, size: int, archive: Archive) -> None:
    """Search for members after `end`, where the archive ends or is damaged. They are counted and not read.

    They may be stale or belong to another archive. Between valid members a damaged header may still give name and size.
    """
    for _ in range(_MAX_SEARCHES):
        if end > size:  # the padding of the last member is truncated
            archive.is_open = True
        if end >= size and size:
            return
        start, only_zeros = next_header(headers.file, end)
        if not only_zeros:
            name = legible_name(headers.file, end, start)
            archive.is_open |= not name
            archive.doubtful += [name] if name else []
            archive.lost += [name] if name else []
            archive.damage = archive.damage or f"has bytes after its end mark, at byte {end}, that are no tar member"
        if start >= size:
            archive.is_open |= not size
            return
        archive.damage = archive.damage or f"continues after its end mark, at byte {start}, as concatenated tars do"
        found = _Members()
        end, truncated = _walk(headers, start, size, found)
        archive.lost += [name for name, *_ in found.files] + [name for name, _ in found.links]
        if truncated:
            archive.lost.append(truncated)
            break
        if len(archive.lost) > _MAX_MEMBERS:
            break
        if end == start:  # no member despite a valid header: skip what was read of it
            archive.is_open = True
            end = max(start + BLOCK, headers.tell() // BLOCK * BLOCK)
    archive.is_open = True


class _Headers:
    """The file that tarfile reads headers from. It refuses reads and offsets that no valid archive needs."""

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
