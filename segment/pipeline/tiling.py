"""Images of any size by a model of a fixed one: tile by tile, in the memory of one row of tiles."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from segment.errors import SampleError, UsageError
from segment.images.blending import Strip, Tile, blending_of, enlarged
from segment.images.raster import Raster, ShrunkRaster
from segment.images.resize import restore_mask
from segment.images.tiles import TileAxis, pad_tile, spread_tiles
from segment.models.card import ModelCard
from segment.models.card_input import Input
from segment.models.sessions import Extras, Session
from segment.models.sessions.extras import NOTHING
from segment.pipeline.prediction import Predicted, predict
from segment.pipeline.stages import Clock


class TiledImage:
    """Segments an image by the tiles of the session's card (`input.tiles`).

    A tile is what the session takes: the image's own pixels, padded where the image is smaller. So the mask of an image
    of a tile's size is the session's; and where the model is a local filter whose field of view is no wider than the
    overlap, `blend = "centre"` leaves no trace of tiles: the mask is that of the whole image, but for rows and columns
    next to padding.

    Args:
        session: of a card with `input.tiles`.
        wanted: what strips have beside the mask: the levels of their confidence, then those of each class; the session
            is opened with its `session_extras`.

    Attributes:
        tiles, done: number of tiles, and of those that have been segmented.
        remarks: codes of what the session noticed about tiles so far; see `Masks.remarks`.

    Raises:
        SampleError: the blend of the card does not fit into memory.
    """

    def __init__(self, raster: Raster, session: Session, batch_size: int, wanted: Extras = NOTHING) -> None:
        self._session, self._batch_size, self._wanted = session, batch_size, wanted
        spec = session.card.input
        assert spec.tiles is not None
        self._size, self._shrink = (raster.height, raster.width), spec.tiles.shrink
        self._is_by_mean = spec.tiles.blend == "mean"
        self._raster = raster if self._shrink == 1 else ShrunkRaster(raster, self._shrink)
        self._rows, self._columns = tile_axes(spec, (self._raster.height, self._raster.width))
        self._has_confidence = session_extras(session.card, wanted).confidence is not None
        levels = self._has_confidence + len(wanted.probabilities)
        self._blending = blending_of(spec.tiles, self._rows, self._columns, len(session.card.classes), levels)
        self.tiles = len(self._rows.starts) * len(self._columns.starts)
        self.done = 0
        self.remarks: set[str] = set()

    def strips(
        self, clock: Clock, step: Callable[[], object] = lambda: None, most: int | None = None
    ) -> Iterator[Strip]:
        """Yield the mask from the top in strips, one for each row of tiles.

        Args:
            clock: takes the time of the stages `decode` (reading the raster) and `infer`.
            step: called before each batch of tiles; what it raises ends the image.
            most: ends the image after so many tiles.

        Raises:
            SampleError: the output for a tile cannot be used, or a window cannot be decoded.
        """
        strips = self._segmented(clock, step, most)
        if self._has_confidence and self._wanted.confidence is None:  # it was for the blend alone
            strips = (strip._replace(levels=strip.levels[1:]) for strip in strips)
        yield from strips if self._shrink == 1 else enlarged(strips, self._shrink, self._size)

    def _segmented(self, clock: Clock, step: Callable[[], object], most: int | None) -> Iterator[Strip]:
        """Yield the mask of the raster that is cut into tiles; see `strips`."""
        for row, top in enumerate(self._rows.starts):
            with clock("decode"):
                band = self._raster.read(top, 0, self._rows.inside, self._raster.width)
            for first in range(0, len(self._columns.starts), self._batch_size):
                step()
                with clock("infer"):
                    lefts = self._columns.starts[first : first + self._batch_size]
                    for column, found in enumerate(predict(self._cut(band, lefts), self._session, len(lefts)), first):
                        self._put(row, column, found)
                self.done += len(lefts)
                if most is not None and self.done >= most:
                    return
            yield self._blending.finish_row(row)

    def _cut(self, band: NDArray[np.uint8], lefts: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return the tiles of a band that begin at these columns: `uint8[n, input height, input width, 3]`."""
        spec, width = self._session.card.input, self._columns.inside
        return np.stack([pad_as_card(band[:, left : left + width], spec) for left in lefts])

    def _put(self, row: int, column: int, found: Predicted) -> None:
        """Take what the model gives for a tile, at the tile's size. Raises SampleError: it cannot be used."""
        if found.fault:
            at = f"row {self._rows.starts[row] * self._shrink}, column {self._columns.starts[column] * self._shrink}"
            raise SampleError(found.fault, f"in the tile at {at}")
        if found.remark:
            self.remarks.add(found.remark)
        spec, chosen, levels = self._session.card.input, self._wanted.probabilities, []
        size = (spec.height, spec.width)
        scores = None
        if found.probabilities is not None:
            scores = np.stack([restore_mask(each, spec, size) for each in found.probabilities])
        if self._has_confidence and found.confidence is not None:
            levels.append(restore_mask(found.confidence, spec, size))
        if chosen and scores is not None:
            levels += list(scores[list(chosen)] if self._is_by_mean else scores)
        found_levels = np.stack(levels) if levels else np.empty((0, *size), np.uint8)
        self._blending.put(row, column, Tile(restore_mask(found.mask, spec, size), found_levels, scores))


def session_extras(card: ModelCard, wanted: Extras) -> Extras:
    """Return what a session gives beside masks: what is wanted, or what tiles are blended by.

    Raises UsageError: it cannot be had with the card's tiles.
    """
    tiles = card.input.tiles
    if tiles is None:
        return wanted
    if tiles.blend == "mean":
        return Extras(wanted.confidence, tuple(range(len(card.classes))))
    if tiles.blend == "centre":
        return wanted
    if wanted.confidence not in (None, "maximum"):
        raise UsageError(
            f"confidence = {wanted.confidence}: the card {card.name} blends tiles by their highest probability "
            "(input.tiles.blend = 'confidence'), and a session gives one measure: use maximum, or another blend"
        )
    return Extras("maximum", wanted.probabilities)


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


def join_strips(strips: Iterable[Strip], size: tuple[int, int]) -> Strip:
    """Return the image of these strips, `uint8[H, W]` and levels, without a second copy of all of them."""
    mask, levels, done = np.empty(size, np.uint8), np.empty((0, *size), np.uint8), 0
    for strip in strips:
        if done == 0:
            levels = np.empty((len(strip.levels), *size), np.uint8)
        rows = np.s_[..., done : done + len(strip.mask), :]
        mask[rows], levels[rows] = strip
        done += len(strip.mask)
    return Strip(mask, levels)
