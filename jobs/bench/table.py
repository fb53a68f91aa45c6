"""Figures of one run: medians with minimum and maximum, ratios round by round."""

import statistics
from typing import Any

from jobs.bench.cases import BEFORE


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
            "to_before": [mine / old for mine, old in zip(found, rates.get(name + BEFORE, []), strict=False)],
        }
    return summary


def as_markdown(summary: dict[str, dict[str, Any]], agreements: dict[str, float]) -> str:
    """A table; what agreed with the limit's counts or, for peers, in which share of the pixels."""
    lines = [
        "| | images/s (min-max) | ÷ limit (min-max) | ÷ before (min-max) | start s | same masks |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, row in summary.items():
        found, ratios = row["images_per_second"], row["ratios"]
        rate = f"{row['median']:.2f} ({min(found):.2f}-{max(found):.2f})"
        ratio, earlier = (
            f"{statistics.median(some):.3f} ({min(some):.3f}-{max(some):.3f})" if some else ""
            for some in (ratios, row["to_before"])
        )
        same = f"{100 * agreements[name]:.2f} %" if name in agreements else ""
        lines.append(f"| {name} | {rate} | {ratio} | {earlier} | {row['start_seconds']:.1f} | {same} |")
    return "\n".join(lines)
