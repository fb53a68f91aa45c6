"""How long a worker may be at one step (an image, a request to a store) before it counts as stuck."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segment.output.results import PartResult

UNKNOWN = 300.0  # seconds while nothing is measured: a first part, a child process
_LOADING = {"tensorrt": 1800.0}  # which compiles the graph for the GPU at hand
_FLOOR = 60.0  # a request may take 40 s before it counts as failed, and a busy machine is no stuck one
_MARGIN = 10.0  # images differ: one may take so many times as long as the slowest part's mean


def loading_seconds(device: str) -> float:
    """How long a worker may take to load the model."""
    return _LOADING.get(device, UNKNOWN)


class Patience:
    """Derived from what the parts of this run took so far, unless the user says how long.

    Args:
        fixed: seconds, from `--stall-timeout`; None derives them.
        images: how many make a step; None for all of a part.
    """

    def __init__(self, fixed: float | None, images: int | None) -> None:
        self._fixed = fixed
        self._images = images
        self._slowest: float | None = None

    def learn(self, result: PartResult) -> None:
        """Take the seconds of a part into account; one that was skipped or failed tells nothing."""
        if result.failure is not None or result.skipped or not result.images:
            return
        seconds = result.seconds
        images = min(self._images or result.images, result.images)
        work = sum(seconds.get(stage, 0.0) for stage in ("decode", "infer", "encode"))
        steps = (work / result.images * images, seconds.get("read", 0.0), seconds.get("write", 0.0))
        self._slowest = max(steps) if self._slowest is None else max(self._slowest, *steps)

    @property
    def seconds(self) -> float:
        """What a step may take now."""
        if self._fixed is not None:
            return self._fixed
        return UNKNOWN if self._slowest is None else max(_FLOOR, _MARGIN * self._slowest)
