"""A comparison of runs as text, Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console

from segment.metrics.bootstrap import LEVEL
from segment.metrics.boundary import BoundaryScore
from segment.report.comparison.comparison_notes import all_notes, notes, run_in_words
from segment.report.comparison.points import figure_texts, points, points_span
from segment.report.fitting import print_line, print_rows
from segment.report.percents import percent
from segment.report.score_formats import NAMES, bounds_of, defined, markdown_table
from segment.scores.compared import ComparedImages
from segment.scores.paired import OF_CLASS, Change, PairedBoundaries, PairedScores
from segment.scores.scored import Scored
from segment.store.foreign_text import in_cell, in_markdown
from segment.store.names import count, shown

if TYPE_CHECKING:
    from segment.report.comparison.comparing import Against, ComparedRun, RunComparison
    from segment.report.comparison.gate import Verdict

BOUNDARY = "mean boundary IoU"
_NAMED = 5  # images of each kind that text and Markdown name
_EXTREME = 20  # images of each kind in JSON


def headline(found: Against) -> str:
    """Return the outcome in one line: agreement, and change of the mIoU."""
    parts = [count(len(found.pairs), "image")]
    if found.overall.agreement is not None:
        parts.append(agreement_in_words(found.overall.agreement))
    if found.overall.scores is not None:
        change = found.overall.scores.changes["miou"]
        span = f" ({points_span(change.interval)})" if change.interval else ""
        parts.append(f"mIoU {points(change)} points{span}")
    return f"{found.b.letter} against {found.a.letter}: {', '.join(parts)}"


def agreement_in_words(agreement: Scored) -> str:
    """Return the share of pixels that agree, and how many do not, which a rounded share may hide."""
    counts = agreement.confusion.counts
    changed = int(counts.sum() - counts.trace())
    if not changed:
        return "every pixel agrees"
    return f"{percent(agreement.figures['pixel_accuracy'])} % of the pixels agree, {changed:,} do not"


def print_comparison(found: RunComparison, console: Console) -> None:
    """Print a comparison as tables that fit 80 columns."""
    for run in found.runs:
        print_line(console, f"{run.letter}  {run_in_words(run)}")
    for note in all_notes(found):
        print_line(console, note, style="dim")
    if len(found.against) > 1:
        console.print()
        print_rows(console, _overview(found), title="all against A")
    for one in found.against:
        console.print()
        print_line(console, headline(one), style="bold")
        for title, rows in _tables(one, short=True):
            console.print()
            print_rows(console, rows, title=title)
        extremes = list(_extremes(one))
        if extremes:
            console.print()
        for title, lines in extremes:
            print_line(console, f"{title}: {', '.join(lines)}")


def to_markdown(found: RunComparison) -> str:
    """Return a comparison as Markdown."""
    blocks = ["\n".join(f"- **{run.letter}**: {in_markdown(run_in_words(run))}" for run in found.runs)]
    blocks.append("\n".join(f"- {in_markdown(note)}" for note in all_notes(found)))
    if len(found.against) > 1:
        blocks.append(markdown_table(_overview(found)))
    for one in found.against:
        blocks.append(f"## {in_markdown(headline(one))}")
        for title, rows in _tables(one, short=False):
            blocks += [f"### {title}"] * bool(title) + [markdown_table(rows)]
        blocks.append("\n".join(f"- {title}: {in_markdown(', '.join(lines))}" for title, lines in _extremes(one)))
    return "\n\n".join(["# Comparison of runs", *filter(None, blocks)]) + "\n"


def _overview(found: RunComparison) -> list[list[str]]:
    rows = [["run", "images", "agree %", "mIoU A", "mIoU", "change", "95 % of it"]]
    for one in found.against:
        scores = one.overall.scores
        change = scores.changes["miou"] if scores else Change(math.nan)
        values = [percent(scores.a.miou), percent(scores.b.miou)] if scores else ["", ""]
        agree = "" if one.agreement is None else percent(one.agreement)
        span = points_span(change.interval)
        rows.append([one.b.letter, f"{len(one.pairs):,}", agree, *values, points(change) if scores else "", span])
    return rows


def _tables(found: Against, *, short: bool) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield title and rows, the first of which is the head, of each table."""
    a, b = found.a.letter, found.b.letter
    interval = "95 % of it" if short else "95 % interval"
    if found.overall.scores is not None:
        yield "", [["", a, b, "change", interval], *_figure_rows(found.overall.scores)]
    head = ["class", "agree", a, b, "change", interval]
    yield "classes, IoU in %", [head, *_class_rows(found)]
    if found.overall.scores is not None and found.overall.scores.boundary:
        head = ["class", a, b, "change", interval]
        yield "classes, boundary IoU in %", [head, *_boundary_rows(found, found.overall.scores.boundary)]
    if found.slices:
        head = ["slice", "images", "agree %", f"mIoU {a}", b, "change", interval]
        yield "slices", [head, *_slice_rows(found)]


def _figure_rows(scores: PairedScores) -> Iterator[list[str]]:
    for name, change in scores.changes.items():
        is_share = name != "kappa"
        texts = figure_texts(scores.a.figures[name], scores.b.figures[name], change, is_share=is_share)
        yield [f"{NAMES[name]} %" if is_share else NAMES[name], *texts]
    if boundary := scores.boundary:
        yield [f"{BOUNDARY} %", *figure_texts(mean_of(boundary.a), mean_of(boundary.b), boundary.change)]


def mean_of(boundary: BoundaryScore) -> float:
    """Return the mean boundary IoU, 0-1; NaN if no class has a boundary."""
    return math.nan if boundary.mean is None else boundary.mean


def _boundary_rows(found: Against, boundary: PairedBoundaries) -> Iterator[list[str]]:
    values = zip(boundary.a.score.iou.tolist(), boundary.b.score.iou.tolist(), boundary.class_changes, strict=True)
    for index, (a, b, change) in enumerate(values):
        yield [class_in_words(found, index), *figure_texts(a, b, change)]


def _class_rows(found: Against) -> Iterator[list[str]]:
    scores, agreement = found.overall.scores, found.overall.agreement
    for index in range(len(found.grouping.names)):
        row = [class_in_words(found, index), percent(float(agreement.score.iou[index])) if agreement else ""]
        if scores is not None:
            change = scores.class_changes["iou"][index]
            row += [percent(float(one.score.iou[index])) for one in (scores.a, scores.b)]
            row += [points(change), points_span(change.interval)]
        yield row + [""] * (6 - len(row))


def class_in_words(found: Against, index: int) -> str:
    """Return the name of a class, and whether it is ignored, or which run alone has it."""
    in_a, in_b = (index in protocol.grouping.of_class for protocol in found.protocols)
    mark = " (ignored)" if index in found.grouping.ignored else ""
    if in_a != in_b:
        mark = f" (only {found.a.letter if in_a else found.b.letter})"
    return f"{shown(found.grouping.names[index])}{mark}"


def _slice_rows(found: Against) -> Iterator[list[str]]:
    for value, one in found.slices.items():
        row = [
            shown(value),
            f"{one.images:,}",
            percent(one.agreement.figures["pixel_accuracy"]) if one.agreement else "",
        ]
        if one.scores is not None:
            change = one.scores.changes["miou"]
            row += [
                percent(one.scores.a.miou),
                percent(one.scores.b.miou),
                points(change),
                points_span(change.interval),
            ]
        yield row + [""] * (7 - len(row))


def _extremes(found: Against) -> Iterator[tuple[str, list[str]]]:
    """Yield what images changed, lost and gained most."""
    for title, chosen in (
        ("changed most", found.changed_most(_NAMED)),
        ("lost most", found.lost_most(_NAMED)),
        ("gained most", found.gained_most(_NAMED)),
    ):
        if not chosen:
            continue
        rows = found.images(chosen).to_pylist()
        if title == "changed most":
            yield title, [f"{shown(row['id'])} ({percent(row['agreement'])} % agree)" for row in rows]
        else:
            yield title, [f"{shown(row['id'])} ({100 * row['change']:+.2f})" for row in rows]


# --- for programs ----------------------------------------------------------------------------------------------------


def to_json(found: RunComparison, decided: list[Verdict]) -> dict[str, Any]:
    """Return a comparison as plain JSON; shares and changes are of 1, undefined ones None."""
    return {
        "runs": {run.letter: _run_json(run) for run in found.runs},
        "level": LEVEL,
        "against": {one.b.letter: _against_json(one) for one in found.against},
        "verdicts": [{"passed": verdict.passed, "words": verdict.words} for verdict in decided],
    }


def _run_json(run: ComparedRun) -> dict[str, Any]:
    report = run.report
    return {
        "output": shown(report.output),
        "model": report.card.name,
        "fingerprint": report.run["fingerprint"],
        "runtime": report.run["contract"]["runtime"],
        "images": report.total.images,
        "planned_images": report.planned_images,
        "errors": report.total.errors,
        "complete": report.complete,
    }


def _against_json(found: Against) -> dict[str, Any]:
    matches, scores = found.matches, found.overall.scores
    return {
        "baseline": found.a.letter,
        "convention": found.protocols[0].convention if scores else None,
        "resamples": found.resamples,
        "seed": found.seed if found.resamples else None,
        "unit": found.units,
        "only_in_a": matches.only_a,
        "only_in_b": matches.only_b,
        "errors_in_a": matches.failed_a,
        "errors_in_b": matches.failed_b,
        "of_another_size": found.pairs.read.other_size,
        "metadata": {
            name: dict(zip(("differs", "missing_in_a", "missing_in_b"), numbers.tolist(), strict=True))
            for name, numbers in found.pairs.read.meta.items()
        },
        "matched_by_shard": matches.by_shard,
        "notes": notes(found),
        **_images_json(found, found.overall),
        "slices": {value: _images_json(found, one) for value, one in found.slices.items()},
        "changed_most": _images_of(found, found.changed_most(_EXTREME)),
        "lost_most": _images_of(found, found.lost_most(_EXTREME)),
        "gained_most": _images_of(found, found.gained_most(_EXTREME)),
    }


def _images_json(found: Against, one: ComparedImages) -> dict[str, Any]:
    agreement, scores = one.agreement, one.scores
    return {
        "images": one.images,
        "labelled_in_both": scores.images if scores else 0,
        "agreement": agreement and {
            "pixels": defined(agreement.figures["pixel_accuracy"]),
            "interval": bounds_of(agreement.intervals.get("pixel_accuracy")),
            "miou": defined(agreement.figures["miou"]),
            "confusion": agreement.confusion.counts[:-1].tolist(),
        },
        "scores": scores and {
            name: {"a": defined(scores.a.figures[name]), "b": defined(scores.b.figures[name]), **_change_json(change)}
            for name, change in scores.changes.items()
        },
        "boundary": scores and scores.boundary and {
            "fraction": scores.boundary.a.fraction,
            "a": scores.boundary.a.mean,
            "b": scores.boundary.b.mean,
            **_change_json(scores.boundary.change),
        },
        "classes": list(_class_records(found, one)),
    }  # fmt: skip


def _change_json(change: Change) -> dict[str, Any]:
    return {"change": defined(change.value), "interval": bounds_of(change.interval)}


def _images_of(found: Against, images: list[int]) -> list[dict[str, Any]]:
    return list(found.images(images).to_pylist()) if images else []


def _class_records(found: Against, one: ComparedImages) -> Iterator[dict[str, Any]]:
    for index, name in enumerate(found.grouping.names):
        row: dict[str, Any] = {"class": name, "ignored": index in found.grouping.ignored}
        row["agreement_iou"] = defined(float(one.agreement.score.iou[index])) if one.agreement else None
        for kind in OF_CLASS:
            change = one.scores.class_changes[kind][index] if one.scores else None
            for side, scored in (("a", one.scores.a), ("b", one.scores.b)) if one.scores else ():
                row[f"{kind}_{side}"] = defined(float(getattr(scored.score, kind)[index]))
            row |= _change_columns(kind, change)
        if boundary := one.scores and one.scores.boundary:
            for side, scored_boundary in (("a", boundary.a), ("b", boundary.b)):
                row[f"boundary_iou_{side}"] = defined(float(scored_boundary.score.iou[index]))
            row |= _change_columns("boundary_iou", boundary.class_changes[index])
        yield row


def _change_columns(kind: str, change: Change | None) -> dict[str, float | None]:
    bounds = change.interval if change else None
    return {
        f"{kind}_change": defined(change.value) if change else None,
        f"{kind}_change_low": bounds.low if bounds else None,
        f"{kind}_change_high": bounds.high if bounds else None,
    }


def to_csv(found: RunComparison) -> str:
    """Return a row for each run, slice and class: shares and changes of 1, undefined values empty (RFC 4180)."""
    rows = [
        {"run": one.b.letter, "slice": value, **row}
        for one in found.against
        for value, images in [("", one.overall), *one.slices.items()]
        for row in _class_records(one, images)
    ]
    names = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(names)
    writer.writerows([in_cell(row.get(name)) for name in names] for row in rows)
    return buffer.getvalue()
