"""Masks too large for one row: written strip by strip as a tiled, compressed TIFF."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from segment.images import headers
from segment.images.raster import Georeference
from segment.images.tiff_raster import TiffWindows
from segment.images.tiff_segments import TiffSegments
from segment.images.tiff_tags import (
    GEOREFERENCE,
    LONG,
    LONG8,
    SHORT,
    Field,
    TiffPage,
    directory_size,
    encode_directory,
    file_header,
)

TILE = 512  # pixels of a tile's side
_BIG = 1 << 32  # bytes from which on offsets need 64 bits
_DEFLATE, _GREY, _PALETTE = 8, 1, 3
_LEVEL = 6  # of deflate


class MaskPage:
    """A page of class indices that is written row by row: its tiles, and the directory that lists them.

    Args:
        height, width: of the page, in pixels.
        put: writes an encoded tile and returns the byte of the file where it begins.
    """

    def __init__(self, height: int, width: int, put: Callable[[bytes], int]) -> None:
        self.height, self.width = height, width
        self._put = put
        self._rows = np.zeros((TILE, -(-width // TILE) * TILE), dtype=np.uint8)
        self._filled = 0  # rows of `_rows`
        self._done = 0  # rows that are written
        self.offsets: list[int] = []
        self.sizes: list[int] = []

    @property
    def tiles(self) -> int:
        """Number of tiles, once all rows are written."""
        return tile_count(self.height, self.width)

    @property
    def missing(self) -> int:
        """Number of rows that have not been written yet."""
        return self.height - self._done - self._filled

    def write(self, rows: NDArray[np.uint8]) -> None:
        """Write the next rows, `uint8[n, W]`.

        Raises ValueError: rows of another type or width, or more rows than the page has.
        """
        if rows.ndim != 2 or rows.dtype != np.uint8 or rows.shape[1] != self.width:
            raise ValueError(f"rows of this mask are uint8[n, {self.width}], not {rows.dtype} {rows.shape}")
        if len(rows) > self.missing:
            raise ValueError(f"{len(rows)} rows for a mask that lacks {self.missing} of its {self.height}")
        while len(rows):
            taken = rows[: TILE - self._filled]
            self._rows[self._filled : self._filled + len(taken), : self.width] = taken
            self._filled += len(taken)
            rows = rows[len(taken) :]
            if self._filled == TILE or not self.missing:
                self._flush()

    def _flush(self) -> None:
        self._rows[self._filled :] = 0
        for left in range(0, self._rows.shape[1], TILE):
            # libdeflate: its bytes follow from the pixels, while zlib-ng's may depend on the CPU, too.
            tile = bytes(imagecodecs.deflate_encode(self._rows[:, left : left + TILE].tobytes(), _LEVEL))
            self.offsets.append(self._put(tile))
            self.sizes.append(len(tile))
        self._done += self._filled
        self._filled = 0


def tile_count(height: int, width: int) -> int:
    """Return the number of tiles of a page."""
    return -(-height // TILE) * -(-width // TILE)


def needs_big(pixels: int) -> bool:
    """Return whether a file of so many pixels, edges of tiles included, may need the 64-bit offsets of BigTIFF."""
    return pixels + pixels // 64 + (1 << 20) >= _BIG  # deflate adds at most 5 bytes to each 16,000; directories


def mask_fields(
    size: tuple[int, int],
    offsets: list[int],
    sizes: list[int],
    palette: NDArray[np.uint8] | None,
    georeference: Georeference | None,
    *,
    big: bool,
    reduced: bool = False,
) -> list[Field]:
    """Return the fields of a page's directory.

    Args:
        size: (height, width) of the page.
        offsets, sizes: of its tiles, in bytes, row by row.
        palette: as in `MaskWriter`.
        big: whether the file is a BigTIFF.
        reduced: whether it is an overview of the page before.
    """
    position = LONG8 if big else LONG
    geo = georeference.tags if georeference else {}
    return [
        Field(254, LONG, [int(reduced)]),
        Field(256, LONG, [size[1]]),
        Field(257, LONG, [size[0]]),
        Field(258, SHORT, [8]),
        Field(259, SHORT, [_DEFLATE]),
        Field(262, SHORT, [_GREY if palette is None else _PALETTE]),
        Field(277, SHORT, [1]),
        Field(284, SHORT, [1]),
        *([] if palette is None else [Field(320, SHORT, _colour_map(palette))]),
        Field(322, SHORT, [TILE]),
        Field(323, SHORT, [TILE]),
        Field(324, position, offsets),
        Field(325, LONG, sizes),
        Field(339, SHORT, [1]),
        *(Field(tag, GEOREFERENCE[tag], values) for tag, values in geo.items()),
    ]


def _colour_map(palette: NDArray[np.uint8]) -> list[int]:
    """Return 256 reds, greens and blues of 16 bits; white behind the palette's end."""
    colours = np.full((256, 3), 255, dtype=np.int64)
    colours[: len(palette)] = palette
    return [int(value) for value in (colours.T * 257).ravel()]


class MaskWriter:
    """Writes a mask as a tiled TIFF, deflate-compressed, of which it holds one row of tiles at a time.

    The same rows give the same bytes, however they are cut into strips. The directory stands before the tiles, so that
    a reader by ranges needs one request for it. A file of which 4 GB or more may come is a BigTIFF.

    Args:
        path: local file, which is replaced. Where the block that writes it fails, it is deleted.
        height, width: of the mask, in pixels.
        georeference: of the mask; None without one.
        palette: `uint8[C, 3]`, RGB, the colours that viewers show; values from C on become white. None for grey.
    """

    def __init__(
        self,
        path: Path,
        height: int,
        width: int,
        georeference: Georeference | None = None,
        palette: NDArray[np.uint8] | None = None,
    ) -> None:
        self._path = path
        self._georeference, self._palette = georeference, palette
        self._page = MaskPage(height, width, self._put)
        self._big = needs_big(tile_count(height, width) * TILE * TILE)
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        self._file = self._path.open("wb")
        nothing = [0] * self._page.tiles
        self._file.write(bytes(self._directory_at + directory_size(self._fields(nothing, nothing), big=self._big)))
        return self

    def write(self, rows: NDArray[np.uint8]) -> None:
        """Write the next rows from the top, `uint8[n, W]` class indices; any number of them.

        Raises ValueError: rows of another type or width, or more rows than the mask has.
        """
        self._page.write(rows)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Complete the file. Raises ValueError if rows are missing."""
        assert self._file is not None
        with self._file as file:
            if kind is None and not self._page.missing:
                fields = self._fields(self._page.offsets, self._page.sizes)
                file.seek(0)
                file.write(file_header(self._directory_at, big=self._big))
                file.write(encode_directory(fields, self._directory_at, 0, big=self._big))
                return
        self._path.unlink(missing_ok=True)
        if kind is None:
            raise ValueError(f"the mask lacks {self._page.missing} of its {self._page.height} rows")

    @property
    def _directory_at(self) -> int:
        return len(file_header(0, big=self._big))

    def _fields(self, offsets: list[int], sizes: list[int]) -> list[Field]:
        size = (self._page.height, self._page.width)
        return mask_fields(size, offsets, sizes, self._palette, self._georeference, big=self._big)

    def _put(self, tile: bytes) -> int:
        assert self._file is not None, "write() goes within the `with` block"
        at = self._file.tell()
        self._file.write(tile)
        return at


class MaskFile:
    """A mask that was written by `MaskWriter`.

    Args:
        file: seekable.

    Attributes:
        size: (height, width) in pixels.

    Raises (every method):
        TiffError: the file is damaged.
    """

    def __init__(self, file: BinaryIO) -> None:
        page = TiffPage(file)
        self.size = (page.height, page.width)
        self.georeference = page.georeference
        self._windows = TiffWindows(page, TiffSegments(page), 1, _class_indices)

    def strips(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the mask from the top, `uint8[n, W]`, one row of tiles at a time."""
        for top in range(0, self.size[0], TILE):
            yield self._windows.read(top, 0, min(TILE, self.size[0] - top), self.size[1])


def _class_indices(tiles: bytes) -> NDArray[np.uint8]:
    """Return the values of a TIFF without compression, of a palette or grey."""
    with headers.pixel_limit.lifted():
        return np.asarray(headers.open_header(tiles, ("TIFF",)), dtype=np.uint8)
