"""The command `label-errors`: regions whose labels are likely wrong."""

from __future__ import annotations

from typing import Annotated

import typer

from segment.cli.app import RunPrefix, StorageOptions, app, open_ledger
from segment.cli.score import ScoreFormat
from segment.cli.streams import put


@app.command("label-errors")
def label_errors(
    output: RunPrefix,
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="Regions to show.")] = 20,
    images: Annotated[
        int,
        typer.Option("--images", min=1, help="Images to look at: those with the worst counts."),
    ] = 200,
    format: Annotated[ScoreFormat, typer.Option("--format", "-f", help="Output format.")] = ScoreFormat.text,  # noqa: A002
    storage_option: StorageOptions = None,
) -> None:
    """List the regions of a labelled run in which the label is likely wrong, most suspicious first.

    segment label-errors out/ --number 50
    """
    import json

    from segment.api.mislabelled import find_in_run
    from segment.report.console import console_for
    from segment.report.fitting import print_line, print_rows
    from segment.report.label_errors import errors_to_csv, errors_to_json, rows_of
    from segment.report.markdown import markdown_table

    found = find_in_run(open_ledger(output, storage_option), number, images)
    if format is ScoreFormat.json:
        put(json.dumps(errors_to_json(found), indent=2, ensure_ascii=False))
    elif format is ScoreFormat.csv:
        put(errors_to_csv(found), end="")
    elif format is ScoreFormat.markdown:
        put("\n".join(f"- {note}" for note in found.notes))
        put(f"\n{markdown_table(rows_of(found))}")
    else:
        console = console_for()
        for note in found.notes:
            print_line(console, note, style="dim")
        console.print()
        print_rows(console, rows_of(found))
