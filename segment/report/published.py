"""Whether a run's score may be read beside the one that was published for its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from segment.models.card import ModelCard, Published

_SHORT = ("bf16", "f16")  # precisions that scores are not published in
_NOT_CHECKED = "The number of images is the same; the data set itself is not checked"


@dataclass(frozen=True)
class Comparison:
    """A published score, and how the run differs from what it was computed by.

    Attributes:
        published: as the card says.
        differences: in words; none where model and protocol agree.
    """

    published: Published
    differences: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether model and protocol are those of the published score, as far as can be known: not the data set."""
        return not self.differences

    def __str__(self) -> str:
        where = f" on {self.published.where}" if self.published.where else ""
        told = f"Not comparable: {'; '.join(self.differences)}" if self.differences else _NOT_CHECKED
        return f"Published {100 * self.published.miou:.2f} %{where}. {told}"

    def as_json(self) -> dict[str, Any]:
        """For `report/summary.json`."""
        told = self.published.model_dump(include={"miou", "dataset", "split", "images", "source"})
        return {**told, "comparable": self.agrees, "differences": list(self.differences)}


def compare_with_published(card: ModelCard, run: Mapping[str, Any], scored: int) -> Comparison | None:
    """Compare a run with the protocol of its card's published score; None where the card has none.

    Args:
        card: the run's.
        run: `run.json`.
        scored: images with a score.
    """
    metric, published = card.metric, card.metric.published
    if published is None:
        return None
    found = []
    if published.images is None:
        found.append("the card does not say on how many images")
    elif published.images != scored:
        found.append(f"{scored:,} images are scored here")
    if (precision := run["contract"]["runtime"]["precision"]) in _SHORT:
        found.append(f"computed here in {precision}")
    if published.convention not in (None, metric.convention):
        found.append(f"published by the {published.convention} convention")
    if published.resolution not in (None, metric.resolution):
        found.append(f"published at {published.resolution} size, scored here at {metric.resolution} size")
    if _has_other_weights(card, published, run.get("weights", {})):
        found.append("these are other weights")
    if run["contract"].get("labels", {}).get("remap"):
        found.append("labels are remapped here")
    return Comparison(published, tuple(found))


def published_in_words(card: ModelCard) -> str:
    """Say what mIoU was published, on what, by whom and how; `""` where none was."""
    published = card.metric.published
    if published is None:
        return ""
    told = (f"{100 * published.miou:.2f} %", published.where, published.source, published.note)
    return "; ".join(filter(None, told))


def _has_other_weights(card: ModelCard, published: Published, weights: Mapping[str, Any]) -> bool:
    """Whether the digests of the run's weights files are known not to be the published ones."""
    wanted = set(published.weights_sha384 or (file.sha384 for file in card.weights))
    return bool(wanted) and bool(weights) and set(weights.get("files") or [weights["sha384"]]) != wanted
