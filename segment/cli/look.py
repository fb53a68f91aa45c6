"""Commands that show the state of a run: `report`, `audit`, `status`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from segment.cli.app import RunPrefix, StorageOptions, app, open_ledger
from segment.cli.options import values_of
from segment.cli.streams import put, say, streams
from segment.job import Job


class ReportFormat(StrEnum):
    """Output formats of `segment report`."""

    table = "table"
    markdown = "markdown"
    json = "json"
    csv = "csv"


@app.command()
def report(
    output: RunPrefix,
    format: Annotated[ReportFormat, typer.Option("--format", "-f", help="Output format.")] = ReportFormat.table,  # noqa: A002
    price_per_hour: Annotated[
        float | None,
        typer.Option("--price-per-hour", help=Job.model_fields["price_per_hour"].description),
    ] = None,
    currency: Annotated[
        str | None, typer.Option("--currency", help=Job.model_fields["currency"].description, show_default=False)
    ] = None,
    page: Annotated[
        bool | None,
        typer.Option(
            "--page/--no-page",
            help="Write OUTPUT/report/index.html; by default with --format table.",
            show_default=False,
        ),
    ] = None,
    intervals: Annotated[
        bool,
        typer.Option("--intervals/--no-intervals", help="95 % intervals; they read the counts of every image."),
    ] = True,
    storage_option: StorageOptions = None,
) -> None:
    """Show the scores of the committed parts of a run, running or not, and write them as a web page."""
    import json

    from segment.errors import SegmentError, StoreError
    from segment.output.speed import Price
    from segment.report.aggregate import load_report
    from segment.report.console import print_report
    from segment.report.markdown import to_markdown
    from segment.report.run_score import with_intervals
    from segment.report.speed_lines import print_speed
    from segment.report.spreadsheet import to_csv
    from segment.runs.driver import task_and_plan
    from segment.store.names import shown

    price = values_of("segment report", price_per_hour=price_per_hour, currency=currency)
    ledger = open_ledger(output, storage_option)
    found = load_report(ledger)
    wants_page = format is ReportFormat.table if page is None else page
    unknown = None
    if intervals and (wants_page or format in (ReportFormat.table, ReportFormat.markdown)):
        try:
            found = with_intervals(ledger, ledger.read_run_and_plan()[1], found)
        except SegmentError as error:
            unknown = error
    url = None
    if wants_page:
        from segment.report.page import write_page

        try:
            url = write_page(ledger, found, *task_and_plan(ledger))
        except StoreError as error:
            if page:
                raise
            say(f"no page: {error}", err=True)
    if format is ReportFormat.json:
        put(json.dumps(found.summary(), indent=2, sort_keys=True, ensure_ascii=False))
    elif format is ReportFormat.markdown:
        put(to_markdown(found))
    elif format is ReportFormat.csv:
        put(to_csv(found), end="")
    else:
        print_report(found, page=url)
        print_speed(ledger, Price.of({**found.run["job"], **price}))
    if url and format is not ReportFormat.table:
        say(f"page:  {shown(url)}", err=True)
    if unknown:  # last, for a page that fails for the same reason has told it
        say(f"no intervals: {unknown}", err=True)


@app.command()
def audit(
    output: RunPrefix,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every byte: compare digests, and check every mask and count.")
    ] = False,
    verify_with: Annotated[
        str | None,
        typer.Option(
            "--verify-with",
            metavar="PUBLIC",
            help="Public key of minisign, a file or the key itself, that must have signed the run.",
        ),
    ] = None,
    storage_option: StorageOptions = None,
) -> None:
    """Prove that every planned image has exactly one row and that nothing was changed since; exit code 0 or 1."""
    from segment.output.audit import audit_run
    from segment.output.signing import PublicKey
    from segment.report.console import print_audit

    key = PublicKey(verify_with) if verify_with else None
    found = audit_run(open_ledger(output, storage_option), deep=deep, key=key)
    streams.work_is_done()  # the exit code is the answer
    print_audit(found)
    raise typer.Exit(1 if found.problems else 0)


@app.command()
def status(
    output: RunPrefix,
    storage_option: StorageOptions = None,
) -> None:
    """Show the progress of a run, running or not, from the store alone."""
    from segment.report.console import print_status

    print_status(open_ledger(output, storage_option))
