"""Comparison of a run's score with the published score of its model: whether model and protocol are the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segment.models.card import ModelCard, Published

_HALF = {"bf16": "bf16", "f16": "f16", "mixed": "bf16 and f32"}  # no score is published in these precisions
_NOT_CHECKED = "The number of images is the same; the data set itself is not checked"


@dataclass(frozen=True)
class Comparison:
    """A published score, and the differences between the run and its protocol.

    Attributes:
        published: as in the card.
        differences: in words; none if model and protocol are the same.
    """

    published: Published
    differences: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether model and protocol are those of the published score; the data set is not checked."""
        return not self.differences

    def __str__(self) -> str:
        where = f" on {self.published.where}" if self.published.where else ""
        verdict = f"Not comparable: {'; '.join(self.differences)}" if self.differences else _NOT_CHECKED
        return f"Published {100 * self.published.miou:.2f} %{where}. {verdict}"

    def as_json(self) -> dict[str, Any]:
        """Return the comparison as in `report/summary.json`."""
        published = self.published.model_dump(include={"miou", "dataset", "split", "images", "source"})
        return {**published, "comparable": self.agrees, "differences": list(self.differences)}


def compare_with_published(card: ModelCard, run: Mapping[str, Any], scored: int) -> Comparison | None:
    """Compare a run with the protocol of its card's published score; None if the card has none.

    Args:
        run: `run.json`.
        scored: number of scored images.
    """
    metric, published = card.metric, card.metric.published
    if published is None:
        return None
    found = []
    if published.images is None:
        found.append("the card does not give the number of images")
    elif published.images != scored:
        found.append(f"{scored:,} images are scored here")
    if words := _HALF.get(run["contract"]["runtime"]["precision"]):
        found.append(f"computed here in {words}")
    if published.convention not in (None, metric.convention):
        found.append(f"published by the {published.convention} convention")
    if published.resolution not in (None, metric.resolution):
        found.append(f"published at {published.resolution} size, scored here at {metric.resolution} size")
    if set(published.tta) != set(card.input.tta):
        found.append(f"published {_views(published.tta)}, scored here {_views(card.input.tta)}")
    if _has_other_weights(card, published, run.get("weights", {})):
        found.append("these are other weights")
    if run["contract"].get("labels", {}).get("remap"):
        found.append("labels are remapped here")
    return Comparison(published, tuple(found))


def published_in_words(card: ModelCard) -> str:
    """Return the published mIoU with data set, source and note; `""` if there is none."""
    published = card.metric.published
    if published is None:
        return ""
    parts = (f"{100 * published.miou:.2f} %", published.where, published.source, published.note)
    return "; ".join(filter(None, parts))


def _views(views: Sequence[str | float]) -> str:
    return f"with views ({', '.join(map(str, views))})" if views else "without views"


def _has_other_weights(card: ModelCard, published: Published, weights: Mapping[str, Any]) -> bool:
    """Return whether the weights are known to differ from the published ones, by the digests of their files."""
    wanted = set(published.weights_sha384 or (file.sha384 for file in card.files))
    return bool(wanted) and bool(weights) and set(weights.get("files") or [weights["sha384"]]) != wanted
