"""`segment.label_errors`: regions of a run in which the label is likely wrong."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from segment.output.ledger import Ledger
from segment.report.label_errors import LabelErrors, find_label_errors
from segment.runs.driver import task_and_plan
from segment.store.client import Store
from segment.store.urls import to_url


def label_errors(
    output: str | os.PathLike[str],
    *,
    number: int = 20,
    images: int = 200,
    storage_options: Mapping[str, Any] | None = None,
    allow_input: Sequence[str] = (),
) -> LabelErrors:
    """Find the regions of a labelled run, running or not, in which the label is likely wrong; no model runs.

    >>> found = label_errors("out", number=3)
    >>> len(found.regions) <= 3, found.looked_at <= found.labelled
    (True, True)

    Args:
        output: path or URL of the prefix that the job wrote to.
        number: of regions, most suspicious first.
        images: number of images whose masks and labels are read: those with the worst counts.
        storage_options: fsspec options for URLs that are not local.
        allow_input: folders or URL prefixes below which images and labels may be read, too: an output in a store leads
            to no file and no web server of this machine by itself.

    Raises:
        UsageError: there is no run, no image is labelled, or a number is below 1.
        SegmentError: a masks file is damaged or lost, or the store refuses a request.
    """
    store = Store(storage_options)
    store.allow_inputs(allow_input)
    ledger = Ledger(store, to_url(os.fspath(output)))
    task, plan = task_and_plan(ledger)
    return find_label_errors(ledger, plan, task, number, images)
