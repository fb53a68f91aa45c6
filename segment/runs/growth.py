"""The growth of a plan: tars are indexed while the images of those before are segmented."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import NamedTuple

from segment.engines import StoppableSpread
from segment.inputs.discovery import Discovery, Unindexed
from segment.inputs.tars.instalments import Spread
from segment.output.plan import Plan
from segment.store.names import count

# Tars that are indexed at once: few at first, so that waiting workers soon have work.
_FIRST, _MOST = 16, 1024
_SHARE = 4  # a plan grows by a share of its images at least: each time costs a start of the workers
_LOOK_SECONDS = 0.5  # between two looks at signals
_START_SECONDS = 30.0  # that workers get to start before tars are indexed beside them
_END_SECONDS = 5.0  # for the thread to leave a cluster, before the driver leaves it


class _Indexed(NamedTuple):
    """Tars that are indexed: their plan, which takes far less memory than its parts, and what was found out."""

    plan: Plan
    lines: list[str]


class PlanGrowth:
    """Indexes the tars of a plan that are not indexed yet, in a thread.

    Args:
        unindexed: these tars; None if there are none.
        index: indexes the next tars, so many of them, where `spread` says.
        spread: of the engine.
        is_working: whether workers have work done. Before, indexing would take CPU and network from their start.
    """

    def __init__(
        self,
        unindexed: Unindexed | None,
        index: Callable[[Spread, Unindexed, int], Discovery],
        spread: StoppableSpread,
        is_working: Callable[[], bool],
    ) -> None:
        self._index, self._spread, self._is_working = index, spread, is_working
        self._needed = threading.Event()
        self._found: queue.SimpleQueue[_Indexed | BaseException] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(unindexed,), name="index", daemon=True)

    def __enter__(self) -> PlanGrowth:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the thread end; it begins no other tar, and what it reads now is not waited for."""
        self._stopped.set()
        self._needed.set()
        self._thread.join(_END_SECONDS)

    def next(self, plan: Plan) -> tuple[Plan, list[str]]:
        """Wait for more tars, and return the plan with all that are indexed by now, and what was found out about them.

        Args:
            plan: the plan, with tars that are not indexed. Another driver may have extended it meanwhile.

        Raises:
            SegmentError: a tar cannot be indexed. Those before it have been returned.
        """
        self._needed.set()
        grown, lines = plan, list[str]()
        least = plan.images * (1 + 1 / _SHARE)
        while grown.unindexed and (grown.images <= least or not self._found.empty()):
            found = self._take()
            if isinstance(found, BaseException):
                if grown is plan:
                    raise found
                self._found.put(found)
                break
            grown = _extended(grown, found.plan)
            lines += found.lines
        return grown, lines

    def _take(self) -> _Indexed | BaseException:
        while True:
            try:
                return self._found.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                continue

    def _run(self, unindexed: Unindexed | None) -> None:
        give_up = time.monotonic() + _START_SECONDS
        while not self._is_working() and time.monotonic() < give_up and not self._needed.wait(_LOOK_SECONDS):
            pass
        number = _FIRST
        spread: Spread = partial(self._spread, stopped=self._stopped.is_set)
        try:
            while unindexed and not self._stopped.is_set():
                found = self._index(spread, unindexed, number)
                self._found.put(_Indexed(Plan.of_discovery(found), found.lines))
                unindexed, number = found.unindexed, min(_MOST, 2 * number)
        except BaseException as error:  # raised by `next`
            self._found.put(error)


def _extended(plan: Plan, found: Plan) -> Plan:
    """Return a plan with what was found in some of the tars that it lacks; those that it holds already are skipped."""
    assert plan.unindexed is not None
    new = found.of_shards({entry.url for entry in plan.unindexed.tars})
    after = found.unindexed if found.tars_left < plan.tars_left else plan.unindexed
    return plan.extended_by(new.with_left_out([*plan.left_out, *new.left_out], after))


def planned_so_far(plan: Plan) -> str:
    """Say how far the input is indexed."""
    if plan.unindexed is None:
        return f"all tars are indexed: {count(plan.images, 'image')}"
    left, images = count(plan.tars_left, "tar"), plan.unindexed.images
    return f"{left} with about {images:,} images to be indexed while others are segmented"
