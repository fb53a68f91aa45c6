"""Changes of scores as text; those of shares in points, which are differences of per cents."""

from __future__ import annotations

from segment.metrics.bootstrap import Interval
from segment.scores.paired import Change


def points(change: Change) -> str:
    """Format a change of shares in points: `-0.21`; NaN becomes a dash."""
    return "-" if change.value != change.value else f"{100 * change.value:+.2f}"


def points_span(bounds: Interval | None) -> str:
    """Format the interval of a change in points: `-0.32 to -0.11`; `""` for None."""
    return f"{100 * bounds.low:+.2f} to {100 * bounds.high:+.2f}" if bounds else ""


def number_texts(a: float, b: float, change: Change) -> list[str]:
    """Format a score that is no share in both runs, its change and the interval: as they are, with four digits."""
    bounds = change.interval
    numbers = ["-" if value != value else f"{value:.4f}" for value in (a, b)]
    difference = "-" if change.value != change.value else f"{change.value:+.4f}"
    return [*numbers, difference, f"{bounds.low:+.4f} to {bounds.high:+.4f}" if bounds else ""]
