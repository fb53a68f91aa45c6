"""Quarantine: run a part that killed its worker image by image, in worker processes of its own."""

from __future__ import annotations

from contextlib import closing

from segment.engines.pool import Pool
from segment.engines.suspect import RowGroup
from segment.engines.worker_process import ProcessExit, Setup
from segment.inputs.parts import Part
from segment.models.weights import Weights
from segment.output.results import PartResult
from segment.pipeline.stages import Task

# By fingerprint of a run: row groups that killed whoever read them, as far as this process knows.
_unreadable: dict[str, dict[RowGroup, ProcessExit]] = {}


def quarantine(part: Part, task: Task, weights: Weights) -> PartResult:
    """Run a part image by image in worker processes; an image that kills two of them becomes an error row.

    If the processes cannot load the model, the part fails, and no image is blamed.
    """
    known = _unreadable.setdefault(task.fingerprint, {})
    with closing(Pool(Setup(task, weights, by_image=True), 1, "image", unreadable=known).run([part])) as results:
        return next(results)
