"""Outputs in 8 bits: what their levels mean.

A common scale and zero point change neither the best score of a pixel nor what bilinear enlarging makes of it, so
scores per class stay levels. A sigmoid is compared with a probability, so its levels become numbers; so do those of
scores per class whose probabilities leave the graph or are averaged. A mask of 0 to 255 is alike: its levels are those
of the card.
"""

from typing import NamedTuple

from segment.models.card import ModelCard
from segment.models.sessions.ports import refuse


class Quantised(NamedTuple):
    """Numbers stored as levels: number = (level - zero point) * scale."""

    scale: float
    zero_point: float


def quantised_output(
    card: ModelCard, dtype: str, found: Quantised | None, *, is_per_axis: bool = False, numbers: bool = False
) -> Quantised | None:
    """Return how levels become numbers; None if the output is used as it is.

    Args:
        found: scale and zero point in the graph; None if it has none.
        is_per_axis: the graph has several scales.
        numbers: scores per class become numbers, too.

    Raises:
        ModelError: scores per class have several scales, or the scale of numbers is unknown.
    """
    if card.output.maximum != 1:
        scale, zero_point = found or (1, 0)
        return Quantised(scale / card.output.maximum, zero_point)
    if dtype not in ("uint8", "int8", "int16") or card.output.kind == "index":
        return None
    if is_per_axis:
        refuse(
            card,
            f"the graph's output is {dtype} with several scales, so its levels cannot be compared: export it with one "
            "scale, or with a floating-point output",
        )
    if card.output.kind != "sigmoid" and not numbers:
        return None
    if found is None:
        refuse(
            card,
            f"the graph's output is {dtype}, and no QuantizeLinear at its end says the scale and zero point: export it "
            "with a floating-point output",
        )
    return found
