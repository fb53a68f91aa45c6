"""The report on a terminal."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segment.inputs.findings import by_reason, choice_in_words
from segment.output.attempts import read_attempts
from segment.output.audit import Audit
from segment.output.ledger import Ledger
from segment.output.remarks import remark_lines
from segment.report.aggregate import RunReport
from segment.store.names import count, shown

_WIDTH = 80  # of a report that is not on a terminal
_BAR = 12
_UNITS = ((1, "pixels"), (10**3, "thousand pixels"), (10**6, "million pixels"), (10**9, "billion pixels"))
_MOST = 10**8 - 1  # three columns of `99,999,999` leave room for a class name and a bar within 80 characters


class _Glyphs(NamedTuple):
    """Characters that a report is drawn with."""

    swatch: str
    full: str
    empty: str
    between: str


_DRAWN, _ASCII = _Glyphs("■", "━", "─", "·"), _Glyphs("#", "=", "-", "|")


def print_report(report: RunReport, console: Console | None = None) -> None:
    """Print run facts, warnings, mIoU by convention, the class table and the first errors."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        columns = os.environ.get("COLUMNS", "")
        console = Console(file=console.file, width=int(columns) if columns.isdecimal() else _WIDTH, highlight=False)
    glyphs = _ASCII if console.options.ascii_only else _DRAWN
    console.print(_headline(report, glyphs))
    if report.warnings:
        console.print(warnings_table(report.warnings))
    if report.is_scored:
        console.print(_conventions(report))
        if report.published:
            console.print(str(report.published), style="dim", markup=False)
    console.print(_classes(report, glyphs))
    if report.errors:
        console.print(_errors(report))
    console.print(f"masks: {shown(report.output)}/masks/", soft_wrap=True, markup=False)


def percent(share: float | None) -> str:
    """`0.5` becomes `50.00`; None becomes a dash."""
    return "-" if share is None or share != share else f"{100 * share:.2f}"


def facts(report: RunReport) -> list[str]:
    """The run in a few words each."""
    runtime = report.run["contract"]["runtime"]
    images, shards = report.choice or count(report.total.images, "image"), count(report.planned_shards, "shard")
    if not report.is_whole:
        chosen = f" ({report.choice})" if report.choice else ""
        images = f"{report.total.images:,} of {report.planned_images:,} images so far{chosen}"
        shards = f"{report.finished_shards:,} of {shards} finished"
    words = [images, shards, count(report.total.errors, "error")]
    if report.is_scored:
        words.append(f"{report.total.scored:,} scored")
    words.append(f"{runtime['name']} {runtime['device']} {runtime['precision']}")
    words.append("complete" if report.complete else "not complete")
    return words


def warnings_table(lines: Iterable[str]) -> Table:
    """Lay out what one should know before one believes the figures: one warning below the other, folded."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(style="yellow", no_wrap=True)
    table.add_column(overflow="fold")
    for line in lines:
        table.add_row("warning:", Text(line))
    return table


def _headline(report: RunReport, glyphs: _Glyphs) -> Text:
    return Text.assemble((report.card.name, "bold"), "  ", f" {glyphs.between} ".join(facts(report)))


def _conventions(report: RunReport) -> Table:
    table = Table(title="mIoU", title_justify="left", box=None, pad_edge=False)
    table.add_column("convention")
    table.add_column("mIoU %", justify="right")
    table.add_column("")
    own, published = report.card.metric.convention, report.published
    for name in report.conventions:
        note = f"the card's own, scored at {report.card.metric.resolution} size" if name == own else ""
        if name == own and published and published.agrees:
            note += f"; published {percent(published.published.miou)}"
        table.add_row(name, percent(report.miou(name)), note, style="bold" if name == own else "")
    table.add_row("pixel accuracy", percent(report.pixel_accuracy), "")
    return table


def _classes(report: RunReport, glyphs: _Glyphs) -> Table:
    """Counts are rounded to a unit in which they fit; Markdown, JSON and Parquet have every digit."""
    classes, confusion, score = report.card.classes, report.total.confusion, report.score()
    pixels, total = confusion.predicted_pixels, int(confusion.predicted_pixels.sum())
    counts = {"TP": score.tp, "FP": score.fp, "FN": score.fn} if report.is_scored else {"pixels": pixels}
    shares = score.iou if report.is_scored else pixels / max(1, total)
    largest = max(int(column.max()) for column in counts.values())
    unit, name = next((u for u in _UNITS if largest / u[0] <= _MOST), _UNITS[-1])
    title = f"classes, in {name}" if report.is_scored or unit > 1 else "classes"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("class", overflow="fold")
    for column in (*counts, "IoU %" if report.is_scored else "share %"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for index, class_name in enumerate(classes.names):
        swatch = Text.assemble(
            (f"{glyphs.swatch} ", "rgb({},{},{})".format(*classes.palette[index])), shown(class_name)
        )
        if index in classes.ignored_classes:
            swatch.append(" (ignored)", style="dim")
        share = float(shares[index])
        numbers = (f"{round(int(column[index]) / unit):,}" for column in counts.values())
        table.add_row(swatch, *numbers, percent(share), _bar(share, glyphs))
    return table


def _bar(share: float, glyphs: _Glyphs) -> Text:
    filled = 0 if share != share else round(share * _BAR)
    return Text(glyphs.full * filled, style="green") + Text(glyphs.empty * (_BAR - filled), style="dim")


def _errors(report: RunReport) -> Table:
    table = Table(
        title=f"errors (first {len(report.errors)} of {report.total.errors:,})", title_justify="left", box=None
    )
    table.add_column("image", overflow="fold")
    table.add_column("error", overflow="fold")
    for example in report.errors:
        table.add_row(Text(shown(example.id)), Text(example.error))
    return table


def print_audit(audit: Audit, console: Console | None = None) -> None:
    """Print an audit's totals, what is to be done and what is wrong."""
    console = console or Console(highlight=False)
    for line in audit_lines(audit):
        console.print(line, soft_wrap=True, markup=False)


def audit_lines(audit: Audit) -> list[str]:
    """Describe an audit: what is left out, to be done, wrong, the verdict with its totals, what was read."""
    numbers = {"image": audit.images, "part": audit.parts, "shard": audit.shards, "error row": audit.errors}
    totals = ", ".join(count(number, noun) for noun, number in numbers.items())
    lines = [f"warning: {item}" for item in audit.left_out if item.matters]
    lines += [audit.unfinished] if audit.unfinished else []
    lines += [f"wrong: {line}" for line in audit.wrong]
    if audit.wrong:
        lines.append(f"the audit found {count(audit.faults, 'problem')} ({totals})")
    elif audit.unfinished and audit.images:
        lines.append(f"so far {totals}: every image that is done has exactly one row")
    elif audit.unfinished:
        lines.append("nothing is done yet")
    else:
        lines.append(f"{totals}: every planned image has exactly one row, and the statistics are the sum of the rows")
    if audit.read:
        files, rows = count(audit.read.files, "masks file"), count(audit.read.rows, "row")
        lines.append(f"read {files}, {rows}, {count(audit.read.bytes, 'byte')}, and checked their checksums")
        if audit.read.unseen:
            gone = "of Parquet files that are gone, changed or damaged: their ids were not compared with the input"
            lines.append(f"{count(audit.read.unseen, 'row')} {gone}")
    return lines


def print_status(ledger: Ledger, console: Console | None = None) -> None:
    """Print how far a run is."""
    console = console or Console(highlight=False)
    run, plan = ledger.read_begun()
    committed = ledger.committed(plan)
    left = plan.without(committed)
    shards = len(plan.parts_by_shard())
    finished = len(ledger.finished_shards())
    done = plan.images - left.images
    state = "complete" if ledger.is_complete() else "not complete"
    if not len(left) and not ledger.is_complete():
        state = "all committed, not complete: the same `segment run` ends it, or says why it fails"
    chosen = choice_in_words(plan.images, plan.left_out)
    console.print(f"{run['card']['name']}{f' ({chosen})' if chosen else ''}: {state}", markup=False)
    if left_out := [str(item) for item in by_reason(plan.left_out) if item.matters]:
        console.print(warnings_table(left_out))
    console.print(f"{done:,} of {plan.images:,} images committed ({100 * done / max(1, plan.images):.1f} %)")
    console.print(f"{len(plan) - len(left):,} of {len(plan):,} parts, {finished:,} of {shards:,} shards finished")
    attempts = read_attempts(ledger)
    if attempts.number:
        console.print(f"{count(attempts.number, 'attempt')}, {attempts.ended:,} of them ended")
    if attempts.retries:
        kinds = ", ".join(f"{number:,} to {kind}" for kind, number in sorted(attempts.retries.items()))
        console.print(f"{count(attempts.retries.total(), 'request')} to stores repeated: {kinds}")
    for line in remark_lines(attempts.remarks):
        console.print(f"noticed: {line}", markup=False, soft_wrap=True)
