"""Damaged objects of a run: a failed read is repeated once, then refused with the name of the object."""

import logging
import struct
import zlib
from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa

from segment.errors import LinkToItself, NotAFile, SegmentError, TooManyBytes
from segment.store.names import shown

T = TypeVar("T")
log = logging.getLogger("segment.output.damage")

# What parsers raise on damaged objects: Arrow, JSON (deeply nested, or of other shapes than ours), PNG and TIFF.
DAMAGE = (
    pa.ArrowException, LookupError, TypeError, ValueError, OSError, ArithmeticError, AttributeError, EOFError,
    RecursionError, struct.error, zlib.error,
)  # fmt: skip


def read_checked(url: str, read: Callable[[], T]) -> T:
    """Return `read()`, which fetches and parses the object at `url`; repeat it once if that fails.

    Raises SegmentError: both reads fail, so the stored object is damaged; NotAFile: it is a folder, a pipe or a device;
    FileNotFoundError: there is no such object.
    """
    try:
        try:
            return read()
        except DAMAGE as error:
            if isinstance(error, FileNotFoundError):
                raise
            log.warning("%s was read damaged (%s): reading it again", shown(url), type(error).__name__)
            return read()
    except LinkToItself:
        raise
    except NotAFile as error:
        raise NotAFile(f"{error}: move it away, and run the same command again") from None
    except (*DAMAGE, TooManyBytes) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise SegmentError(
            f"{shown(url)} is damaged: delete it, and the same `segment run` writes it again ({type(error).__name__})"
        ) from None
