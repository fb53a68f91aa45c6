"""What concurrent calls of a session share out: each takes an idle one, or makes another."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class IdlePool(Generic[T]):
    """Up to `most` items, each used by one thread at a time; the first is made at once, the others when needed."""

    def __init__(self, make: Callable[[], T], most: int) -> None:
        self._make = make
        self._most = most
        self._made = 1
        self._lock = threading.Lock()
        self._idle: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._idle.put(make())

    @contextmanager
    def borrowed(self) -> Iterator[T]:
        """Wait for an item; it is idle again when the block ends."""
        item = self._take()
        try:
            yield item
        finally:
            self._idle.put(item)

    def _take(self) -> T:
        with suppress(queue.Empty):
            return self._idle.get_nowait()
        with self._lock:
            if self._made < self._most:
                item = self._make()
                self._made += 1
                return item
        return self._idle.get()
