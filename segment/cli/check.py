"""`segment check`."""

from typing import Annotated, Any

import typer

from segment.cli.app import app, option
from segment.cli.options import job_of, takes_job
from segment.cli.streams import put, say
from segment.errors import UsageError

# What a run writes, and how it is spread, is nothing to a check.
_UNUSED = (
    "batch_size", "engine", "address", "workers", "max_error_rate", "min_agreement", "price_per_hour", "currency",
    "allow_mixed_precision", "mask_size", "stall_timeout", "worker_memory", "part_size", "part_bytes", "confidence",
    "confidence_maps", "probabilities",
)  # fmt: skip


@app.command()
@takes_job("input", without=_UNUSED)
def check(
    *,
    images: Annotated[
        int, option("Labelled images to begin with, spread over the input; more where they leave it open.", min=1)
    ] = 16,
    **flags: Any,
) -> None:
    """Check a card against labels: try other channel orders, normalisations, resizes and numberings of labels.

    Exit code 0 if no reading is better than the card's by 2 points and beyond the noise, 1 if one is, 2 if nothing can
    be said.

    segment check images/ --labels labels/ --model my-card.toml
    """
    from segment.cli.notes import shown_notes
    from segment.models.sessions.apart_process import call_apart
    from segment.readings.verdict import check_in_words

    job = job_of(flags, "segment check", output="memory://segment-check")
    with shown_notes() as note:
        told = call_apart(check_in_words, job, images, note=note)
    for line in told.table:
        say(line, fits=True)
    if told.no_evidence:
        raise UsageError(told.no_evidence)
    say("")
    for line in told.verdict:
        say(line)
    for line in told.advice:
        put(line)  # TOML, which a break may spoil
    if not told.agrees:
        raise typer.Exit(1)
