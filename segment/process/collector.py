"""Lets Python's cycle collector run rarely while many small objects are made that all stay."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_RARELY = (50_000, 20, 1000)
_lock = threading.Lock()
_inside = 0
_usual: tuple[int, int, int] = gc.get_threshold()


@contextmanager
def rare_collections() -> Iterator[None]:
    """Collect after 50,000 new objects instead of some hundreds; by default whole heaps are searched again and again.

    Holds for the process, until the last of those that are inside at once leaves.
    """
    global _inside, _usual
    with _lock:
        if not _inside:
            _usual = gc.get_threshold()
            gc.set_threshold(*_RARELY)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                gc.set_threshold(*_usual)
