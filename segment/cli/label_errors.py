"""The command `label-errors`: regions whose labels are likely wrong."""

from __future__ import annotations

from typing import Annotated

from segment.cli.app import AllowInput, RunPrefix, StorageOptions, app, option, parse_options
from segment.cli.score import Form, put_as


@app.command("label-errors")
def label_errors(
    output: RunPrefix,
    number: Annotated[int, option("Regions to show.", "--number", "-n", min=1)] = 20,
    images: Annotated[int, option("Images to look at: those with the worst counts.", min=1)] = 200,
    form: Form = "text",
    storage_option: StorageOptions = None,
    allow_input: AllowInput = None,
) -> None:
    """List the regions of a labelled run in which the label is likely wrong, most suspicious first.

    segment label-errors out/ --number 50
    """
    from segment.api import mislabelled
    from segment.report.label_errors import errors_to_csv, errors_to_json, errors_to_markdown, print_errors

    found = mislabelled.label_errors(
        output,
        number=number,
        images=images,
        storage_options=parse_options(storage_option),
        allow_input=allow_input or (),
    )
    put_as(form, found, errors_to_json, errors_to_markdown, errors_to_csv, print_errors)
