"""The report of a run as Markdown, for issues, wikis and model cards."""

from collections.abc import Sequence

from segment.metrics.boundary import BoundaryScore
from segment.report.aggregate import RunReport
from segment.report.boundary_tables import HEAD, boundary_in_words, boundary_rows
from segment.report.certain_images import confidence_in_words
from segment.report.console import accuracies, in_brackets, remarks, summary_phrases
from segment.report.percents import percent, span
from segment.store.foreign_text import in_markdown


def to_markdown(report: RunReport) -> str:
    """Return the facts of the run, its warnings, mIoU by convention, the class table and the first errors."""
    blocks = [f"# {in_markdown(report.card.name)}", ", ".join(summary_phrases(report)) + "."]
    if report.warnings:
        blocks.append("\n".join(f"- **warning:** {in_markdown(line)}" for line in report.warnings))
    if report.is_scored:
        blocks.append(_conventions(report))
    blocks.append(_classes(report))
    if report.boundary:
        blocks.append(boundary_lines(report.boundary, report.card.classes.names))
    if words := confidence_in_words(report.certainty):
        blocks.append(f"Confidence: {in_markdown(words)}.")
    if report.errors:
        lines = [f"| {in_markdown(e.id)} | {in_markdown(e.error)} |" for e in report.errors]
        head = f"First {len(report.errors)} of {report.total.errors:,} errors:\n\n| image | error |\n|---|---|\n"
        blocks.append(head + "\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _conventions(report: RunReport) -> str:
    own, published = report.card.metric.convention, report.published
    beside = percent(published.published.miou) if published and published.agrees else "-"
    lines = ["| convention | mIoU % | published % |", "|---|---:|---:|"]
    interval = f" {in_brackets(report, 'miou')}".rstrip()
    for name in report.conventions:
        shown = f"**{name}** (the card's own)" if name == own else name
        score = f"{percent(report.miou(name))}{interval if name == own else ''}"
        lines.append(f"| {shown} | {score} | {beside if name == own else '-'} |")
    for title, share, figure in accuracies(report):
        lines.append(f"| {title} | {f'{percent(share)} {in_brackets(report, figure)}'.rstrip()} | - |")
    return "\n".join([*lines, *(line for remark in remarks(report) for line in ("", f"{in_markdown(remark)}."))])


def _classes(report: RunReport) -> str:
    classes, confusion, score = report.card.classes, report.total.confusion, report.score()
    if not report.is_scored:
        total = max(1, int(confusion.predicted_pixels.sum()))
        lines = ["| class | pixels | share % |", "|---|---:|---:|"]
        counts = zip(classes.names, confusion.predicted_pixels.tolist(), strict=True)
        return "\n".join(
            [*lines, *(f"| {in_markdown(name)} | {count} | {percent(count / total)} |" for name, count in counts)]
        )
    lines = ["| class | TP | FP | FN | IoU % |", "|---|---:|---:|---:|---:|"]
    for index, name in enumerate(classes.names):
        shown = f"{name} (ignored)" if index in classes.ignored_classes else name
        numbers = (score.tp[index], score.fp[index], score.fn[index])
        bounds = report.scored.class_intervals[index] if report.scored and report.scored.class_intervals else None
        iou = percent(float(score.iou[index])) + (f" ({span(bounds)})" if bounds else "")
        lines.append(f"| {in_markdown(shown)} | {' | '.join(str(n) for n in numbers)} | {iou} |")
    return "\n".join(lines)


def boundary_lines(boundary: BoundaryScore, names: Sequence[str]) -> str:
    """Return boundary IoU as a line with its mean and a table of classes."""
    words = boundary_in_words(boundary)
    heading, rows = f"{words[0].upper()}{in_markdown(words[1:])}.", boundary_rows(boundary, names)
    return f"{heading}\n\n{markdown_table([HEAD, *rows])}" if rows else heading


def markdown_table(rows: list[list[str]]) -> str:
    """Return rows, the first of which is the head, as a table of Markdown, without columns that are empty."""
    kept = [i for i in range(len(rows[0])) if i == 0 or any(row[i] for row in rows[1:])]
    lines = [[in_markdown(row[i]) for i in kept] for row in rows]
    lines.insert(1, ["---:" if i else "---" for i in range(len(kept))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
