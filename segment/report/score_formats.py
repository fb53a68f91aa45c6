"""Scores of a run as text, Markdown, JSON and CSV."""

import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from rich.console import Console

from segment.metrics.bootstrap import LEVEL, bounds_of
from segment.metrics.conventions import BOTH_LEFT_OUT, defined
from segment.report.aggregate import RunReport
from segment.report.console import print_boundary
from segment.report.fitting import print_line, print_rows
from segment.report.markdown import boundary_lines, markdown_table
from segment.report.percents import percent, span
from segment.report.run_score import RunScore
from segment.report.spreadsheet import csv_text
from segment.scores.boundaries import boundary_json, boundary_of_class
from segment.scores.paired import OF_CLASS
from segment.scores.scored import Protocol, Scored
from segment.store.foreign_text import in_markdown
from segment.store.names import count, shown

NAMES = {
    "miou": "mIoU",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "mean_accuracy": "mean accuracy",
    "pixel_accuracy": "pixel accuracy",
    "mean_dice": "mean Dice",
    "kappa": "Cohen's kappa",
}


def figure_name(name: str, protocol: Protocol) -> str:
    """Return the name of a figure; that of Open Model Zoo's pixel accuracy says so, as runs lead with the usual one."""
    is_omz = protocol.convention in BOTH_LEFT_OUT and protocol.grouping.ignored
    return f"{NAMES[name]}, omz" if name == "pixel_accuracy" and is_omz else NAMES[name]


def _figure_row(name: str, scored: Scored, protocol: Protocol) -> list[str]:
    value, bounds = scored.figures[name], scored.intervals.get(name)
    if name == "kappa":  # no share
        shown_bounds = f"{bounds.low:.3f} to {bounds.high:.3f}" if bounds else ""
        return [figure_name(name, protocol), "-" if math.isnan(value) else f"{value:.4f}", shown_bounds]
    return [f"{figure_name(name, protocol)} %", percent(value), span(bounds)]


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
    head = ["class", "IoU", "95 % interval", "Dice", "prec.", "recall", "label", "pred."]
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
    return {
        **run_json(found.report),
        "convention": found.protocol.convention,
        "scored_at": found.report.run["scored_at"],
        "resamples": found.asked.resamples,
        "seed": found.asked.seed if found.asked.resamples else None,
        "level": LEVEL if found.asked.resamples else None,
        "unit": found.units,
        "notes": found.notes,
        **_json_of(found, found.overall),
        "slices": {value: {"images": one.images, **_json_of(found, one)} for value, one in found.slices.items()},
    }


def run_json(report: RunReport) -> dict[str, Any]:
    """Return what run is scored, and how much of it there is, as plain JSON."""
    return {
        "output": shown(report.output),
        "model": report.card.name,
        "fingerprint": report.run["fingerprint"],
        "images": report.total.images,
        "planned_images": report.planned_images,
        "errors": report.total.errors,
        "complete": report.complete,
    }


def to_csv(found: RunScore) -> str:
    """Return a row for each class, overall and of each slice: shares 0-1, undefined values empty."""
    everything: list[tuple[str, Scored]] = [("", found.overall), *found.slices.items()]
    rows = [{"slice": value, **row} for value, scored in everything for row in _class_records(found, scored)]
    names = [name for name in rows[0] if found.slices or name != "slice"]
    return csv_text(names, ([row[name] for name in names] for row in rows))


def _json_of(found: RunScore, scored: Scored) -> dict[str, Any]:
    figures = {
        name: {"value": defined(value), "interval": bounds_of(scored.intervals.get(name))}
        for name, value in scored.figures.items()
    }
    names, boundary = found.protocol.grouping.names, scored.boundary
    return {
        "scored_units": scored.units or None,
        "scores": figures,
        "classes": _class_records(found, scored),
    } | ({"boundary": boundary_json(boundary, names)} if boundary else {})


def _class_records(found: RunScore, scored: Scored) -> list[dict[str, Any]]:
    return class_records(found.protocol.grouping.names, found.protocol.grouping.ignored, scored)


def class_records(names: Sequence[str], ignored: Collection[int], scored: Scored) -> list[dict[str, Any]]:
    """Return what is known of each class: scores and shares 0-1, None where undefined; counts of pixels."""
    score = scored.score
    labels, predictions = scored.confusion.label_pixels, scored.confusion.predicted_pixels
    records = []
    for index, name in enumerate(names):
        bounds = scored.class_intervals[index] if scored.class_intervals else None
        record: dict[str, Any] = {
            "class": name,
            "ignored": index in ignored,
            **{kind: defined(getattr(score, kind)[index]) for kind in OF_CLASS},
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
        }
        records.append(record | (boundary_of_class(scored.boundary, index) if scored.boundary else {}))
    return records


def _share(pixels: np.ndarray[Any, np.dtype[np.int64]], index: int) -> float | None:
    total = int(pixels.sum())
    return int(pixels[index]) / total if total else None


def _interval_title(found: RunScore) -> str:
    return f"95 % interval, of {count(found.overall.units, found.units[:-1])}" if found.overall.intervals else ""


def _figure_rows(found: RunScore) -> list[list[str]]:
    return [_figure_row(name, found.overall, found.protocol) for name in found.overall.figures]


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
         percent(one.figures["pixel_accuracy"]),
         *([percent(one.boundary.mean), span(one.boundary.interval)] if one.boundary else ["", ""])]
        for value, one in found.slices.items()
    ]  # fmt: skip
