"""`segment plan`."""

from __future__ import annotations

from typing import Annotated, Unpack

import typer

from segment.cli import options
from segment.cli.app import app
from segment.cli.streams import say


@app.command()
@options.with_job
def plan(
    *,
    seconds: Annotated[float, typer.Option("--seconds", min=0, help="How long to measure.")] = 10.0,
    **flags: Unpack[options.JobFlags],
) -> None:
    """Say what a run would do and how long it would take: segments some images for real, writes nothing.

    segment plan images/ --model unet-camvid-onnx-0001
    """
    from contextlib import closing

    from segment.job import make_job
    from segment.progress import console_progress
    from segment.runs.estimate import estimate, estimate_lines

    values, where = options.job_values(flags, "segment plan")
    job = make_job({"output": "memory://segment-plan", **values}, where)
    with closing(console_progress()) as progress:
        found = estimate(job, progress, seconds)
    for line in estimate_lines(found, job.price_per_hour):
        say(line)
