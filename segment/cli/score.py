"""The command `score`: every score of a run, from its stored counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from segment.cli.app import RunPrefix, StorageOptions, app, open_ledger, option
from segment.cli.streams import put

if TYPE_CHECKING:
    from rich.console import Console

Form = Annotated[Literal["text", "markdown", "json", "csv"], option("Output format.", "--format", "-f")]
# Those of a card, whose module would load numpy for `--help`.
Convention = Literal["omz", "cityscapes", "mmseg", "image-mean"]

Ignore = Annotated[
    list[str] | None,
    option("A class that no score counts, in place of the card's; repeatable; 'none' for no class.", metavar="CLASS"),
]
Merge = Annotated[list[str] | None, option("Classes to count as one, with its name; repeatable.", metavar="A+B=NAME")]
Classes = Annotated[list[str] | None, option("Take means over these classes only; repeatable.", metavar="CLASS")]
By = Annotated[
    str | None,
    option(
        "Score slices, too: by metadata that the run keeps (its name, with bounds for numbers: 'speed:30,60'), by "
        "'size', by 'label:CLASS' (its share of an image), by 'folder' of the id, or by a regular expression whose "
        "first group, found in the id, names the slice.",
        metavar="SLICE",
    ),
]
GroupBy = Annotated[
    str | None,
    option(
        "Images that are drawn together for the intervals, such as frames of one video: the name of kept metadata, "
        "'folder', or a regular expression as in --by.",
        metavar="GROUP",
    ),
]
Resamples = Annotated[int, option("Resamples behind the 95 % intervals; 0 for no intervals.", min=0)]
Seed = Annotated[int, option("Seed of the resamples.", min=0)]

_Found = TypeVar("_Found")


def put_as(
    form: str,
    found: _Found,
    to_json: Callable[[_Found], object],
    to_markdown: Callable[[_Found], str],
    to_csv: Callable[[_Found], str],
    to_console: Callable[[_Found, Console], None],
) -> None:
    """Print what was found in a format of `Form`."""
    import json

    from segment.report.console import console_for

    if form == "text":
        to_console(found, console_for())
    elif form == "json":
        put(json.dumps(to_json(found), indent=2, ensure_ascii=False))
    else:
        put((to_markdown if form == "markdown" else to_csv)(found), end="")


@app.command()
def score(
    output: RunPrefix,
    convention: Annotated[Convention | None, option("Convention of the scores, by default the card's.")] = None,
    ignore: Ignore = None,
    merge: Merge = None,
    classes: Classes = None,
    by: By = None,
    group_by: GroupBy = None,
    resamples: Resamples = 1000,
    seed: Seed = 0,
    form: Form = "text",
    storage_option: StorageOptions = None,
) -> None:
    """Score a run, running or not, from its stored counts: every convention, other classes, intervals, slices.

    segment score out/ --convention mmseg --merge 'Pole+SignSymbol=Furniture'
    """
    from segment.report.run_score import Request, score_run
    from segment.report.score_formats import print_score, to_csv, to_json, to_markdown

    asked = Request(convention, ignore, merge or (), classes, by, group_by, resamples, seed)
    found = score_run(open_ledger(output, storage_option), asked)
    put_as(form, found, to_json, to_markdown, to_csv, print_score)
