"""The predict side that all runtimes share: batches, faults, and the shape of what comes out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segment.models.card import ModelCard
from segment.models.sessions.base import Masks
from segment.models.sessions.ports import refuse
from segment.models.sessions.vetting import Raw, Vetting, random_images

logger = logging.getLogger(__name__)

# What a runtime does with a batch: `uint8[N, H, W, 3]` to `uint8[N, Ho, Wo]` and one float per image, the check. Of
# scores it is not finite where one of them is not; of masked scores (see `Load`) it is not 0 where one is NaN or the
# best of a pixel is not finite. Of a class index it is the number of pixels out of range, plus `NOT_WHOLE` if there is
# a pixel that is no whole number.
Run = Callable[[NDArray[np.uint8]], tuple[NDArray[np.uint8], NDArray[np.float32]]]
NOT_WHOLE = 0.5

# Loads the graph: whether for whole batches, and whether its scores may be masked, minus infinity saying that a pixel
# is not of a class. Finding that out costs more, so it is done only for models that have shown such a score.
Load = Callable[[bool, bool], Run]


@dataclass(frozen=True)
class _Graph:
    """A loaded graph and how its check is judged, in one: a thread may replace a graph while others are using it.

    Attributes:
        run: the graph.
        whole: whether it takes batches; else they are run image by image.
        masked: whether its scores may be masked; see `Load`.
    """

    run: Run
    whole: bool
    masked: bool

    def __call__(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return what `Run` does, for any number of images but none."""
        if self.whole:
            return self.run(np.ascontiguousarray(images))
        results = [self.run(np.ascontiguousarray(images[i : i + 1])) for i in range(len(images))]
        return np.concatenate([masks for masks, _ in results]), np.concatenate([check for _, check in results])


class GraphSession:
    """A `Session` over one compiled graph.

    A batch of one goes straight to the graph. The first larger batch is preceded by a trial: four pictures
    (two random, two of the batch) one by one and together must give the same masks. If they do not, or the
    graph refuses them, every later batch is a loop over one, and a warning says so. The trial costs eight
    images, once, and only sessions that are asked for batches pay it.

    The first images are looked at by value, too; see `Vetting`.

    Args:
        card: the model's card.
        load: loads the graph; that for single images at once, others when they are needed.
        raw: see `Raw`.
        exact: the trial demands equal masks; else (a GPU may choose other kernels for other batches) at most
            one pixel in a thousand may differ.
        vetted: look at the first images by value; not where all images are random.
    """

    def __init__(self, card: ModelCard, load: Load, raw: Raw, *, exact: bool = True, vetted: bool = True) -> None:
        self.card = card
        self._load = load
        self._single = self._loaded(whole=False, masked=False)
        self._has_tried = False
        self._batched: _Graph | None = None
        self._tolerance = 0.0 if exact else 0.001
        self._lock = threading.Lock()
        self._vetting = Vetting(card, self._found_one_by_one, raw) if vetted else None

    @property
    def batches(self) -> bool | None:
        """Whether larger batches go to the graph whole; None before the first one."""
        return self._batched is not None if self._has_tried else None

    def predict(self, images: NDArray[np.uint8]) -> Masks:
        """Segment a batch; see `Session.predict`. As many threads may call it at once as `streams` says.

        Raises:
            ValueError: `images` is not `uint8[N, input height, input width, 3]`.
            ModelError: the masks have another size than the card says, or the first images show that the model
                cannot be what the card says.
        """
        self._check_images(images)
        if len(images) == 0:
            return Masks(np.empty((0, self.card.output_height, self.card.output_width), np.uint8), {})
        found = self._found(images, self._graph_for)
        if self._vetting is None or self._vetting.done:
            return found
        return found._replace(remarks=self._vetting.look(images, found))

    def _found(self, images: NDArray[np.uint8], graph_for: Callable[[NDArray[np.uint8]], _Graph]) -> Masks:
        """Segment with the graph that is there now, and if it meets a score of minus infinity, with one for these."""
        graph = graph_for(images)
        masks, check = graph(images)
        if not graph.masked and np.isinf(check).any() and self.card.output.kind != "index":
            self._expect_masked()
            graph = graph_for(images)
            masks, check = graph(images)
        self._check_masks(masks)
        return Masks(masks, self._faults(masks, check, graph.masked))

    def _found_one_by_one(self, images: NDArray[np.uint8]) -> Masks:
        return self._found(images, lambda _: self._single)

    def _expect_masked(self) -> None:
        with self._lock:
            if not self._single.masked:
                batched = self._loaded(whole=True, masked=True) if self._batched is not None else None
                self._single, self._batched = self._loaded(whole=False, masked=True), batched

    def _loaded(self, *, whole: bool, masked: bool) -> _Graph:
        return _Graph(self._load(whole, masked), whole, masked)

    def _check_images(self, images: NDArray[np.uint8]) -> None:
        wanted = (self.card.input.height, self.card.input.width, 3)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != wanted:
            raise ValueError(f"uint8 images of shape N x {wanted} are needed, not {images.dtype} {images.shape}")

    def _check_masks(self, masks: NDArray[np.uint8]) -> None:
        wanted = (self.card.output_height, self.card.output_width)
        if masks.shape[1:] != wanted:
            got = "x".join(str(size) for size in masks.shape[1:])
            mend = f": output.height = {masks.shape[1]} and output.width = {masks.shape[2]}?" if masks.ndim == 3 else ""
            smaller = masks.ndim == 3 and masks.shape[1] <= wanted[0] and masks.shape[2] <= wanted[1]
            how = f" Then it is enlarged to the input's size ({self.card.output.enlarging})" if smaller else ""
            refuse(self.card, f"masks of {wanted[0]}x{wanted[1]} are needed, the graph gave {got}{mend}{how}")

    def _faults(self, masks: NDArray[np.uint8], check: NDArray[np.float32], masked: bool) -> dict[int, str]:
        if self.card.output.kind == "index":
            faults = {int(i): "model_range" for i in np.flatnonzero(check != 0)}
            faults |= {int(i): "model_not_whole" for i in np.flatnonzero(check % 1 == NOT_WHOLE)}
        else:
            wrong = check != 0 if masked else ~np.isfinite(check)
            faults = {int(i): "model_not_finite" for i in np.flatnonzero(wrong)}
        # Scores of a graph whose number of classes is not fixed can be more than the card names.
        highest = masks.reshape(len(masks), -1).max(axis=1)
        for i in np.flatnonzero(highest >= len(self.card.classes)):
            faults.setdefault(int(i), "model_range")
        return faults

    def _graph_for(self, images: NDArray[np.uint8]) -> _Graph:
        if len(images) == 1:
            return self._single
        with self._lock:
            if not self._has_tried:
                self._batched = self._try_batches(images)
                self._has_tried = True
        return self._batched or self._single

    def _try_batches(self, images: NDArray[np.uint8]) -> _Graph | None:
        trial = np.concatenate([random_images(2, *images.shape[1:3]), images[:2]])
        single = self._single
        masks, check = single(trial)
        self._check_masks(masks)
        try:
            graph = self._loaded(whole=True, masked=single.masked)
            together, together_check = graph(trial)
        except Exception as error:  # each runtime has its own types, and none matters here
            reason = str(error).strip().split("\n", 1)[0]
        else:
            if self._agree(masks, check, together, together_check, single.masked):
                return graph
            reason = "masks differ from those of single images"
        logger.warning("model '%s' cannot take batches, images run one by one: %s", self.card.name, reason)
        return None

    def _agree(
        self,
        masks: NDArray[np.uint8],
        check: NDArray[np.float32],
        together: NDArray[np.uint8],
        together_check: NDArray[np.float32],
        masked: bool,
    ) -> bool:
        if together.shape != masks.shape or together_check.shape != check.shape:
            return False
        faults = self._faults(masks, check, masked)
        if faults != self._faults(together, together_check, masked):
            return False
        sound = [i for i in range(len(masks)) if i not in faults]
        differing = np.count_nonzero(masks[sound] != together[sound])
        return bool(differing <= self._tolerance * masks[sound].size)
