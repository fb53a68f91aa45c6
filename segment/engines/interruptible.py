"""Waits for results of Ray that can be interrupted."""

import ctypes
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from segment.engines.ray_cluster import HeadLost
from segment.errors import SegmentError

_GRACE = 15.0  # seconds for Ray to stop what runs
T = TypeVar("T")


class _Stop(BaseException):
    """Raised in the thread that waits for Ray, to end it."""


def pulled(values: Iterator[T], trouble: Callable[[], SegmentError | None]) -> Iterator[T]:
    """Yield values that another thread pulls from an iterator, so that the wait for one can be ended.

    Args:
        values: results of Ray; the wait for the next one may take for ever.
        trouble: called once a second; an error that it returns is raised.
    """
    items: queue.Queue[tuple[bool, Any]] = queue.Queue(64)
    stopped = threading.Event()

    def put(is_value: bool, item: object) -> None:
        while not stopped.is_set():
            with suppress(queue.Full):
                items.put((is_value, item), timeout=0.5)
                return

    def pull() -> None:
        with suppress(_Stop):  # which may come at any moment, within the handler, too
            try:
                for value in values:
                    put(True, value)
                put(False, None)
            except _Stop:
                raise
            except BaseException as error:  # raised where the values are consumed
                put(False, error)

    thread = threading.Thread(target=pull, name="pull", daemon=True)
    thread.start()
    grace, over = _GRACE, False
    try:
        while True:
            try:
                is_value, item = items.get(timeout=1.0)
            except queue.Empty:
                if error := trouble():
                    raise error from None
                continue
            if is_value:
                yield item
                continue
            over = True
            if item is None:
                return
            raise item
    except HeadLost:
        grace = 0.0  # cleaning up would wait for it, too
        raise
    finally:
        stopped.set()
        # It waits in Python, where this reaches it, and cleans up. After its last item it ends by itself: there the
        # exception would reach it outside of its handler.
        if not over and thread.is_alive() and thread.ident:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(_Stop))
        thread.join(grace)
