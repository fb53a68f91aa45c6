"""What the terminal shows of a run: report, audit and status."""

import os
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from segment.errors import SegmentError, StoreError
from segment.inputs.findings import by_reason, choice_in_words
from segment.metrics.boundary import BoundaryScore
from segment.metrics.conventions import BOTH_LEFT_OUT
from segment.output.attempts import Attempt, count_over_attempts, read_attempts
from segment.output.audit import Audit
from segment.output.ledger import Ledger
from segment.output.remarks import remark_lines
from segment.progress.safe_console import SafeConsole
from segment.report.aggregate import RunReport
from segment.report.boundary_tables import HEAD, boundary_in_words, boundary_rows
from segment.report.certain_images import confidence_in_words
from segment.report.fitting import Cell, packed, print_line, print_record, print_rows
from segment.report.percents import percent, span
from segment.report.wording import agreement_in_words
from segment.store.names import count, shown

_WIDTH = 80  # columns of a report that does not go to a terminal
_BAR = 12  # columns
_UNITS = ((1, "pixels"), (10**3, "thousand pixels"), (10**6, "million pixels"), (10**9, "billion pixels"))
_LARGEST_COUNT = 10**8 - 1  # three columns of `99,999,999` leave room for a class name and a bar in 80 columns


class _Glyphs(NamedTuple):
    """The characters that draw a report."""

    swatch: str
    full: str
    empty: str
    separator: str


_UNICODE, _ASCII = _Glyphs("■", "━", "─", "·"), _Glyphs("#", "=", "-", "|")


def print_report(report: RunReport, console: Console | None = None, page: str | None = None) -> None:
    """Print the score and where the results are, then warnings, mIoU by convention, the classes and the first errors.

    Args:
        console: where to; by default stdout.
        page: URL of the report's page; None if there is none.
    """
    console = console_for(console)
    glyphs = _ASCII if console.options.ascii_only else _UNICODE
    if console.is_terminal:  # apart from the progress above
        console.print()
    _lead(report, glyphs, console, page)
    if report.warnings:
        console.print()
        console.print(warnings_table(report.warnings))
    if report.is_scored:
        console.print()
        _conventions(report, console)
        for line in remarks(report):
            print_line(console, line, style="dim")
    console.print()
    _classes(report, glyphs, console)
    if report.boundary:
        console.print()
        print_boundary(report.boundary, report.card.classes.names, console)
    if report.errors:
        console.print()
        _errors(report, console)
    if words := confidence_in_words(report.certainty):
        console.print()
        print_line(console, f"confidence: {words}")


def _lead(report: RunReport, glyphs: _Glyphs, console: Console, page: str | None) -> None:
    if report.is_scored:
        score = f"mIoU {percent(report.miou())} % {in_brackets(report, 'miou')}".rstrip()
        console.print(f"{score}, pixel accuracy {percent(report.pixel_accuracy)} %", style="bold", highlight=False)
    else:
        console.print(f"no score: nothing is labelled{'' if report.is_whole else ' yet'}", style="bold")
    for name, url in (("page", f"  {shown(page)}" if page else ""), ("masks", f" {shown(report.output)}/masks/")):
        if url:
            console.print(f"{name}:{url}", soft_wrap=True, markup=False, highlight=False)
    *facts, state = summary_phrases(report)
    for line in packed([report.card.name, state, *facts], f" {glyphs.separator} ", console.width):
        console.print(line, markup=False, highlight=False)


def page_of(ledger: Ledger) -> str | None:
    """Return the URL of the report's page; None if there is none, or the store does not say."""
    url = ledger.url("report/index.html")
    with suppress(StoreError):
        return url if ledger.store.exists(url) else None
    return None


def print_boundary(boundary: BoundaryScore, names: Sequence[str], console: Console) -> None:
    """Print the mean boundary IoU, and a row for each class that has a boundary."""
    print_line(console, boundary_in_words(boundary))
    if rows := boundary_rows(boundary, names):
        print_rows(console, [HEAD, *rows])


def console_for(console: Console | None = None) -> Console:
    """Return a console whose width, where it is no terminal, is $COLUMNS, or 80."""
    console = console or SafeConsole(highlight=False)
    if console.is_terminal:
        return console
    columns = os.environ.get("COLUMNS", "")
    return SafeConsole(file=console.file, width=int(columns) if columns.isdecimal() else _WIDTH, highlight=False)


def remarks(report: RunReport) -> list[str]:
    """Return what one must know of the scores, one line each: the published score, sizes, agreement, intervals."""
    lines = [str(report.published) if report.published else "", report.size_note, agreement_in_words(report.run)]
    return [*filter(None, lines), *(report.scored.notes(report.card.classes.names) if report.scored else ())]


def summary_phrases(report: RunReport) -> list[str]:
    """Return the state of the run as short phrases: images, shards, errors, runtime, whether it is complete."""
    runtime = report.run["contract"]["runtime"]
    images, shards = report.choice or count(report.total.images, "image"), count(report.planned_shards, "shard")
    if not report.is_whole:
        chosen = f" ({report.choice})" if report.choice else ""
        images = f"{report.total.images:,} of {report.planned_in_words} images so far{chosen}"
        shards = f"{report.finished_shards:,} of {shards} finished"
    phrases = [images, shards, count(report.total.errors, "error")]
    if report.is_scored:
        phrases.append(f"{report.total.scored:,} scored")
    phrases.append(f"{runtime['name']} {runtime['device']} {runtime['precision']}")
    return [*phrases, "complete" if report.complete else "not complete"]


def warnings_table(lines: Iterable[str]) -> Table:
    """Return the warnings as a table: one per row, wrapped to the width of the console."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(style="yellow", no_wrap=True)
    table.add_column(overflow="fold")
    for line in lines:
        table.add_row("warning:", Text(line))
    return table


def _conventions(report: RunReport, console: Console) -> None:
    own, published = report.card.metric.convention, report.published
    rows = [["convention", "mIoU %", "95 % interval", ""]]
    for name in report.conventions:
        interval = in_brackets(report, "miou") if name == own else ""
        rows.append([name, percent(report.miou(name)), interval, "the card's own" if name == own else ""])
    for title, share, figure in accuracies(report):
        rows.append([title, percent(share), in_brackets(report, figure), ""])
    print_rows(console, rows, title="mIoU", own=1)
    words = [] if report.size_note else [f"scored at {report.card.metric.resolution} size"]  # else a remark says it
    if published and published.agrees:
        words.append(f"published {percent(published.published.miou)}")
    if words:
        print_line(console, "; ".join(words), style="dim")


def accuracies(report: RunReport) -> list[tuple[str, float | None, str]]:
    """Return pixel accuracies as (name, share, figure with its interval): one, or two where OMZ's is another one."""
    own_is_omz = report.card.metric.convention in BOTH_LEFT_OUT
    ours = ("pixel accuracy", report.pixel_accuracy, "" if own_is_omz else "pixel_accuracy")
    if report.omz_pixel_accuracy != report.pixel_accuracy:
        return [ours, ("pixel accuracy, omz", report.omz_pixel_accuracy, "pixel_accuracy" if own_is_omz else "")]
    return [("pixel accuracy", report.pixel_accuracy, "pixel_accuracy")]


def in_brackets(report: RunReport, figure: str) -> str:
    """Return the interval of a figure of the report as `(59.8 to 62.4)`, in per cent; `""` if there is none."""
    bounds = report.scored.intervals.get(figure) if report.scored else None
    return f"({span(bounds)})" if bounds else ""


def _classes(report: RunReport, glyphs: _Glyphs, console: Console) -> None:
    """Print the class table. Counts are rounded to a unit that fits; Markdown, JSON and Parquet hold every digit."""
    classes, confusion, score = report.card.classes, report.total.confusion, report.score()
    pixels, total = confusion.predicted_pixels, int(confusion.predicted_pixels.sum())
    counts = {"TP": score.tp, "FP": score.fp, "FN": score.fn} if report.is_scored else {"pixels": pixels}
    shares = score.iou if report.is_scored else pixels / max(1, total)
    largest = max(int(column.max()) for column in counts.values())
    unit, name = next((u for u in _UNITS if largest / u[0] <= _LARGEST_COUNT), _UNITS[-1])
    title = f"classes, in {name}" if report.is_scored or unit > 1 else "classes"
    intervals = report.scored.class_intervals if report.scored else ()
    last = "95 % interval" if intervals else ""
    rows: list[list[Cell]] = [["class", *counts, "IoU %" if report.is_scored else "share %", last]]
    for index, class_name in enumerate(classes.names):
        colour = "rgb({},{},{})".format(*classes.palette[index])
        swatch = Text.assemble((f"{glyphs.swatch} ", colour), shown(class_name))
        if index in classes.ignored_classes:
            swatch.append(" (ignored)", style="dim")
        share = float(shares[index])
        numbers = (f"{round(int(column[index]) / unit):,}" for column in counts.values())
        end = span(intervals[index]) if intervals else _bar(share, glyphs)
        rows.append([swatch, *numbers, percent(share), end])
    print_rows(console, rows, title=title, first=[len(counts) + 1, *([len(counts) + 2] if intervals else [])])


def _bar(share: float, glyphs: _Glyphs) -> Text:
    filled = 0 if share != share else round(share * _BAR)
    return Text(glyphs.full * filled, style="green") + Text(glyphs.empty * (_BAR - filled), style="dim")


def _errors(report: RunReport, console: Console) -> None:
    console.print(f"errors (first {len(report.errors)} of {report.total.errors:,})", style="italic", highlight=False)
    for example in report.errors:
        console.print(Text(shown(example.id), overflow="fold"))
        console.print(Padding(Text(example.error, "dim", overflow="fold"), (0, 0, 0, 4)))


def print_audit(audit: Audit, console: Console | None = None) -> None:
    """Print the totals of an audit, the unfinished work and the problems."""
    console = console or SafeConsole(highlight=False)
    for line in audit_lines(audit):
        print_record(console, line)


def audit_lines(audit: Audit) -> list[str]:
    """Return the lines of an audit: warnings, unfinished work, problems, the verdict with totals, and what was read."""
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
        lines += [] if audit.read else ["masks were not read: --deep compares every byte with what was written"]
    if audit.read:
        files, rows = count(audit.read.files, "masks file"), count(audit.read.rows, "row")
        lines.append(
            f"read {files}, {rows}, {count(audit.read.bytes, 'byte')}, and checked their bytes, masks and counts"
        )
        if audit.read.unseen:
            why = "gone, changed, damaged or not allowed (--allow-input): their ids were not compared with the input"
            lines.append(f"{count(audit.read.unseen, 'row')} of Parquet files that are {why}")
    return lines + [f"not checked: {line}" for line in audit.unchecked]


def print_status(ledger: Ledger, console: Console | None = None) -> None:
    """Print the progress of a run, from the store alone."""
    console = console or SafeConsole(highlight=False)
    run, plan = ledger.read_run_and_plan()
    committed = ledger.committed(plan)
    left = plan.without(committed)
    shards, finished = len(plan.parts_by_shard()), ledger.finished_shards()
    done = plan.images - left.images
    state = "complete" if ledger.is_complete() else "not complete"
    if not len(left) and not plan.unindexed and not ledger.is_complete():
        state = "all committed, not complete: the same `segment run` ends it, or says why it fails"
    chosen = choice_in_words(plan.images, plan.left_out)
    console.print(f"{ledger.card_of(run).name}{f' ({chosen})' if chosen else ''}: {state}", markup=False)
    if left_out := [str(item) for item in by_reason(plan.left_out) if item.matters]:
        console.print(warnings_table(left_out))
    about = "about " * bool(plan.unindexed)
    share = 100 * done / max(1, plan.expected_images)
    errors = _errors_in_words(ledger, finished, shards)
    console.print(f"{done:,} of {about}{plan.expected_images:,} images committed ({share:.1f} %){errors}", markup=False)
    if plan.unindexed:
        console.print(f"{count(plan.tars_left, 'tar is', 'tars are')} not indexed yet")
    console.print(f"{len(plan) - len(left):,} of {len(plan):,} parts, {len(finished):,} of {shards:,} shards finished")
    attempts = read_attempts(ledger)
    if attempts:
        console.print(_attempts_in_words(attempts, has_work=state == "not complete"))
    if retries := count_over_attempts(attempts, "retries"):
        kinds = ", ".join(f"{number:,} to {kind}" for kind, number in sorted(retries.items()))
        console.print(f"{count(retries.total(), 'request')} to stores repeated: {kinds}")
    for line in remark_lines(count_over_attempts(attempts, "remarks")):
        print_record(console, f"noticed: {line}")


def _errors_in_words(ledger: Ledger, finished: Collection[str], shards: int) -> str:
    """Return how many images of the finished shards are errors; nothing if none is."""
    try:
        errors = sum(stats.errors for stats in ledger.shard_stats(finished).values())
    except SegmentError as error:
        return f"; errors are not known: {error}"
    where = "" if len(finished) == shards else " in finished shards"
    return f", {count(errors, 'error')}{where}" if errors else ""


def _attempts_in_words(attempts: Sequence[Attempt], *, has_work: bool) -> str:
    words = count(len(attempts), "attempt")
    if not has_work:
        return words
    if running := [attempt.driver_in_words for attempt in attempts if attempt.goes_on]:
        return f"{words}: at work since {' and '.join(running)}"
    if attempts[-1].ended:
        return f"{words}, ended: the same `segment run` resumes the run"
    which = "it" if len(attempts) == 1 else "the last one"
    if attempts[-1].goes_on is None:
        return f"{words}: {which} goes on, or was killed and the same `segment run` resumes the run"
    return f"{words}: {which} was killed, the same `segment run` resumes the run"
