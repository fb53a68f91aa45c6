"""The predict side that all runtimes share: batches, faults, and the shape of what comes out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from segment.card import ModelCard
from segment.sessions.base import Masks
from segment.sessions.contract import refuse

logger = logging.getLogger(__name__)

# What a runtime does with a batch: `uint8[N, H, W, 3]` to `uint8[N, Ho, Wo]` and one float per image, which is
# NaN or infinite where a score is (scores), or the number of pixels out of range (class index).
Run = Callable[[NDArray[np.uint8]], tuple[NDArray[np.uint8], NDArray[np.float32]]]


class GraphSession:
    """A `Session` over one compiled graph.

    A batch of one goes straight to the graph. The first larger batch is preceded by a trial: four pictures
    (two random, two of the batch) one by one and together must give the same masks. If they do not, or the
    graph refuses them, every later batch is a loop over one, and a warning says so. The trial costs eight
    images, once, and only sessions that are asked for batches pay it.

    Args:
        card: the model's card.
        single: runs a batch of one.
        batched: makes what runs any batch; called once, when the first batch larger than one comes.
        exact: the trial demands equal masks; else (a GPU may choose other kernels for other batches) at most
            one pixel in a thousand may differ.
    """

    def __init__(self, card: ModelCard, single: Run, batched: Callable[[], Run], *, exact: bool = True) -> None:
        self.card = card
        self._single = single
        self._make_batched: Callable[[], Run] | None = batched
        self._batched: Run | None = None
        self._tolerance = 0.0 if exact else 0.001
        self._lock = threading.Lock()

    @property
    def batches(self) -> bool | None:
        """Whether larger batches go to the graph whole; None before the first one."""
        return None if self._make_batched else self._batched is not None

    def predict(self, images: NDArray[np.uint8]) -> Masks:
        """Segment a batch; see `Session.predict`. As many threads may call it at once as `streams` says.

        Raises:
            ValueError: `images` is not `uint8[N, input height, input width, 3]`.
            ModelError: the masks have another size than the card says.
        """
        self._check_images(images)
        if len(images) == 0:
            return Masks(np.empty((0, self.card.output_height, self.card.output_width), np.uint8), {})
        run = self._run_for(images)
        if run is None:
            masks, check = self._one_by_one(images)
        else:
            masks, check = run(np.ascontiguousarray(images))
            self._check_masks(masks)
        return Masks(masks, self._faults(masks, check))

    def _check_images(self, images: NDArray[np.uint8]) -> None:
        wanted = (self.card.input.height, self.card.input.width, 3)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != wanted:
            raise ValueError(f"uint8 images of shape N x {wanted} are needed, not {images.dtype} {images.shape}")

    def _check_masks(self, masks: NDArray[np.uint8]) -> None:
        wanted = (self.card.output_height, self.card.output_width)
        if masks.shape[1:] != wanted:
            got = "x".join(str(size) for size in masks.shape[1:])
            mend = f"output.height = {masks.shape[1]} and output.width = {masks.shape[2]}?" if masks.ndim == 3 else ""
            refuse(self.card, f"the card says masks of {wanted[0]}x{wanted[1]}, the graph gave {got}: {mend}")

    def _faults(self, masks: NDArray[np.uint8], check: NDArray[np.float32]) -> dict[int, str]:
        if self.card.output.kind == "index":
            faults = {int(i): "model_range" for i in np.flatnonzero(check != 0)}
        else:
            faults = {int(i): "model_not_finite" for i in np.flatnonzero(~np.isfinite(check))}
        # Scores of a graph whose number of classes is not fixed can be more than the card names.
        highest = masks.reshape(len(masks), -1).max(axis=1)
        for i in np.flatnonzero(highest >= len(self.card.classes)):
            faults.setdefault(int(i), "model_range")
        return faults

    def _one_by_one(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        results = [self._single(np.ascontiguousarray(images[i : i + 1])) for i in range(len(images))]
        self._check_masks(results[0][0])
        return np.concatenate([masks for masks, _ in results]), np.concatenate([check for _, check in results])

    def _run_for(self, images: NDArray[np.uint8]) -> Run | None:
        if len(images) == 1:
            return self._single
        with self._lock:
            if self._make_batched is not None:
                self._batched = self._try_batches(self._make_batched, images)
                self._make_batched = None
        return self._batched

    def _try_batches(self, make: Callable[[], Run], images: NDArray[np.uint8]) -> Run | None:
        trial = np.concatenate([random_images(2, *images.shape[1:3]), images[:2]])
        masks, check = self._one_by_one(trial)
        try:
            run = make()
            together, together_check = run(trial)
        except Exception as error:  # each runtime has its own types, and none matters here
            reason = str(error).strip().split("\n", 1)[0]
        else:
            if self._agree(masks, check, together, together_check):
                return run
            reason = "masks differ from those of single images"
        logger.warning("model '%s' cannot take batches, images run one by one: %s", self.card.name, reason)
        return None

    def _agree(
        self,
        masks: NDArray[np.uint8],
        check: NDArray[np.float32],
        together: NDArray[np.uint8],
        together_check: NDArray[np.float32],
    ) -> bool:
        if together.shape != masks.shape or together_check.shape != check.shape:
            return False
        faults = self._faults(masks, check)
        if faults != self._faults(together, together_check):
            return False
        sound = [i for i in range(len(masks)) if i not in faults]
        differing = np.count_nonzero(masks[sound] != together[sound])
        return bool(differing <= self._tolerance * masks[sound].size)


def random_images(count: int, height: int, width: int) -> NDArray[np.uint8]:
    """Random coloured blocks of about an eighth of the picture: pure noise looks like one class to most models."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    rows, columns = np.arange(height) * 8 // height, np.arange(width) * 8 // width
    return coarse[:, rows[:, None], columns]
