"""Parts that killed their worker: run image by image in child processes until the killer is an error row."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from segment.engines.child import Child, ChildDied, ChildOverBudget
from segment.errors import InputChanged, StoreError, sample_error_text
from segment.inputs.discover import Part, image_uri
from segment.models.weights import Weights
from segment.output.results import PartResult
from segment.output.tables import ImageRow
from segment.pipeline.stages import Clock, Task
from segment.pipeline.stall import Patience
from segment.pipeline.worker import Worker, failed
from segment.store.names import row_id

_TRIES = 2  # times an image may kill its process before it is the culprit: the first may have been bad luck


def quarantine(part: Part, task: Task, weights: Weights) -> PartResult:
    """Run a part image by image in child processes; an image that kills two of them becomes an error row.

    A part that kills two of them by being read alone becomes error rows altogether. A child that cannot load the
    model is a failure of the part: no image is blamed for it.
    """
    worker = Worker(task, None)
    try:
        images, unreadable = _identify(part, task, weights)
        rows = {position: _culprit(*image, unreadable) for position, image in enumerate(images)} if unreadable else {}
        deaths: dict[int, int] = {}
        while len(rows) < len(images):
            missing = [position for position in range(len(images)) if position not in rows]
            died = _until_death(part, missing, rows, task, weights)
            if died is not None:
                culprit, death = died
                deaths[culprit] = deaths.get(culprit, 0) + 1
                if deaths[culprit] == _TRIES:
                    rows[culprit] = _culprit(*images[culprit], death)
    except (StoreError, InputChanged) as error:
        return failed(part, error)
    except ChildDied as death:  # before it was ready
        return failed(part, StoreError(f"{death} while it loaded the model"))
    return worker.commit(part, [rows[position] for position in range(len(images))], Clock(), 0)


def _identify(part: Part, task: Task, weights: Weights) -> tuple[list[tuple[str, str, int]], ChildDied | None]:
    """Return id, URL and index of the images of a part, and what reading the part dies of, if it does."""
    last: ChildDied | None = None
    for _ in range(_TRIES):
        with closing(_child(task, weights)) as child:
            try:
                return child.identify(part), None
            except ChildDied as death:
                last = death
    if part.members:
        named = [(member.id, image_uri(part, member.id, member.image)) for member in part.members]
    else:
        ids = [row_id(index) for index in range(part.start, part.stop)]
        named = [(name, image_uri(part, name)) for name in ids]
    return [(name, uri, index) for index, (name, uri) in enumerate(named, part.start)], last


def _culprit(name: str, url: str, index: int, death: ChildDied) -> ImageRow:
    code = "out_of_memory" if isinstance(death, ChildOverBudget) else "killed_worker"
    return ImageRow(name, url, index, None, sample_error_text(code), None, None, None, None)


def _until_death(
    part: Part, positions: Sequence[int], rows: dict[int, ImageRow], task: Task, weights: Weights
) -> tuple[int, ChildDied] | None:
    """Fill `rows` until the child dies; return the position that it died at and how, None if it did all."""
    done = 0
    with closing(_child(task, weights)) as child:
        try:
            for position, row in zip(positions, child.rows(part, positions), strict=True):
                rows[position] = row
                done += 1
        except ChildDied as death:
            return positions[done], death
    return None


def _child(task: Task, weights: Weights) -> Child:
    patience = Patience(task.settings.stall_timeout, None)
    return Child(task, weights, lambda: patience.seconds)
