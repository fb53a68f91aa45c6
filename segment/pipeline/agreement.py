"""How runtimes agree on images of a run: the same images, decoded and scored as a worker does, on each of them."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from segment.errors import SegmentError
from segment.images.codec import decode_mask
from segment.inputs.parts import Part, Sample
from segment.metrics import Confusion, score
from segment.models.sessions import Runtime
from segment.models.sessions.apart_process import LOAD_SECONDS, LOADING, given_apart, run_apart, tell, within
from segment.models.sessions.base import first_line
from segment.models.weights import Weights
from segment.output.tables import ImageRow
from segment.pipeline.stages import Clock, Task
from segment.pipeline.stall import load_timeout
from segment.pipeline.worker import Worker, load_worker, read_planned

_SECONDS = 600.0  # after which the process is killed
_MOST = 60.0  # seconds of CPU, after which no further image is tried; few models are so slow


@dataclass
class Tried:
    """A runtime on the images that were tried.

    Attributes:
        reason: why it cannot run the model; empty if it can.
        seconds: CPU seconds of the model an image, in one thread, their median without the first image, which warms
            up; on a GPU the seconds that passed.
        pixels, equal: mask pixels, and those with the class that the reference gives them.
        miou: over the labelled ones of these images, 0-1; None without labels.
    """

    runtime: Runtime
    reason: str = ""
    images: int = 0
    seconds: float = 0.0
    pixels: int = 0
    equal: int = 0
    miou: float | None = None

    @property
    def agreement(self) -> float | None:
        """Share of pixels as in the reference, 0-1; None if nothing could be compared."""
        return self.equal / self.pixels if self.pixels else None


def try_runtimes(
    task: Task, weights: Weights, part: Part, runtimes: Sequence[Runtime], rivals: Sequence[Runtime], worth: float
) -> tuple[list[Tried], Tried]:
    """Segment images on each runtime, in a process of its own; nothing is written.

    Args:
        part: the images; the last ones are left out if the first take long.
        runtimes: the runtimes, at least one; the last one is the reference.
        rivals: runtimes that are tried, too, if an image takes more than `worth` seconds on the first one.

    Returns:
        What was tried, and the reference, which is one of it.

    Raises:
        ModelError: the first runtime does not load the model in time.
    """
    given = (task, weights, part, list(runtimes), list(rivals), worth)
    events, end = run_apart(__name__, given, _SECONDS - LOAD_SECONDS + _load_seconds(task))
    last = events[-1] if events else {}
    if "tried" in last:
        return [_parsed(each) for each in last["tried"]], _parsed(last["reference"])
    begun = Runtime(**last["begun"]) if last else runtimes[0]
    if end.late_at == LOADING and begun == runtimes[0]:
        raise load_timeout(f"{begun.name} did not load the model", _load_seconds(task))
    reason = f"the process that tried {begun.name} {end}"
    tried = [Tried(runtime) for runtime in runtimes]
    for each in tried:
        if each.runtime == begun or begun not in runtimes:
            each.reason = reason
    return tried, tried[-1]


def _load_seconds(task: Task) -> float:
    return max(LOAD_SECONDS, task.settings.stall_timeout or 0.0)


def _parsed(tried: dict[str, Any]) -> Tried:
    return Tried(**{**tried, "runtime": Runtime(**tried["runtime"])})


def main() -> None:
    """Run in the process: print the runtime in use, a line each, and at last what was tried."""
    task, weights, part, runtimes, rivals, worth = given_apart()
    contenders = [_Contender.opened(task, weights, runtime) for runtime in runtimes]
    reference = contenders[-1]
    samples: list[Sample] = []
    try:
        samples = read_planned(part, task)
    except SegmentError as error:  # the run itself will raise it, or go on without this part
        reference.tried.reason = str(error)
    began = time.process_time()
    for position, sample in enumerate(samples):
        for contender in contenders:
            contender.segment(part, sample)
        if rivals and contenders[0].seconds:  # the first image that is no error tells
            if contenders[0].seconds[0] > worth:
                more = [_Contender.opened(task, weights, runtime) for runtime in rivals]
                for contender in more:
                    for earlier in samples[: position + 1]:
                        contender.segment(part, earlier)
                contenders = [contenders[0], *more, *contenders[1:]]
            rivals = []
        is_alone = not rivals and len(contenders) == 1
        if is_alone or (position and time.process_time() - began > _MOST):
            break
    for contender in contenders:
        contender.compare(reference)
    tell(tried=[asdict(contender.tried) for contender in contenders], reference=asdict(reference.tried))
    os._exit(0)  # as worker processes do: threads of libraries may abort the regular end


@dataclass
class _Contender:
    """A worker on one runtime, and its rows so far."""

    task: Task
    tried: Tried
    worker: Worker | None = None
    rows: list[ImageRow] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @staticmethod
    def opened(task: Task, weights: Weights, runtime: Runtime) -> _Contender:
        tell(begun=asdict(runtime))
        own = replace(task, runtime=runtime)
        try:
            with within(_load_seconds(task)):
                return _Contender(own, Tried(runtime), load_worker(own, weights))
        except (SegmentError, ImportError) as error:
            return _Contender(own, Tried(runtime, str(error)))

    def segment(self, part: Part, sample: Any) -> None:
        """Segment an image, unless the runtime cannot run the model."""
        if self.worker is None:
            return
        tell(begun=asdict(self.tried.runtime))
        clock = Clock(time.process_time if self.tried.runtime.device == "cpu" else time.perf_counter)
        try:
            (row,) = self.worker.rows(part, [sample], clock)
        except Exception as error:  # each runtime has its own types
            self.worker, self.tried.reason = None, first_line(error)
            return
        if row.mask is not None:
            self.seconds.append(clock.seconds["infer"])
        self.rows.append(row)

    def compare(self, reference: _Contender) -> None:
        """Sum up, and count the pixels that are as in the reference."""
        self.tried.seconds = statistics.median(self.seconds[1:] or self.seconds or [0.0])
        total: Confusion | None = None
        for own, other in zip(self.rows, reference.rows, strict=False):
            if own.mask is None or other.mask is None:
                continue
            mask = decode_mask(own.mask)
            self.tried.images += 1
            self.tried.pixels += mask.size
            self.tried.equal += int(np.count_nonzero(mask == decode_mask(other.mask)))
            if own.labelled and own.confusion is not None:
                total = own.confusion if total is None else total + own.confusion
        if total is not None:
            card = self.task.card
            self.tried.miou = score(total, card.classes.ignored_classes, card.metric.convention).miou
