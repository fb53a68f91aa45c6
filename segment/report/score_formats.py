"""Scores of a run as text, Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.console import Console

from segment.metrics.bootstrap import LEVEL, Interval
from segment.report.console import print_boundary
from segment.report.fitting import print_line, print_rows
from segment.report.markdown import boundary_lines
from segment.report.percents import percent, span
from segment.report.run_score import RunScore
from segment.scores.boundaries import boundary_json, boundary_of_class
from segment.scores.paired import OF_CLASS
from segment.scores.scored import Scored
from segment.store.foreign_text import in_cell, in_markdown
from segment.store.names import count, shown

NAMES = {
    "miou": "mIoU",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "mean_accuracy": "mean accuracy",
    "pixel_accuracy": "pixel accuracy",
    "mean_dice": "mean Dice",
    "kappa": "Cohen's kappa",
}


def _figure_row(name: str, scored: Scored) -> list[str]:
    value, bounds = scored.figures[name], scored.intervals.get(name)
    if name == "kappa":  # no share
        shown_bounds = f"{bounds.low:.3f} to {bounds.high:.3f}" if bounds else ""
        return [NAMES[name], "-" if math.isnan(value) else f"{value:.4f}", shown_bounds]
    return [f"{NAMES[name]} %", percent(value), span(bounds)]


def headline(found: RunScore) -> str:
    """Return what is scored, in one line: the model, the images, the convention."""
    report = found.report
    images = report.choice or count(report.total.images, "image")
    if not report.is_whole:
        images = f"{report.total.images:,} of {report.planned_in_words} images so far"
    return f"{report.card.name}: {images}, by the {found.protocol.convention} convention"


def print_score(found: RunScore, console: Console) -> None:
    """Print scores as tables that fit 80 columns."""
    print_line(console, headline(found), style="bold")
    for note in found.notes:
        print_line(console, note, style="dim")
    console.print()
    print_rows(console, [["", "", _interval_title(found)], *_figure_rows(found)])
    console.print()
    head = ["class", "IoU", "95 % of it", "Dice", "prec.", "recall", "label", "pred."]
    rows = [[name, *values] for name, values in _class_rows(found)]
    print_rows(console, [head, *rows], title="classes, in %")
    if found.overall.boundary:
        console.print()
        print_boundary(found.overall.boundary, found.protocol.grouping.names, console)
    if found.slices:
        console.print()
        print_rows(console, [_SLICE_HEAD, *_slice_rows(found)], title="slices")


def to_markdown(found: RunScore) -> str:
    """Return scores as tables of Markdown."""
    blocks = [f"# {in_markdown(headline(found))}", "\n".join(f"- {in_markdown(note)}" for note in found.notes)]
    blocks.append(markdown_table([["score", "value", _interval_title(found)], *_figure_rows(found)]))
    head = ["class", "IoU %", "95 % interval", "Dice %", "precision %", "recall %", "label %", "prediction %"]
    blocks.append(markdown_table([head, *([name, *values] for name, values in _class_rows(found))]))
    if found.overall.boundary:
        blocks.append(boundary_lines(found.overall.boundary, found.protocol.grouping.names))
    if found.slices:
        blocks.append(markdown_table([_SLICE_HEAD, *_slice_rows(found)]))
    return "\n\n".join(block for block in blocks if block) + "\n"


def to_json(found: RunScore) -> dict[str, Any]:
    """Return scores as plain JSON; shares are 0-1, undefined ones None."""
    report = found.report
    return {
        "output": shown(report.output),
        "model": report.card.name,
        "fingerprint": report.run["fingerprint"],
        "images": report.total.images,
        "planned_images": report.planned_images,
        "errors": report.total.errors,
        "complete": report.complete,
        "convention": found.protocol.convention,
        "scored_at": report.run["scored_at"],
        "resamples": found.resamples,
        "seed": found.seed if found.resamples else None,
        "level": LEVEL if found.resamples else None,
        "unit": found.units,
        "notes": found.notes,
        **_json_of(found, found.overall),
        "slices": {value: _json_of(found, one) for value, one in found.slices.items()},
    }


def to_csv(found: RunScore) -> str:
    """Return a row for each class, overall and of each slice: shares 0-1, undefined values empty (RFC 4180)."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    everything: list[tuple[str, Scored]] = [("", found.overall), *found.slices.items()]
    rows = [{"slice": value, **row} for value, scored in everything for row in _class_records(found, scored)]
    names = [name for name in rows[0] if found.slices or name != "slice"]
    writer.writerow(names)
    writer.writerows([in_cell(row[name]) for name in names] for row in rows)
    return buffer.getvalue()


def _json_of(found: RunScore, scored: Scored) -> dict[str, Any]:
    figures = {
        name: {"value": defined(value), "interval": bounds_of(scored.intervals.get(name))}
        for name, value in scored.figures.items()
    }
    names, boundary = found.protocol.grouping.names, scored.boundary
    return {
        "scored_units": scored.units or None,
        "scores": figures,
        "classes": list(_class_records(found, scored)),
    } | ({"boundary": boundary_json(boundary, names)} if boundary else {})


def _class_records(found: RunScore, scored: Scored) -> Iterator[dict[str, Any]]:
    grouping, score = found.protocol.grouping, scored.score
    labels, predictions = scored.confusion.label_pixels, scored.confusion.predicted_pixels
    for index, name in enumerate(grouping.names):
        bounds = scored.class_intervals[index] if scored.class_intervals else None
        yield {
            "class": name,
            "ignored": index in grouping.ignored,
            **{kind: defined(float(getattr(score, kind)[index])) for kind in OF_CLASS},
            "iou_low": bounds.low if bounds else None,
            "iou_high": bounds.high if bounds else None,
            "resamples_without_label": scored.unlabelled[index] if scored.unlabelled else None,
            "tp": int(score.tp[index]),
            "fp": int(score.fp[index]),
            "fn": int(score.fn[index]),
            "label_pixels": int(labels[index]),
            "predicted_pixels": int(predictions[index]),
            "label_share": _share(labels, index),
            "predicted_share": _share(predictions, index),
        } | (boundary_of_class(scored.boundary, index) if scored.boundary else {})


def _share(pixels: np.ndarray[Any, np.dtype[np.int64]], index: int) -> float | None:
    total = int(pixels.sum())
    return int(pixels[index]) / total if total else None


def defined(value: float) -> float | None:
    """Return a number, and None in place of NaN, which JSON lacks."""
    return None if math.isnan(value) else value


def bounds_of(interval: Interval | None) -> list[float] | None:
    """Return the bounds of an interval as a list; None for None."""
    return [interval.low, interval.high] if interval else None


def _interval_title(found: RunScore) -> str:
    return f"95 % interval, of {count(found.overall.units, found.units[:-1])}" if found.overall.intervals else ""


def _figure_rows(found: RunScore) -> list[list[str]]:
    return [_figure_row(name, found.overall) for name in found.overall.figures]


def _class_rows(found: RunScore) -> Iterator[tuple[str, list[str]]]:
    chosen = found.protocol.grouping.chosen
    for index, row in enumerate(_class_records(found, found.overall)):
        if chosen is not None and index not in chosen:
            continue
        bounds = found.overall.class_intervals[index] if found.overall.class_intervals else None
        values = [percent(row[kind]) for kind in OF_CLASS]
        shares = [percent(row["label_share"]), percent(row["predicted_share"])]
        name = f"{row['class']}{' (ignored)' if row['ignored'] else ''}"
        yield shown(name), [values[0], span(bounds), *values[1:], *shares]


_SLICE_HEAD = ["slice", "images", "mIoU %", "95 % interval", "pixel acc. %", "boundary %", "95 % of it"]


def _slice_rows(found: RunScore) -> list[list[str]]:
    return [
        [shown(value), f"{one.images:,}", percent(one.miou), span(one.intervals.get("miou")),
         percent(one.figures["pixel_accuracy"]), *_boundary_cells(one)]
        for value, one in found.slices.items()
    ]  # fmt: skip


def _boundary_cells(one: Scored) -> list[str]:
    """Return mean boundary IoU and its interval; empty in a run without, so that there are no such columns."""
    return [percent(one.boundary.mean), span(one.boundary.interval)] if one.boundary else ["", ""]


def markdown_table(rows: list[list[str]]) -> str:
    """Return rows, the first of which is the head, as a table of Markdown, without columns that are empty."""
    kept = [i for i in range(len(rows[0])) if i == 0 or any(row[i] for row in rows[1:])]
    lines = [[in_markdown(row[i]) for i in kept] for row in rows]
    lines.insert(1, ["---:" if i else "---" for i in range(len(kept))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
