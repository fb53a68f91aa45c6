"""What goes wrong with an opened Parquet file: damage, encryption, or trouble that is not the file's."""

from __future__ import annotations

import pyarrow as pa

from segment.errors import StoreError, UsageError
from segment.store.names import shown

PARQUET_DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError)


def refuse_trouble(error: BaseException, url: str) -> None:
    """Raise again what is no damage of the file: no memory, a failing disk, encryption.

    Raises:
        UsageError: the file is encrypted.
        StoreError: it could not be read this time.
    """
    if isinstance(error, MemoryError):
        raise error
    if isinstance(error, OSError) and error.errno is not None:  # pyarrow's own have no number
        raise StoreError(f"could not read {shown(url)}: {one_line(error)}")
    if any(word in str(error) for word in ("decrypt", "encrypted")):
        raise UsageError(f"{shown(url)} is encrypted Parquet, which is not read: write a copy that is not encrypted")


def one_line(error: BaseException) -> str:
    """Return an error's words on one line."""
    return " ".join(str(error).split())[:200]
