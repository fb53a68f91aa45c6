"""What a session may return beside the masks: how sure the model is of each pixel, and probabilities of classes.

Both are computed in the graph, from the scores of which the mask is the argmax, and leave it as bytes: 255 times a
number from 0 to 1, rounded.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from segment.errors import UsageError, did_you_mean
from segment.models.card import ModelCard
from segment.models.extra_options import Measure

ScoreKind = Literal["probabilities", "logits"]

MEASURES: tuple[Measure, ...] = get_args(Measure)
LEVELS = 255  # of a byte: probability 1
FURTHEST = 0.51  # from 0.5: a number beyond is no probability; a hundredth is for rounding
LEAST = 1e-7  # a smaller probability adds nothing to an entropy; f16 holds it


@dataclass(frozen=True, slots=True)
class Extras:
    """What a session returns beside the masks; nothing by default.

    Attributes:
        confidence: the measure of the confidence map, from the probabilities p of a pixel's C classes; None for no map.
            `maximum` is the highest p, `margin` the highest less the second highest, `entropy` 1 - H / log C with
            Shannon's H = -sum(p log p). Each is from 0 to 1, where 1 is sure.
        probabilities: indices of the classes whose probabilities are returned.
    """

    confidence: Measure | None = None
    probabilities: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.outputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The fields of `Masks` that are filled, in the order of the graph's outputs behind masks and check values."""
        wanted = {"confidence": self.confidence is not None, "probabilities": bool(self.probabilities)}
        return tuple(name for name, is_wanted in wanted.items() if is_wanted)

    def shape(self, name: str, mask_size: tuple[int, int]) -> tuple[int, ...]:
        """Return the shape of an output for one image, by the (height, width) of its mask."""
        return mask_size if name == "confidence" else (len(self.probabilities), *mask_size)

    def check(self, card: ModelCard) -> None:
        """Refuse what the model cannot give.

        Raises UsageError: there is no such measure, the graph has no scores, or the card has no such class.
        """
        if self.confidence not in (None, *MEASURES):
            hint = did_you_mean(str(self.confidence), list(MEASURES))
            raise UsageError(f"confidence: {self.confidence!r} is none of {', '.join(MEASURES)}.{hint}")
        if self and card.output.kind == "index":
            raise UsageError(
                f"confidence and probabilities need scores, but the graph of model card '{card.name}' gives a class "
                "index per pixel (output.kind = 'index'): export the model without its argmax, and set output.kind to "
                "'logits' or 'probabilities'"
            )
        for index in self.probabilities:
            if not 0 <= index < len(card.classes):
                raise UsageError(f"probabilities: model card '{card.name}' has no class {index}")


NOTHING = Extras()


def has_range(card: ModelCard, extras: Extras) -> bool:
    """Whether a number beyond 0 to 1 is a fault: the graph's numbers are used as probabilities, not only compared."""
    if card.output.kind == "sigmoid":
        return not card.output.logit
    return card.output.kind == "probabilities" and bool(extras)


def extras_of(card: ModelCard, measure: Measure | None, classes: tuple[str | int, ...]) -> Extras:
    """Return the extras for a measure and classes given by name or index; several names in one text have commas.

    Raises UsageError: as `Extras.check`; the message suggests a similar name.
    """
    found: dict[int, None] = {}
    for given in classes:
        found |= dict.fromkeys(_indices(given, card))
    extras = Extras(measure, tuple(found))
    extras.check(card)
    return extras


def _indices(given: str | int, card: ModelCard) -> list[int]:
    """Return the class of a name or index, or the classes of several with commas between them."""
    text = str(given).strip()
    try:
        return [int(text) if text.isdecimal() else card.classes.index(text)]
    except KeyError:
        if "," in text:
            return [index for part in text.split(",") for index in _indices(part, card)]
    hint = did_you_mean(text, list(card.classes.names))
    raise UsageError(f"probabilities: model card '{card.name}' has no class '{text}'.{hint}")


def threshold(card: ModelCard) -> float:
    """Return the number above which a pixel has the second class, in units of a sigmoid's output."""
    probability = card.output.threshold
    return math.log(probability / (1 - probability)) if card.output.logit else probability
