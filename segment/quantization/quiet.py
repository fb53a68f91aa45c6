"""Keeps what a quantiser says of its own work out of the command's output."""

import contextlib
import logging
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def quiet(logger: str | None, level: int, printed: TextIO) -> Iterator[None]:
    """Log what the logger of a quantiser (None: the root) says from this level on, and print to another stream."""
    log = logging.getLogger(logger)
    before = log.level
    log.setLevel(level)
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        log.setLevel(before)
