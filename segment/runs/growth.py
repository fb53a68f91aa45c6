"""The growth of a plan: tars are indexed while the images of those before are segmented."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType

from segment.inputs.discover import Discovery, Unindexed
from segment.output.plan import Plan
from segment.store.names import count

# Tars that are indexed at once: few at first, so that waiting workers soon have work.
_FIRST, _MOST = 16, 1024
_SHARE = 4  # a plan grows by a share of its images at least: each time costs a start of the workers
_LOOK_SECONDS = 0.5  # between two looks at signals


class PlanGrowth:
    """Indexes the tars of a plan that are not indexed yet, in a thread.

    Args:
        unindexed: these tars; None if there are none.
        index: indexes the next tars, so many of them.
    """

    def __init__(self, unindexed: Unindexed | None, index: Callable[[Unindexed, int], Discovery]) -> None:
        self._index = index
        self._found: queue.SimpleQueue[Discovery | BaseException] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(unindexed,), name="index", daemon=True)

    def __enter__(self) -> PlanGrowth:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the thread end after the tars it reads."""
        self._stopped.set()

    def next(self, plan: Plan) -> tuple[Plan, list[str]]:
        """Wait for more tars, and return the plan with their images, and what was found out about them.

        Args:
            plan: the plan, with tars that are not indexed. Another driver may have extended it meanwhile.

        Raises:
            SegmentError: a tar cannot be indexed.
        """
        grown, lines = plan, list[str]()
        while grown.unindexed and grown.images <= plan.images * (1 + 1 / _SHARE):
            found = self._take()
            grown = _extended(grown, grown.unindexed, found)
            lines += found.lines
        return grown, lines

    def _take(self) -> Discovery:
        while True:
            try:
                found = self._found.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                continue
            if isinstance(found, BaseException):
                raise found
            return found

    def _run(self, unindexed: Unindexed | None) -> None:
        number = _FIRST
        try:
            while unindexed and not self._stopped.is_set():
                found = self._index(unindexed, number)
                self._found.put(found)
                unindexed, number = found.unindexed, min(_MOST, 2 * number)
        except BaseException as error:  # raised by `next`
            self._found.put(error)


def _extended(plan: Plan, left: Unindexed, found: Discovery) -> Plan:
    """Return a plan with what was found in some of the tars that are `left`; those planned already are skipped."""
    urls = {entry.url for entry in left.tars}
    parts = [part for part in found.parts if part.url in urls]
    left_out = [item for item in found.left_out if item.place in urls]
    after = found.unindexed if len(found.unindexed.tars if found.unindexed else ()) < len(left.tars) else left
    new = Plan.of(parts, [*plan.left_out, *left_out])
    return plan.extended_by(Plan(new.table, new.left_out, after))


def planned_so_far(plan: Plan) -> str:
    """Say how far the input is indexed."""
    if plan.unindexed is None:
        return f"all tars are indexed: {count(plan.images, 'image')}"
    left, images = count(plan.tars_left, "tar"), plan.unindexed.images
    return f"{left} with about {images:,} images to be indexed while others are segmented"
