"""What is written beside a mask: how sure the model is of the image and of each class, and the PNGs of its pixels."""

import numpy as np
from numpy.typing import NDArray

from segment.images import resize
from segment.images.mask_png import encode_mask
from segment.models.card import ModelCard
from segment.models.sessions.extras import LEVELS
from segment.output.mask_columns import ImageExtras


def image_extras(
    mask: NDArray[np.uint8],
    confidence: NDArray[np.uint8] | None,
    probabilities: NDArray[np.uint8] | None,
    card: ModelCard,
    size: tuple[int, int],
    *,
    at_source: bool,
    maps: bool,
) -> ImageExtras:
    """Return the extras of one image.

    Means are of the pixels of the model's output, without the border of a letterbox, each in steps of 1 / 255.

    Args:
        mask: `uint8[output height, output width]`, as the model gives it.
        confidence, probabilities: of the same size; see `Masks`.
        size: (height, width) of the image.
        at_source: resize PNGs to this size, as masks are.
        maps: encode the confidence of every pixel, too.
    """

    def png(levels: NDArray[np.uint8]) -> bytes:
        return encode_mask(resize.restore_mask(levels, card.input, size) if at_source else levels)

    pngs = () if probabilities is None else tuple(map(png, probabilities))
    if confidence is None:
        return ImageExtras(probabilities=pngs)
    mean, by_class = mean_confidence(mask, confidence, card, size)
    return ImageExtras(mean, by_class, png(confidence) if maps else None, pngs)


def mean_confidence(
    mask: NDArray[np.uint8], confidence: NDArray[np.uint8], card: ModelCard, size: tuple[int, int]
) -> tuple[float, tuple[float | None, ...]]:
    """Return the mean over the pixels of an image, 0-1, and over those of each class, None where it has none."""
    box = resize.content_box(card.input, size, (mask.shape[0], mask.shape[1]))
    sums = ConfidenceSums(len(card.classes))
    sums.add(box.of(mask), box.of(confidence))
    return sums.mean, sums.by_class


def confidence_at_source(
    mask: NDArray[np.uint8], levels: NDArray[np.uint8], card: ModelCard, size: tuple[int, int]
) -> tuple[NDArray[np.uint8], float]:
    """Return the confidence of each pixel of an image, `uint8[H, W]`, and its mean; see `mean_confidence`."""
    return resize.restore_mask(levels, card.input, size), mean_confidence(mask, levels, card, size)[0]


class ConfidenceSums:
    """Adds up the confidence of an image, which may come in strips."""

    def __init__(self, classes: int) -> None:
        self._pixels, self._sums = np.zeros(classes, np.int64), np.zeros(classes, np.int64)

    def add(self, mask: NDArray[np.uint8], levels: NDArray[np.uint8]) -> None:
        """Add pixels, whose classes and levels are of the same shape."""
        classes, number = mask.ravel(), len(self._pixels)
        self._pixels += np.bincount(classes, minlength=number)
        self._sums += np.bincount(classes, levels.ravel(), number).astype(np.int64)  # float64 holds these exactly

    @property
    def mean(self) -> float:
        """The mean over all pixels, 0-1."""
        return float(self._sums.sum() / (LEVELS * self._pixels.sum()))

    @property
    def by_class(self) -> tuple[float | None, ...]:
        """The mean over the pixels of each class, None where it has none."""
        pairs = zip(self._sums.tolist(), self._pixels.tolist(), strict=True)
        return tuple(total / (LEVELS * number) if number else None for total, number in pairs)
