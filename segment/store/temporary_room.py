"""Room for temporary files: a full disk of this machine is no damage of what is read or written by way of it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from segment.errors import SegmentError


@contextmanager
def needing_room(what: str) -> Iterator[None]:
    """Make temporary files and write to them.

    Raises:
        SegmentError: there is no room for them, or no folder. An OSError would be taken for one of the stored object.
    """
    try:
        yield
    except OSError as error:
        raise SegmentError(
            f"no room for {what} in {tempfile.tempdir or 'a folder'} ({error.strerror}): "
            "TMPDIR names another folder for temporary files"
        ) from None


def discard(file: IO[Any]) -> None:
    """Close a temporary file; what could not be written of it is of no use."""
    with suppress(OSError):
        file.close()
