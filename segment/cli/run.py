"""`segment run`."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segment.cli.app import Stopped, app
from segment.cli.options import job_of, takes_job
from segment.cli.streams import put, say, streams

if TYPE_CHECKING:
    from segment.progress import Progress


class LogFormat(StrEnum):
    """Formats of the progress on stderr."""

    auto = "auto"
    plain = "plain"
    json = "json"


@app.command()
@takes_job("input", "output")
def run(
    *,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Repeat parts with error rows whose input is unchanged.")
    ] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Add new images of the input, and repeat parts whose input was replaced.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read committed parts, check every byte, and repeat damaged ones.")
    ] = False,
    sign: Annotated[
        str | None,
        typer.Option(
            "--sign", metavar="KEY", help="Sign the complete run with this secret key of minisign, a local file."
        ),
    ] = None,
    print_job: Annotated[bool, typer.Option("--print-job", help="Print the job as TOML and exit.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show warnings and errors only.")] = False,
    log_format: Annotated[
        LogFormat, typer.Option("--log-format", help="Progress on stderr: a display or lines, lines, or JSON lines.")
    ] = LogFormat.auto,
    ray_progress: Annotated[bool, typer.Option("--ray-progress", help="Also show Ray Data's progress bars.")] = False,
    **flags: Any,
) -> None:
    """Segment images. The same command again resumes: it skips committed parts.

    segment run images/ out/ --model unet-camvid-onnx-0001 --labels labels/
    """
    from segment.errors import SegmentError
    from segment.job import job_to_toml
    from segment.output.ledger import Ledger
    from segment.output.speed import Price
    from segment.progress import console_progress
    from segment.progress.lines import json_line
    from segment.report.console import page_of, print_report
    from segment.report.speed_lines import print_speed
    from segment.runs.driver import run as run_job
    from segment.store.client import Store

    if ray_progress:
        log_format = LogFormat.plain if log_format is LogFormat.auto else log_format
        os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "0"  # read by Ray Data
    with closing(console_progress(quiet, log_format.value)) as progress, _logged(progress):
        job = job_of(flags, "segment run")
        if not print_job:
            report = run_job(job, progress, retry_errors=retry_errors, update=update, verify=verify, sign=sign)
            streams.work_is_done()
    if print_job:
        put(job_to_toml(job), end="")
        return
    if quiet:
        return
    if log_format is LogFormat.json:
        put(json_line("report", **report.summary()))
        return
    ledger = Ledger(Store(job.storage_options), report.output)
    print_report(report, page=page_of(ledger))
    try:
        print_speed(ledger, Price.of(job.model_dump()))
    except SegmentError as error:  # the run is complete
        say(f"warning: the speed of the run is unknown: {error}", err=True)


@contextmanager
def _logged(progress: Progress) -> Iterator[None]:
    """Show log records as notes of the progress, and a failure of the run if the progress is JSON lines."""
    from segment.progress.lines import JsonProgress, only_json

    handler = _ToProgress(progress)
    logger = logging.getLogger("segment")
    logger.addHandler(handler)
    try:
        if isinstance(progress, JsonProgress):
            with _failures_logged(progress), only_json(progress):
                yield
        else:
            yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def _failures_logged(progress: Progress) -> Iterator[None]:
    """Emit one event for the failure or signal that ends the run."""
    from segment.errors import SegmentError

    try:
        yield
    except (SegmentError, Stopped) as ended:
        progress.failed(str(ended), ended.exit_code)
        raise typer.Exit(ended.exit_code) from None
    except typer.Exit:
        raise
    except Exception:
        progress.failed(traceback.format_exc(), 1)
        raise typer.Exit(1) from None


class _ToProgress(logging.Handler):
    def __init__(self, progress: Progress) -> None:
        super().__init__(logging.WARNING)
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self._progress.note(f"warning: {record.getMessage()}")
