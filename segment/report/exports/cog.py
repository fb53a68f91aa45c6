"""`cog`: one cloud-optimised GeoTIFF per image, with the georeference of the image where it has one.

The layout is that of OGC 21-026, of which a viewer reads few ranges: tiles, overviews that halve the size until one
tile holds them, the directories of the image and of its overviews, from large to small, and then the tiles, from the
smallest overview to the image.
"""

import shutil
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, ClassVar

import numpy as np
from numpy.typing import NDArray

from segment.errors import InputChanged, SampleError, StoreError
from segment.images.raster import Georeference
from segment.images.tiff_raster import TiffRaster, page_of
from segment.images.tiff_tags import Field, TiffError, directory_size, encode_directory, file_header
from segment.inputs.large_files import open_span
from segment.output.mask_tiff import TILE, MaskPage, mask_fields
from segment.report.exports.masked_images import MaskedImage
from segment.report.exports.writers import Export, Writer
from segment.store.names import IMAGE_SUFFIXES, count, suffix_of
from segment.store.scope import NotAllowed
from segment.store.urls import join_url

_MOST_CLASSIC = 1 << 32  # bytes that 32-bit offsets reach

_TIFF_SUFFIXES = (".tif", ".tiff")
_ANY_PIXELS = 1 << 62
_REASONS = {
    "none": "{} without a georeference",
    "unreadable": "{} that cannot be read any more, or changed since",
    "outside": "{} outside of what may be read: delete these files, and export again with --allow-input PREFIX",
    "parquet": "{} in Parquet files, which are not read again",
    "turned": "{} turned by an orientation, to which the georeference does not apply",
}


class Cog(Writer[str | None]):
    """Writes `<id>.tif` for each image, unless it is there.

    The masks file of a run does not hold georeferences, so that of an image is read from its file again; only a mask
    beside the masks file has its own.
    """

    names_files = True
    suffix: ClassVar[str] = ".tif"
    needs_whole_masks = False

    def __init__(self, to: Export) -> None:
        super().__init__(to)
        self._without: Counter[str] = Counter()

    def convert(self, image: MaskedImage) -> str | None:
        """Return None if the file was there, "" if it was written georeferenced, else why it is not (`_REASONS`)."""
        url = join_url(self.to.target, self.to.file(image))
        if self.to.store.exists(url):
            return None
        with TemporaryDirectory(dir=self.to.scratch) as folder:
            file = Path(folder) / "mask.tif"
            place, reason = (image.georeference, "none") if image.is_in_file else self._find(image)
            write_cog(file, image.size, image.strips(), self.to.card.classes.palette_array, place)
            self.to.store.write(url, file)
        return "" if place else reason

    def _find(self, image: MaskedImage) -> tuple[Georeference | None, str]:
        """Return the georeference of an image, or why its mask has none."""
        if image.source is None:
            return None, "parquet"
        suffix = suffix_of(image.source.url)
        if image.is_file and suffix in IMAGE_SUFFIXES and suffix not in _TIFF_SUFFIXES:
            return None, "none"
        try:
            page = page_of(open_span(image.source, self.to.store))
            if page is None or page.georeference is None:
                return None, "none"
            raster = TiffRaster(page, _ANY_PIXELS)
        except StoreError as error:
            if not error.object_specific:
                raise  # the same command again goes on
            return None, "unreadable"
        except NotAllowed:
            return None, "outside"
        except (InputChanged, SampleError, TiffError):
            return None, "unreadable"
        return raster.georeference, "turned"

    def collect(self, image: MaskedImage, converted: str | None) -> None:
        """Count the file, and why it has no georeference."""
        self.to.count(converted is not None)
        if converted:
            self._without[converted] += 1

    def finish(self) -> None:
        """Say which masks have no georeference."""
        for reason, number in sorted(self._without.items()):
            images = _REASONS[reason].format(count(number, "image"))
            self.to.done.notes.append(f"not georeferenced: the masks of {images}")


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
