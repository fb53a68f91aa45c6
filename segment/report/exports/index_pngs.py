"""`png`: one PNG per image, whose pixel values are class indices."""

from __future__ import annotations

from typing import ClassVar

from segment.report.exports.masked_images import MaskedImage
from segment.report.exports.writers import Writer


class FileWriter(Writer[bool]):
    """Writes `<id>.png` for each image, unless it is there; the mark beside them is hidden.

    Attributes:
        folder: names of folders below the target.
    """

    names_files = True
    threads = 16
    folder: ClassVar[tuple[str, ...]] = ()

    def encode(self, image: MaskedImage) -> bytes:
        """Return the bytes of an image's file."""
        return image.png

    def convert(self, image: MaskedImage) -> bool:
        """Return whether the file was written."""
        path = "/".join([*self.folder, self.to.file(image)])
        return self.to.write_if_missing(path, lambda: self.encode(image))

    def collect(self, image: MaskedImage, converted: bool) -> None:
        """Count the file."""
        self.to.count(converted)
