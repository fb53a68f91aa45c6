"""`segment quantize`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from segment.cli.app import Stopped, app
from segment.cli.options import job_of, takes_job
from segment.cli.streams import say, streams

# How a run is spread and what it writes is nothing to this command, which says itself which images it takes.
_UNUSED = (
    "weights", "limit", "sample", "batch_size", "device", "engine", "address", "min_agreement", "price_per_hour",
    "allow_mixed_precision", "currency", "mask_size", "stall_timeout", "part_size", "part_bytes", "confidence",
    "confidence_maps", "probabilities", "keep", "boundary",
)  # fmt: skip


class QuantiserName(StrEnum):
    """What quantises."""

    onnxruntime = "onnxruntime"
    nncf = "nncf"


@app.command()
@takes_job(without=_UNUSED)
def quantize(
    *,
    weights: Annotated[
        str, typer.Argument(metavar="WEIGHTS", help="Path or URL of the weights: .onnx, or .xml with --method nncf.")
    ],
    calibrate: Annotated[
        str, typer.Option("--calibrate", "-c", help="Images that calibrate: any input of a run. No labels are needed.")
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="Empty folder or prefix for weights, card and page.")],
    evaluate: Annotated[
        str | None,
        typer.Option(
            "--evaluate",
            help="Images that say what it costs, which the labels are of. By default others of --calibrate.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[int, typer.Option("--images", min=1, help="Images that calibrate.")] = 100,
    evaluate_images: Annotated[
        int, typer.Option("--evaluate-images", min=1, help="Images on which the price is measured, at most.")
    ] = 500,
    method: Annotated[
        QuantiserName,
        typer.Option("--method", help="onnxruntime: an .onnx for both runtimes. nncf: an OpenVINO IR (extra nncf)."),
    ] = QuantiserName.onnxruntime,
    max_drop: Annotated[
        float, typer.Option("--max-drop", min=0, metavar="POINTS", help="Largest loss of mIoU, in points.")
    ] = 0.5,
    min_agreement: Annotated[
        float,
        typer.Option(
            "--min-agreement",
            min=0,
            max=1,
            metavar="SHARE",
            help="Without labels: smallest share of the pixels that keep their class.",
        ),
    ] = 0.97,
    force: Annotated[bool, typer.Option("--force", help="Write the model even if it costs more than that.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the choice of images, and of the intervals.")] = 0,
    **flags: Any,
) -> None:
    """Quantise a model to INT8, measure what that costs, and write it with a card that runs.

    Exit code 1, and no card, where the loss is beyond --max-drop.

    segment quantize model.onnx --model card.toml --calibrate train/ --evaluate val/ --labels labels/ --output int8/
    """
    from segment.quantization.asked import Asked
    from segment.quantization.quantizing import quantise_job, refusal
    from segment.quantization.summary import summary

    given = {"weights": weights, "input": evaluate or calibrate, "output": output}
    job = job_of(flags | given, "segment quantize")
    asked = Asked(
        calibrate if evaluate else None, images, method.value, evaluate_images, max_drop, min_agreement, force, seed
    )
    try:
        made = quantise_job(job, asked, note=lambda line: say(f"note: {line}", err=True))
    except Stopped as stopped:
        stopped.args = ("stopped; nothing was written",)
        raise
    streams.work_is_done()
    for line in summary(made):
        say(line)
    if not made.accepted:
        say(f"error: {refusal(made)}", err=True)
        raise typer.Exit(1)
