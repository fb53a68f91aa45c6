"""The report on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segment.report.aggregate import RunReport
from segment.store import redact_url

_WIDTH = 80  # of a report that is not on a terminal
_BAR = 12


def print_report(report: RunReport, console: Console | None = None) -> None:
    """Print run facts, mIoU by convention, the class table and the first errors."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console = Console(file=console.file, width=_WIDTH, highlight=False)
    console.print(_headline(report))
    if report.is_scored:
        console.print(_conventions(report))
    console.print(_classes(report))
    if report.errors:
        console.print(_errors(report))
    console.print(f"masks: {redact_url(report.output)}/masks/", soft_wrap=True, markup=False)


def percent(share: float | None) -> str:
    """`0.5` becomes `50.00`; None becomes a dash."""
    return "-" if share is None or share != share else f"{100 * share:.2f}"


def facts(report: RunReport) -> list[str]:
    """The run in a few words each."""
    runtime = report.run["contract"]["runtime"]
    images = f"{report.total.images:,} images"
    if report.total.images != report.planned_images:
        images = f"{report.total.images:,} of {report.planned_images:,} images in finished shards"
    words = [images, f"{len(report.shards):,} shards", f"{report.total.errors:,} errors"]
    if report.is_scored:
        words.append(f"{report.total.scored:,} scored")
    words.append(f"{runtime['name']} {runtime['device']} {runtime['precision']}")
    words.append("complete" if report.complete else "not complete")
    return words


def _headline(report: RunReport) -> Text:
    return Text.assemble((report.card.name, "bold"), "  ", " · ".join(facts(report)))


def _conventions(report: RunReport) -> Table:
    table = Table(title="mIoU", title_justify="left", box=None, pad_edge=False)
    table.add_column("convention")
    table.add_column("mIoU %", justify="right")
    table.add_column("")
    own, published = report.card.metric.convention, report.card.metric.published
    for name in report.conventions:
        note = f"the card's own, scored at {report.card.metric.resolution} size" if name == own else ""
        if name == own and published is not None:
            note += f"; published {percent(published)}"
        table.add_row(name, percent(report.miou(name)), note, style="bold" if name == own else "")
    table.add_row("pixel accuracy", percent(report.pixel_accuracy), "")
    return table


def _classes(report: RunReport) -> Table:
    classes, confusion, score = report.card.classes, report.total.confusion, report.score()
    table = Table(title="classes", title_justify="left", box=None, pad_edge=False)
    table.add_column("class", no_wrap=True)
    columns = ["TP", "FP", "FN", "IoU %"] if report.is_scored else ["pixels", "share %"]
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    total = int(confusion.predicted_pixels.sum())
    for index, name in enumerate(classes.names):
        swatch = Text.assemble(("■ ", "rgb({},{},{})".format(*classes.palette[index])), name)
        if index in classes.ignored_classes:
            swatch.append(" (ignored)", style="dim")
        pixels = int(confusion.predicted_pixels[index])
        share = float(score.iou[index]) if report.is_scored else pixels / max(1, total)
        counts = [score.tp[index], score.fp[index], score.fn[index]] if report.is_scored else [pixels]
        table.add_row(swatch, *(f"{int(count):,}" for count in counts), percent(share), _bar(share))
    return table


def _bar(share: float) -> Text:
    filled = 0 if share != share else round(share * _BAR)
    return Text("━" * filled, style="green") + Text("─" * (_BAR - filled), style="dim")


def _errors(report: RunReport) -> Table:
    table = Table(
        title=f"errors (first {len(report.errors)} of {report.total.errors:,})", title_justify="left", box=None
    )
    table.add_column("image", overflow="fold")
    table.add_column("error", overflow="fold")
    for example in report.errors:
        table.add_row(Text(example.id), Text(example.error))
    return table
