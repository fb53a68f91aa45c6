"""One thread that runs one call after the other, and that a stuck call cannot keep the process alive by."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_Call = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class Background:
    """A `ThreadPoolExecutor(1)` whose thread is a daemon: the interpreter does not wait for it when it ends."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a call after those submitted before."""
        future: Future[T] = Future()
        self._calls.put((future, function, args, kwargs))
        return future

    def __enter__(self) -> Background:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the thread end after what is submitted; wait for it only if nothing went wrong."""
        self._calls.put(None)
        if kind is None:
            self._thread.join()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function, args, kwargs = call
            try:
                future.set_result(function(*args, **kwargs))
            except BaseException as error:  # it belongs to whoever asks for the result
                future.set_exception(error)
