"""Masks as cloud-optimised GeoTIFFs (COG): what a viewer needs first stands first, so that it reads few ranges.

The layout is that of OGC 21-026: tiles, overviews that halve the size until one tile holds them, the directories of the
image and of its overviews, from large to small, and then the tiles, from the smallest overview to the image.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np
from numpy.typing import NDArray

from segment.images.raster import Georeference
from segment.images.tiff_tags import Field, directory_size, encode_directory, file_header
from segment.output.mask_tiff import TILE, MaskPage, mask_fields

_MOST_CLASSIC = 1 << 32  # bytes that 32-bit offsets reach


class _Level:
    """A page that is written to a file of its own, as the sizes of its tiles have to be known first."""

    def __init__(self, height: int, width: int, file: IO[bytes]) -> None:
        self.file, self.bytes = file, 0
        self.page = MaskPage(height, width, self._put)

    def _put(self, tile: bytes) -> int:
        self.file.write(tile)
        self.bytes += len(tile)
        return self.bytes - len(tile)


def overview_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Return (height, width) of the overviews of an image, from large to small.

    >>> overview_sizes(2000, 1025)
    [(1000, 513), (500, 257)]
    """
    sizes = []
    while max(height, width) > TILE:
        height, width = -(-height // 2), -(-width // 2)
        sizes.append((height, width))
    return sizes


def write_cog(
    path: Path,
    size: tuple[int, int],
    strips: Iterable[NDArray[np.uint8]],
    palette: NDArray[np.uint8],
    georeference: Georeference | None,
) -> None:
    """Write a mask as a COG. Memory holds one row of tiles of each page.

    Args:
        path: local file; temporary ones beside it take as many bytes.
        size: (height, width) of the mask.
        strips: class indices from the top, `uint8[n, W]`. Overviews take every second row and column, as GDAL's
            `nearest`: of classes there is no mean.
        palette: `uint8[C, 3]`, RGB.
        georeference: of the mask; that of overviews follows from it.
    """
    with ExitStack() as stack:
        levels = [
            _Level(*pixels, stack.enter_context(TemporaryFile(dir=path.parent)))
            for pixels in (size, *overview_sizes(*size))
        ]
        done = 0
        for strip in strips:
            for number, level in enumerate(levels):
                step = 1 << number
                level.page.write(strip[-done % step :: step, ::step])
            done += len(strip)
        _join(path, levels, palette, georeference)


def _join(path: Path, levels: list[_Level], palette: NDArray[np.uint8], georeference: Georeference | None) -> None:
    def fields(number: int, first: int, *, big: bool) -> list[Field]:
        page = levels[number].page
        offsets = [first + offset for offset in page.offsets]
        place = georeference if number == 0 else None
        size = (page.height, page.width)
        return mask_fields(size, offsets, page.sizes, palette, place, big=big, reduced=number > 0)

    def sizes(*, big: bool) -> list[int]:
        return [directory_size(fields(number, 0, big=big), big=big) for number in range(len(levels))]

    total = sum(level.bytes for level in levels)
    big = len(file_header(0, big=False)) + sum(sizes(big=False)) + total >= _MOST_CLASSIC
    first = len(file_header(0, big=big))
    directories = [first + sum(sizes(big=big)[:number]) for number in range(len(levels) + 1)]
    with path.open("wb") as file:
        file.write(file_header(first, big=big))
        data = directories[-1] + total
        for number, level in enumerate(levels):
            data -= level.bytes  # the image's tiles are the last
            following = directories[number + 1] if number + 1 < len(levels) else 0
            file.write(encode_directory(fields(number, data, big=big), directories[number], following, big=big))
        for level in reversed(levels):
            level.file.seek(0)
            shutil.copyfileobj(level.file, file, 1 << 20)
