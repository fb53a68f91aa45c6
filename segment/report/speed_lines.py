"""What the terminal shows of the speed of a run, and of its cost."""

from rich.table import Table
from rich.text import Text

from segment.output.ledger import Ledger
from segment.output.results import STAGES
from segment.output.speed import Price, Speed, last_speed
from segment.report.console import console_for
from segment.store.names import count, rate, size


def print_speed(ledger: Ledger, price: Price | None = None) -> None:
    """Print the speed of the last attempt that committed a part, if there is one."""
    if speed := last_speed(ledger):
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for name, words in speed_lines(speed, price):
            grid.add_row(name, Text(words))
        console = console_for()
        console.print()
        console.print(grid)


def speed_lines(speed: Speed, price: Price | None = None) -> list[tuple[str, str]]:
    """Return rate, start, stages, the limiting stage, memory, and the cost where the price is known: names and texts.

    A name and its text take up to 80 columns together. The seconds of a stage are summed over the workers; shares are
    of the pool's time.
    """
    workers = count(speed.workers, "worker" if speed.device == "cpu" else "GPU")
    done = f"{count(speed.images, 'image')} in {_seconds(speed.seconds)} s"
    lines = [
        ("speed", f"{rate(speed.rate)} images/s: {done} on {workers} ({speed.engine})"),
        ("start", f"{_seconds(speed.start)} s until work began, {rate(speed.total_rate)} images/s with the start"),
        ("stages", ", ".join(f"{stage} {_seconds(speed.stages[stage])}" for stage in STAGES) + " s"),
        ("limit", f"{_limit(speed)}; pool idle {100 * speed.idle:.0f} %"),
    ]
    if speed.memory and speed.device == "cpu":
        expected = f", {size(speed.expected_memory)} expected" if speed.expected_memory else ""
        lines.append(("memory", f"{size(speed.memory)} peak per process{expected}"))
    if price is not None:
        lines.append(("cost", f"{price.amount(speed.cost(price.per_hour), 4)} per 1,000 images at {price}"))
    return lines


def _limit(speed: Speed) -> str:
    if speed.limit is None:
        return "no stage (too few parts for the pool?)"
    return f"{speed.limit}, {100 * speed.shares[speed.limit]:.0f} % of the time"


def _seconds(seconds: float) -> str:
    return f"{seconds:,.{1 if seconds < 100 else 0}f}"
