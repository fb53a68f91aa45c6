"""`segment plan`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from segment.cli.app import StorageOptions, app, open_store, parse_options


@app.command()
def plan(
    input: Annotated[  # noqa: A002
        str | None, typer.Argument(help="Images: folder, prefix, tars, Parquet or a list file; a path or URL.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Built-in card, or a card's path or URL.")] = None,
    weights: Annotated[str | None, typer.Option("--weights", "-w", help="Path or URL of the weights.")] = None,
    labels: Annotated[str | None, typer.Option("--labels", help="Prefix of label images.")] = None,
    runtime: Annotated[str | None, typer.Option("--runtime", help="auto, onnxruntime or openvino.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or tensorrt.")] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="auto, f32, bf16 or f16.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Images a call of the model.")] = None,
    engine: Annotated[str | None, typer.Option("--engine", help="auto, local or ray.")] = None,
    address: Annotated[str | None, typer.Option("--address", help="Ray cluster.")] = None,
    workers: Annotated[str | None, typer.Option("--workers", help="Models loaded at once.")] = None,
    price_per_hour: Annotated[
        float | None, typer.Option("--price-per-hour", help="Of all machines, for the expected cost.")
    ] = None,
    storage_option: StorageOptions = None,
    job: Annotated[
        str | None, typer.Option("--job", "-j", help="TOML job file, for all that has no flag here.")
    ] = None,
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

    from segment.job import make_job, read_job_file
    from segment.planning import estimate, estimate_lines
    from segment.progress import console_progress

    file, seconds = flags.pop("job", None), flags.pop("seconds")
    values = read_job_file(file, open_store(flags.get("storage_option"))) if file else {}
    if "storage_option" in flags:
        flags["storage_options"] = {**values.get("storage_options", {}), **parse_options(flags.pop("storage_option"))}
    job = make_job({"output": "memory://segment-plan", **values, **flags}, where=file or "segment plan")
    with closing(console_progress()) as progress:
        found = estimate(job, progress, seconds)
    for line in estimate_lines(found, job.price_per_hour):
        typer.echo(line)
