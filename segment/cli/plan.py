"""`segment plan`."""

from __future__ import annotations

from typing import Annotated, Any

from segment.cli.app import app, option
from segment.cli.options import job_of, takes_job
from segment.cli.streams import say


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
    from contextlib import closing

    from segment.output.speed import Price
    from segment.progress import console_progress
    from segment.runs.estimate import estimate, estimate_lines

    job = job_of(flags, "segment plan", output="memory://segment-plan")
    with closing(console_progress()) as progress:
        found = estimate(job, progress, images)
    for line in estimate_lines(found, Price.of(job.model_dump())):
        say(line)
