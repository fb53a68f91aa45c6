"""The command `compare`: runs against a baseline."""

from __future__ import annotations

from typing import Annotated

import typer

from segment.cli.app import AllowInput, StorageOptions, app, open_store, option
from segment.cli.score import By, Classes, Convention, Form, GroupBy, Ignore, Merge, Resamples, Seed, put_as
from segment.cli.streams import say, streams


@app.command()
def compare(
    outputs: Annotated[
        list[str], typer.Argument(metavar="OUTPUT", help="Output prefixes of two or more runs; A is the baseline.")
    ],
    pairs: Annotated[
        list[str] | None,
        option("A class of A and the one of another run that it is; repeatable.", "--map", metavar="A-NAME=B-NAME"),
    ] = None,
    convention: Annotated[Convention | None, option("Convention of the scores, by default that of A's card.")] = None,
    ignore: Ignore = None,
    merge: Merge = None,
    classes: Classes = None,
    by: By = None,
    group_by: GroupBy = None,
    resamples: Resamples = 1000,
    seed: Seed = 0,
    masks: Annotated[bool, option("Compare masks pixel by pixel; without, only the stored counts.")] = True,
    fail_below: Annotated[
        float | None,
        option(
            "Exit with 1 where the change of mIoU is below this, such as -0.5: the lower bound of its interval "
            "decides, with --resamples 0 the change itself. Images of A that are errors in another run fail it, too.",
            metavar="POINTS",
        ),
    ] = None,
    fail_below_agreement: Annotated[
        float | None,
        option("Exit with 1 where a smaller share of the pixels agrees, such as 0.99.", metavar="SHARE", min=0, max=1),
    ] = None,
    form: Form = "text",
    to: Annotated[
        str | None,
        option("Write FOLDER/compare/index.html: scores, classes, the images that changed most.", metavar="FOLDER"),
    ] = None,
    storage_option: StorageOptions = None,
    allow_input: AllowInput = None,
) -> None:
    """Compare runs of the same images with the first: pixels that agree, and the change of every score.

    segment compare out-f32/ out-int8/ --to . --fail-below -0.5
    """
    from segment.api.baseline import compare_and_show
    from segment.report.comparison.comparing import ComparisonRequest
    from segment.report.comparison.comparison_formats import print_comparison, to_csv, to_json, to_markdown
    from segment.report.comparison.gate import Limits, verdicts
    from segment.store.names import shown

    limits = Limits(fail_below, fail_below_agreement)
    limits.refuse_without_masks(masks)
    asked = ComparisonRequest(
        convention, ignore, merge or (), classes, by, group_by, resamples, seed, pairs or (), masks
    )
    found = compare_and_show(outputs, asked, open_store(storage_option, allow_input), to)
    decided = verdicts(found, limits)
    if decided or found.page:
        streams.work_is_done()  # the exit code, or the page, is the answer
    put_as(form, found, lambda found: to_json(found, decided), to_markdown, to_csv, print_comparison)
    if found.page:
        say(f"page:  {shown(found.page)}", err=form != "text")
    for verdict in decided:
        say(f"{'pass' if verdict.passed else 'FAIL'}  {verdict.words}", err=True)
    raise typer.Exit(0 if all(verdict.passed for verdict in decided) else 1)
