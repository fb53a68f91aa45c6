"""Images of two runs as they are compared: what is summed over a set of them, and the figures of each."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segment.metrics import Confusion
from segment.scores.mask_pairs import PairedImages, PairsRead, image_agreement
from segment.scores.paired import PairedScores, PairSums
from segment.scores.run_images import Units
from segment.scores.scored import Protocol, Scored, ScoreSums, image_mious


@dataclass(frozen=True, eq=False)
class ComparedImages:
    """What comes of comparing some images.

    Attributes:
        agreement: A's masks as labels, B's as predictions: `pixel_accuracy` is the share of pixels that agree, and the
            IoU of a class that of both masks' pixels of it. None if masks were not compared.
        scores: of both runs and their change; None if no image is labelled in both.
    """

    images: int
    agreement: Scored | None
    scores: PairedScores | None


@dataclass(frozen=True, eq=False)
class Pairs:
    """The n images of two runs that were compared, in A's order: 40 bytes each.

    Attributes:
        rows_a, rows_b: `int64[n]`, indices of their rows in `RunRows`.
        agreement: share of the pixels of each that agree, `float64[n]`; NaN if masks were not compared.
        mious: the mIoU of each in A and in B, `float64[2, n]`; NaN if unlabelled.
        with_masks: whether masks were compared.
        read: what was found while they were read.
    """

    rows_a: NDArray[np.intp]
    rows_b: NDArray[np.intp]
    agreement: NDArray[np.float64]
    mious: NDArray[np.float64]
    with_masks: bool
    read: PairsRead

    def __len__(self) -> int:
        return len(self.rows_a)


class ComparedSums:
    """A set of images of two runs as it is compared, a block at a time.

    Args:
        protocols: of A and of B.
        of_masks: how masks are scored against each other.
        units: what resamples draw.
        fraction: of the boundaries of both runs; None to compare none.
    """

    def __init__(
        self, protocols: tuple[Protocol, Protocol], of_masks: Protocol, units: Units, fraction: float | None
    ) -> None:
        self._agreement = ScoreSums(of_masks, units.resamples, grouped=units.are_groups)
        self._scores = PairSums(protocols, units.resamples, grouped=units.are_groups, fraction=fraction)
        self._images = 0

    def add(self, block: PairedImages) -> None:
        """Add images."""
        self._images += len(block)
        if block.masks is not None:
            self._agreement.add(block.masks, block.units, block.draws)
        self._scores.add(block.a, block.b, block.units, block.draws, block.boundaries)

    def result(self) -> ComparedImages:
        """Return what comes of comparing them."""
        agreement = self._agreement.scored() if self._agreement.images else None
        return ComparedImages(self._images, agreement, self._scores.result())


class AllCompared(ComparedSums):
    """All images: besides, the figures of each, and the counts of all by the classes of the cards."""

    def __init__(
        self,
        protocols: tuple[Protocol, Protocol],
        of_masks: Protocol,
        units: Units,
        fraction: float | None,
        with_masks: bool,
        most: int,
    ) -> None:
        super().__init__(protocols, of_masks, units, fraction)
        self._protocols, self._of_masks, self._with_masks = protocols, of_masks, with_masks
        self._rows, self._figures = np.empty((2, most), np.intp), np.full((3, most), np.nan)
        self._read = PairsRead.nothing()
        self.totals = [Confusion.zeros(len(protocol.grouping.of_class)) for protocol in protocols]

    def add(self, block: PairedImages) -> None:
        """Add images."""
        here = slice(self._images, self._images + len(block))
        super().add(block)
        self._rows[:, here] = block.rows_a, block.rows_b
        for number, (counts, protocol) in enumerate(zip((block.a, block.b), self._protocols, strict=True)):
            self.totals[number] += counts.total()
            self._figures[number, here] = image_mious(counts, protocol)
        if block.masks is not None:
            self._figures[2, here] = image_agreement(block.masks.regrouped(self._of_masks.grouping))
        self._read += block.read

    def pairs(self) -> Pairs:
        """Return the images."""
        rows, figures = self._rows[:, : self._images], self._figures[:, : self._images]
        return Pairs(rows[0], rows[1], figures[2], figures[:2], self._with_masks, self._read)
