"""A small cache for what several parts of one shard need."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

V = TypeVar("V")


class Recent(Generic[V]):
    """The few most recent values by key, made once however many threads ask for them at once."""

    def __init__(self, entries: int, weight: Callable[[V], int] = lambda value: 0) -> None:
        self._entries, self._weight = entries, weight
        self._values: OrderedDict[Any, Future[V]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any, make: Callable[[], V], limit: int = 0) -> V:
        """Return the value of `key`; what `make` raises reaches all who wait for it and is not kept.

        Older values go when there are too many, or when together they weigh more than `limit`.
        """
        with self._lock:
            future = self._values.get(key)
            mine = future is None
            if future is None:
                future = self._values[key] = Future()
                while len(self._values) > self._entries:
                    self._values.popitem(last=False)
            self._values.move_to_end(key)
        if mine:
            self._fill(key, future, make)
        value = future.result()
        self._shrink(limit)
        return value

    def _fill(self, key: Any, future: Future[V], make: Callable[[], V]) -> None:
        try:
            future.set_result(make())
        except BaseException as error:
            with self._lock:
                if self._values.get(key) is future:
                    del self._values[key]
            future.set_exception(error)

    def _shrink(self, limit: int) -> None:
        with self._lock:
            while len(self._values) > 1:
                done = [future.result() for future in self._values.values() if future.done() and not future.exception()]
                if sum(self._weight(value) for value in done) <= limit:
                    return
                self._values.popitem(last=False)
