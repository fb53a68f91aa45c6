"""Background threads: a serial executor on a daemon thread; ordered parallel maps, of a long iterable and in a time."""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

A = TypeVar("A")
P = ParamSpec("P")
T = TypeVar("T")
_Call = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class Background:
    """A `ThreadPoolExecutor(1)` whose thread is a daemon, so that it does not keep the interpreter alive."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a call after all calls submitted before."""
        future: Future[T] = Future()
        self._calls.put((future, function, args, kwargs))
        return future

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the thread after the submitted calls; wait for them only if no exception is being raised."""
        if kind is None:
            self.close()
        else:
            self._calls.put(None)

    def close(self) -> None:
        """End the thread after the submitted calls, and wait for it."""
        self._calls.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function, args, kwargs = call
            try:
                future.set_result(function(*args, **kwargs))
            except BaseException as error:  # raised by `Future.result`
                future.set_exception(error)


def in_order(
    function: Callable[[A], T], items: Iterable[A], *, name: str, threads: int = 8, ahead: int = 64
) -> Iterator[T]:
    """Yield `function(item)` for every item, in order, computed by threads.

    Unlike `ThreadPoolExecutor.map`, it takes at most `ahead` items before their results are consumed, so memory is
    bounded. A caller that stops early waits only for the calls that are running.

    Args:
        function: called in a thread.
        items: read in the caller's thread.
        name: prefix of the threads' names.
        ahead: items submitted before their results are consumed.

    >>> list(in_order(lambda number: number * number, range(5), name="squares", threads=2, ahead=3))
    [0, 1, 4, 9, 16]
    """
    rest = iter(items)
    with ThreadPoolExecutor(threads, thread_name_prefix=name) as pool:
        waiting = deque(pool.submit(function, item) for item in islice(rest, ahead))
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(function, item) for item in islice(rest, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()


def in_time(function: Callable[[A], T], items: Sequence[A], seconds: float) -> list[T | None]:
    """Return `function(item)` for each item; None of those that fail, or are not done when so many seconds are over.

    Each has a daemon thread, so that one that never ends keeps nobody waiting.
    """
    found: list[T | None] = [None] * len(items)

    def call(place: int) -> None:
        with suppress(Exception):
            found[place] = function(items[place])

    threads = [threading.Thread(target=call, args=(place,), daemon=True) for place in range(len(items))]
    end = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return list(found)
