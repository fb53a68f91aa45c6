"""Shares and intervals as text in per cent, as the terminal and Markdown show them."""

from __future__ import annotations

from segment.metrics.bootstrap import Interval


def percent(share: float | None) -> str:
    """Format a share of 0-1: `0.5` becomes `50.00`; None and NaN become a dash."""
    return "-" if share is None or share != share else f"{100 * share:.2f}"


def span(bounds: Interval | None) -> str:
    """Format the bounds of an interval in per cent: `59.8 to 62.4`; `""` for None."""
    return f"{100 * bounds.low:.1f} to {100 * bounds.high:.1f}" if bounds else ""
