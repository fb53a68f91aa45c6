"""The command `compare`: runs against a baseline."""

from __future__ import annotations

from typing import Annotated

import typer

from segment.cli.app import StorageOptions, app, open_store
from segment.cli.score import By, Classes, Convention, GroupBy, Ignore, Merge, Resamples, ScoreFormat, Seed, option
from segment.cli.streams import put, say, streams


@app.command()
def compare(
    outputs: Annotated[
        list[str], typer.Argument(metavar="OUTPUT", help="Output prefixes of two or more runs; A is the baseline.")
    ],
    map: Annotated[  # noqa: A002
        list[str] | None,
        option("map", "A-NAME=B-NAME", "A class of A and the one of another run that it is; repeatable."),
    ] = None,
    convention: Annotated[
        Convention | None,
        typer.Option("--convention", help="Convention of the scores, by default that of A's card.", show_default=False),
    ] = None,
    ignore: Ignore = None,
    merge: Merge = None,
    classes: Classes = None,
    by: By = None,
    group_by: GroupBy = None,
    resamples: Resamples = 1000,
    seed: Seed = 0,
    masks: Annotated[
        bool, typer.Option("--masks/--no-masks", help="Compare masks pixel by pixel; without, only the stored counts.")
    ] = True,
    fail_below: Annotated[
        float | None,
        option(
            "fail-below",
            "POINTS",
            "Exit with 1 where the change of mIoU is below this, such as -0.5: the lower bound of its interval "
            "decides, with --resamples 0 the change itself. Images of A that are errors in another run fail it, too.",
        ),
    ] = None,
    fail_below_agreement: Annotated[
        float | None,
        typer.Option(
            "--fail-below-agreement",
            metavar="SHARE",
            min=0,
            max=1,
            help="Exit with 1 where a smaller share of the pixels agrees, such as 0.99.",
            show_default=False,
        ),
    ] = None,
    format: Annotated[ScoreFormat, typer.Option("--format", "-f", help="Output format.")] = ScoreFormat.text,  # noqa: A002
    to: Annotated[
        str | None,
        option("to", "FOLDER", "Write FOLDER/compare/index.html: scores, classes, and the images that changed most."),
    ] = None,
    storage_option: StorageOptions = None,
) -> None:
    """Compare runs of the same images with the first: pixels that agree, and the change of every score.

    segment compare out-f32/ out-int8/ --to . --fail-below -0.5
    """
    import json

    from segment.api.baseline import compare_and_show
    from segment.report.comparison.comparing import ComparisonRequest
    from segment.report.comparison.comparison_formats import print_comparison, to_csv, to_json, to_markdown
    from segment.report.comparison.gate import Limits, verdicts
    from segment.report.console import console_for
    from segment.store.names import shown

    limits = Limits(fail_below, fail_below_agreement)
    limits.refuse_without_masks(masks)
    asked = ComparisonRequest(
        convention.value if convention else None, ignore, merge or (), classes, by, group_by, resamples, seed,
        map or (), masks,
    )  # fmt: skip
    found = compare_and_show(outputs, asked, open_store(storage_option), to)
    decided = verdicts(found, limits)
    if decided or found.page:
        streams.work_is_done()  # the exit code, or the page, is the answer
    if format is ScoreFormat.json:
        put(json.dumps(to_json(found, decided), indent=2, ensure_ascii=False))
    elif format is ScoreFormat.markdown:
        put(to_markdown(found), end="")
    elif format is ScoreFormat.csv:
        put(to_csv(found), end="")
    else:
        print_comparison(found, console_for())
    if found.page:
        say(f"page:  {shown(found.page)}", err=format is not ScoreFormat.text)
    for verdict in decided:
        say(f"{'pass' if verdict.passed else 'FAIL'}  {verdict.words}", err=True)
    raise typer.Exit(0 if all(verdict.passed for verdict in decided) else 1)
