"""What a card may mean instead: channel order, normalisation, resize."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from segment.models.card import ModelCard
from segment.models.card_input import Resize
from segment.readings.numbering import Numbering
from segment.readings.scalings import Scaling, scaling_in_words, usual_scalings

_BORDERS = (0, 127)
_OTHER_ORDER = {"RGB": "BGR", "BGR": "RGB"}
SETTINGS = ("channels", "scaling", "resize", "labels")


@dataclass(frozen=True)
class Reading:
    """A way to read a card and labels.

    Attributes:
        channels: `RGB`, `BGR` or another value of `input.channels`.
        scaling: `input.maximum`, `mean` and `std`.
        resize: `input.resize`.
        labels: what label values mean.
    """

    channels: str
    scaling: Scaling
    resize: Resize
    labels: Numbering

    @staticmethod
    def of(card: ModelCard, labels: Numbering) -> Reading:
        """Return what a card says."""
        entry = card.input
        return Reading(entry.channels, Scaling(entry.maximum, entry.mean, entry.std), entry.resize, labels)

    def card(self, card: ModelCard) -> ModelCard:
        """Return a card with this reading's input."""
        values = {
            "channels": self.channels,
            "maximum": self.scaling.maximum,
            "mean": self.scaling.mean,
            "std": self.scaling.std,
            "resize": self.resize,
        }
        return card.model_copy(update={"input": card.input.model_copy(update=values)})

    def changes(self, other: Reading) -> tuple[str, ...]:
        """Return the settings that differ."""
        return tuple(name for name in SETTINGS if getattr(self, name) != getattr(other, name))

    def words(self, settings: Iterable[str]) -> str:
        """Return some settings in words, such as `BGR, 0 to 255`."""
        texts = {
            "channels": self.channels,
            "scaling": scaling_in_words(self.scaling, self.channels),
            "resize": resize_in_words(self.resize),
            "labels": f"labels {self.labels.name}",
        }
        return ", ".join(texts[name] for name in settings)


def resize_in_words(resize: Resize) -> str:
    """Return the method, and the border of one that has a border."""
    if resize.method == "stretch":
        return "stretch"
    border = str(resize.pad[0]) if len(set(resize.pad)) == 1 else " ".join(map(str, resize.pad))
    return f"{resize.method} {resize.anchor}, border {border}"


def orders_and_scalings(base: Reading, own: Scaling, *, scalings: bool) -> Iterator[Reading]:
    """Yield readings by channel order and normalisation, which interact: every combination, equal ones once.

    Args:
        own: the card's own normalisation, tried with either order, with its channels reversed and with the other
            maximum.
        scalings: whether the normalisation may be another; false for a graph that takes bytes.
    """
    for channels in (base.channels, *filter(None, [_OTHER_ORDER.get(base.channels)])):
        candidates = [own, *_variants(own, channels)] if scalings else [own]
        distinct: list[Scaling] = []
        for scaling in candidates:
            if not any(scaling.equals(known) for known in distinct):
                distinct.append(scaling)
                yield replace(base, channels=channels, scaling=scaling)


def _variants(own: Scaling, channels: str) -> Iterator[Scaling]:
    if channels in (*_OTHER_ORDER, "GREY"):
        yield from usual_scalings(channels).values()
    yield own.reversed
    yield replace(own, maximum=1 if own.maximum == 255 else 255)


def resizes(base: Reading, own: Resize) -> Iterator[Reading]:
    """Yield readings by resize: stretched, or the aspect ratio kept, with a black or grey border.

    Where the card does not scale an image to a size of the model, there is no other.

    Args:
        own: the card's own; library, kernel and anchor are kept.
    """
    others: list[dict[str, Any]] = [{"method": "stretch", "anchor": "top-left"}]
    others += [
        {"method": method, "pad": (grey,) * len(own.pad)} for method in ("letterbox", "pad") for grey in _BORDERS
    ]
    if own.method in ("none", "short_side"):
        others = []
    found = [own, *(own.model_copy(update=values) for values in others)]
    for resize in dict.fromkeys(found):
        yield replace(base, resize=resize)
