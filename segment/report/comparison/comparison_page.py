"""The HTML page of a comparison: one self-contained file, readable offline, in any browser, and on paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segment.output.ledger import Ledger
from segment.pipeline.stages import Task
from segment.report import charts
from segment.report.comparison.comparing import Against, ComparedRun, RunComparison
from segment.report.comparison.comparison_formats import BOUNDARY, class_in_words, mean_of
from segment.report.comparison.comparison_gallery import colours_of_differences, comparison_gallery, palette_of
from segment.report.comparison.comparison_notes import notes
from segment.report.comparison.points import figure_texts
from segment.report.exports.destination import check_target
from segment.report.pictures import GONE
from segment.report.score_formats import NAMES
from segment.report.templating import render_template
from segment.scores.paired import Change
from segment.store.names import shown
from segment.store.urls import join_url

_FOLDER = "compare"
STYLES = ("report.css", "viewer.css", "compare.css")


def page_url(ledgers: Sequence[Ledger], to: str) -> str:
    """Return the URL of the page below a URL. Raises UsageError if it would be among the files of a run."""
    folder = join_url(to, _FOLDER)
    for ledger in ledgers:
        check_target(ledger, ledger.read_run_and_plan()[0], folder)
    return join_url(folder, "index.html")


def write_comparison_page(found: RunComparison, tasks: Sequence[Task], url: str) -> None:
    """Write the page.

    Args:
        found: the comparison.
        tasks: of its runs, which say how images and labels are read.
        url: of the file.

    Raises:
        SegmentError: a masks file is damaged or lost, or the store refuses a request.
    """
    found.runs[0].ledger.store.write(url, render_comparison(found, tasks).encode())


def render_comparison(found: RunComparison, tasks: Sequence[Task]) -> str:
    """Return the page as HTML; all text that comes from the input is escaped."""
    return render_template("compare.html.j2", styles=STYLES, **page_values(found, tasks))


def page_values(found: RunComparison, tasks: Sequence[Task]) -> dict[str, Any]:
    """Return what the template of the page shows; a template that extends it shows this and more."""
    sections = [
        _section(one, (tasks[0], task), len(found.against)) for one, task in zip(found.against, tasks[1:], strict=True)
    ]
    return {
        "runs": [_run(run) for run in found.runs],
        "sections": sections,
        "is_complete": all(run.report.complete for run in found.runs),
        "gone": GONE,
    }


@dataclass(frozen=True)
class Whisker:
    """A change drawn on an axis: the places (0-100) of its value and of the bounds of its interval, and what it is.

    `kind` is `gain` or `loss` where the interval holds no zero, else empty.
    """

    at: float
    low: float | None
    high: float | None
    kind: str


@dataclass(frozen=True)
class ChangeLine:
    """A row of a table of changes.

    Attributes:
        name: what changed.
        a, b, change, span: in both runs, the difference and its interval, as text.
        value: number to sort by; None if undefined.
        whisker: None if undefined.
        share: 0-1, of the pixels that agree or, for a class, the IoU of both masks; None if there is none.
        images: number, of a slice.
        index: of a class.
    """

    name: str
    a: str
    b: str
    change: str
    span: str
    value: float | None
    whisker: Whisker | None
    share: float | None = None
    images: int = 0
    index: int = -1


def _run(run: ComparedRun) -> dict[str, Any]:
    report = run.report
    runtime = report.run["contract"]["runtime"]
    done = f"{report.total.images:,} of {report.planned_in_words}{'' if report.is_whole else ' so far'}"
    facts = [
        ("Output", shown(report.output)),
        ("Model", f"{report.card.name}{': ' + report.card.description if report.card.description else ''}"),
        ("Images", f"{done}, {report.total.errors:,} with an error"),
        ("Runtime", f"{runtime['name']} {runtime['version']}, {runtime['device']}, {runtime['precision']}"),
        ("Scored at", f"{report.run['scored_at']} size"),
        ("Fingerprint", report.run["fingerprint"]),
    ]
    return {"letter": run.letter, "name": report.card.name, "output": shown(report.output), "facts": facts}


def _section(found: Against, tasks: tuple[Task, Task], comparisons: int) -> dict[str, Any]:
    scores, agreement = found.overall.scores, found.overall.agreement
    groups = comparison_gallery(found, tasks, comparisons)
    confusion = agreement.confusion if agreement else None
    return {
        "letter": found.b.letter,
        "notes": notes(found),
        "baseline": found.a.letter,
        "images": len(found.pairs),
        "labelled": scores.images if scores else 0,
        "agreement": found.agreement,
        "agreement_interval": agreement.intervals.get("pixel_accuracy") if agreement else None,
        "agreement_miou": agreement.miou if agreement else None,
        "miou": _line("mIoU", scores.changes["miou"], 1.0) if scores else None,
        "convention": found.protocols[0].convention,
        "figures": _figures(found),
        "lines": _classes(found),
        "boundaries": _boundaries(found),
        "slices": _slices(found),
        "names": [class_in_words(found, index) for index in range(len(found.grouping.names))],
        "palette": palette_of(found).tolist(),
        "heat": charts.heat_map(confusion) if confusion else None,
        "moves": charts.largest_pairs(confusion.counts[:-1]) if confusion else [],
        "bars": charts.histogram(found.pairs.agreement) if agreement else [],
        "quantiles": charts.quantiles(found.pairs.agreement) if agreement else {},
        "groups": groups,
        "exhibited": sorted({index for group in groups for image in group.images for index in image.classes}),
        "differences": colours_of_differences(found, groups),
    }


def _figures(found: Against) -> list[ChangeLine]:
    scores = found.overall.scores
    if scores is None:
        return []
    boundary = scores.boundary
    axis = _largest([*scores.changes.values(), *([boundary.change] if boundary else [])])
    lines = [
        _line(NAMES[name], change, axis, scores.a.figures[name], scores.b.figures[name], is_share=name != "kappa")
        for name, change in scores.changes.items()
    ]
    if boundary:
        lines.append(_line(BOUNDARY, boundary.change, axis, mean_of(boundary.a), mean_of(boundary.b)))
    return lines


def _boundaries(found: Against) -> list[ChangeLine]:
    boundary = found.overall.scores.boundary if found.overall.scores else None
    if boundary is None:
        return []
    axis = _largest(boundary.class_changes)
    values = zip(boundary.class_changes, boundary.a.score.iou.tolist(), boundary.b.score.iou.tolist(), strict=True)
    return [
        _line(class_in_words(found, index), change, axis, a, b, index=index)
        for index, (change, a, b) in enumerate(values)
    ]


def _classes(found: Against) -> list[ChangeLine]:
    scores, agreement = found.overall.scores, found.overall.agreement
    changes = scores.class_changes["iou"] if scores else [Change(np.nan)] * len(found.grouping.names)
    axis = _largest(changes)
    return [
        _line(
            class_in_words(found, index),
            change,
            axis,
            float(scores.a.score.iou[index]) if scores else np.nan,
            float(scores.b.score.iou[index]) if scores else np.nan,
            share=float(agreement.score.iou[index]) if agreement else None,
            index=index,
        )
        for index, change in enumerate(changes)
    ]


def _slices(found: Against) -> list[ChangeLine]:
    changes = {
        value: one.scores.changes["miou"] if one.scores else Change(np.nan) for value, one in found.slices.items()
    }
    axis = _largest(changes.values())
    return [
        _line(
            shown(value),
            changes[value],
            axis,
            one.scores.a.figures["miou"] if one.scores else np.nan,
            one.scores.b.figures["miou"] if one.scores else np.nan,
            share=one.agreement.figures["pixel_accuracy"] if one.agreement else None,
            images=one.images,
        )
        for value, one in found.slices.items()
    ]


def _line(
    name: str,
    change: Change,
    axis: float,
    a: float = np.nan,
    b: float = np.nan,
    *,
    is_share: bool = True,
    share: float | None = None,
    images: int = 0,
    index: int = -1,
) -> ChangeLine:
    texts = ["–" if text == "-" else text for text in figure_texts(a, b, change, is_share=is_share)]
    undefined = np.isnan(change.value)
    return ChangeLine(
        name,
        a=texts[0],
        b=texts[1],
        change=texts[2],
        span=texts[3],
        value=None if undefined else change.value,
        whisker=None if undefined else _whisker(change, axis),
        share=None if share is None or np.isnan(share) else share,
        images=images,
        index=index,
    )


def _whisker(change: Change, axis: float) -> Whisker:
    def place(value: float) -> float:
        return 50 + 50 * min(1.0, max(-1.0, value / axis))

    bounds = change.interval
    if bounds is None:
        return Whisker(place(change.value), None, None, "")
    kind = "gain" if bounds.low > 0 else "loss" if bounds.high < 0 else ""
    return Whisker(place(change.value), place(bounds.low), place(bounds.high), kind)


def _largest(changes: Any) -> float:
    """Return the largest distance from 0 of any change or bound; 0.01 if all are 0 or undefined."""
    bounds = [abs(value) for one in changes if one.interval for value in (one.interval.low, one.interval.high)]
    values = [abs(one.value) for one in changes if not np.isnan(one.value)]
    return max([*bounds, *values], default=0.0) or 0.01
