"""Runs readings of a card: one session for each normalisation, one preparation for each resize."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segment.errors import ModelError, SampleError
from segment.images.bands import decode_image
from segment.images.raster import ArrayRaster
from segment.images.resize import resize_image, restore_mask
from segment.models.card import ModelCard
from segment.models.card_input import Input, Resize
from segment.models.sessions import Extras, Runtime, Session, open_session
from segment.models.sessions.apart_process import Within
from segment.models.weights import Weights
from segment.pipeline.prediction import predict
from segment.pipeline.resources import available_cpus
from segment.pipeline.stages import Clock
from segment.pipeline.tiling import TiledImage, join_strips, session_extras
from segment.readings.alternatives import Reading
from segment.readings.evidence import Evidence
from segment.readings.labelled import Labelled, classes_of_values
from segment.readings.scalings import Scaling

MIDDLE = 2  # tiles of a side of what is segmented of an image, with a card of tiles


@dataclass(frozen=True, eq=False)
class _Prepared:
    """An image as it enters the model.

    Attributes:
        pixels: `uint8[input height, input width, 3]`; with tiles, of the middle of the image.
        size: height and width of the image.
        digest: of the pixels: an image without a border is the same by any border.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    digest: bytes


class Bench:
    """Segments labelled images by different readings of a card, and counts pixels at the images' own size.

    Args:
        within: entered for each image that the model segments, and while it is loaded for that.

    Attributes:
        segmented: how many times the model has segmented an image.
        refused: readings that the model does not take.
    """

    def __init__(
        self, card: ModelCard, weights: Weights, runtime: Runtime, max_pixels: int, within: Within = nullcontext
    ) -> None:
        self.card = card
        self.segmented = 0
        self.refused: set[tuple[str, Scaling]] = set()
        self._weights, self._runtime, self._max_pixels, self._within = weights, runtime, max_pixels, within
        self._resize: Resize | None = None  # of `_prepared`, by image
        self._prepared: dict[Labelled, _Prepared] = {}
        self._counts: dict[tuple[str, Scaling, Labelled, bytes], NDArray[np.int64]] = {}
        self._session: tuple[tuple[str, Scaling], Session] | None = None

    def evidence(
        self, reading: Reading, images: Sequence[Labelled], begun: Callable[[int], object] = lambda index: None
    ) -> Evidence | None:
        """Return the evidence for a reading; None if the model does not take it. `begun` gets the index of each image.

        Raises ModelError: it does not take the card as it is.
        """
        card = reading.card(self.card)
        if (reading.channels, reading.scaling) in self.refused:
            return None
        try:
            counts = []
            for index, image in enumerate(images):
                begun(index)
                counts.append(self._counted(card, reading, image))
        except ModelError:
            if card.input == self.card.input:
                raise
            self.refused.add((reading.channels, reading.scaling))
            return None
        return Evidence.of(classes_of_values(np.stack(counts), reading.labels, len(card.classes)), card)

    def inputs(self, reading: Reading, images: Sequence[Labelled]) -> bytes:
        """Return what tells the model's inputs from those of other resizes: without borders all are the same."""
        card = reading.card(self.card)
        return b"".join(self._prepare(card, image).digest for image in images)

    def _counted(self, card: ModelCard, reading: Reading, image: Labelled) -> NDArray[np.int64]:
        """Return `int64[256, C + 1]`: pixels by label value and prediction; the last column: without a prediction."""
        prepared = self._prepare(card, image)
        key = reading.channels, reading.scaling, image, prepared.digest
        if key not in self._counts:
            with self._within():
                self._counts[key] = self._segmented(card, reading, prepared, image.label)
        return self._counts[key]

    def _prepare(self, card: ModelCard, image: Labelled) -> _Prepared:
        if self._resize != card.input.resize:
            self._resize, self._prepared = card.input.resize, {}
        if image not in self._prepared:
            picture = decode_image(image.data, card.input, self._max_pixels).pixels
            spec = card.input
            pixels = middle(picture, spec) if spec.tiles else resize_image(picture, spec)
            digest = hashlib.sha256(pixels.tobytes()).digest()
            self._prepared[image] = _Prepared(pixels, (picture.shape[0], picture.shape[1]), digest)
        return self._prepared[image]

    def _segmented(
        self, card: ModelCard, reading: Reading, prepared: _Prepared, label: NDArray[np.uint8]
    ) -> NDArray[np.int64]:
        session, classes = self._open(card, reading), len(card.classes)
        self.segmented += 1
        if card.input.tiles:
            mask, label = _tiled(prepared.pixels, session), middle(label, card.input)
        else:
            (found,) = predict(prepared.pixels[np.newaxis], session, 1)
            mask = None if found.fault else restore_mask(found.mask, card.input, prepared.size)
        predicted = np.full(label.shape, classes) if mask is None else np.minimum(mask, classes)
        cells = label.ravel().astype(np.int32) * (classes + 1) + predicted.ravel()
        return np.bincount(cells, minlength=256 * (classes + 1)).reshape(256, classes + 1)

    def _open(self, card: ModelCard, reading: Reading) -> Session:
        key = reading.channels, reading.scaling
        if self._session is None or self._session[0] != key:
            self._session = None  # its memory first
            # No sanity check: it refuses a model by its first image, and a wrong reading is to be scored.
            session = open_session(
                card,
                self._weights,
                self._runtime,
                threads=available_cpus(),
                extras=session_extras(card, Extras()),
                sanity_check=False,
            )
            self._session = key, session
        return self._session[1]


def _tiled(pixels: NDArray[np.uint8], session: Session) -> NDArray[np.uint8] | None:
    """Return the mask of an image by a card with tiles; None if the model's output cannot be used."""
    size = (pixels.shape[0], pixels.shape[1])
    try:
        return join_strips(TiledImage(ArrayRaster(pixels), session, 1).strips(Clock()), size).mask
    except SampleError:
        return None


def middle(pixels: NDArray[np.uint8], spec: Input) -> NDArray[np.uint8]:
    """Return the middle of an image or label, at most `MIDDLE` tiles high and wide."""
    assert spec.tiles is not None
    most = [MIDDLE * spec.tiles.shrink * side for side in (spec.height, spec.width)]
    top, left = (max(0, have - side) // 2 for have, side in zip(pixels.shape, most, strict=False))
    return np.ascontiguousarray(pixels[top : top + most[0], left : left + most[1]])
