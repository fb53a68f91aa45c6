"""`open_run`: the masks, counts and scores of a run, from its output alone."""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from segment.errors import UsageError
from segment.metrics import Confusion
from segment.models.card import ModelCard
from segment.output.ledger import Ledger
from segment.output.mask_files import read_mask
from segment.output.part_rows import numbers_of, part_tables
from segment.output.plan import Plan
from segment.report.aggregate import RunReport, load_report
from segment.report.rows import find_rows
from segment.store.client import Store
from segment.store.names import listed, shown
from segment.store.urls import to_url

_COLUMNS = ["id", "uri", "shard", "mask", "error", "meta"]  # the last one only where a run has it
_NAMED = 5  # unknown ids that an error names
_PARTS_AHEAD = 2  # parts whose masks are held at once


@dataclass(frozen=True, eq=False)
class SegmentedImage:
    """One image of a run.

    Attributes:
        id, uri, shard: which image it is; an id may come in several shards.
        mask: `uint8[H, W]` of class indices; None with an error, unless only the label is at fault.
        error: None, or what is wrong with the image or its label.
        meta: what the run keeps of its metadata (`Job.keep`), text by name; None for a value that it lacks.
    """

    id: str
    uri: str
    shard: str
    mask: NDArray[np.uint8] | None
    error: str | None
    meta: Mapping[str, str | None] = field(default_factory=dict)


class Run:
    """A run that was begun, whether or not it has ended; `open_run` makes it. Every call reads what is there now.

    Attributes:
        output: URL of the run's output prefix.
        card: the contract of its model.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.output = ledger.output
        self.card = ModelCard.model_validate(ledger.read_run_and_plan()[0]["card"])

    def __repr__(self) -> str:
        return f"Run({shown(self.output)}: {self.card.name})"

    def report(self) -> RunReport:
        """Return the scores, errors and progress of all that is committed.

        Raises:
            SegmentError: a file of statistics or masks is damaged.
        """
        return load_report(self._ledger)

    def confusion(self) -> Confusion:
        """Return the pixel counts of all that is committed, which `segment.iou` scores.

        Raises:
            SegmentError: a file of statistics or masks is damaged.
        """
        return self.report().total.confusion

    def masks(self, ids: Iterable[str] | None = None) -> Iterator[SegmentedImage]:
        """Return the committed images, in the order of the input; a few parts are in memory at once.

        Args:
            ids: only the images of these ids; None for all. An id that several shards have gives all its images.

        Raises:
            UsageError: no committed image has one of the ids.
            SegmentError: a masks file is damaged or lost.
            TypeError: `ids` is a single text.
        """
        if isinstance(ids, str):
            raise TypeError(f"ids = {ids!r}: give a list of ids")
        plan = self._ledger.read_run_and_plan()[1]
        if ids is None:
            return self._images(plan, self._ledger.committed(plan), None)
        wanted = list(ids)  # of a generator, which ends
        found = find_rows(self._ledger, plan, wanted)
        if unknown := [name for name, rows in found.items() if not rows]:
            raise UsageError(f"{shown(self.output)} has no committed image of the id {listed(unknown, _NAMED)}")
        return self._images(plan, {row.committed_in for rows in found.values() for row in rows}, wanted)

    def _images(self, plan: Plan, parts: Collection[str], ids: Collection[str] | None) -> Iterator[SegmentedImage]:
        for _, table in part_tables(self._ledger, plan, numbers_of(plan, parts), _COLUMNS, ahead=_PARTS_AHEAD):
            chosen = table if ids is None else table.filter(pc.is_in(table["id"], pa.array(list(ids), pa.string())))
            for row in chosen.to_pylist():
                mask = row["mask"] and read_mask(self._ledger.store, self._ledger.output, row["mask"])
                yield SegmentedImage(row["id"], row["uri"], row["shard"], mask, row["error"], row.get("meta") or {})


def open_run(output: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> Run:
    """Open a run by its output prefix; it may be going on, or have broken off.

    >>> run = open_run("out")
    >>> run.report().total.images
    6
    >>> image = next(run.masks(ids=["0.jpg"]))
    >>> image.mask.shape, image.error
    ((192, 256), None)
    >>> run.confusion().is_scored
    True

    Args:
        output: path or URL of the prefix that the job wrote to.
        storage_options: fsspec options for a URL that is not local.

    Raises:
        UsageError: there is no run at this place, or it has not planned yet.
    """
    return Run(Ledger(Store(storage_options), to_url(os.fspath(output))))
