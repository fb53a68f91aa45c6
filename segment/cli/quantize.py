"""`segment quantize`."""

from typing import Annotated, Any, Literal

import typer

from segment.cli.app import Stopped, app, option
from segment.cli.options import job_of, takes_job
from segment.cli.streams import say, streams

# How a run is spread and what it writes is nothing to this command, which says itself which images it takes.
_UNUSED = (
    "weights", "limit", "sample", "batch_size", "device", "engine", "address", "min_agreement", "price_per_hour",
    "allow_mixed_precision", "currency", "mask_size", "stall_timeout", "part_size", "part_bytes", "confidence",
    "confidence_maps", "probabilities", "keep", "boundary",
)  # fmt: skip


@app.command()
@takes_job(without=_UNUSED)
def quantize(
    *,
    weights: Annotated[
        str, typer.Argument(metavar="WEIGHTS", help="Path or URL of the weights: .onnx, or .xml with --method nncf.")
    ],
    calibrate: Annotated[
        str, option("Images that calibrate: any input of a run. No labels are needed.", "--calibrate", "-c")
    ],
    output: Annotated[str, option("Empty folder or prefix for weights, card and page.", "--output", "-o")],
    evaluate: Annotated[
        str | None,
        option("Images on which the cost is measured; --labels are of these. By default others of --calibrate."),
    ] = None,
    images: Annotated[int, option("Images that calibrate.", min=1)] = 100,
    evaluate_images: Annotated[int, option("Images on which the cost is measured, at most.", min=1)] = 500,
    method: Annotated[
        Literal["onnxruntime", "nncf"],
        option("onnxruntime: an .onnx for both runtimes. nncf: an OpenVINO IR (extra nncf)."),
    ] = "onnxruntime",
    max_drop: Annotated[float, option("Largest loss of mIoU, in points.", min=0, metavar="POINTS")] = 0.5,
    min_agreement: Annotated[
        float,
        option("Without labels: smallest share of the pixels that keep their class.", min=0, max=1, metavar="SHARE"),
    ] = 0.97,
    force: Annotated[bool, option("Write the model even if it costs more than that.", "--force")] = False,
    seed: Annotated[int, option("Of the choice of images, and of the intervals.", min=0)] = 0,
    **flags: Any,
) -> None:
    """Quantise a model to INT8, measure what that costs, and write it with a card that runs.

    Exit code 1, and no card, where the loss is beyond --max-drop.

    segment quantize model.onnx --model card.toml --calibrate train/ --evaluate val/ --labels labels/ --output int8/
    """
    from segment.cli.notes import shown_notes
    from segment.quantization.asked import Asked
    from segment.quantization.quantizing import quantise_job, refusal
    from segment.quantization.summary import summary

    given = {"weights": weights, "input": evaluate or calibrate, "output": output}
    as_given = {"weights": "WEIGHTS", "input": "--evaluate" if evaluate else "--calibrate", "output": "--output"}
    job = job_of(flags | given, "segment quantize", as_given)
    asked = Asked(
        calibrate if evaluate else None, images, method, evaluate_images, max_drop, min_agreement, force, seed
    )
    try:
        with shown_notes() as note:
            made = quantise_job(job, asked, note=note)
    except Stopped as stopped:
        stopped.args = ("stopped; nothing was written",)
        raise
    streams.work_is_done()
    for line in summary(made):
        say(line)
    if not made.accepted:
        say(f"error: {refusal(made)}", err=True)
        raise typer.Exit(1)
