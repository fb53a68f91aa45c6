"""A comparison of runs as text, Markdown, JSON and CSV."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console

from segment.metrics.bootstrap import LEVEL, bounds_of
from segment.metrics.conventions import defined
from segment.report.comparison.change_lines import (
    ChangeLine,
    boundary_lines,
    class_lines,
    figure_lines,
    slice_boundary_lines,
    slice_lines,
)
from segment.report.comparison.comparison_notes import all_notes, notes, run_in_words
from segment.report.fitting import print_line, print_rows
from segment.report.markdown import markdown_table
from segment.report.percents import percent, points, points_span
from segment.report.score_formats import run_json
from segment.report.spreadsheet import csv_text
from segment.scores.compared import ComparedImages
from segment.scores.paired import OF_CLASS, Change
from segment.scores.scored import Scored
from segment.store.foreign_text import in_markdown
from segment.store.names import count, shown

if TYPE_CHECKING:
    from segment.report.comparison.comparing import Against, RunComparison
    from segment.report.comparison.gate import Verdict

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
    verb = "does" if changed == 1 else "do"
    return f"{percent(agreement.figures['pixel_accuracy'])} % of the pixels agree, {changed:,} {verb} not"


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
        for title, rows in _tables(one):
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
        for title, rows in _tables(one):
            blocks += [f"### {title}"] * bool(title) + [markdown_table(rows)]
        blocks.append("\n".join(f"- {title}: {in_markdown(', '.join(lines))}" for title, lines in _extremes(one)))
    return "\n\n".join(["# Comparison of runs", *filter(None, blocks)]) + "\n"


def _overview(found: RunComparison) -> list[list[str]]:
    rows = [["run", "images", "agree %", "mIoU A", "mIoU", "change", "95 % interval"]]
    for one in found.against:
        miou, agree = next(figure_lines(one), ChangeLine("mIoU")), one.agreement
        rows.append([one.b.letter, f"{len(one.pairs):,}", "" if agree is None else percent(agree), *miou.texts])
    return rows


def _tables(found: Against) -> Iterator[tuple[str, list[list[str]]]]:
    """Return title and rows, the first of which is the head, of each table that has rows."""
    a, b = found.a.letter, found.b.letter
    changes = [a, b, "change", "95 % interval"]
    tables = {
        "": (["", *changes], [[f"{line.name}{' %' * line.is_share}", *line.texts] for line in figure_lines(found)]),
        "classes, IoU in %": (
            ["class", "IoU of masks", *changes],
            [[line.name, line.agreement, *line.texts] for line in class_lines(found)],
        ),
        "classes, boundary IoU in %": (
            ["class", *changes],
            [[line.name, *line.texts] for line in boundary_lines(found)],
        ),
        "slices": (
            ["slice", "images", "agree %", f"mIoU {a}", *changes[1:]],
            [[line.name, f"{line.images:,}", line.agreement, *line.texts] for line in slice_lines(found)],
        ),
        "slices, mean boundary IoU in %": (
            ["slice", "images", *changes],
            [[line.name, f"{line.images:,}", *line.texts] for line in slice_boundary_lines(found)],
        ),
    }
    return ((title, [head, *rows]) for title, (head, rows) in tables.items() if rows)


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
        "runs": {
            run.letter: run_json(run.report) | {"runtime": run.report.run["contract"]["runtime"]} for run in found.runs
        },
        "level": LEVEL,
        "against": {one.b.letter: _against_json(one) for one in found.against},
        "verdicts": [{"passed": verdict.passed, "words": verdict.words} for verdict in decided],
    }


def _against_json(found: Against) -> dict[str, Any]:
    matches, scores = found.matches, found.overall.scores
    return {
        "baseline": found.a.letter,
        "convention": found.protocols[0].convention if scores else None,
        "resamples": found.asked.resamples,
        "seed": found.asked.seed if found.asked.resamples else None,
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
        row["agreement_iou"] = defined(one.agreement.score.iou[index]) if one.agreement else None
        for kind in OF_CLASS:
            change = one.scores.class_changes[kind][index] if one.scores else None
            for side, scored in (("a", one.scores.a), ("b", one.scores.b)) if one.scores else ():
                row[f"{kind}_{side}"] = defined(getattr(scored.score, kind)[index])
            row |= _change_columns(kind, change)
        if boundary := one.scores and one.scores.boundary:
            for side, scored_boundary in (("a", boundary.a), ("b", boundary.b)):
                row[f"boundary_iou_{side}"] = defined(scored_boundary.score.iou[index])
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
    """Return a row for each run, slice and class: shares and changes of 1, undefined values empty."""
    rows = [
        {"run": one.b.letter, "slice": value, **row}
        for one in found.against
        for value, images in [("", one.overall), *one.slices.items()]
        for row in _class_records(one, images)
    ]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return csv_text(names, ([row.get(name) for name in names] for row in rows))
