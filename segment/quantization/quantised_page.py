"""The page of a quantised model: its price, its speed, how it was made; then the comparison with its source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from segment.models.card import ModelCard
from segment.pipeline.stages import Task
from segment.quantization.runtime_speeds import RuntimeSpeed, processor
from segment.report.comparison.comparison_page import STYLES, page_values
from segment.report.templating import render_template

if TYPE_CHECKING:
    from segment.quantization.quantizing import QuantisedModel

_TEMPORARY = ("Output", "Fingerprint")  # facts of runs whose outputs are gone when the page is read


def render_quantisation(made: QuantisedModel, card: ModelCard, tasks: Sequence[Task]) -> str:
    """Return the page as HTML."""
    values = page_values(made.comparison, tasks)
    for run in values["runs"]:
        facts = dict(run["facts"])
        run["name"], run["output"] = f"{run['name']} ({facts['Runtime']})", ""
        run["facts"] = [(name, text) for name, text in run["facts"] if name not in _TEMPORARY]
    return render_template(
        "quantize.html.j2",
        styles=STYLES,
        **values,
        quantised=card.name,
        accepted=made.accepted,
        verdicts=made.verdicts,
        remarks=made.notes,
        speeds=[asdict(speed) | {"gain": gain(speed, made.speeds)} for speed in made.speeds],
        processor=processor(),
        made=list(_made(card)),
    )


def gain(speed: RuntimeSpeed, speeds: Sequence[RuntimeSpeed]) -> float:
    """Return how many times as fast as this the quantised model is: on the same runtime, if that serves it."""
    quantised = [one for one in speeds if one.numbers == "INT8"]
    same = [one for one in quantised if one.runtime == speed.runtime]
    return speed.milliseconds / (same or quantised)[0].milliseconds


def _made(card: ModelCard) -> Iterator[tuple[str, str]]:
    made = card.quantisation
    assert made is not None
    yield "Source", made.source
    for digest in made.source_sha384:
        yield "SHA-384 of the source", digest
    yield "Method", f"{made.method}: {made.settings}"
    yield "Calibrated with", f"{made.images} images, seed {made.seed}"
    yield "SHA-384 of these images", made.images_sha384
    yield "Tools", ", ".join(f"{tool} {version}" for tool, version in made.versions.items())
    for file in card.weights:
        yield "File", f"{file.url}, {file.size:,} bytes"
