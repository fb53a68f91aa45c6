"""Binary models with one sigmoid channel: the constants that both runtimes share."""

from __future__ import annotations

import math

from segment.models.card import ModelCard

# A number whose distance from 0.5 is greater is no probability; a hundredth is for rounding.
FURTHEST = 0.51


def threshold(card: ModelCard) -> float:
    """Return the number above which a pixel has the second class, in units of the graph's output."""
    probability = card.output.threshold
    return math.log(probability / (1 - probability)) if card.output.logit else probability
