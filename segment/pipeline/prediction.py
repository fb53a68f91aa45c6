"""Run the model on the images of a part, batch by batch."""

import logging
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from segment.errors import SegmentError
from segment.models.card_input import Input
from segment.models.sessions import Masks, Session

Arrays: TypeAlias = NDArray[np.uint8] | list[NDArray[np.uint8]]

log = logging.getLogger("segment.pipeline.prediction")


class Predicted(NamedTuple):
    """What a session makes of one image; see `segment.models.sessions.Masks`.

    Attributes:
        mask: `uint8[output height, output width]`; undefined with a fault.
        fault, remark: codes, if there are any.
        confidence, probabilities: of the same size, if the session gives them; None of an image on which it raises.
    """

    mask: NDArray[np.uint8]
    fault: str | None = None
    remark: str | None = None
    confidence: NDArray[np.uint8] | None = None
    probabilities: NDArray[np.uint8] | None = None


def predict(pixels: Arrays, session: Session, batch_size: int) -> list[Predicted]:
    """Run the model on what `stack` returns, `batch_size` images a call; images of one size share a call."""
    if not isinstance(pixels, list):
        return _predict_size(pixels, session, batch_size)
    found: dict[int, Predicted] = {}
    for group in by_size(pixels):
        of_size = np.stack([pixels[position] for position in group])
        found.update(zip(group, _predict_size(of_size, session, batch_size), strict=True))
    return [found[position] for position in range(len(pixels))]


def _predict_size(pixels: NDArray[np.uint8], session: Session, batch_size: int) -> list[Predicted]:
    starts = range(0, len(pixels), batch_size)
    return [found for start in starts for found in _predict(session, pixels[start : start + batch_size])]


def _predict(session: Session, pixels: NDArray[np.uint8]) -> list[Predicted]:
    """Predict a batch; if the runtime raises, one by one, and the images it raises on are faults."""
    try:
        return _by_image(session.predict(pixels))
    except (SegmentError, MemoryError):
        raise
    except Exception as error:  # each runtime has its own types
        if len(pixels) > 1:
            return [found for i in range(len(pixels)) for found in _predict(session, pixels[i : i + 1])]
        log.warning("the model failed on an image: %s", error)
        card = session.card.at((pixels.shape[1], pixels.shape[2]))
        return [Predicted(np.zeros((card.output_height, card.output_width), np.uint8), "model_failed")]


def _by_image(found: Masks) -> list[Predicted]:
    """Return copies: the memory may be the runtime's, for its next call."""
    confidence, probabilities = (
        None if levels is None else levels.copy() for levels in (found.confidence, found.probabilities)
    )
    return [
        Predicted(
            mask,
            found.faults.get(i),
            found.remarks.get(i),
            None if confidence is None else confidence[i],
            None if probabilities is None else probabilities[i],
        )
        for i, mask in enumerate(found.masks.copy())
    ]


def stack(images: list[NDArray[np.uint8]], spec: Input) -> Arrays:
    """Stack images of the model's input size, without a copy of a single one; a list stays where sizes are the images'.

    Args:
        images: `uint8[H, W, 3]`, C-contiguous.
    """
    if spec.is_dynamic:
        return images
    if not images:
        return np.empty((0, spec.height, spec.width, spec.planes), dtype=np.uint8)
    return np.ascontiguousarray(images[0][np.newaxis] if len(images) == 1 else np.stack(images))


def by_size(images: Sequence[NDArray[np.uint8]]) -> list[list[int]]:
    """Return the positions of the images of each shape; shapes are in the order in which they appear."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for position, image in enumerate(images):
        groups.setdefault(image.shape, []).append(position)
    return list(groups.values())
