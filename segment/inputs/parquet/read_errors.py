"""Errors of an opened Parquet file: tell damage from encryption and from failures of memory or disk."""

import pyarrow as pa

from segment.errors import StoreError, UsageError
from segment.store.names import shown

PARQUET_DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError)  # raised by pyarrow for a damaged file


def refuse_trouble(error: BaseException, url: str) -> None:
    """Raise an error that is no damage of the file: lack of memory, a failing disk, encryption.

    Raises MemoryError: there is not enough memory; UsageError: the file is encrypted; StoreError: the file could not be
    read this time.
    """
    if isinstance(error, MemoryError):
        raise error
    if isinstance(error, OSError) and error.errno is not None:  # those of pyarrow have no number
        raise StoreError(f"could not read {shown(url)}: {one_line(error)}")
    if any(word in str(error) for word in ("decrypt", "encrypted")):
        raise UsageError(f"{shown(url)} is encrypted Parquet, which is not read: write a copy that is not encrypted")


def one_line(error: BaseException) -> str:
    """Return the text of an error on one line, at most 200 characters."""
    return " ".join(str(error).split())[:200]
