"""`segment run`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segment.cli.app import Stopped, StorageOptions, app, open_store, parse_options

if TYPE_CHECKING:
    from segment.progress import Progress


def _flag(*names: str, help: str, panel: str, metavar: str | None = None) -> Any:  # noqa: A002
    shown = help.replace("[", r"\[")  # or rich takes a default in brackets for markup
    return typer.Option(*names, help=shown, rich_help_panel=panel, metavar=metavar, show_default=False)


class LogFormat(StrEnum):
    """How progress is shown on stderr."""

    auto = "auto"
    plain = "plain"
    json = "json"


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
        str | None,
        _flag("--label-encoding", help="auto, index or colour: how labels say a pixel's class.", panel=_INPUT),
    ] = None,
    label_remap: Annotated[
        list[str] | None,
        _flag(
            "--label-remap",
            help="VALUE=CLASS or R,G,B=CLASS, again for each; *=CLASS for the rest.",
            panel=_INPUT,
            metavar="FROM=TO",
        ),
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
        _flag("--stall-timeout", help="Seconds after which a stuck worker is replaced [measured].", panel=_ENGINE),
    ] = None,
    worker_memory: Annotated[
        str | None,
        _flag("--worker-memory", help="Memory a worker process may take, e.g. 4GB; its part fails.", panel=_ENGINE),
    ] = None,
    price_per_hour: Annotated[
        float | None, _flag("--price-per-hour", help="Of all machines, for the cost per 1,000 images.", panel=_ENGINE)
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
    update: Annotated[
        bool, typer.Option("--update", help="Add what is new in the input, and do again what was replaced there.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Look at what is committed and do what is damaged again.")
    ] = False,
    print_job: Annotated[bool, typer.Option("--print-job", help="Print the job as TOML and end.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show warnings and errors only.")] = False,
    log_format: Annotated[
        LogFormat, typer.Option("--log-format", help="Progress on stderr: a display or lines, lines, or JSON lines.")
    ] = LogFormat.auto,
    ray_progress: Annotated[bool, typer.Option("--ray-progress", help="Show Ray Data's own bars too.")] = False,
) -> None:
    """Segment images. The same command again resumes; what is done is skipped.

    segment run images/ out/ --model unet-camvid-onnx-0001 --labels labels/
    """
    flags = {name: value for name, value in locals().items() if value is not None}
    run_flags(flags)


def run_flags(flags: dict[str, Any]) -> None:
    """Do `segment run` for flags as parsed: over a job file if one is named."""
    from segment.driver import run as run_job
    from segment.job import job_to_toml, make_job
    from segment.ledger import Ledger
    from segment.progress import console_progress
    from segment.report.console import print_report
    from segment.report.speed import print_speed
    from segment.store import Store

    print_job, quiet, log_format = flags.pop("print_job"), flags.pop("quiet"), flags.pop("log_format")
    if flags.pop("ray_progress"):
        log_format = LogFormat.plain if log_format is LogFormat.auto else log_format
        os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "0"  # Ray's own switch
    again = {name: flags.pop(name) for name in ("retry_errors", "update", "verify")}
    with closing(console_progress(quiet, log_format.value)) as progress, _told(progress, log_format):
        job = make_job(*_values(flags))
        if print_job:
            typer.echo(job_to_toml(job), nl=False)
            return
        report = run_job(job, progress, **again)
    if not quiet:
        print_report(report)
        print_speed(Ledger(Store(job.storage_options), report.output), job.price_per_hour)


@contextmanager
def _told(progress: Progress, log_format: LogFormat) -> Iterator[None]:
    """Show what is logged, and where programs read the progress also how the run failed."""
    from segment.errors import SegmentError

    handler = _ToProgress(progress)
    logger = logging.getLogger("segment")
    logger.addHandler(handler)
    try:
        yield
    except (SegmentError, Stopped) as ended:
        if log_format is not LogFormat.json:
            raise
        progress.failed(str(ended), ended.exit_code)
        raise typer.Exit(ended.exit_code) from None
    finally:
        logger.removeHandler(handler)


class _ToProgress(logging.Handler):
    def __init__(self, progress: Progress) -> None:
        super().__init__(logging.WARNING)
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self._progress.note(f"warning: {record.getMessage()}")


def _values(flags: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """What is asked, flags over job file, and where errors are to be looked for."""
    from segment.job import read_job_file

    file = flags.pop("job", None)
    values = read_job_file(file, open_store(flags.get("storage_option"))) if file else {}
    if "storage_option" in flags:
        flags["storage_options"] = {**values.get("storage_options", {}), **parse_options(flags.pop("storage_option"))}
    if "label_remap" in flags:
        flags["label_remap"] = _remap(flags["label_remap"])
    for name in ("batch_size", "part_size"):
        if str(flags.get(name, "")).isdigit():
            flags[name] = int(flags[name])
    return {**values, **flags}, file or "segment run"


def _remap(texts: list[str]) -> dict[str, str]:
    from segment.errors import UsageError

    pairs = [text.rpartition("=") for text in texts]
    if any(not source or not target for source, _, target in pairs):
        raise UsageError(
            "--label-remap takes FROM=TO, for example --label-remap 64,0,128=Vehicle or --label-remap 7=ignore"
        )
    return {source: target for source, _, target in pairs}
