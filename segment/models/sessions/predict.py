"""The session that all runtimes share: batches, faults, and the size of the masks."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segment.models.card import ModelCard
from segment.models.sessions.base import Masks, Settings, first_line
from segment.models.sessions.extras import has_range
from segment.models.sessions.ports import refuse
from segment.models.sessions.sanity_check import RawRun, SanityCheck, random_images

log = logging.getLogger(__name__)

# What a graph gives: masks `uint8[N, Ho, Wo]`, check values `float32[N]`, then `Extras.outputs`.
Outputs = tuple[NDArray[Any], ...]

# Runs a batch, `uint8[N, H, W, 3]`. A check value is
# - for scores: not finite if any score is not finite; also 1 if one is beyond 0 to 1 and `has_range`;
# - for masked scores (see `Load`): non-zero if a score is NaN, or the best score of a pixel is not finite;
# - for a class index: the number of pixels out of range, plus `NOT_WHOLE` if any is not a whole number; `NOT_FINITE` if
#   it is of enlarged scores (see `enlarging`) of which one is NaN or infinity.
Run = Callable[[NDArray[np.uint8]], Outputs]
NOT_WHOLE, NOT_FINITE = 0.5, -1.0
TRIED = 4  # images that batches are tried on

# Loads the graph. The first argument: for whole batches. The second: for masked scores, where minus infinity excludes a
# class from a pixel; their check is slower, so it is used only after the model has produced such a score.
Load = Callable[[bool, bool], Run]


@dataclass(frozen=True)
class _Graph:
    """A loaded graph. Immutable: a thread may replace the session's graph while others use it.

    Attributes:
        whole: whether it takes batches; otherwise their images run one by one.
        masked: whether its scores may be masked; see `Load`.
    """

    run: Run
    whole: bool
    masked: bool

    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """Run one or more images; see `Run`."""
        if self.whole:
            return self.run(np.ascontiguousarray(images))
        results = [self.run(np.ascontiguousarray(images[i : i + 1])) for i in range(len(images))]
        return tuple(np.concatenate(arrays) for arrays in zip(*results, strict=True))


class GraphSession:
    """A `Session` over one compiled graph.

    A trial precedes the first batch of several images: four images (two random, two of the batch) must get the same
    masks one by one and together. If they do not, or the graph fails, the session warns and runs the images of every
    batch one by one. The trial costs eight images, once.

    Args:
        load: loads the graph: for single images in the constructor, for batches and masked scores on demand.
        raw: see `RawRun`.
        settings: whether to check the first images with `SanityCheck`, and the graph's further outputs.
        exact: the trial requires equal masks; otherwise one pixel in a thousand may differ, as a GPU may use other
            kernels for other batch sizes.
    """

    def __init__(
        self,
        card: ModelCard,
        load: Load,
        raw: RawRun,
        settings: Settings,
        *,
        exact: bool = True,
    ) -> None:
        self.card = card
        self.extras = settings.extras
        self.raw = raw
        self._load = load
        self._single = self._loaded(whole=False, masked=False)
        self._has_tried = False
        self._batched: _Graph | None = None
        self._tolerance = 0.0 if exact else 0.001
        self._lock = threading.Lock()
        self._sanity_check = SanityCheck(card, self._found_one_by_one, raw) if settings.sanity_check else None

    @property
    def batches(self) -> bool | None:
        """Whether the graph takes batches of several images; None before the first one."""
        return self._batched is not None if self._has_tried else None

    @property
    def is_checked(self) -> bool:
        """Whether the check of the first images is over."""
        return self._sanity_check is None or self._sanity_check.done

    def predict(self, images: NDArray[np.uint8]) -> Masks:
        """Segment a batch; see `Session.predict`. Up to `streams` threads may call it at once.

        Raises ValueError: `images` is not `uint8[N, input height, input width, 3]`; ModelError: the masks have another
        size than the card says, or the sanity check of the first images fails.
        """
        self._check_images(images)
        if len(images) == 0:
            size = (self.card.output_height, self.card.output_width)
            extra = [np.empty((0, *self.extras.shape(name, size)), np.uint8) for name in self.extras.outputs]
            return self._named(np.empty((0, *size), np.uint8), {}, extra)
        found = self._found(images, self._graph_for)
        if self._sanity_check is None or self._sanity_check.done:
            return found
        return found._replace(remarks=self._sanity_check.check(images, found))

    def _found(self, images: NDArray[np.uint8], graph_for: Callable[[NDArray[np.uint8]], _Graph]) -> Masks:
        """Segment a batch; if a score is minus infinity, replace the graph by one for masked scores and repeat."""
        graph = graph_for(images)
        masks, check, *extra = graph(images)
        if not graph.masked and np.isinf(check).any() and self.card.output.is_per_class:
            self._expect_masked()
            graph = graph_for(images)
            masks, check, *extra = graph(images)
        self._check_masks(masks)
        return self._named(masks, self._faults(masks, check, graph.masked), extra)

    def _named(self, masks: NDArray[np.uint8], faults: dict[int, str], extra: list[NDArray[Any]]) -> Masks:
        found = dict(zip(self.extras.outputs, extra, strict=True))
        return Masks(masks, faults, confidence=found.get("confidence"), probabilities=found.get("probabilities"))

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
        wanted = (self.card.input.height, self.card.input.width, self.card.input.planes)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != wanted:
            raise ValueError(f"expected uint8 images of shape N x {wanted}, not {images.dtype} {images.shape}")

    def _check_masks(self, masks: NDArray[np.uint8]) -> None:
        wanted = (self.card.output_height, self.card.output_width)
        if masks.shape[1:] != wanted:
            got = "x".join(str(size) for size in masks.shape[1:])
            advice = (
                f": output.height = {masks.shape[1]} and output.width = {masks.shape[2]}?" if masks.ndim == 3 else ""
            )
            smaller = masks.ndim == 3 and masks.shape[1] <= wanted[0] and masks.shape[2] <= wanted[1]
            how = f" Then it is enlarged to the input's size ({self.card.output.enlarging})" if smaller else ""
            refuse(self.card, f"masks of {wanted[0]}x{wanted[1]} are needed, the graph returned {got}{advice}{how}")

    def _faults(self, masks: NDArray[np.uint8], check: NDArray[np.float32], masked: bool) -> dict[int, str]:
        if self.card.output.kind == "index":
            faults = {int(i): "model_range" for i in np.flatnonzero(check != 0)}
            faults |= {int(i): "model_not_whole" for i in np.flatnonzero(check % 1 == NOT_WHOLE)}
            faults |= {int(i): "model_not_finite" for i in np.flatnonzero(check == NOT_FINITE)}
        else:
            wrong = check != 0 if masked else ~np.isfinite(check)
            faults = {int(i): "model_not_finite" for i in np.flatnonzero(wrong)}
        if has_range(self.card, self.extras) and not masked:
            faults |= {int(i): "model_range" for i in np.flatnonzero(check == 1)}
        # A graph without a fixed number of classes can have more scores than the card has classes.
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
        trial = np.concatenate([random_images(TRIED - 2, *images.shape[1:]), images[:2]])
        single = self._single
        masks, check, *_ = single(trial)
        self._check_masks(masks)
        try:
            graph = self._loaded(whole=True, masked=single.masked)
            together, together_check, *_ = graph(trial)
        except Exception as error:  # each runtime has its own types; any means that batches fail
            reason = first_line(error)
        else:
            if self._agree(masks, check, together, together_check, single.masked):
                return graph
            reason = "masks differ from those of single images"
        log.warning("model '%s' cannot take batches, images run one by one: %s", self.card.name, reason)
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
