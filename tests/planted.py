"""Pictures whose scores follow from arithmetic: bands of class colours, labels wrong in a known number of pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from segment.models.card import ModelCard
from segment.models.classes import VOID
from tests.datasets import Item, encoded

Plants = Mapping[tuple[int, int], int]  # (predicted class, class or void it is labelled as) -> pixels


@dataclass
class Expected:
    """What must come out, kept by adding and subtracting.

    Attributes:
        masks: by stem.
        tp, fp, fn: by class, under `omz`.
        also_fn: further false negatives under `cityscapes`: pixels predicted as an ignored class.
        images: the same of each labelled image by itself, by stem.
    """

    card: ModelCard
    masks: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    tp: Counter[int] = field(default_factory=Counter)
    fp: Counter[int] = field(default_factory=Counter)
    fn: Counter[int] = field(default_factory=Counter)
    also_fn: Counter[int] = field(default_factory=Counter)
    images: dict[str, Expected] = field(default_factory=dict)

    def counts(self, convention: str) -> list[tuple[int, int, int]]:
        """(tp, fp, fn) by class."""
        more = self.also_fn if convention == "cityscapes" else Counter[int]()
        return [(self.tp[c], self.fp[c], self.fn[c] + more[c]) for c in range(len(self.card.classes))]

    def add(self, stem: str, one: Expected) -> None:
        """Count one image."""
        self.images[stem] = one
        for name in ("tp", "fp", "fn", "also_fn"):
            getattr(self, name).update(getattr(one, name))

    def ious(self, convention: str) -> list[float]:
        """IoU by class; NaN where a class does not count."""
        counts = self.counts(convention)
        return [float(Fraction(tp, tp + fp + fn)) if tp + fp + fn else float("nan") for tp, fp, fn in counts]


def plants_for(card: ModelCard) -> Plants:
    """Errors between classes, pixels labelled 'ignore', pixels predicted as an ignored class: all of known number."""
    ignored = card.classes.ignored_classes
    nothing = ignored[0] if ignored else VOID
    plants = {(0, 1): 100, (0, 2): 7, (1, 2): 37, (2, 0): 5, (3, nothing): 41, (4, 3): 1, (5, nothing): 64}
    return {**plants, **{(index, 4): 23 for index in ignored}}


def planted(card: ModelCard, *, labelled: int = 2, bare: int = 1) -> tuple[list[Item], Expected]:
    """Images at the card's size and what must come of them; one label is an index PNG, the next one is in colour."""
    expected = Expected(card)
    items = []
    for number in range(labelled + bare):
        mask = bands(card, number)
        item = Item(f"picture-{number}.png", encoded(card.classes.palette_array[mask]))
        expected.masks[item.stem] = mask
        if number < labelled:
            one = Expected(card)
            label = _plant(mask, one)
            expected.add(item.stem, one)
            item = Item(item.name, item.image, encoded(label if number % 2 == 0 else _coloured(label, card)))
        items.append(item)
    return items, expected


def bands(card: ModelCard, turn: int) -> NDArray[np.uint8]:
    """One band a class, top to bottom, beginning with class `turn`; `uint8[H, W]`."""
    classes = len(card.classes)
    rows = (np.arange(card.input.height) * classes // card.input.height + turn) % classes
    return rows.astype(np.uint8)[:, None].repeat(card.input.width, axis=1)


def _plant(mask: NDArray[np.uint8], expected: Expected) -> NDArray[np.uint8]:
    ignored = expected.card.classes.ignored_classes
    label = mask.copy()
    sizes = {c: int((mask == c).sum()) for c in range(len(expected.card.classes))}
    for (predicted, labelled_as), pixels in plants_for(expected.card).items():
        free = np.flatnonzero((mask == predicted) & (label == predicted))[:pixels]
        assert len(free) == pixels
        label.ravel()[free] = labelled_as
        sizes[predicted] -= pixels
        if predicted in ignored:
            expected.also_fn[labelled_as] += pixels
        elif labelled_as != VOID and labelled_as not in ignored:
            expected.fp[predicted] += pixels
            expected.fn[labelled_as] += pixels
    expected.tp.update({c: pixels for c, pixels in sizes.items() if c not in ignored})
    return label


def _coloured(label: NDArray[np.uint8], card: ModelCard) -> NDArray[np.uint8]:
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(card.classes)] = card.classes.palette_array
    if card.classes.void_colours:
        table[VOID] = card.classes.void_colours[0]
    return table[label]
