"""An object of a run as it was written: its size and digests, computed where its bytes are made."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

MOST = 1 << 36  # bytes of an object of a run that are read at once: this package wrote it
_BLOCK = 1 << 20  # bytes of a file that are read at a time


class Stored(NamedTuple):
    """An object of a run.

    Attributes:
        path: below the output, such as `masks/<shard>/<part>.parquet`.
        sha256: SHA-256 of the bytes, 32 bytes.
        md5: MD5 of the bytes, 16 bytes. It proves nothing; many stores list it as the ETag, which so costs no reading.
        rows: rows of a Parquet file; None of any other object.
    """

    path: str
    size: int
    sha256: bytes
    md5: bytes
    rows: int | None = None

    @staticmethod
    def of(path: str, data: bytes, rows: int | None = None) -> Stored:
        """Return the object of these bytes."""
        return Stored(path, len(data), hashlib.sha256(data).digest(), _md5(data).digest(), rows)

    @staticmethod
    def of_file(path: str, file: Path) -> Stored:
        """Return the object that has the content of a local file, which need not fit into memory."""
        size, sha256, md5 = 0, hashlib.sha256(), _md5()
        with file.open("rb") as opened:
            while block := opened.read(_BLOCK):
                size += len(block)
                sha256.update(block)
                md5.update(block)
        return Stored(path, size, sha256.digest(), md5.digest())


def _md5(data: bytes = b"") -> hashlib._Hash:
    return hashlib.md5(data, usedforsecurity=False)
