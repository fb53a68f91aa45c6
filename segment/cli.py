"""The command line: thin commands over `segment.job`, `segment.report` and `segment.card`.

Imports of anything heavy are inside the commands, so that `--help` answers at once.
Exit codes: 0 done, 1 the run failed (rerun to resume), 2 wrong usage or input, 3 more errors than allowed,
130 and 143 stopped by Ctrl-C or SIGTERM (rerun to resume).
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from segment.store import Store

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Segment every image of a bucket or folder exactly once; write masks and exact IoU statistics to Parquet.",
)
models_app = typer.Typer(invoke_without_command=True, help="List the built-in model cards, or show one.")
app.add_typer(models_app, name="models")

StorageOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--storage-option",
        metavar="KEY=VALUE",
        help="fsspec option for every URL that is not local, such as endpoint_url=http://... or anon=true.",
        rich_help_panel="Stores",
    ),
]


class ReportFormat(StrEnum):
    """How `segment report` prints."""

    table = "table"
    markdown = "markdown"
    json = "json"


def _flag(*names: str, help: str, panel: str, metavar: str | None = None) -> Any:  # noqa: A002
    return typer.Option(*names, help=help, rich_help_panel=panel, metavar=metavar, show_default=False)


_MODEL, _INPUT, _ENGINE, _OUTPUT = "Model", "Input", "Engine", "Output"


@app.command()
def run(
    input: Annotated[  # noqa: A002
        str | None,
        typer.Argument(help="Images: folder, prefix, tars, Parquet or a list file; a path or URL.", show_default=False),
    ] = None,
    output: Annotated[str | None, typer.Argument(help="Prefix to write to; a path or URL.", show_default=False)] = None,
    model: Annotated[
        str | None, _flag("--model", "-m", help="Built-in card, or a card's path or URL.", panel=_MODEL)
    ] = None,
    weights: Annotated[
        str | None,
        _flag("--weights", "-w", help="Path or URL of .onnx, .xml or .tflite; else the card's own.", panel=_MODEL),
    ] = None,
    runtime: Annotated[str | None, _flag("--runtime", help="auto, onnxruntime or openvino.", panel=_MODEL)] = None,
    device: Annotated[str | None, _flag("--device", help="auto, cpu, cuda or tensorrt.", panel=_MODEL)] = None,
    precision: Annotated[str | None, _flag("--precision", help="auto, f32, bf16 or f16.", panel=_MODEL)] = None,
    batch_size: Annotated[
        str | None, _flag("--batch-size", help="Images a call of the model, or auto.", panel=_MODEL)
    ] = None,
    format: Annotated[  # noqa: A002
        str | None, _flag("--format", help="auto, files, webdataset, parquet or list.", panel=_INPUT)
    ] = None,
    labels: Annotated[
        str | None, _flag("--labels", help="Prefix of label images, matched by relative stem.", panel=_INPUT)
    ] = None,
    label_pattern: Annotated[
        str | None,
        _flag(
            "--label-pattern", help="Label path with {dir}, {stem}, {name}, e.g. '{dir}/{stem}_L.png'.", panel=_INPUT
        ),
    ] = None,
    label_key: Annotated[
        str | None,
        _flag("--label-key", help="Tar member suffix of labels [seg.png, mask.png, label.png].", panel=_INPUT),
    ] = None,
    image_column: Annotated[str | None, _flag("--image-column", help="Parquet column.", panel=_INPUT)] = None,
    label_column: Annotated[str | None, _flag("--label-column", help="Parquet column.", panel=_INPUT)] = None,
    id_column: Annotated[str | None, _flag("--id-column", help="Parquet column.", panel=_INPUT)] = None,
    label_encoding: Annotated[
        str | None, _flag("--label-encoding", help="auto, index or colour.", panel=_INPUT)
    ] = None,
    label_remap: Annotated[
        list[str] | None,
        _flag("--label-remap", help="VALUE=CLASS or R,G,B=CLASS; again for each.", panel=_INPUT, metavar="FROM=TO"),
    ] = None,
    part_size: Annotated[
        str | None, _flag("--part-size", help="Images a part (unit of commit), or auto.", panel=_INPUT)
    ] = None,
    part_bytes: Annotated[int | None, _flag("--part-bytes", help="Most encoded bytes a part.", panel=_INPUT)] = None,
    max_pixels: Annotated[
        int | None, _flag("--max-pixels", help="Larger images are error rows [100000000].", panel=_INPUT)
    ] = None,
    max_image_bytes: Annotated[
        int | None, _flag("--max-image-bytes", help="Larger files are error rows.", panel=_INPUT)
    ] = None,
    max_row_group_bytes: Annotated[
        int | None, _flag("--max-row-group-bytes", help="Parquet with larger row groups is refused.", panel=_INPUT)
    ] = None,
    engine: Annotated[str | None, _flag("--engine", help="auto, local or ray.", panel=_ENGINE)] = None,
    address: Annotated[
        str | None, _flag("--address", help="Ray cluster: auto, host:port or ray://host:port.", panel=_ENGINE)
    ] = None,
    workers: Annotated[
        str | None, _flag("--workers", help="Models loaded at once, or MIN:MAX for a growing pool.", panel=_ENGINE)
    ] = None,
    stall_timeout: Annotated[
        float | None,
        _flag("--stall-timeout", help="Seconds after which a stuck worker is replaced [300].", panel=_ENGINE),
    ] = None,
    mask_size: Annotated[str | None, _flag("--mask-size", help="source or model.", panel=_OUTPUT)] = None,
    max_error_rate: Annotated[
        float | None, _flag("--max-error-rate", help="Share of images that may fail [0.05].", panel=_OUTPUT)
    ] = None,
    storage_option: StorageOptions = None,
    job: Annotated[
        str | None, typer.Option("--job", "-j", help="TOML job file; flags override it.", show_default=False)
    ] = None,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Do parts with error rows again, where their input is unchanged.")
    ] = False,
    update: Annotated[bool, typer.Option("--update", help="Add what is new in the input to a begun run.")] = False,
    print_job: Annotated[bool, typer.Option("--print-job", help="Print the job as TOML and end.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show warnings and errors only.")] = False,
) -> None:
    """Segment images. The same command again resumes; what is done is skipped.

    segment run images/ out/ --model unet-camvid-onnx-0001 --labels labels/
    """
    flags = {name: value for name, value in locals().items() if value is not None}
    run_flags(flags)


def run_flags(flags: dict[str, Any]) -> None:
    """Do `segment run` for flags as parsed: over a job file if one is named."""
    from segment.driver import run as run_job
    from segment.job import job_to_toml, make_job, read_job_file
    from segment.progress import console_progress
    from segment.report.console import print_report

    file, print_job, quiet = flags.pop("job", None), flags.pop("print_job"), flags.pop("quiet")
    again = {name: flags.pop(name) for name in ("retry_errors", "update")}
    values = read_job_file(file, _store(flags.get("storage_option"))) if file else {}
    if "storage_option" in flags:
        flags["storage_options"] = {**values.get("storage_options", {}), **_options(flags.pop("storage_option"))}
    if "label_remap" in flags:
        flags["label_remap"] = _remap(flags["label_remap"])
    for name in ("batch_size", "part_size"):
        if str(flags.get(name, "")).isdigit():
            flags[name] = int(flags[name])
    job = make_job({**values, **flags}, where=file or "segment run")
    if print_job:
        typer.echo(job_to_toml(job), nl=False)
        return
    with closing(console_progress(quiet)) as progress:
        report = run_job(job, progress, **again)
    if not quiet:
        print_report(report)


@app.command()
def report(
    output: Annotated[str, typer.Argument(help="Output prefix of a run.")],
    format: Annotated[ReportFormat, typer.Option("--format", "-f", help="How to print it.")] = ReportFormat.table,  # noqa: A002
    storage_option: StorageOptions = None,
) -> None:
    """Show a run's scores from what is committed; works while it runs, too."""
    import json

    from segment.ledger import Ledger
    from segment.report.aggregate import load_report
    from segment.report.console import print_report
    from segment.report.markdown import to_markdown
    from segment.urls import to_url

    found = load_report(Ledger(_store(storage_option), to_url(output)))
    if format is ReportFormat.json:
        typer.echo(json.dumps(found.summary(), indent=2, sort_keys=True, ensure_ascii=False))
    elif format is ReportFormat.markdown:
        typer.echo(to_markdown(found))
    else:
        print_report(found)


@app.command()
def audit(
    output: Annotated[str, typer.Argument(help="Output prefix of a run.")],
    deep: Annotated[bool, typer.Option("--deep", help="Read every byte and check the checksums.")] = False,
    storage_option: StorageOptions = None,
) -> None:
    """Prove that every planned image has exactly one row and that the statistics hold; exit code 0 or 1."""
    from segment.audit import audit_run
    from segment.ledger import Ledger
    from segment.report.console import print_audit
    from segment.urls import to_url

    found = audit_run(Ledger(_store(storage_option), to_url(output)), deep=deep)
    print_audit(found)
    raise typer.Exit(1 if found.problems else 0)


@app.command()
def status(
    output: Annotated[str, typer.Argument(help="Output prefix of a run.")],
    storage_option: StorageOptions = None,
) -> None:
    """Say how far a run is, running or not, from the store alone."""
    from segment.ledger import Ledger
    from segment.report.console import print_status
    from segment.urls import to_url

    print_status(Ledger(_store(storage_option), to_url(output)))


@models_app.callback()
def models(context: typer.Context) -> None:
    """List the built-in model cards; `segment models show NAME` prints one."""
    if context.invoked_subcommand is None:
        from segment.report.cards import print_cards

        print_cards()


@models_app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(help="Built-in card, or a card's path or URL.")],
    storage_option: StorageOptions = None,
) -> None:
    """Print a card's contract."""
    from segment.card import load_card
    from segment.report.cards import print_card

    print_card(load_card(name, _store(storage_option)))


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to put scenes and results.")] = Path("demo-output"),
    engine: Annotated[str, typer.Option("--engine", help="local or ray.")] = "ray",
    scenes: Annotated[int, typer.Option("--scenes", min=4, help="Scenes to make.")] = 160,
) -> None:
    """Make labelled street scenes, segment them on a local Ray cluster, show the scores and a picture."""
    from segment.demo.show import run_demo

    run_demo(folder, engine=engine, scenes=scenes)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"segment {version('segment-job')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Batch semantic segmentation."""


def _options(texts: list[str] | None) -> dict[str, Any]:
    from segment.store import parse_storage_option

    return dict(parse_storage_option(text) for text in texts or [])


def _store(texts: list[str] | None) -> Store:
    from segment.store import Store

    return Store(_options(texts))


def _remap(texts: list[str]) -> dict[str, str]:
    from segment.errors import UsageError

    pairs = [text.rpartition("=") for text in texts]
    if any(not source or not target for source, _, target in pairs):
        raise UsageError(
            "--label-remap takes FROM=TO, for example --label-remap 64,0,128=Vehicle or --label-remap 7=ignore"
        )
    return {source: target for source, _, target in pairs}


class Stopped(BaseException):
    """SIGINT or SIGTERM came. No `Exception`, so that nothing takes it for a failure of its own."""

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number


def _stop(number: int, frame: object) -> None:
    """First signal: unwind, so that parts at hand are finished or abandoned. A second one ends at once."""
    for stopping in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stopping, lambda again, _: os._exit(128 + again))
    raise Stopped(number)


def main() -> None:
    """Entry point of the `segment` command: every failure is one clear message and an exit code."""
    from segment.errors import SegmentError

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        app()
    except SegmentError as error:
        typer.secho(f"error: {error}", err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)
        sys.exit(error.exit_code)
    except Stopped as stopped:
        typer.echo("stopped; what is committed stays, the same command resumes the run", err=True)
        sys.exit(stopped.exit_code)
