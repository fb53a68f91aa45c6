"""The formats of an export, by name."""

from __future__ import annotations

from typing import Any, Literal

from segment.report.exports.coco import CocoPanoptic, CocoStuff
from segment.report.exports.cog import Cog
from segment.report.exports.index_pngs import FileWriter
from segment.report.exports.label_studio import LabelStudio
from segment.report.exports.voc import Cvat, Voc
from segment.report.exports.writers import Writer

Format = Literal["png", "voc", "coco-stuff", "coco-panoptic", "cvat", "label-studio", "cog", "coco-rle"]

FORMER_NAMES: dict[Format, Format] = {"coco-rle": "coco-stuff"}

WRITERS: dict[Format, type[Writer[Any]]] = {
    "png": FileWriter,
    "voc": Voc,
    "coco-stuff": CocoStuff,
    "coco-panoptic": CocoPanoptic,
    "cvat": Cvat,
    "label-studio": LabelStudio,
    "cog": Cog,
}
