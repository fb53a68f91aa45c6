"""Commands that show the state of a run: `report`, `audit`, `status`."""

from typing import Annotated, Any, Literal

import typer

from segment.cli.app import AllowInput, RunPrefix, StorageOptions, app, open_ledger, option
from segment.cli.options import takes, values_of
from segment.cli.results import print_results
from segment.cli.streams import put, say, streams


@app.command()
@takes("price_per_hour", "currency")
def report(
    output: RunPrefix,
    *,
    form: Annotated[Literal["table", "markdown", "json", "csv"], option("Output format.", "--format", "-f")] = "table",
    page: Annotated[
        bool | None, option("Write OUTPUT/report/index.html; by default with --format table.", "--page/--no-page")
    ] = None,
    intervals: Annotated[bool, option("95 % intervals; they read the counts of every image.")] = True,
    storage_option: StorageOptions = None,
    allow_input: AllowInput = None,
    **flags: Any,
) -> None:
    """Show the scores of the committed parts of a run, running or not, and write them as a web page."""
    import json

    from segment.errors import SegmentError, StoreError
    from segment.report.aggregate import load_report
    from segment.report.markdown import to_markdown
    from segment.report.run_score import with_intervals
    from segment.report.spreadsheet import to_csv
    from segment.runs.driver import task_and_plan
    from segment.store.names import shown

    price = values_of(flags, "segment report")
    ledger = open_ledger(output, storage_option, allow_input)
    found = load_report(ledger)
    wants_page = form == "table" if page is None else page
    unknown = None
    if intervals:
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
    if form == "json":
        put(json.dumps(found.to_json(), indent=2, sort_keys=True, ensure_ascii=False))
    elif form == "markdown":
        put(to_markdown(found))
    elif form == "csv":
        put(to_csv(found), end="")
    else:
        print_results(ledger, found, url, {**found.run["job"], **price})
    if url and form != "table":
        say(f"page:  {shown(url)}", err=True)
    if unknown:  # last, for a page that fails for the same reason has told it
        say(f"no intervals: {unknown}", err=True)


@app.command()
def audit(
    output: RunPrefix,
    deep: Annotated[
        bool, option("Read every byte: compare digests, and check every mask and count.", "--deep")
    ] = False,
    verify_with: Annotated[
        str | None,
        option("Public key of minisign, a file or the key itself, that must have signed the run.", metavar="PUBLIC"),
    ] = None,
    storage_option: StorageOptions = None,
    allow_input: AllowInput = None,
) -> None:
    """Prove that every planned image has exactly one row, and by --deep that no byte was changed; exit code 0 or 1."""
    from segment.output.audit import audit_run
    from segment.output.signing import PublicKey
    from segment.report.console import print_audit

    key = PublicKey(verify_with) if verify_with else None
    found = audit_run(open_ledger(output, storage_option, allow_input), deep=deep, key=key)
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
