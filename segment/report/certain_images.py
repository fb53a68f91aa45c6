"""How sure the model was of the images of a run, and of which ones the least: those to look at, or to label, first."""

import heapq
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from segment.output.ledger import Ledger
from segment.output.part_rows import numbers_of, part_tables
from segment.output.plan import Plan
from segment.output.readable_rows import column_of
from segment.store.names import shown

_LEAST = 20  # images
_NAMED = 3  # images that a line names
_WORDS = {
    "maximum": "the highest probability of a pixel",
    "margin": "the highest less the second highest probability of a pixel",
    "entropy": "1 - H / log C, with the entropy H of a pixel's probabilities",
}


class CertainImage(NamedTuple):
    """An image and its confidence, 0-1."""

    shard: str
    id: str
    confidence: float


@dataclass(frozen=True)
class Certainty:
    """The confidence of the images of a run.

    Attributes:
        measure: `maximum`, `margin` or `entropy`; see `Extras`.
        mean: mean over images of their confidence, 0-1; None without images.
        least: the images with the lowest one, lowest first.
    """

    measure: str
    mean: float | None
    least: tuple[CertainImage, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain JSON."""
        least = [image._asdict() for image in self.least]
        return {"measure": self.measure, "mean": self.mean, "least_certain": least}


def read_certainty(ledger: Ledger, plan: Plan, run: Mapping[str, Any], parts: Collection[str]) -> Certainty | None:
    """Read the confidence of all images of committed parts; None if the run has none.

    Raises SegmentError: a masks file is damaged or lost.
    """
    wanted = run["contract"].get("confidence")
    if wanted is None:
        return None
    shards = plan.table["shard"].to_pylist()
    values: list[float] = []
    least: list[CertainImage] = []
    for number, table in part_tables(ledger, plan, numbers_of(plan, parts), ["id", "mean_confidence"]):
        pairs = zip(table["id"].to_pylist(), column_of(table, "mean_confidence").to_pylist(), strict=True)
        found = [CertainImage(shards[number], name, value) for name, value in pairs if value is not None]
        values += [image.confidence for image in found]
        least = heapq.nsmallest(_LEAST, [*least, *found], key=lambda image: image.confidence)  # stable
    return Certainty(wanted["measure"], math.fsum(values) / len(values) if values else None, tuple(least))


def confidence_in_words(certainty: Certainty | None) -> str:
    """Return mean, measure and the least certain images in a line; `""` without one."""
    if certainty is None or certainty.mean is None:
        return ""
    least = ", ".join(f"{shown(image.id)} {image.confidence:.3f}" for image in certainty.least[:_NAMED])
    return f"mean {certainty.mean:.3f} ({certainty.measure}: {_WORDS[certainty.measure]}); least certain: {least}"
