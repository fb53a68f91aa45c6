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
from segment.cli.streams import say, streams

if TYPE_CHECKING:
    from segment.progress import Progress


class LogFormat(StrEnum):
    """How progress is shown on stderr."""

    auto = "auto"
    plain = "plain"
    json = "json"


@app.command()
@takes_job("input", "output")
def run(
    *,
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
    ray_progress: Annotated[
        bool, typer.Option("--ray-progress", help="On GPUs: show Ray Data's own bars too.")
    ] = False,
    **flags: Any,
) -> None:
    """Segment images. The same command again resumes; what is done is skipped.

    segment run images/ out/ --model unet-camvid-onnx-0001 --labels labels/
    """
    from segment.errors import SegmentError
    from segment.job import job_to_toml
    from segment.output.ledger import Ledger
    from segment.progress import console_progress
    from segment.progress.lines import json_line
    from segment.report.console import print_report
    from segment.report.speed import print_speed
    from segment.runs.driver import run as run_job
    from segment.store.client import Store

    if ray_progress:
        log_format = LogFormat.plain if log_format is LogFormat.auto else log_format
        os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "0"  # Ray's own switch
    with closing(console_progress(quiet, log_format.value)) as progress, _told(progress):
        job = job_of(flags, "segment run")
        if not print_job:
            report = run_job(job, progress, retry_errors=retry_errors, update=update, verify=verify)
            streams.work_is_done()
    if print_job:
        say(job_to_toml(job), end="")
        return
    if quiet:
        return
    if log_format is LogFormat.json:
        say(json_line("report", **report.summary()))
        return
    print_report(report)
    try:
        print_speed(Ledger(Store(job.storage_options), report.output), job.price_per_hour)
    except SegmentError as error:  # the run is done all the same
        say(f"warning: its speed cannot be told: {error}", err=True)


@contextmanager
def _told(progress: Progress) -> Iterator[None]:
    """Show what is logged, and where programs read the progress also how the run failed."""
    from segment.progress.lines import JsonProgress, only_json

    handler = _ToProgress(progress)
    logger = logging.getLogger("segment")
    logger.addHandler(handler)
    try:
        if isinstance(progress, JsonProgress):
            with _failures_told(progress), only_json(progress):
                yield
        else:
            yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def _failures_told(progress: Progress) -> Iterator[None]:
    """Make one event of whatever ends the run."""
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
