"""Is a model what its card says, by value? Looked at on the first images, where it can still end the run in words."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from segment.errors import ModelError
from segment.models.card import TWO_CHANNELS, ModelCard
from segment.models.sessions.base import Masks
from segment.models.sessions.ports import refuse

# One image, `uint8[1, H, W, 3]`, to the graph's own output, `float32` of any shape. Loads the graph anew for it.
Raw = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

# Images that differ and are all of one class, after which this is told: sooner where random pictures are of it, too.
_ENOUGH, _ENOUGH_IF_STUCK = 3, 2


class Vetting:
    """Looks at a session's first images until one has a mask of several classes.

    - An image with a fault comes first: if random pictures have the same fault, it is the model's and no image's.
    - An image is all of one class, and so are random pictures: if all scores of a pixel are equal, there is nothing to
      choose from.
    - Several images that differ are all of one and the same class: that may be right, so it is a remark.

    A model that is as it should be pays for none of it.

    Args:
        card: the contract.
        plain: segments pictures, without a look at them.
        raw: see `Raw`.
    """

    def __init__(self, card: ModelCard, plain: Callable[[NDArray[np.uint8]], Masks], raw: Raw) -> None:
        self.done = False
        self._card = card
        self._plain = plain
        self._raw = raw
        self._lock = threading.Lock()
        self._is_first = True
        self._seen: set[str] = set()
        self._class = 0
        self._enough = _ENOUGH

    def look(self, images: NDArray[np.uint8], found: Masks) -> dict[int, str]:
        """Look at a batch and what became of it; return the remarks to make, by position.

        Raises:
            ModelError: the model is not what the card says.
        """
        with self._lock:
            for i, image in enumerate(images):
                if self.done:
                    break
                code = found.faults.get(i)
                if code is not None:
                    self._look_at_fault(code, image)
                elif self._is_one_too_many(image, found.masks[i]):
                    return {i: "model_one_class"}
                self._is_first = False
        return {}

    def _look_at_fault(self, code: str, image: NDArray[np.uint8]) -> None:
        if not self._is_first:
            return
        pictures = random_images(2, *image.shape[:2])
        if set(self._plain(pictures).faults.items()) == {(0, code), (1, code)}:
            refuse(self._card, self._fault_in_words(code, image))

    def _fault_in_words(self, code: str, image: NDArray[np.uint8]) -> str:
        beyond = "for random pictures as for the first image"
        if code == "model_not_finite":
            return (
                f"the scores are not finite numbers, {beyond}: the weights are damaged, input.maximum, mean and std "
                "are far off, or numbers grow too large for the precision (--precision f32)"
            )
        values = self._raw(image[np.newaxis])
        extent = f"from {values.min():g} to {values.max():g}"
        if code == "model_not_whole":
            return (
                f"the card says that the graph's output is a class index, but its values, {extent}, are no whole "
                f"numbers, {beyond}: it is a score. {TWO_CHANNELS}"
            )
        classes = len(self._card.classes)
        if self._card.output.kind != "index":
            return f"the graph scores more classes than the card's {classes}: check the class names and the weights"
        return (
            f"the graph's class index goes {extent}, {beyond}; the card has {classes} classes, 0 to {classes - 1}: "
            "check the class names and the weights, and whether the output is a class index at all"
        )

    def _is_one_too_many(self, image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> bool:
        """Whether an image makes the images of one class so many that it is told."""
        lowest, highest = int(mask.min()), int(mask.max())
        if lowest != highest or len(self._card.classes) == 1 or (self._seen and lowest != self._class):
            self.done = True
            return False
        if not self._seen:
            self._class = lowest
            self._look_at_random_pictures(image)
        self._seen.add(hashlib.sha256(image.tobytes()).hexdigest())
        self.done = len(self._seen) == self._enough
        return self.done

    def _look_at_random_pictures(self, image: NDArray[np.uint8]) -> None:
        pictures = random_images(2, *image.shape[:2])
        if (self._plain(pictures).masks != self._class).any():
            return
        self._enough = _ENOUGH_IF_STUCK
        if self._card.output.kind == "index":
            return
        axis = self._card.output.layout.index("C")
        if all((np.ptp(self._raw(picture[np.newaxis]), axis=axis) == 0).all() for picture in (image, *pictures)):
            refuse(
                self._card,
                "all scores of a pixel are equal, for random pictures as for the first image, so that there is nothing "
                "to choose from: check output.name, input.maximum, mean and std, and the weights",
            )


def shape_of_a_run(card: ModelCard, raw: Raw) -> tuple[int, ...]:
    """Return the shape of the graph's output for one picture, where it does not follow from the graph.

    Raises:
        ModelError: the graph fails on a black picture.
    """
    try:
        return raw(np.zeros((1, card.input.height, card.input.width, 3), np.uint8)).shape
    except ModelError:
        raise
    except Exception as error:  # each runtime has its own types
        reason = str(error).strip().split("\n", 1)[0]
        refuse(card, f"the shape of the graph's output is not known before it runs, and it fails: {reason}")


def random_images(count: int, height: int, width: int) -> NDArray[np.uint8]:
    """Random coloured blocks of about an eighth of the picture: pure noise looks like one class to most models."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    rows, columns = np.arange(height) * 8 // height, np.arange(width) * 8 // width
    return coarse[:, rows[:, None], columns]
