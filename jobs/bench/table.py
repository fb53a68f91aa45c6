"""Figures of one run: medians with minimum and maximum, ratios round by round."""

from __future__ import annotations

import statistics
from typing import Any


def summarise(measured: dict[str, list[dict[str, Any]]], reference: str = "limit") -> dict[str, dict[str, Any]]:
    """Summarise the rounds of each contender.

    Args:
        measured: by contender, one result a round.
        reference: by whose rate in the same round each rate is divided; it need not be there.
    """
    rates = {name: [one["images"] / one["seconds"] for one in rounds] for name, rounds in measured.items()}
    summary = {}
    for name, found in rates.items():
        ratios = [mine / bare for mine, bare in zip(found, rates.get(reference, []), strict=False)]
        summary[name] = {
            "images_per_second": found,
            "median": statistics.median(found),
            "ratios": ratios,
            "ratio": statistics.median(ratios) if ratios else None,
            "start_seconds": statistics.median(one["start"] for one in measured[name]),
        }
    return summary


def as_markdown(summary: dict[str, dict[str, Any]], agreements: dict[str, float]) -> str:
    """A table; what agreed with the limit's counts or, for peers, in which share of the pixels."""
    lines = [
        "| | images/s (min-max) | ÷ limit (min-max) | start s | same masks |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, row in summary.items():
        found, ratios = row["images_per_second"], row["ratios"]
        rate = f"{row['median']:.2f} ({min(found):.2f}-{max(found):.2f})"
        ratio = f"{row['ratio']:.3f} ({min(ratios):.3f}-{max(ratios):.3f})" if ratios else ""
        same = f"{100 * agreements[name]:.2f} %" if name in agreements else ""
        lines.append(f"| {name} | {rate} | {ratio} | {row['start_seconds']:.1f} | {same} |")
    return "\n".join(lines)
