"""`coco-stuff` and `coco-panoptic`: the segmentation formats of COCO (https://cocodataset.org/#format-data).

Category ids are class indices plus 1, as COCO's tools take 0 for 'no category'. Image ids are positions in the plan.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segment.images.mask_png import encode_painted
from segment.models.card import ModelCard
from segment.report.exports.class_runs import class_runs
from segment.report.exports.json_files import JsonArray, JsonObject
from segment.report.exports.masked_images import MaskedImage
from segment.report.exports.writers import Export, Writer

_BITS = 5  # of a number in a character
_MORE = 1 << _BITS  # the number goes on in the next character
_FIRST = 48  # character of the value 0
_LONGEST = 13  # characters of a number of 64 bits

_STUFF = "annotations/stuff_default.json"
_RESULTS = "results.json"
_PANOPTIC = "annotations/panoptic_default"  # of the JSON file and of the folder with the PNGs
_IMAGES = "images/README.txt"
_ABOUT_IMAGES = """Datumaro looks for the images here: copy or link them to images/default, by the names of `file_name`.
COCO's tools do not need them.
"""
_ARRAYS = ("images", "annotations")


def _head(card: ModelCard, **more: Any) -> dict[str, Any]:
    names = enumerate(card.classes.names, 1)
    categories = [{"id": number, "name": name, "supercategory": "", **more} for number, name in names]
    return {"info": {"description": f"predicted by {card.name}"}, "licenses": [], "categories": categories}


def _image(image: MaskedImage, height: int, width: int) -> dict[str, Any]:
    return {"id": image.number, "file_name": image.id, "height": height, "width": width}


class CocoStuff(Writer[tuple[dict[str, Any], list[dict[str, Any]]]]):
    """Writes one annotation per image and class, as a data set and as results.

    `annotations/stuff_default.json` holds images, annotations and categories. `results.json` holds the annotations as
    results, which `COCO(...).loadRes` reads for this file or for one of labels with the same image ids.
    """

    tells_alike = True
    needs_whole_masks = False

    def __init__(self, to: Export) -> None:
        super().__init__(to)
        self._data_set = JsonObject(to.scratch / "stuff.json", _head(to.card), _ARRAYS)
        self._results = JsonArray(to.scratch / _RESULTS)

    def convert(self, image: MaskedImage) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return the entry of an image, and its annotations."""
        height, width = image.size
        return _image(image, height, width), [
            {
                "id": image.number * 256 + runs.index + 1,  # unique in the run: there are at most 255 classes
                "image_id": image.number,
                "category_id": runs.index + 1,
                "segmentation": {"size": [height, width], "counts": compress(runs.counts)},
                "area": runs.area,
                "bbox": runs.box(height),
                "iscrowd": 0,
            }
            for runs in class_runs(image.strips(), (height, width), len(self.to.card.classes), "columns")
        ]

    def collect(self, image: MaskedImage, converted: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
        """Add an image to both files."""
        entry, annotations = converted
        self._data_set.arrays["images"].add([entry])
        self._data_set.arrays["annotations"].add(annotations)
        self._results.add(
            {name: one[name] for name in ("image_id", "category_id", "segmentation")} for one in annotations
        )

    def finish(self) -> None:
        """Write the two files, and the folder that Datumaro demands."""
        self.to.write(_IMAGES, _ABOUT_IMAGES.encode())
        self.to.write(_STUFF, self._data_set.finish())
        self.to.write(_RESULTS, self._results.finish())


class CocoPanoptic(Writer[tuple[bool, dict[str, Any], dict[str, Any]]]):
    """Writes a PNG per image, whose pixels are segment ids, and the JSON file that describes the segments.

    Each class of an image is one segment of 'stuff', with its category id as segment id; 0 is no class. A pixel's
    colour is its segment id, red + 256 green + 65536 blue.
    """

    names_files = tells_alike = True
    needs_whole_masks = False

    def __init__(self, to: Export) -> None:
        super().__init__(to)
        head = _head(to.card, isthing=0)
        for category, colour in zip(head["categories"], to.card.classes.palette, strict=True):
            category["color"] = list(colour)
        self._file = JsonObject(to.scratch / "panoptic.json", head, _ARRAYS)
        self._colours = np.zeros((256, 3), np.uint8)
        self._colours[: len(to.card.classes), 0] = np.arange(1, len(to.card.classes) + 1)

    def convert(self, image: MaskedImage) -> tuple[bool, dict[str, Any], dict[str, Any]]:
        """Write the PNG of an image; return whether it was written, the image's entry, and its annotation."""
        height, width = image.size
        segments = [
            {
                "id": runs.index + 1,
                "category_id": runs.index + 1,
                "area": runs.area,
                "bbox": runs.box(height),
                "iscrowd": 0,
            }
            for runs in class_runs(image.strips(), (height, width), len(self.to.card.classes), "columns")
        ]
        file = self.to.file(image)
        is_new = self.to.write_if_missing(
            f"{_PANOPTIC}/{file}", lambda: encode_painted(image.strips(), (height, width), self._colours)
        )
        annotation = {"image_id": image.number, "file_name": file, "segments_info": segments}
        return is_new, _image(image, height, width), annotation

    def collect(self, image: MaskedImage, converted: tuple[bool, dict[str, Any], dict[str, Any]]) -> None:
        """Count the PNG, and add the image to the file."""
        is_new, entry, annotation = converted
        self.to.count(is_new)
        self._file.arrays["images"].add([entry])
        self._file.arrays["annotations"].add([annotation])

    def finish(self) -> None:
        """Write the JSON file, and the folder that Datumaro demands."""
        self.to.write(_IMAGES, _ABOUT_IMAGES.encode())
        self.to.write(f"{_PANOPTIC}.json", self._file.finish())


def compress(counts: NDArray[np.int64]) -> str:
    """Return run lengths as the text that COCO's tools read (`rleToString` of cocoapi's `maskApi.c`).

    From the fourth on, the difference to the count before the previous one is written. A number is cut into groups of 5
    bits, the lowest first, until the rest is but its sign; a sixth bit says that another group follows.

    Args:
        counts: lengths by turns of background and foreground, column by column, the first one of background.
    """
    rest = counts.copy()
    rest[3:] -= counts[1:-2]
    characters = np.zeros((len(rest), _LONGEST), np.uint8)  # 0: none
    going_on = np.ones(len(rest), np.bool_)
    for place in range(_LONGEST):
        low = rest & (_MORE - 1)
        rest >>= _BITS
        ends = np.where(low & (_MORE >> 1), rest == -1, rest == 0)
        characters[:, place] = np.where(going_on, low + np.where(ends, 0, _MORE) + _FIRST, 0)
        going_on &= ~ends
        if not going_on.any():
            break
    return characters[characters > 0].tobytes().decode("ascii")
