"""The stall timeout: how long a worker may take for one step (a batch, a request to a store) before it is stuck."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from segment.errors import ModelError

if TYPE_CHECKING:
    from segment.output.results import PartResult

UNKNOWN = 300.0  # seconds, until a part is measured
_LOADING = {"tensorrt": 1800.0}  # seconds; it compiles the graph for the GPU
_FLOOR = 60.0  # seconds; a request may take 40 s before it fails, and a machine may be busy
_MAX_LOADS = 2  # that take too long, while none has succeeded: one may be an accident, such as a frozen process
_MARGIN = 10.0  # ratio of the slowest image to the mean of the slowest part


class StallTimeout:
    """Derived from the times of the run's parts so far, unless the user has set it.

    Args:
        fixed: seconds, from `--stall-timeout`; None derives them.
        images: number of images, or tiles, of a step; None for all of a part.
        device: of the model, as `Runtime.device`.

    Attributes:
        has_loaded: whether a process has loaded the model.
    """

    def __init__(self, fixed: float | None, images: int | None, device: str = "cpu") -> None:
        self._fixed = fixed
        self._images = images
        self._loading = _LOADING.get(device, UNKNOWN)
        self._slowest: float | None = None
        self._given_up: set[Hashable] = set()
        self.has_loaded = False

    def learn(self, result: PartResult) -> None:
        """Take the times of a part into account; a part that was skipped or failed has none."""
        if result.failure is not None or result.skipped or not result.images:
            return
        seconds = result.seconds
        number = result.tiles or result.images
        at_once = min(self._images or number, number)
        work = sum(seconds.get(stage, 0.0) for stage in ("decode", "infer", "encode"))
        steps = (work / number * at_once, seconds.get("read", 0.0), seconds.get("write", 0.0))
        self._slowest = max(steps) if self._slowest is None else max(self._slowest, *steps)

    @property
    def seconds(self) -> float:
        """Return the timeout, as of now."""
        if self._fixed is not None:
            return self._fixed
        return UNKNOWN if self._slowest is None else max(_FLOOR, _MARGIN * self._slowest)

    @property
    def loading_seconds(self) -> float:
        """What loading the model may take: no less than the user allows for a step."""
        return max(self._fixed or 0.0, self._loading)

    def give_up_load(self, process: Hashable) -> None:
        """Record that a process was ended because it loaded the model for longer than `loading_seconds`."""
        if not self.has_loaded:
            self._given_up.add(process)

    @property
    def load_error(self) -> ModelError | None:
        """The error of a model that does not load in time: several processes were given up, and none has loaded it."""
        if self.has_loaded or len(self._given_up) < _MAX_LOADS:
            return None
        return load_timeout("the model was not loaded", self.loading_seconds, f", in {_MAX_LOADS} processes")


def load_timeout(what: str, seconds: float, where: str = "") -> ModelError:
    """Return the error of a model whose load takes too long, and how to mend it."""
    return ModelError(
        f"{what} within {seconds:.0f} s{where}: its graph may be made of very many nodes, or the machine be too slow "
        "for it. --stall-timeout allows more seconds"
    )
