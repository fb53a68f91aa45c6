"""`label-studio`: tasks with predictions for Label Studio, and the labelling interface that shows them."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from segment.errors import SegmentError
from segment.models.classes import Classes
from segment.report.exports import brush_rle
from segment.report.exports.class_runs import class_runs
from segment.report.exports.json_files import JsonArray
from segment.report.exports.masked_images import MaskedImage
from segment.report.exports.writers import Export, Writer
from segment.store.names import count, shown

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
        if height * width > brush_rle.LARGEST:
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
                    "rle": list(brush_rle.encode(runs.counts)),
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
