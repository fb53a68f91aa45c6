"""Changes of scores as text; those of shares in points, which are differences of per cents."""

from __future__ import annotations

from segment.metrics.bootstrap import Interval
from segment.report.percents import percent
from segment.scores.paired import Change


def points(change: Change) -> str:
    """Format a change of shares in points: `-0.21`; NaN becomes a dash."""
    return "-" if change.value != change.value else f"{100 * change.value:+.2f}"


def points_span(bounds: Interval | None) -> str:
    """Format the interval of a change in points: `-0.32 to -0.11`; `""` for None."""
    return f"{100 * bounds.low:+.2f} to {100 * bounds.high:+.2f}" if bounds else ""


def figure_texts(a: float, b: float, change: Change, *, is_share: bool = True) -> list[str]:
    """Format a score in both runs, its change and the interval: shares in per cent and points, others as they are."""
    if is_share:
        return [percent(a), percent(b), points(change), points_span(change.interval)]
    bounds = change.interval
    numbers = ["-" if value != value else f"{value:.4f}" for value in (a, b)]
    difference = "-" if change.value != change.value else f"{change.value:+.4f}"
    return [*numbers, difference, f"{bounds.low:+.4f} to {bounds.high:+.4f}" if bounds else ""]
