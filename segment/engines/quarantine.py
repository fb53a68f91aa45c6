"""A part that killed its worker, image by image in worker processes of its own."""

from __future__ import annotations

from contextlib import closing

from segment.engines.child import Setup
from segment.engines.pool import Pool
from segment.inputs.discover import Part
from segment.models.weights import Weights
from segment.output.results import PartResult
from segment.pipeline.stages import Task


def quarantine(part: Part, task: Task, weights: Weights) -> PartResult:
    """Run a part image by image in worker processes; an image that kills two of them becomes an error row.

    Processes that cannot load the model are a failure of the part: no image is blamed for it.
    """
    with closing(Pool(Setup(task, weights, by_image=True), 1, "image").run([part])) as results:
        return next(results)
