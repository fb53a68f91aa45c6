"""`cog`: one cloud-optimised GeoTIFF per image, with the georeference of the image where it has one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from segment.errors import InputChanged, SampleError, StoreError
from segment.images.raster import Georeference
from segment.images.tiff_raster import TiffRaster, page_of
from segment.images.tiff_tags import TiffError
from segment.inputs.large_files import open_span
from segment.report.exports.cog_layout import write_cog
from segment.report.exports.masked_images import MaskedImage
from segment.report.exports.writers import Export, Writer
from segment.store.names import IMAGE_SUFFIXES, count, suffix_of
from segment.store.scope import NotAllowed
from segment.store.urls import join_url

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
