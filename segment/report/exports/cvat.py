"""`cvat`: one zip of the layout of PASCAL VOC, which CVAT imports as 'Segmentation mask 1.1'."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from segment.report.exports.masked_images import MaskedImage
from segment.report.exports.voc import IMAGE_SET, LABEL_MAP, MASKS, ImageSet, LabelMap
from segment.report.exports.writers import Export, Writer

_ZIP = "segmentation-mask.zip"


class Cvat(Writer[bytes]):
    """Writes `segmentation-mask.zip`; its bytes depend on the masks only.

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
