"""`segment run` and `segment plan`."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from segment.cli.app import Stopped, app, option
from segment.cli.options import job_of, takes_job
from segment.cli.results import print_results
from segment.cli.streams import put, say, streams

if TYPE_CHECKING:
    from segment.progress import Progress


@app.command()
@takes_job("input", "output")
def run(
    *,
    retry_errors: Annotated[
        bool, option("Repeat parts with error rows whose input is unchanged.", "--retry-errors")
    ] = False,
    update: Annotated[
        bool, option("Add new images of the input, and repeat parts whose input was replaced.", "--update")
    ] = False,
    verify: Annotated[
        bool, option("Read committed parts, check every byte, and repeat damaged ones.", "--verify")
    ] = False,
    sign: Annotated[
        str | None, option("Sign the complete run with this secret key of minisign, a local file.", metavar="KEY")
    ] = None,
    print_job: Annotated[bool, option("Print the job as TOML and exit.", "--print-job")] = False,
    quiet: Annotated[bool, option("Show warnings and errors only.", "--quiet", "-q")] = False,
    log_format: Annotated[
        Literal["auto", "plain", "json"], option("Progress on stderr: a display or lines, lines, or JSON lines.")
    ] = "auto",
    ray_progress: Annotated[bool, option("Also show Ray Data's progress bars.", "--ray-progress")] = False,
    **flags: Any,
) -> None:
    """Segment images. The same command again resumes: it skips committed parts.

    segment run images/ out/ --model unet-camvid-onnx-0001 --labels labels/
    """
    from segment.job import job_to_toml
    from segment.output.ledger import Ledger
    from segment.progress import console_progress
    from segment.progress.lines import json_line
    from segment.report.console import page_of
    from segment.runs.driver import run as run_job
    from segment.store.client import Store

    if ray_progress:
        log_format = "plain" if log_format == "auto" else log_format
        os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "0"  # read by Ray Data
    with closing(console_progress(quiet, log_format)) as progress, _logged(progress):
        job = job_of(flags, "segment run")
        if not print_job:
            report = run_job(job, progress, retry_errors=retry_errors, update=update, verify=verify, sign=sign)
            streams.work_is_done()
    if print_job:
        put(job_to_toml(job), end="")
        return
    if quiet:
        return
    if log_format == "json":
        put(json_line("report", **report.to_json()))
        return
    ledger = Ledger(Store(job.storage_options), report.output)
    print_results(ledger, report, page_of(ledger), job.model_dump())


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


@app.command()
@takes_job("input")
def plan(
    *,
    images: Annotated[
        int, option("Images to segment, spread over the input; at least two for each worker.", min=1)
    ] = 16,
    **flags: Any,
) -> None:
    """Show what a run would do, how long it would take and what that assumes. Segments a few images; writes nothing.

    segment plan images/ --model unet-camvid-onnx-0001
    """
    from segment.output.speed import Price
    from segment.progress import console_progress
    from segment.runs.estimate import estimate, estimate_lines

    job = job_of(flags, "segment plan", output="memory://segment-plan")
    with closing(console_progress()) as progress:
        found = estimate(job, progress, images)
    for line in estimate_lines(found, Price.of(job.model_dump())):
        say(line)
