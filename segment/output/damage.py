"""Objects that cannot be read as what they are: read once more, then refused by name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa

from segment.errors import SegmentError
from segment.store.names import shown

T = TypeVar("T")
log = logging.getLogger("segment.output.damage")

DAMAGE = (pa.ArrowException, LookupError, TypeError, ValueError, OSError)  # what reading a damaged object raises


def sound(url: str, read: Callable[[], T]) -> T:
    """Return what `read` makes of an object, fetching it; if it came damaged, once more.

    Raises:
        SegmentError: it is damaged where it is.
    """
    try:
        try:
            return read()
        except DAMAGE as error:
            if isinstance(error, FileNotFoundError):
                raise
            log.warning("%s came damaged (%s): reading it again", shown(url), type(error).__name__)
            return read()
    except DAMAGE as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise SegmentError(
            f"{shown(url)} is damaged: delete it, and the same command makes it anew ({type(error).__name__})"
        ) from None
