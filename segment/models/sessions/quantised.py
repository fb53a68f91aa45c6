"""Inputs and outputs in 8 or 16 bits: what their levels mean.

The level of every pixel value is a table, which is exact in every runtime and precision.

A common scale and zero point change neither the best score of a pixel nor what bilinear enlarging makes of it, so
scores per class stay levels. A sigmoid is compared with a probability, so its levels become numbers; so do those of
scores per class whose probabilities leave the graph or are averaged. A mask of 0 to 255 is alike: its levels are those
of the card.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segment.models.card import ModelCard
from segment.models.sessions.ports import Port, is_identity, refuse

Levels = NDArray[np.integer[Any]]
_BYTES = np.arange(256)
_FEWEST = 16  # levels of a channel; fewer mean that the card's numbers are of another range than the graph's


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


class Scales(NamedTuple):
    """How the levels of an input become numbers: number = (level - zero point) * scale; one value, or one a channel."""

    scale: NDArray[np.float64]
    zero_point: NDArray[np.float64]

    def numbers(self, levels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the numbers of levels, `[channels or 1, levels]`."""
        return (levels - self.zero_point[:, None]) * self.scale[:, None]


def common_scales(found: Sequence[Scales | None]) -> Scales | None:
    """Return the scales of all readers of an input; None if there are none, or they differ."""
    first = found[0] if found else None
    same = first and all(other and all(map(np.array_equal, first, other)) for other in found)
    return first if same else None


def input_levels(card: ModelCard, entry: Port, scales: Scales | None) -> Levels | None:
    """Return the level of each pixel value, in the order of the card's channels; None if pixels are not quantised.

    A pixel is normalised as the card says, divided by the scale, rounded half to even, moved by the zero point and
    clipped. A graph that takes uint8 gets unchanged pixels where the card declares no normalisation.

    Args:
        scales: of the input; None if the graph does not say them: then levels are numbers.

    Returns:
        `[depth, 256]` of the input's type.

    Raises:
        ModelError: the card's numbers are not those that the levels stand for.
    """
    if entry.dtype not in ("uint8", "int8", "int16") or (entry.dtype == "uint8" and is_identity(card)):
        return None
    if entry.dtype == "uint8" and scales is None:
        refuse(
            card,
            f"the graph's input '{entry.name}' takes uint8, that is unchanged pixels, but the card declares a "
            f"normalisation: remove input.maximum, input.mean and input.std",
        )
    scales = scales or Scales(np.ones(1), np.zeros(1))
    if scales.scale.size not in (1, card.input.depth):
        refuse(card, f"the graph's input '{entry.name}' has {scales.scale.size} scales for {card.input.depth} channels")
    limits = np.iinfo(entry.dtype)
    numbers = normalised(card)
    levels = np.rint(numbers / scales.scale[:, None]) + scales.zero_point[:, None]
    clipped = levels.clip(limits.min, limits.max)
    _check_range(card, entry, numbers, scales.numbers(np.array([limits.min, limits.max])), levels, clipped)
    return clipped.astype(entry.dtype)


def normalised(card: ModelCard) -> NDArray[np.float64]:
    """Return the number of each pixel value, `float64[depth, 256]`."""
    spec = card.input
    return np.stack([(_BYTES / 255 * spec.maximum - m) / s for m, s in zip(spec.mean, spec.std, strict=True)])


def _check_range(
    card: ModelCard,
    entry: Port,
    numbers: NDArray[np.float64],
    held: NDArray[np.float64],
    levels: NDArray[np.float64],
    clipped: NDArray[np.float64],
) -> None:
    """Refuse a card of whose pixel values half or more are beyond the levels, or share a few of them."""
    distinct = min(len(np.unique(channel)) for channel in clipped)
    if 2 * np.count_nonzero(levels != clipped) < levels.size and distinct >= _FEWEST:
        return
    refuse(
        card,
        f"pixels become {_extent(numbers)} by the card's maximum, mean and std, but the graph's input '{entry.name}' "
        f"({entry.dtype}) holds {_extent(held)}: correct input.maximum, input.mean and input.std",
    )


def _extent(numbers: NDArray[np.float64]) -> str:
    return f"{numbers.min():.4g} to {numbers.max():.4g}"
