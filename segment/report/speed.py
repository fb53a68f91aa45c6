"""An attempt's speed on a terminal: what took the time, what it cost."""

from __future__ import annotations

from segment.output.ledger import Ledger
from segment.output.results import STAGES
from segment.output.speed import Speed, last_speed
from segment.runs.forecast import size
from segment.store.names import count


def speed_lines(speed: Speed, price_per_hour: float | None = None) -> list[str]:
    """Describe a speed within 80 columns: rate, stages, what held the run up, memory, and the cost where known.

    Seconds of a stage are those of all workers together; shares are of the pool's time.
    """
    workers = count(speed.workers, "worker" if speed.device == "cpu" else "GPU")
    lines = [
        f"speed   {speed.rate:.1f} images/s on {workers} ({speed.engine}): {speed.images:,} images in "
        f"{_number(speed.seconds)} s",
        f"start   {_number(speed.start)} s until the first part was begun",
        "stages  " + ", ".join(f"{stage} {_number(speed.stages[stage])}" for stage in STAGES) + " s",
        f"limit   {_limit(speed)}; pool idle {100 * speed.idle:.0f} %",
    ]
    if speed.memory and speed.device == "cpu":
        expected = f", {size(speed.expected_memory)} were expected" if speed.expected_memory else ""
        lines.append(f"memory  {size(speed.memory)} at the peak of a process{expected}")
    if price_per_hour:
        lines.append(f"cost    {speed.cost(price_per_hour):.4f} per 1,000 images at {price_per_hour:g} an hour")
    return lines


def print_speed(ledger: Ledger, price_per_hour: float | None = None) -> None:
    """Print the speed of a run's last attempt that did something, if there is one."""
    if speed := last_speed(ledger):
        print("\n".join(speed_lines(speed, price_per_hour)))


def _limit(speed: Speed) -> str:
    if speed.limit is None:
        return "no stage (too few parts for the pool?)"
    return f"{speed.limit}, {100 * speed.shares[speed.limit]:.0f} % of the time"


def _number(seconds: float) -> str:
    return f"{seconds:,.{1 if seconds < 100 else 0}f}"
