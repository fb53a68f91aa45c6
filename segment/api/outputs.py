"""What outputs of runs say without a model: `segment.compare` and `segment.label_errors`."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from segment.metrics.bootstrap import RESAMPLES
from segment.models.card import Convention
from segment.output.ledger import Ledger
from segment.report.comparison.comparing import ComparisonRequest, RunComparison, compare_ledgers
from segment.report.comparison.comparison_page import page_url, write_comparison_page
from segment.report.label_errors import LabelErrors, find_label_errors
from segment.runs.driver import task_and_plan
from segment.store.client import Store
from segment.store.urls import to_url


def compare(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    *others: str | os.PathLike[str],
    map: Sequence[str] = (),  # noqa: A002
    convention: Convention | None = None,
    ignore: Sequence[str] | None = None,
    merge: Sequence[str] = (),
    classes: Sequence[str] | None = None,
    by: str | None = None,
    group_by: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    masks: bool = True,
    to: str | os.PathLike[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    allow_input: Sequence[str] = (),
) -> RunComparison:
    """Compare runs of the same images with the first: pixels that agree, and the change of every score.

    Images are matched by id. Runs without labels are compared by agreement alone. No model runs.

    >>> found = compare("out", "out", resamples=50)
    >>> found.agreement, found.change
    (1.0, 0.0)
    >>> found.images().column_names
    ['id', 'pixels', 'agreement', 'miou_a', 'miou_b', 'change']

    Args:
        a: path or URL of the prefix that the baseline's job wrote to.
        b, others: those of the runs to compare with it.
        map: classes of A and of another run that are the same, as `A-name=B-name`; others are matched by name.
        convention: of all scores; None takes the one of A's card.
        ignore, merge, classes, by, group_by, resamples, seed: see `segment.score`; classes by their names in A.
        masks: compare masks pixel by pixel; if not, only the counts that are stored.
        to: write a page, `compare/index.html` below this path or URL.
        storage_options: fsspec options for URLs that are not local.
        allow_input: folders or URL prefixes below which images may be read for the page, too: an output in a store
            leads to no file and no web server of this machine by itself.

    Raises:
        UsageError: there is no run, no image or class in common, or what is asked cannot be had.
        SegmentError: a file of statistics or masks is damaged.
    """
    asked = ComparisonRequest(convention, ignore, merge, classes, by, group_by, resamples, seed, map, masks)
    outputs = [os.fspath(output) for output in (a, b, *others)]
    store = Store(storage_options)
    store.allow_inputs(allow_input)
    return compare_and_show(outputs, asked, store, None if to is None else os.fspath(to))


def compare_and_show(
    outputs: Sequence[str],
    asked: ComparisonRequest,
    store: Store,
    to: str | None,
    tell: Callable[[RunComparison], object] = lambda found: None,
) -> RunComparison:
    """Compare runs, and write the page if a place for it is given; see `compare`.

    `tell` gets the figures before that: it may have taken minutes, and the page may not be written.
    """
    ledgers = [Ledger(store, to_url(output)) for output in outputs]
    url = None if to is None else page_url(ledgers, to_url(to))
    found = compare_ledgers(ledgers, asked)
    tell(found)
    if url is None:
        return found
    write_comparison_page(found, [task_and_plan(ledger)[0] for ledger in ledgers], url)
    return replace(found, page=url)


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
