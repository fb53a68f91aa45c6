"""The command `score`: every score of a run, from its stored counts."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from segment.cli.app import RunPrefix, StorageOptions, app, open_ledger
from segment.cli.streams import put


class ScoreFormat(StrEnum):
    """Output formats of `segment score`."""

    text = "text"
    markdown = "markdown"
    json = "json"
    csv = "csv"


class Convention(StrEnum):
    """The conventions of a card, whose module would load numpy for `--help`."""

    omz = "omz"
    cityscapes = "cityscapes"
    mmseg = "mmseg"
    image_mean = "image-mean"


def option(name: str, metavar: str, words: str) -> Any:
    """Return a flag with a value that has no default."""
    return typer.Option(f"--{name}", metavar=metavar, help=words, show_default=False)


Ignore = Annotated[
    list[str] | None,
    option("ignore", "CLASS", "A class that no score counts, in place of the card's; repeatable; 'none' for no class."),
]
Merge = Annotated[list[str] | None, option("merge", "A+B=NAME", "Classes to count as one, with its name; repeatable.")]
Classes = Annotated[list[str] | None, option("classes", "CLASS", "Take means over these classes only; repeatable.")]
By = Annotated[
    str | None,
    option(
        "by",
        "SLICE",
        "Score slices, too: by metadata that the run keeps (its name, with bounds for numbers: 'speed:30,60'), by "
        "'size', by 'label:CLASS' (its share of an image), by 'folder' of the id, or by a regular expression whose "
        "first group, found in the id, names the slice.",
    ),
]
GroupBy = Annotated[
    str | None,
    option(
        "group-by",
        "GROUP",
        "Images that are drawn together for the intervals, such as frames of one video: the name of kept metadata, "
        "'folder', or a regular expression as in --by.",
    ),
]
Resamples = Annotated[
    int, typer.Option("--resamples", min=0, help="Resamples behind the 95 % intervals; 0 for no intervals.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the resamples.")]


@app.command()
def score(
    output: RunPrefix,
    convention: Annotated[
        Convention | None,
        typer.Option("--convention", help="Convention of the scores, by default the card's.", show_default=False),
    ] = None,
    ignore: Ignore = None,
    merge: Merge = None,
    classes: Classes = None,
    by: By = None,
    group_by: GroupBy = None,
    resamples: Resamples = 1000,
    seed: Seed = 0,
    format: Annotated[ScoreFormat, typer.Option("--format", "-f", help="Output format.")] = ScoreFormat.text,  # noqa: A002
    storage_option: StorageOptions = None,
) -> None:
    """Score a run, running or not, from its stored counts: every convention, other classes, intervals, slices.

    segment score out/ --convention mmseg --merge 'Pole+SignSymbol=Furniture'
    """
    import json

    from segment.report.console import console_for
    from segment.report.run_score import Request, score_run
    from segment.report.score_formats import print_score, to_csv, to_json, to_markdown

    asked = Request(
        convention.value if convention else None, ignore, merge or (), classes, by, group_by, resamples, seed
    )
    found = score_run(open_ledger(output, storage_option), asked)
    if format is ScoreFormat.json:
        put(json.dumps(to_json(found), indent=2, ensure_ascii=False))
    elif format is ScoreFormat.markdown:
        put(to_markdown(found), end="")
    elif format is ScoreFormat.csv:
        put(to_csv(found), end="")
    else:
        print_score(found, console_for())
