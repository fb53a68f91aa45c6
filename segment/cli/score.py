"""The commands that score runs: `score`, `compare` and `label-errors`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from segment.cli.app import AllowInput, RunPrefix, StorageOptions, app, open_ledger, open_store, option, parse_options
from segment.cli.streams import put, say, streams

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
        "'size', by 'brightness', by 'label:CLASS' (its share of an image), by 'folder' of the id, or by a regular "
        "expression whose first group, found in the id, names the slice.",
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
    from segment.api.outputs import compare_and_show
    from segment.report.comparison.comparing import ComparisonRequest, RunComparison
    from segment.report.comparison.comparison_formats import print_comparison, to_csv, to_json, to_markdown
    from segment.report.comparison.gate import Limits, Verdict, verdicts
    from segment.store.names import shown

    limits = Limits(fail_below, fail_below_agreement)
    limits.refuse_without_masks(masks)
    asked = ComparisonRequest(
        convention, ignore, merge or (), classes, by, group_by, resamples, seed, pairs or (), masks
    )
    decided: list[Verdict] = []

    def tell(found: RunComparison) -> None:
        decided.extend(verdicts(found, limits))
        put_as(form, found, lambda found: to_json(found, decided), to_markdown, to_csv, print_comparison)
        for verdict in decided:
            say(f"{'pass' if verdict.passed else 'FAIL'}  {verdict.words}", err=True)

    found = compare_and_show(outputs, asked, open_store(storage_option, allow_input), to, tell)
    if decided or found.page:
        streams.work_is_done()  # the exit code, or the page, is the answer
    if found.page:
        say(f"page:  {shown(found.page)}", err=form != "text")
    raise typer.Exit(0 if all(verdict.passed for verdict in decided) else 1)


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
    from segment.api import outputs
    from segment.report.label_errors import errors_to_csv, errors_to_json, errors_to_markdown, print_errors

    found = outputs.label_errors(
        output,
        number=number,
        images=images,
        storage_options=parse_options(storage_option),
        allow_input=allow_input or (),
    )
    put_as(form, found, errors_to_json, errors_to_markdown, errors_to_csv, print_errors)
