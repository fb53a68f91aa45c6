"""Run the model on the images of a part, batch by batch."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segment.errors import SegmentError
from segment.models.sessions import Masks, Session, joined
from segment.pipeline.stacking import Arrays, Found, by_size

log = logging.getLogger("segment.pipeline.prediction")


def predict(pixels: Arrays, session: Session, batch_size: int) -> Found:
    """Run the model on what `stack` returns, `batch_size` images a call; images of one size share a call."""
    if not isinstance(pixels, list):
        return Found(*_predict_size(pixels, session, batch_size))
    groups = by_size(pixels)
    found = [_predict_size(np.stack([pixels[i] for i in group]), session, batch_size) for group in groups]
    order = np.argsort([position for group in groups for position in group])

    def in_order(arrays: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        images = [image for array in arrays for image in array]
        return [images[i] for i in order]

    extras = [_extras(found, name) for name in ("confidence", "probabilities")]
    return Found(
        in_order([masks.masks for masks in found]),
        {group[i]: code for group, masks in zip(groups, found, strict=True) for i, code in masks.faults.items()},
        {group[i]: code for group, masks in zip(groups, found, strict=True) for i, code in masks.remarks.items()},
        *(None if arrays is None else in_order(arrays) for arrays in extras),
    )


def _extras(found: Sequence[Masks], name: str) -> list[NDArray[np.uint8]] | None:
    """Return one of the extras for each result: zeros where one lacks it, None where all do."""
    arrays: list[NDArray[np.uint8] | None] = [getattr(masks, name) for masks in found]
    channels = next((array.shape[1:-2] for array in arrays if array is not None), None)
    if channels is None:
        return None
    return [
        np.zeros((len(masks.masks), *channels, *masks.masks.shape[1:]), np.uint8) if array is None else array
        for array, masks in zip(arrays, found, strict=True)
    ]


def _predict_size(pixels: NDArray[np.uint8], session: Session, batch_size: int) -> Masks:
    card = session.card
    if len(pixels) == 0:
        return Masks(np.empty((0, card.output_height, card.output_width), dtype=np.uint8), {})
    return joined(
        [_predict(session, pixels[start : start + batch_size]) for start in range(0, len(pixels), batch_size)]
    )


def _predict(session: Session, pixels: NDArray[np.uint8]) -> Masks:
    """Predict a batch; if the runtime raises, one by one, and the images it raises on are faults."""
    try:
        return session.predict(pixels)
    except (SegmentError, MemoryError):
        raise
    except Exception as error:  # each runtime has its own types
        if len(pixels) > 1:
            return joined([_predict(session, pixels[i : i + 1]) for i in range(len(pixels))])
        log.warning("the model failed on an image: %s", error)
        card = session.card.at((pixels.shape[1], pixels.shape[2]))
        return Masks(np.zeros((1, card.output_height, card.output_width), dtype=np.uint8), {0: "model_failed"})
