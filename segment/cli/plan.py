"""`segment plan`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from segment.cli.app import app
from segment.cli.options import job_of, takes_job
from segment.cli.streams import say


@app.command()
@takes_job("input")
def plan(
    *,
    seconds: Annotated[float, typer.Option("--seconds", min=0, help="Seconds to measure.")] = 10.0,
    **flags: Any,
) -> None:
    """Show what a run would do and how long it would take. Segments some images; writes nothing.

    segment plan images/ --model unet-camvid-onnx-0001
    """
    from contextlib import closing

    from segment.progress import console_progress
    from segment.runs.estimate import estimate, estimate_lines

    job = job_of(flags, "segment plan", output="memory://segment-plan")
    with closing(console_progress()) as progress:
        found = estimate(job, progress, seconds)
    for line in estimate_lines(found, job.price_per_hour):
        say(line)
