"""Images of any size by a model of a fixed one: tile by tile, in the memory of one row of tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from segment.errors import SampleError, UsageError
from segment.images.raster import Raster
from segment.images.resize import restore_mask
from segment.images.tiles import BLENDINGS, TileAxis, pad_tile, spread_tiles
from segment.models.card import ModelCard
from segment.models.card_input import Input
from segment.models.sessions import Extras, Session
from segment.pipeline.prediction import predict
from segment.pipeline.stacking import Found
from segment.pipeline.stages import Clock


class TiledImage:
    """Segments an image by the tiles of the session's card (`input.tiles`).

    A tile is what the session takes: the image's own pixels, padded where the image is smaller. So the mask of an image
    of a tile's size is the session's; and where the model is a local filter whose field of view is no wider than the
    overlap, tiles leave no trace: its mask is that of the whole image, but for rows and columns next to padding.

    Args:
        raster: the image.
        session: of a card with `input.tiles`.
        batch_size: tiles per call of the session.

    Attributes:
        tiles, done: number of tiles, and of those that have been segmented.
        remarks: codes of what the session noticed about tiles so far; see `Masks.remarks`.
    """

    def __init__(self, raster: Raster, session: Session, batch_size: int) -> None:
        self._raster, self._session, self._batch_size = raster, session, batch_size
        self._rows, self._columns = tile_axes(session.card.input, (raster.height, raster.width))
        self.tiles = len(self._rows.starts) * len(self._columns.starts)
        self.done = 0
        self.remarks: set[str] = set()

    def strips(
        self, clock: Clock, step: Callable[[], object] = lambda: None, most: int | None = None
    ) -> Iterator[NDArray[np.uint8]]:
        """Yield the mask from the top in strips, `uint8[n, W]`, one for each row of tiles.

        Args:
            clock: takes the time of the stages `decode` (reading the raster) and `infer`.
            step: called before each batch of tiles; what it raises ends the image.
            most: ends the image after so many tiles.

        Raises:
            SampleError: the output for a tile cannot be used, or a window cannot be decoded.
        """
        spec = self._session.card.input
        assert spec.tiles is not None
        blending = BLENDINGS[spec.tiles.blend](self._rows, self._columns)
        for row, top in enumerate(self._rows.starts):
            with clock("decode"):
                band = self._raster.read(top, 0, self._rows.inside, self._raster.width)
            for first in range(0, len(self._columns.starts), self._batch_size):
                step()
                with clock("infer"):
                    lefts = self._columns.starts[first : first + self._batch_size]
                    found = predict(self._cut(band, lefts), self._session, len(lefts))
                    self._check(found.faults, top, lefts)
                    self.remarks.update(found.remarks.values())
                    for column, (mask, confidence) in enumerate(self._results(found), first):
                        blending.put(row, column, mask, confidence)
                self.done += len(lefts)
                if most is not None and self.done >= most:
                    return
            yield blending.finish_row(row)

    def _cut(self, band: NDArray[np.uint8], lefts: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return the tiles of a band that begin at these columns: `uint8[n, input height, input width, 3]`."""
        spec, width = self._session.card.input, self._columns.inside
        return np.stack([pad_as_card(band[:, left : left + width], spec) for left in lefts])

    def _results(self, found: Found) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8] | None]]:
        """Yield mask and confidence of each tile, `uint8[input height, input width]`."""
        spec = self._session.card.input

        def at_tile_size(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
            return restore_mask(pixels, spec, (spec.height, spec.width))

        for position, mask in enumerate(found.masks):
            confidence = None if found.confidence is None else at_tile_size(found.confidence[position])
            yield at_tile_size(mask), confidence

    def _check(self, faults: Mapping[int, str], top: int, lefts: tuple[int, ...]) -> None:
        for position, code in sorted(faults.items()):
            raise SampleError(code, f"in the tile at row {top}, column {lefts[position]}")


def session_extras(card: ModelCard, wanted: Extras) -> Extras:
    """Return what a session gives beside masks: what is wanted, or what tiles are blended by.

    Raises:
        UsageError: something is wanted of a card with tiles.
    """
    tiles = card.input.tiles
    if tiles is None:
        return wanted
    if wanted:
        raise UsageError(
            f"confidence and probabilities: the card {card.name} segments images in tiles (input.tiles), for which "
            "they are not offered; leave them out"
        )
    return Extras("maximum") if tiles.blend == "confidence" else wanted


def tile_axes(spec: Input, size: tuple[int, int]) -> tuple[TileAxis, TileAxis]:
    """Return rows and columns of the tiles of an image of size (height, width)."""
    assert spec.tiles is not None
    height, width = (
        spread_tiles(length, tile, spec.tiles.overlap_of(tile))
        for length, tile in zip(size, (spec.height, spec.width), strict=True)
    )
    return height, width


def pad_as_card(pixels: NDArray[np.uint8], spec: Input) -> NDArray[np.uint8]:
    """Pad pixels of an image that is smaller than a tile to the input's size; see `Tiles.pad`."""
    assert spec.tiles is not None
    return pad_tile(pixels, (spec.height, spec.width), spec.resize.pad if spec.tiles.pad == "constant" else None)


def join_strips(strips: Iterable[NDArray[np.uint8]], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the mask `uint8[H, W]` of these strips, without a second copy of all of them."""
    whole, done = np.empty(size, np.uint8), 0
    for strip in strips:
        whole[done : done + len(strip)] = strip
        done += len(strip)
    return whole
