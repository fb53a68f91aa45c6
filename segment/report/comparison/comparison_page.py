"""The HTML page of a comparison: one self-contained file, readable offline, in any browser, and on paper."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from segment.output.ledger import Ledger
from segment.pipeline.stages import Task
from segment.report import charts
from segment.report.comparison.change_lines import (
    ChangeLine,
    boundary_lines,
    class_in_words,
    class_lines,
    figure_lines,
    slice_boundary_lines,
    slice_lines,
)
from segment.report.comparison.comparing import Against, ComparedRun, RunComparison
from segment.report.comparison.comparison_gallery import comparison_gallery, difference_legend, palette_of
from segment.report.comparison.comparison_notes import notes
from segment.report.exhibits import classes_in
from segment.report.exports.destination import check_target
from segment.report.pictures import GONE
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
    exhibits = [one for group in groups for one in group.exhibits]
    confusion, figures = agreement.confusion if agreement else None, _rows(figure_lines(found))
    return {
        "letter": found.b.letter,
        "notes": notes(found),
        "baseline": found.a.letter,
        "images": len(found.pairs),
        "labelled": scores.images if scores else 0,
        "agreement": found.agreement,
        "agreement_interval": agreement.intervals.get("pixel_accuracy") if agreement else None,
        "agreement_miou": agreement.miou if agreement else None,
        "miou": figures[0] if figures else None,
        "convention": found.protocols[0].convention,
        "figures": figures,
        "lines": _rows(class_lines(found)),
        "boundaries": _rows(boundary_lines(found)),
        "slices": _rows(slice_lines(found)),
        "slice_boundaries": _rows(slice_boundary_lines(found)),
        "names": [class_in_words(found, index) for index in range(len(found.grouping.names))],
        "palette": palette_of(found).tolist(),
        "heat": charts.heat_map(confusion) if confusion else None,
        "moves": charts.largest_pairs(confusion.counts[:-1]) if confusion else [],
        "bars": charts.histogram(found.pairs.agreement) if agreement else [],
        "quantiles": charts.quantiles(found.pairs.agreement) if agreement else {},
        "groups": groups,
        "exhibited": classes_in(exhibits),
        "differences": difference_legend(found, exhibits),
    }


def _rows(lines: Iterable[ChangeLine]) -> list[dict[str, Any]]:
    """Return the rows of a table of changes, drawn on one axis; `value` is the number to sort by, None if undefined."""
    lines = list(lines)
    changes = [line.change or Change(np.nan) for line in lines]
    axis = _largest(changes)
    return [_row(line, change, axis) for line, change in zip(lines, changes, strict=True)]


def _row(line: ChangeLine, change: Change, axis: float) -> dict[str, Any]:
    *numbers, span = line.texts
    a, b, difference = ("–" if text in ("", "-") else text for text in numbers)
    undefined = np.isnan(change.value)
    return {
        "name": line.name,
        "a": a,
        "b": b,
        "change": difference,
        "span": span,
        "value": None if undefined else change.value,
        "whisker": None if undefined else _whisker(change, axis),
        "share": None if line.share is None or np.isnan(line.share) else line.share,
        "images": line.images,
        "index": line.index,
    }


def _whisker(change: Change, axis: float) -> dict[str, Any]:
    """Return the places (0-100) of a change and its bounds on an axis; kind `gain` or `loss` where 0 is not within."""

    def place(value: float) -> float:
        return 50 + 50 * min(1.0, max(-1.0, value / axis))

    bounds = change.interval
    if bounds is None:
        return {"at": place(change.value), "low": None, "high": None, "kind": ""}
    kind = "gain" if bounds.low > 0 else "loss" if bounds.high < 0 else ""
    return {"at": place(change.value), "low": place(bounds.low), "high": place(bounds.high), "kind": kind}


def _largest(changes: Sequence[Change]) -> float:
    """Return the largest distance from 0 of any change or bound; 0.01 if all are 0 or undefined."""
    bounds = [abs(value) for one in changes if one.interval for value in (one.interval.low, one.interval.high)]
    values = [abs(one.value) for one in changes if not np.isnan(one.value)]
    return max([*bounds, *values], default=0.0) or 0.01
