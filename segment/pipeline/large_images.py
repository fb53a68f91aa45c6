"""Rows of images that are segmented tile by tile: counted in strips, with masks within or beside their rows."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from segment.errors import SampleError
from segment.images.bands import pixel_reader
from segment.images.blending import Strip
from segment.images.labels import LabelDecoder
from segment.images.mask_png import encode_mask
from segment.images.raster import Raster
from segment.images.tiff_labels import LabelRaster, open_label
from segment.images.tiff_raster import open_raster
from segment.inputs.large_files import open_image_file, open_label_file
from segment.inputs.parts import SEGMENTED, Part, Sample
from segment.metrics import Confusion
from segment.metrics.boundary import BoundaryStrips
from segment.models.sessions import Session
from segment.output.mask_columns import ImageExtras
from segment.output.mask_files import MOST_PNG_PIXELS, write_mask_file
from segment.output.mask_tiff import MaskWriter
from segment.output.stored import Stored
from segment.output.tables import ImageRow
from segment.pipeline.certainty import ConfidenceSums
from segment.pipeline.stages import Clock, Task, first_row, scored
from segment.pipeline.tiling import TiledImage, join_strips
from segment.process.temporaries import TemporaryFolder
from segment.store.client import Store

BY_WINDOW = 100  # times `max_pixels`, which limits what is decoded at once, an image may have that is read by window


def open_sample(sample: Sample, task: Task) -> Raster:
    """Open the image of a sample. Raises SampleError: it cannot be used."""
    if sample.fault not in SEGMENTED:
        raise SampleError(str(sample.fault))
    most = task.settings.max_pixels
    return open_raster(open_image_file(sample, task.store), most, BY_WINDOW * most, pixel_reader(task.card.input))


class TiledImages:
    """Makes the rows of images, one image after the other, by a card with `input.tiles`.

    Attributes:
        share: of the tiles of the image in work, those that are done; 0-1.
    """

    def __init__(self, task: Task, session: Session, labels: LabelDecoder) -> None:
        self._task, self._session, self._labels = task, session, labels
        self.share = 0.0

    def row(self, part: Part, sample: Sample, clock: Clock, step: Callable[[], object] = lambda: None) -> ImageRow:
        """Segment an image, and score it if it has a label. A fault of any tile is the image's.

        Args:
            clock: takes the time of the stages and the number of tiles.
            step: called before each batch of tiles; what it raises ends the image.

        Raises:
            StoreError, InputChanged: a window of a large image cannot be read, or a large mask be written.
        """
        row = first_row(sample)
        try:
            with clock("decode"):
                raster = open_sample(sample, self._task)
            row = replace(row, size=(raster.height, raster.width))
            return self._segmented(row, part, sample, raster, clock, step)
        except SampleError as error:
            return replace(row, error=str(error))

    def _segmented(
        self,
        row: ImageRow,
        part: Part,
        sample: Sample,
        raster: Raster,
        clock: Clock,
        step: Callable[[], object],
    ) -> ImageRow:
        size = (raster.height, raster.width)
        image = TiledImage(raster, self._session, self._task.batch_size, self._task.extras)

        def counted_step() -> None:
            self.share = image.done / image.tiles
            step()

        if self._task.most_tiles is not None and image.tiles > self._task.most_tiles:
            _probe(image, self._task.most_tiles, clock, step)
            return row
        counts = _StripCounts(self._task, size)
        with clock("encode"):
            counts.open_label(sample, self._task.store, raster, self._labels)
        strips = counts.counting(image.strips(clock, counted_step), clock)
        maps: list[bytes] = []
        if raster.height * raster.width <= MOST_PNG_PIXELS:
            whole = join_strips(strips, size)
            with clock("encode"):
                row = replace(row, mask=encode_mask(whole.mask))
                maps = [encode_mask(levels) for levels in whole.levels]
        else:
            row = replace(row, mask_file=self._mask_file(part, row.index, raster, strips, clock))
        clock.tiles += image.tiles
        of_tiles = tuple(sorted(image.remarks)) if counts.has_one_class else ()  # other tiles have other classes
        row = replace(row, remarks=row.remarks + raster.remarks + of_tiles + counts.remarks(maps))
        row = replace(row, extras=counts.extras(maps))
        if counts.fault:  # the mask is good, only its label is not: keep the mask
            return replace(row, error=counts.fault)
        return scored(row, counts.total, counts.label_remarks, self._task.card)

    def _mask_file(self, part: Part, index: int, raster: Raster, strips: Iterable[Strip], clock: Clock) -> Stored:
        """Write the mask to a file of the output; return the object."""
        task, palette = self._task, self._task.card.classes.palette_array
        with TemporaryFolder() as folder:
            file = folder.path / "mask.tif"
            with MaskWriter(file, raster.height, raster.width, raster.georeference, palette) as writer:
                for strip in strips:
                    with clock("encode"):
                        writer.write(strip.mask)
            with clock("write"):
                return write_mask_file(task.store, task.output, part.shard, part.id, index, file)


def _probe(image: TiledImage, most: int, clock: Clock, step: Callable[[], object]) -> None:
    """Segment the first tiles of an image, and note what the others would take."""
    began = time.perf_counter()
    for _ in image.strips(clock, step, most):
        pass
    left = image.tiles - image.done
    clock.tiles += image.done
    clock.tiles_left += left
    clock.seconds_left += (time.perf_counter() - began) * left / image.done


class _StripCounts:
    """Counts the pixels of a mask, strip by strip from the top, by label and prediction; without a label all are void.

    Args:
        size: (height, width) of the mask.

    Attributes:
        fault: error text of a label that cannot be used; the counts say nothing about it then.
    """

    def __init__(self, task: Task, size: tuple[int, int]) -> None:
        classes, fraction = task.card.classes, task.settings.boundary
        self.total = Confusion.zeros(len(classes))
        self._boundary: BoundaryStrips | None = None
        if fraction is not None:
            self._boundary = BoundaryStrips(size, len(classes), fraction=fraction, ignore=classes.ignored_classes)
        self.fault: str | None = None
        self._confidence = ConfidenceSums(len(classes)) if task.extras.confidence else None
        self._has_maps, self._has_probabilities = task.settings.confidence_maps, bool(task.extras.probabilities)
        self._label: LabelRaster | None = None
        self._rows = 0

    @property
    def label_remarks(self) -> tuple[str, ...] | None:
        """Remarks on the label; None without one."""
        return self._label.remarks if self._label else None

    def remarks(self, maps: Sequence[bytes]) -> tuple[str, ...]:
        """Return a remark if maps are wanted and there are none; see `extras`."""
        return ("maps_too_large",) if (self._has_maps or self._has_probabilities) and not maps else ()

    def extras(self, maps: Sequence[bytes]) -> ImageExtras | None:
        """Return what is written beside the mask, if anything is; without counts of boundaries where there is no label.

        Args:
            maps: the PNGs of the levels that `counting` leaves to strips; none of an image that is too large.
        """
        boundary = self._boundary.total if self._boundary and self._label and not self.fault else None
        found = ImageExtras(
            map=maps[0] if maps and self._has_maps else None,
            probabilities=tuple(maps[self._has_maps :]),
            boundary=boundary,
        )
        if self._confidence:
            found = found._replace(confidence=self._confidence.mean, by_class=self._confidence.by_class)
        return found if found != ImageExtras() else None

    def open_label(self, sample: Sample, store: Store, raster: Raster, labels: LabelDecoder) -> None:
        """Open the label of a sample, if it has one, whose image is `raster`."""
        try:
            if sample.fault is not None:
                raise SampleError(sample.fault)
            file = open_label_file(sample, store)
            if file is not None:
                self._label = open_label(file, (raster.height, raster.width), raster.orientation, labels)
        except SampleError as error:
            self.fault = str(error)

    def counting(self, strips: Iterable[Strip], clock: Clock) -> Iterator[Strip]:
        """Yield the strips, and count them; with the levels of confidence only where maps of it are written."""
        for strip in strips:
            with clock("encode"):
                self._count(strip.mask)
                if self._confidence:
                    self._confidence.add(strip.mask, strip.levels[0])
            yield strip if self._has_maps or not self._confidence else strip._replace(levels=strip.levels[1:])

    def _count(self, strip: NDArray[np.uint8]) -> None:
        label = None
        try:
            if self._label and not self.fault:
                label = self._label.read(self._rows, 0, *strip.shape)
        except SampleError as error:
            self.fault = str(error)
        self.total += Confusion.of(strip, label, self.total.classes)
        if self._boundary and label is not None:
            self._boundary.add(strip, label)
        self._rows += len(strip)

    @property
    def has_one_class(self) -> bool:
        """Whether all pixels so far have the same class."""
        return int(np.count_nonzero(self.total.predicted_pixels)) == 1
