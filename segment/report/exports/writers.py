"""The interface between an export and its formats."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from segment.models.card import ModelCard
from segment.report.exports.masked_images import MaskedImage
from segment.report.filenames import Names
from segment.store.client import Store
from segment.store.urls import join_url

T = TypeVar("T")


@dataclass
class Exported:
    """The result of an export.

    Attributes:
        written, skipped: files that were written, and that were there already.
        without_mask: error rows, which have no mask.
        renamed: files that are not named like their id.
        not_done: planned images that are not segmented yet.
        tars_left: tars of the input that are not indexed yet; how many images they hold is not known.
        notes: what else the user should know, a line each.
    """

    written: int = 0
    skipped: int = 0
    without_mask: int = 0
    renamed: int = 0
    not_done: int = 0
    tars_left: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Export:
    """What the writer of a format works with.

    Attributes:
        card: of the run's model.
        store, target: where the files go; `target` is an absolute URL.
        names: file names of the images.
        scratch: an empty local folder, deleted after the export: files grow there that do not fit into memory.
        done: what is counted.
    """

    card: ModelCard
    store: Store
    target: str
    names: Names
    scratch: Path
    done: Exported

    def write(self, path: str, data: bytes | Path) -> None:
        """Write a file below the target, in place of an older one."""
        self.store.write(join_url(self.target, path), data)
        self.done.written += 1

    def write_if_missing(self, path: str, data: Callable[[], bytes]) -> bool:
        """Write a file below the target unless there is one; return whether it was written. It is not counted."""
        url = join_url(self.target, path)
        if self.store.exists(url):
            return False
        self.store.write(url, data())
        return True

    def count(self, is_new: bool) -> None:
        """Count a file of `write_if_missing`."""
        self.done.written += is_new
        self.done.skipped += not is_new

    def file(self, image: MaskedImage) -> str:
        """Return the relative path of an image's file, which no other image has."""
        return self.names.file(image.shard, image.id)


class Writer(ABC, Generic[T]):
    """Writes the masks of a run in one format.

    `convert` is called for every image, by several threads; `collect` with its results, one at a time, in the order of
    the plan; then `finish`, once.

    Attributes:
        names_files: whether there is a file for each image, named by its id.
        tells_alike: whether images are told that are named alike, as the format has only their names and numbers.
        threads: images that are converted at once.
        needs_whole_masks: whether `convert` holds a whole mask, rather than strips of it.
    """

    names_files: ClassVar[bool] = False
    tells_alike: ClassVar[bool] = False
    suffix: ClassVar[str] = ".png"
    threads: ClassVar[int] = 4
    needs_whole_masks: ClassVar[bool] = True

    def __init__(self, to: Export) -> None:
        self.to = to

    @abstractmethod
    def convert(self, image: MaskedImage) -> T:
        """Do what needs no other image: decode, encode, write files of this image alone."""

    @abstractmethod
    def collect(self, image: MaskedImage, converted: T) -> None:
        """Add an image to the files that hold several."""

    def finish(self) -> None:
        """Write the files that hold several images."""


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
