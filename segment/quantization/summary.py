"""What the command says of a quantised model."""

from collections.abc import Iterator

from segment.quantization.quantised_page import gain
from segment.quantization.quantizing import QuantisedModel
from segment.report.comparison.comparison_formats import headline
from segment.report.percents import percent
from segment.store.names import shown


def summary(made: QuantisedModel) -> Iterator[str]:
    """Yield the lines: the price on each runtime, the speed, the verdicts, and where the files are."""
    for run in made.comparison.runs:
        runtime = run.report.run["contract"]["runtime"]
        scored = f", mIoU {percent(run.report.miou())}" if run.report.is_scored else ""
        yield f"{run.letter}  {run.report.card.name}: {runtime['name']}, {runtime['precision']}{scored}"
    for against in made.comparison.against:
        yield headline(against)
    yield ""
    for speed in made.speeds:
        faster = "" if speed.numbers == "INT8" else f"   INT8 is {gain(speed, made.speeds):.2f} times as fast"
        yield f"{speed.runtime:<24}{speed.numbers:<6}{speed.milliseconds:>9.1f} ms of CPU an image{faster}"
    yield ""
    for line in made.notes:
        yield f"note: {line}"
    for verdict in made.verdicts:
        yield f"{'pass' if verdict.passed else 'FAIL'}  {verdict.words}"
    if made.accepted:
        yield f"card:  {shown(made.card)}"
    yield f"page:  {shown(made.page)}"
