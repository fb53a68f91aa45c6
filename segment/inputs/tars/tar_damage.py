"""Recover what a damaged tar still tells: the next valid header, and the name in a damaged header."""

import tarfile
from typing import BinaryIO

BLOCK = tarfile.BLOCKSIZE  # bytes; headers begin at multiples of it, and data is padded to it
_LEAST_READ, _MOST_READ = 1 << 14, 1 << 20  # bytes per read: usually the rest of a record, seldom much more
_CHECKSUM = slice(148, 156)
_TYPES = b"\x000125"  # files, links and folders; other headers describe the next member


def next_header(file: BinaryIO, start: int) -> tuple[int, bool]:
    """Search a tar for the next valid header, block by block.

    Args:
        start: offset to search from, a multiple of `BLOCK`.

    Returns:
        The offset of the header, or of the end of the file; and whether all bytes before it are zero.
    """
    only_zeros, size = True, _LEAST_READ
    file.seek(start)
    while chunk := file.read(size):
        if not is_zero(chunk):
            for offset in range(0, len(chunk), BLOCK):
                block = chunk[offset : offset + BLOCK]
                if _is_header(block):
                    return start + offset, only_zeros
                only_zeros = only_zeros and is_zero(block)
        start += len(chunk)
        size = min(2 * size, _MOST_READ)
    return start, only_zeros


def legible_name(file: BinaryIO, start: int, stop: int) -> str:
    """Return the name in a damaged header if its size field accounts for the bytes up to `stop`; else `""`.

    One damaged byte leaves most of a header intact. If the described member ends where the next valid header begins, it
    is the only member in between.
    """
    file.seek(start)
    header = file.read(BLOCK)
    if len(header) < BLOCK or header[156] not in _TYPES:
        return ""
    try:
        size = tarfile.nti(header[124:136])  # type: ignore[attr-defined]
        name = header[:100].partition(b"\0")[0].decode()
    except (tarfile.HeaderError, UnicodeDecodeError):
        return ""
    end = start + BLOCK + -(-size // BLOCK) * BLOCK
    explains = size >= 0 and end <= stop and name.isprintable()
    return name if explains and (end == stop or next_header(file, end) == (stop, True)) else ""


def is_zero(data: bytes) -> bool:
    """Return whether all bytes are zero."""
    return data.count(0) == len(data)


def _is_header(block: bytes) -> bool:
    if len(block) < BLOCK or not block[0] or not block[_CHECKSUM].strip(b" \0").isdigit():
        return False
    header = header_in(block)
    return header is not None and header.size >= 0


def header_in(block: bytes) -> tarfile.TarInfo | None:
    """Return the header that a block is; None if it is none."""
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except Exception:  # the fields hold arbitrary bytes
        return None
