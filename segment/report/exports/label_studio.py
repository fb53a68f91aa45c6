"""`label-studio`: tasks with predictions for Label Studio, and the labelling interface that shows them."""

from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from segment.errors import SegmentError
from segment.models.classes import Classes
from segment.report.exports.class_runs import class_runs
from segment.report.exports.json_files import JsonArray
from segment.report.exports.masked_images import MaskedImage
from segment.report.exports.writers import Export, Writer
from segment.store.names import count, shown

_CHANNELS = 4
_WORD = 8  # bits of a value
_SIZES = np.array([3, 4, 8, 16])  # bits of a length, of which each run chooses one
_LONGEST = 1 << 16  # bytes of a run
_AT_ONCE = 1 << 13  # runs that are encoded at once
_HEADER = np.array([32, 5, 4, 4, 4, 4])  # bits of: number of bytes, bits of a value, bits of each length
LARGEST = ((1 << 32) - 1) // _CHANNELS  # pixels

_TASKS_PER_FILE = 1000  # Label Studio reads a file of tasks whole
_BRUSH, _IMAGE = "brush", "image"  # tags of the labelling interface


class LabelStudio(Writer[dict[str, Any]]):
    """Writes `tasks-00001.json` and so on, and `labels.xml`, the labelling interface of the project.

    A task's image is the URL that the run read; of a local file, its path for Label Studio's local storage with `/` as
    document root.
    """

    needs_whole_masks = False

    def __init__(self, to: Export) -> None:
        super().__init__(to)
        self._tasks: JsonArray | None = None
        self._held, self._files, self._enclosed = 0, 0, 0

    def convert(self, image: MaskedImage) -> dict[str, Any]:
        """Return the task of an image."""
        names, (height, width) = self.to.card.classes.names, image.size
        if height * width > LARGEST:
            raise SegmentError(f"{shown(image.id)} has more pixels than Label Studio's brush: choose another format")
        result = [
            {
                "id": f"{image.number}-{runs.index}",
                "type": "brushlabels",
                "from_name": _BRUSH,
                "to_name": _IMAGE,
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {
                    "format": "rle",
                    "rle": list(brush_lengths(runs.counts)),
                    "brushlabels": [names[runs.index]],
                },
            }
            for runs in class_runs(image.strips(), (height, width), len(names), "rows")
        ]
        data = {_IMAGE: _url(image.uri), "id": image.id, "shard": image.shard}
        return {"data": data, "predictions": [{"model_version": self.to.card.name, "result": result}]}

    def collect(self, image: MaskedImage, converted: dict[str, Any]) -> None:
        """Add a task; a full file is written."""
        self._enclosed += not image.is_file
        if self._tasks is None:
            self._files += 1
            self._tasks = JsonArray(self.to.scratch / f"tasks-{self._files:05d}.json")
        self._tasks.add([converted])
        self._held += 1
        if self._held == _TASKS_PER_FILE:
            self._write_tasks()

    def finish(self) -> None:
        """Write the last tasks and the labelling interface."""
        self._write_tasks()
        self.to.write("labels.xml", interface(self.to.card.classes).encode())
        if self._enclosed:
            images = count(self._enclosed, "image is", "images are")
            self.to.done.notes.append(f"{images} in tar or Parquet files, which Label Studio cannot open")

    def _write_tasks(self) -> None:
        if self._tasks is not None:
            path = self._tasks.finish()
            self.to.write(path.name, path)
            path.unlink()
        self._tasks, self._held = None, 0


def _url(uri: str) -> str:
    if not uri.startswith("file://"):
        return uri
    return f"/data/local-files/?d={quote(uri.removeprefix('file://').lstrip('/'))}"


def interface(classes: Classes) -> str:
    """Return the labelling interface: an image and a brush for each class."""
    colours = ("#" + bytes(colour).hex() for colour in classes.palette)
    labels = "".join(
        f"    <Label value={quoteattr(name)} background={quoteattr(colour)}/>\n"
        for name, colour in zip(classes.names, colours, strict=True)
    )
    return (
        f'<View>\n  <Image name="{_IMAGE}" value="${_IMAGE}" zoom="true"/>\n'
        f'  <BrushLabels name="{_BRUSH}" toName="{_IMAGE}">\n{labels}  </BrushLabels>\n</View>\n'
    )


def brush_lengths(counts: NDArray[np.int64]) -> bytes:
    """Encode a mask for the brush: the bit stream of @thi.ng/rle-pack over the bytes of an RGBA picture.

    The pixels of the class are 255 in each channel, and the others 0.

    After the header each run is a bit 1, the number of its length's size (2 bits), its length minus 1, and its value.

    Args:
        counts: pixels by turns of background and class, row by row, the first one of background and maybe 0; at most
            `LARGEST` in all.
    """
    header = np.array([int(counts.sum()) * _CHANNELS, _WORD - 1, *(_SIZES - 1)])
    encoded, left = bytearray(), _bits(header, _HEADER)
    for first in range(0, len(counts), _AT_ONCE):
        bits = np.concatenate([left, _runs(counts[first : first + _AT_ONCE])])  # the first one is of background
        whole = len(bits) // 8 * 8
        encoded += np.packbits(bits[:whole]).tobytes()
        left = bits[whole:]
    return bytes(encoded + np.packbits(left).tobytes())


def _runs(counts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the bits of runs, by turns of background and class."""
    lengths, values = counts * _CHANNELS, np.arange(len(counts)) % 2 * 255
    pieces = -(-lengths // _LONGEST)  # a longer run is several
    values, left = np.repeat(values, pieces), np.repeat(lengths, pieces)
    number = np.arange(len(left)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    size = np.minimum(left - number * _LONGEST, _LONGEST)
    choice = np.searchsorted(1 << _SIZES, size)
    bits = _SIZES[choice]
    return _bits(((((4 | choice) << bits) | (size - 1)) << _WORD) | values, 3 + bits + _WORD)


def _bits(numbers: NDArray[np.int64], widths: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the lowest `widths[i]` bits of each number, highest first, one after another, `uint8[n]` of 0 and 1."""
    longest = int(widths.max())
    place = widths[:, np.newaxis] - 1 - np.arange(longest)
    found: NDArray[np.uint8] = ((numbers[:, np.newaxis] >> np.maximum(place, 0)) & 1).astype(np.uint8)
    return found[place >= 0]
