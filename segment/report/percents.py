"""Shares, intervals and changes as text, as the terminal and Markdown show them: in per cent, and in points."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segment.metrics.bootstrap import Interval

if TYPE_CHECKING:
    from segment.scores.paired import Change


def percent(share: float | None) -> str:
    """Format a share of 0-1: `0.5` becomes `50.00`; None and NaN become a dash."""
    return "-" if share is None or share != share else f"{100 * share:.2f}"


def span(bounds: Interval | None) -> str:
    """Format the bounds of an interval in per cent: `59.8 to 62.4`; `""` for None."""
    return f"{100 * bounds.low:.1f} to {100 * bounds.high:.1f}" if bounds else ""


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
