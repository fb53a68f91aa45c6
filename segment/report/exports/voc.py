"""`voc`: PNGs of class indices with the palette, `labelmap.txt` and `ImageSets`, as Datumaro and CVAT read them.

`cvat`: one zip of this layout.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray

from segment.images import codec
from segment.models.classes import Classes, Colour
from segment.report.exports.masked_images import MaskedImage
from segment.report.exports.writers import Export, FileWriter, Writer
from segment.store.foreign_text import in_label_map

_ZIP = "segmentation-mask.zip"

MASKS = "SegmentationClass"
LABEL_MAP = "labelmap.txt"
IMAGE_SET = "ImageSets/Segmentation/default.txt"


class LabelMap:
    """The classes as `labelmap.txt` has them: readers tell them by their colours, so no two may share one.

    Attributes:
        names: by class index, as they are written.
        palette: `uint8[C, 3]`, RGB.
    """

    def __init__(self, classes: Classes) -> None:
        self.names = in_label_map(classes.names)
        colours = distinct_colours(classes.palette)
        self.palette: NDArray[np.uint8] = np.asarray(colours, dtype=np.uint8)
        changed = zip(classes.names, self.names, classes.palette, colours, strict=True)
        self.notes = []
        for name, written, colour, used in changed:
            if written != name:
                self.notes.append(f"class {name!r} is called {written!r} in {LABEL_MAP}")
            if used != colour:
                rgb = ",".join(map(str, used))
                self.notes.append(f"class {name!r} has the colour of an earlier class: it is written in {rgb}")

    def to_bytes(self) -> bytes:
        """Return the file: `label:color_rgb:parts:actions`, a class a line."""
        colours = [",".join(map(str, colour)) for colour in self.palette.tolist()]
        lines = [f"{name}:{colour}::" for name, colour in zip(self.names, colours, strict=True)]
        return ("\n".join(["# label:color_rgb:parts:actions", *lines]) + "\n").encode()

    def encode(self, image: MaskedImage) -> bytes:
        """Return a mask as PNG with the palette."""
        return codec.encode_palette_png(image.mask(), self.palette)


def distinct_colours(palette: Sequence[Colour]) -> list[Colour]:
    """Return a palette without repeated colours: of equal ones the first stays, the others become free shades of grey.

    Tools that tell classes by their colours would merge those of one colour.
    """
    free = ((grey, grey, grey) for grey in range(1, 256) if (grey, grey, grey) not in palette)
    seen: set[Colour] = set()
    colours = []
    for colour in palette:
        colours.append(next(free) if colour in seen else colour)
        seen.add(colour)
    return colours


class ImageSet:
    """The list of images, which grows in a file: paths below `SegmentationClass`, without suffix."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "default.txt"
        self._file: io.TextIOBase = self.path.open("w", encoding="utf-8", newline="\n")

    def add(self, file: str) -> None:
        """Add the image of a PNG."""
        self._file.write(file.removesuffix(".png") + "\n")

    def finish(self) -> Path:
        """Return the complete file."""
        self._file.close()
        return self.path


class Voc(FileWriter):
    """Writes the folder layout of PASCAL VOC's segmentation task."""

    threads = 4
    folder = (MASKS,)

    def __init__(self, to: Export) -> None:
        super().__init__(to)
        self._labels, self._images = LabelMap(to.card.classes), ImageSet(to.scratch)
        to.done.notes += self._labels.notes

    def encode(self, image: MaskedImage) -> bytes:
        """Return a mask as PNG with the palette."""
        return self._labels.encode(image)

    def collect(self, image: MaskedImage, converted: bool) -> None:
        """Count the file, and list the image."""
        super().collect(image, converted)
        self._images.add(self.to.file(image))

    def finish(self) -> None:
        """Write the classes and the list of images."""
        self.to.write(LABEL_MAP, self._labels.to_bytes())
        self.to.write(IMAGE_SET, self._images.finish())


class Cvat(Writer[bytes]):
    """Writes `segmentation-mask.zip`, CVAT's 'Segmentation mask 1.1'; its bytes depend on the masks only.

    CVAT finds an image of a task by its path without suffix. Without instances, each class of an image is one mask.
    """

    names_files = True

    def __init__(self, to: Export) -> None:
        super().__init__(to)
        self._labels, self._images = LabelMap(to.card.classes), ImageSet(to.scratch)
        to.done.notes += self._labels.notes
        self._zip = ZipFile(to.scratch / _ZIP, "w", allowZip64=True)

    def convert(self, image: MaskedImage) -> bytes:
        """Return a mask as PNG with the palette."""
        return self._labels.encode(image)

    def collect(self, image: MaskedImage, converted: bytes) -> None:
        """Add a mask to the zip."""
        file = self.to.file(image)
        self._images.add(file)
        self._zip.writestr(ZipInfo(f"{MASKS}/{file}"), converted, ZIP_STORED)  # PNG is compressed

    def finish(self) -> None:
        """Complete the zip and write it."""
        with self._zip:
            self._zip.writestr(ZipInfo(LABEL_MAP), self._labels.to_bytes(), ZIP_DEFLATED)
            self._add(IMAGE_SET, self._images.finish())
        self.to.write(_ZIP, Path(str(self._zip.filename)))

    def _add(self, name: str, file: Path) -> None:
        with self._zip.open(ZipInfo(name), "w") as entry, file.open("rb") as lines:
            while block := lines.read(1 << 20):
                entry.write(block)
