"""The sanity check of a session's first masks: detects a model that contradicts its card, before the run goes on."""

import hashlib
import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from segment.errors import ModelError
from segment.models.card import ModelCard
from segment.models.card_output import ONE_CHANNEL
from segment.models.sessions.base import Masks, first_line
from segment.models.sessions.ports import refusal, refuse

# Maps one image, `uint8[1, H, W, 3]`, to the graph's own output, `float32` of any shape. Loads the graph at each call.
RawRun = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

# Number of different images with masks of one and the same class that is a remark: fewer if random images have this
# class, too.
_ONE_CLASS, _ONE_CLASS_IF_RANDOM_TOO = 3, 2


class SanityCheck:
    """Checks a session's first images until the mask of one has several classes.

    - The first image has a fault: the model is wrong if random images have the same fault.
    - The first mask has one class, and so do the masks of random images: the model is wrong if all scores of a pixel
      are equal, if a sigmoid is the same for all pixels, or if all logits look like probabilities.
    - Several different images have masks of one and the same class: this can be correct, so it is a remark.

    A correct model usually passes at its first image, at no cost.

    Attributes:
        done: whether the check is over.
    """

    def __init__(self, card: ModelCard, segment: Callable[[NDArray[np.uint8]], Masks], raw: RawRun) -> None:
        self.done = False
        self._card = card
        self._segment = segment
        self._raw = raw
        self._lock = threading.Lock()
        self._is_first = True
        self._seen: set[str] = set()
        self._class = 0
        self._enough = _ONE_CLASS

    def check(self, images: NDArray[np.uint8], found: Masks) -> dict[int, str]:
        """Check the masks of a batch; return remarks by position. Raises ModelError: the model contradicts the card."""
        with self._lock:
            for i, image in enumerate(images):
                if self.done:
                    break
                code = found.faults.get(i)
                if code is not None:
                    self._check_fault(code, image)
                elif self._is_stuck(image, found.masks[i]):
                    return {i: "model_one_class"}
                self._is_first = False
        return {}

    def _check_fault(self, code: str, image: NDArray[np.uint8]) -> None:
        if not self._is_first:
            return
        pictures = random_images(2, *image.shape)
        if set(self._segment(pictures).faults.items()) == {(0, code), (1, code)}:
            raise refusal(self._card, self._fault_message(code, image))

    def _fault_message(self, code: str, image: NDArray[np.uint8]) -> str:
        where = "in the first image and in random images"
        values = self._raw(image[np.newaxis])
        extent = f"from {values.min():g} to {values.max():g}"
        is_beyond = np.isfinite(values).all() and not _looks_probable(values)
        if self._card.output.kind == "probabilities" and is_beyond:
            return (
                f"the card says that the graph's output is probabilities, but its values, {extent}, are beyond 0 to 1, "
                f'{where}: output.kind = "logits"?'
            )
        if code == "model_not_finite" and self._card.ensemble and np.isfinite(values).all():
            return f"the scores of a member of the ensemble are not finite numbers, or no probabilities, {where}"
        if code == "model_not_finite":
            return (
                f"the scores are not finite numbers, {where}: the weights are damaged, input.maximum, mean and std "
                "are wrong, or numbers exceed the range of the precision (--precision f32)"
            )
        if code == "model_not_whole":
            return (
                f"the card says that the graph's output is a class index, but its values, {extent}, are not whole "
                f"numbers, {where}: it is a score. {ONE_CHANNEL}"
            )
        if self._card.output.kind == "sigmoid":
            return (
                f"the card says that the graph's output is a probability, but its values, {extent}, are beyond 0 to 1, "
                f"{where}: output.logit = true, if the graph ends before its sigmoid?"
            )
        classes = len(self._card.classes)
        if self._card.output.kind != "index":
            return f"the graph scores more classes than the card's {classes}: check the class names and the weights"
        return (
            f"the graph's class index goes {extent}, {where}; the card has {classes} classes, 0 to {classes - 1}: "
            "check the class names and the weights, and whether the output is a class index at all"
        )

    def _is_stuck(self, image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> bool:
        """Whether the masks of enough different images have one and the same class, this image's included."""
        lowest, highest = int(mask.min()), int(mask.max())
        if lowest != highest or len(self._card.classes) == 1 or (self._seen and lowest != self._class):
            self.done = True
            return False
        if not self._seen:
            self._class = lowest
            self._check_random_images(image)
        self._seen.add(hashlib.sha256(image.tobytes()).hexdigest())
        self.done = len(self._seen) == self._enough
        return self.done

    def _check_random_images(self, image: NDArray[np.uint8]) -> None:
        pictures = random_images(2, *image.shape)
        if (self._segment(pictures).masks != self._class).any():
            return
        self._enough = _ONE_CLASS_IF_RANDOM_TOO
        if self._card.output.kind == "index":
            return
        where = "in the first image and in random images"
        seen = (image, *pictures)
        if all(self._is_constant(self._raw(picture[np.newaxis])) for picture in seen):
            what = "all scores of a pixel" if self._card.output.is_per_class else "the numbers of all pixels"
            refuse(
                self._card,
                f"{what} are equal, {where}: check output.name, input.maximum, mean and std, and the weights",
            )
        if self._card.output.logit and all(_looks_probable(self._raw(picture[np.newaxis])) for picture in seen):
            refuse(
                self._card,
                f"the card says that the graph's output is a logit, but all its values are from 0 to 1, {where}: it is "
                "a probability, remove output.logit",
            )

    def _is_constant(self, raw: NDArray[np.float32]) -> bool:
        axis = self._card.output.axes.index("C") if self._card.output.is_per_class else None
        return bool((np.ptp(raw, axis=axis) == 0).all())


def _looks_probable(raw: NDArray[np.float32]) -> bool:
    return bool(raw.min() >= 0 and raw.max() <= 1)


def output_shape_by_run(card: ModelCard, raw: RawRun) -> tuple[int, ...]:
    """Return the shape of the graph's output for one image: runs the graph, as its shape cannot be inferred.

    Raises ModelError: the graph fails on a black image.
    """
    try:
        return raw(np.zeros((1, card.input.height, card.input.width, card.input.planes), np.uint8)).shape
    except ModelError:
        raise
    except Exception as error:  # each runtime has its own types
        words = f"the shape of the graph's output is unknown before a run, and the run fails: {first_line(error)}"
        raise refusal(card, words) from error


def random_images(count: int, height: int, width: int, planes: int = 3) -> NDArray[np.uint8]:
    """Return `uint8[count, height, width, planes]`: 8 x 8 blocks of colours; most models see one class in noise."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (count, 8, 8, planes), dtype=np.uint8)
    rows, columns = np.arange(height) * 8 // height, np.arange(width) * 8 // width
    return coarse[:, rows[:, None], columns]
