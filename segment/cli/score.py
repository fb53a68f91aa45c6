"""The command `score`: every score of a run, from its stored counts."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, cast, get_args

import typer

from segment.cli.app import RunPrefix, StorageOptions, app, open_ledger
from segment.cli.streams import say
from segment.models.card import Convention as _Convention


class ScoreFormat(StrEnum):
    """Output formats of `segment score`."""

    text = "text"
    markdown = "markdown"
    json = "json"
    csv = "csv"


Convention = StrEnum("Convention", {name.replace("-", "_"): name for name in get_args(_Convention)})  # type: ignore[misc]


@app.command()
def score(
    output: RunPrefix,
    convention: Annotated[
        Convention | None,
        typer.Option("--convention", help="Convention of the scores. [default: the card's]", show_default=False),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            "--ignore", metavar="CLASS", help="Class that no score counts, in place of the card's; 'none' for none.",
            show_default=False,
        ),
    ] = None,
    merge: Annotated[
        list[str] | None,
        typer.Option("--merge", metavar="A+B=NAME", help="Classes to count as one; repeatable.", show_default=False),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option("--classes", metavar="CLASS", help="Take means over these only; repeatable.", show_default=False),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by", metavar="PATTERN",
            help="Score slices, too: 'folder', or a regular expression whose first group, found in the id of an image, "
            "names its slice.", show_default=False,
        ),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            "--group-by", metavar="PATTERN",
            help="Images that are drawn together for the intervals, such as frames of one video; as --by.",
            show_default=False,
        ),
    ] = None,
    resamples: Annotated[
        int, typer.Option("--resamples", min=0, help="Resamples behind the 95 % intervals; 0 for no intervals.")
    ] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the resamples.")] = 0,
    format: Annotated[ScoreFormat, typer.Option("--format", "-f", help="Output format.")] = ScoreFormat.text,  # noqa: A002
    storage_option: StorageOptions = None,
) -> None:  # fmt: skip
    """Score a run, running or not, from its stored counts: every convention, other classes, intervals, slices.

    segment score out/ --convention mmseg --merge 'Pole+SignSymbol=Furniture'
    """
    import json

    from segment.report.console import console_for
    from segment.report.run_score import Request, score_run
    from segment.report.score_formats import print_score, to_csv, to_json, to_markdown

    named = cast("_Convention | None", convention and convention.value)
    asked = Request(named, ignore, merge or (), classes, by, group_by, resamples, seed)
    found = score_run(open_ledger(output, storage_option), asked)
    if format is ScoreFormat.json:
        say(json.dumps(to_json(found), indent=2, ensure_ascii=False))
    elif format is ScoreFormat.markdown:
        say(to_markdown(found), end="")
    elif format is ScoreFormat.csv:
        say(to_csv(found), end="")
    else:
        print_score(found, console_for())
