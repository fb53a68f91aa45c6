"""What `run` ends with and `report` shows in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from segment.cli.streams import say

if TYPE_CHECKING:
    from segment.output.ledger import Ledger
    from segment.report.aggregate import RunReport


def print_results(ledger: Ledger, report: RunReport, page: str | None, job: Mapping[str, Any]) -> None:
    """Print the report of a run, where its page is, and its speed at the price that a job names."""
    from segment.errors import SegmentError
    from segment.output.speed import Price
    from segment.report.console import print_report
    from segment.report.speed_lines import print_speed

    print_report(report, page=page)
    try:
        print_speed(ledger, Price.of(job))
    except SegmentError as error:
        say(f"warning: the speed of the run is unknown: {error}", err=True)
