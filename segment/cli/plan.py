"""`segment plan`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from segment.cli import options
from segment.cli.app import StorageOptions, app


@app.command()
def plan(
    input: options.Input = None,  # noqa: A002
    model: options.Model = None,
    weights: options.Weights = None,
    runtime: options.Runtime = None,
    device: options.Device = None,
    precision: options.Precision = None,
    batch_size: options.BatchSize = None,
    format: options.Format = None,  # noqa: A002
    labels: options.Labels = None,
    label_pattern: options.LabelPattern = None,
    label_key: options.LabelKey = None,
    image_column: options.ImageColumn = None,
    label_column: options.LabelColumn = None,
    id_column: options.IdColumn = None,
    label_encoding: options.LabelEncoding = None,
    label_remap: options.LabelRemap = None,
    part_size: options.PartSize = None,
    part_bytes: options.PartBytes = None,
    max_pixels: options.MaxPixels = None,
    max_image_bytes: options.MaxImageBytes = None,
    max_row_group_bytes: options.MaxRowGroupBytes = None,
    engine: options.Engine = None,
    address: options.Address = None,
    workers: options.Workers = None,
    stall_timeout: options.StallTimeout = None,
    worker_memory: options.WorkerMemory = None,
    price_per_hour: options.PricePerHour = None,
    mask_size: options.MaskSize = None,
    max_error_rate: options.MaxErrorRate = None,
    storage_option: StorageOptions = None,
    job: options.JobFile = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0, help="How long to measure.")] = 10.0,
) -> None:
    """Say what a run would do and how long it would take: segments some images for real, writes nothing.

    segment plan images/ --model unet-camvid-onnx-0001
    """
    flags = {name: value for name, value in locals().items() if value is not None}
    plan_flags(flags)


def plan_flags(flags: dict[str, Any]) -> None:
    """Do `segment plan` for flags as parsed: over a job file if one is named."""
    from contextlib import closing

    from segment.job import make_job
    from segment.planning import estimate, estimate_lines
    from segment.progress import console_progress

    seconds = flags.pop("seconds")
    values, where = options.job_values(flags, "segment plan")
    job = make_job({"output": "memory://segment-plan", **values}, where)
    with closing(console_progress()) as progress:
        found = estimate(job, progress, seconds)
    for line in estimate_lines(found, job.price_per_hour):
        typer.echo(line)
