"""The session of a model that runs at the size of each image: one compiled graph a size, the last few of them kept."""

import math
import threading
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from segment.errors import ModelError
from segment.models.buckets import USUAL, Size
from segment.models.card import ModelCard
from segment.models.sessions.base import Masks
from segment.models.sessions.predict import GraphSession

# What stays compiled has tensors in proportion to its pixels, and weights of its own.
_MOST = 8
_MOST_PIXELS = USUAL[0] * USUAL[1]
_FEWEST = 2
_WEIGHTS = 1 << 30  # bytes


class SizeFailed(RuntimeError):
    """The graph cannot be loaded for the size of an image, though it can for another."""


def most_sizes(weights: int) -> int:
    """Return how many sizes stay compiled: eight, fewer if their weights, twice as large as read, would exceed 1 GB.

    Args:
        weights: size of the weights, in bytes.
    """
    return max(_FEWEST, min(_MOST, _WEIGHTS // max(1, 2 * weights)))


class SizedSession:
    """A `Session` that has a `GraphSession` for each of the sizes that came last.

    Static graphs are faster than dynamic ones, and their memory ends with them, while that of openvino's dynamic graphs
    grows with every size (openvino#20633, #27198). Of the sizes that came before, as many stay as have two million
    pixels together with the current one, so that memory does not grow beyond that of a single large image.

    Args:
        load: loads the model with a card of one size. The second argument: whether to check the first images.
        most: sizes that stay compiled, at the most.

    Raises:
        ModelError: the graph does not match the card at the size of its trial.
    """

    def __init__(self, card: ModelCard, load: Callable[[ModelCard, bool], GraphSession], most: int) -> None:
        self.card = card
        self._load = load
        self._most = most
        self._lock = threading.Lock()
        self._sessions: dict[Size, Future[GraphSession]] = {}  # the one used last is the last
        self._is_checked = False
        self._session((card.input.height, card.input.width))

    @property
    def sizes(self) -> list[Size]:
        """The sizes (height, width) that are compiled; the one used last is the last."""
        return list(self._sessions)

    def predict(self, images: NDArray[np.uint8]) -> Masks:
        """Segment a batch of one size.

        Args:
            images: `uint8[N, H, W, 3]`, RGB; H and W are multiples of the card's `multiple_of`.

        Returns:
            Masks of `uint8[N, H, W]`.

        Raises:
            SizeFailed: the graph cannot be loaded for this size.
            ModelError: as `GraphSession.predict`.
        """
        size = (images.shape[1], images.shape[2])
        try:
            session = self._session(size)
        except ModelError as error:
            raise SizeFailed(f"at {size[0]}x{size[1]} (height, width): {error}") from error
        found = session.predict(images)
        self._is_checked = self._is_checked or session.is_checked
        return found

    def _session(self, size: Size) -> GraphSession:
        """Return the session for a size; load it if it is not there. Other sizes do not wait for it."""
        with self._lock:
            found = self._sessions.pop(size, None)
            future = self._sessions[size] = found or Future()
            while len(self._sessions) > 1 and self._are_too_many():
                del self._sessions[next(iter(self._sessions))]
        if found is None:
            try:
                future.set_result(self._load(self.card.at(size), not self._is_checked))
            except BaseException as error:
                with self._lock:
                    self._sessions.pop(size, None)
                future.set_exception(error)
        return future.result()

    def _are_too_many(self) -> bool:
        return len(self._sessions) > self._most or sum(map(math.prod, self._sessions)) > _MOST_PIXELS
