"""Checks of what a masks file says of its images: status, counts, scores, and masks, pixel by pixel."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from segment.errors import SAMPLE_ERRORS, SampleError, SegmentError
from segment.images.codec import decode_mask
from segment.images.mask_png import is_bare, mask_size
from segment.inputs.metadata import Values
from segment.inputs.parts import Part
from segment.metrics import Confusion, image_scores
from segment.metrics.counts import histogram
from segment.models.card import ModelCard
from segment.output.damage import DAMAGE
from segment.output.extra_checks import Beside, wrong_extra
from segment.output.mask_columns import ExtraColumns
from segment.output.mask_files import MOST_PNG_PIXELS
from segment.output.mask_tiff import MaskFile
from segment.store.names import count, shown

_ROUNDING = 1e-12  # relative: other CPUs may sum a mean in another order

Wrong = tuple[str, str]  # kind and words, as `row_checks.wrong_rows`


@dataclass(frozen=True)
class RunFacts:
    """What the checks know of a run.

    Attributes:
        mask_size: `source` or `model`: the size at which masks are stored.
        extra: columns beside those of every run.
        most_pixels: of a mask within its row, and of its maps; larger ones are not unpacked.
    """

    card: ModelCard
    mask_size: str
    extra: ExtraColumns
    most_pixels: int = MOST_PNG_PIXELS

    @property
    def counted_at(self) -> str:
        """The size at which pixels are counted; see `pipeline.stages.compared`."""
        return "source" if self.card.input.tiles else self.card.metric.resolution


@dataclass(frozen=True)
class MaskValues:
    """Size (height, width) and histogram `int64[256]` of a mask."""

    size: tuple[int, int]
    histogram: NDArray[np.int64]

    @staticmethod
    def of_png(data: bytes, most_pixels: int) -> MaskValues | None:
        """Decode a PNG of a mask; None if that cannot be done."""
        try:
            size = mask_size(data)
            if math.prod(size) > most_pixels or not is_bare(data):  # before anything is unpacked
                return None
            return MaskValues(size, histogram([decode_mask(data)], [256]))
        except (ValueError, SampleError):
            return None

    @staticmethod
    def of_tiff(data: bytes) -> MaskValues | None:
        """Decode a mask in a file of its own; None if that cannot be done."""
        total = np.zeros(256, dtype=np.int64)
        try:
            file = MaskFile(io.BytesIO(data))
            for strip in file.strips():
                total += histogram([strip], [256])
        except (SegmentError, *DAMAGE):
            return None
        return MaskValues(file.size, total)


def wrong_values(
    table: pa.Table, part: Part, run: RunFacts, files: Mapping[str, MaskValues | None] | None
) -> Iterator[Wrong]:
    """Yield the faults of the rows, at most one a row.

    Args:
        table: of a masks file, with a row for each image of the part.
        run: what is known of the run.
        files: masks in files of their own by path; None if no mask is checked, and the table has none.
    """
    pictures_of, deep = ["mask", *_maps(run)], files is not None
    names = ["index", "status", "error", "width", "height", "brightness", "confusion", "pixel_accuracy", "miou"]
    names += [field.name for field in run.extra.fields if deep and field.name not in pictures_of]
    columns = [table[name].to_pylist() for name in names]
    for number, values in enumerate(zip(*columns, strict=True)):
        row = dict(zip(names, values, strict=True))
        found = _wrong_state(row) or _wrong_counts(row, run)
        if files is not None and not found:
            pictures = {name: table[name][number].as_py() for name in pictures_of}
            planned = part.members[number].meta if part.members else ()
            found = _wrong_masks({**row, **pictures}, run, files, planned)
        if found:
            kind, words = found
            yield kind, f"{words} (image {row['index']})"


def _maps(run: RunFacts) -> list[str]:
    return ["confidence"] * run.extra.maps + ["probabilities"] * bool(run.extra.classes)


def _wrong_state(row: Mapping[str, Any]) -> Wrong | None:
    """Check that status, error, counts and scores go together."""
    kind = "masks files of rows that contradict themselves"
    status, error = row["status"], row["error"]
    if status not in ("ok", "error"):
        return "masks files of an unknown status", f"gives an image the status '{shown(str(status))}'"
    if (status == "ok") != (error is None):
        return kind, f"gives an image the status '{status}' {'with' if error else 'without'} an error"
    if error is not None and error.partition(":")[0] not in SAMPLE_ERRORS:
        return kind, f"gives an image the error '{shown(error)}', which is none of segment"
    if (status == "ok") != (row["confusion"] is not None):
        return kind, f"gives an image the status '{status}' {'with' if row['confusion'] else 'without'} counts"
    if status == "error" and (row["pixel_accuracy"], row["miou"]) != (None, None):
        return kind, "gives an image a score and an error"
    sides = (row["width"], row["height"])
    if (status == "ok" and None in sides) or (sides != (None, None) and min(side or 0 for side in sides) < 1):
        return kind, "gives an image no size"
    if row["brightness"] is not None and not (None not in sides and 0 <= row["brightness"] <= 255):
        return kind, "gives an image a brightness that is none"
    return None


def _wrong_counts(row: Mapping[str, Any], run: RunFacts) -> Wrong | None:
    """Check that the counts are possible, and that the scores follow from them."""
    if row["confusion"] is None:
        return None
    counts = _counts(row["confusion"], len(run.card.classes))
    if counts is None:
        return "masks files of impossible counts", "has counts of cells that no image has"
    pixels, size = int(counts.counts.sum()), row["width"] * row["height"]
    if run.counted_at == "source" and pixels != size:
        return "masks files of impossible counts", f"counts {pixels:,} pixels of {size:,}"
    expected = image_scores(counts, run.card.classes.ignored_classes, run.card.metric.convention)
    if not all(map(_is_close, (row["pixel_accuracy"], row["miou"]), expected)):
        return (
            "masks files of scores that do not follow from counts",
            "has a score that does not follow from its counts",
        )
    return None


def _counts(cells: Mapping[str, Any], classes: int) -> Confusion | None:
    """Return the matrix of stored cells; None if they are not what `Confusion.to_cells` gives."""
    keys, counts = cells["cell"], cells["count"]
    if keys is None or counts is None or len(keys) != len(counts) or None in keys or None in counts:
        return None
    ascending = all(before < after for before, after in itertools.pairwise(keys))
    if not ascending or (keys and (keys[0] < 0 or keys[-1] >= (classes + 1) * classes)) or min(counts, default=1) < 1:
        return None
    return Confusion.from_cells(keys, counts, classes)


def _is_close(found: float | None, expected: float | None) -> bool:
    if found is None or expected is None:
        return found is expected
    return math.isclose(found, expected, rel_tol=_ROUNDING, abs_tol=_ROUNDING)


def _wrong_masks(
    row: Mapping[str, Any], run: RunFacts, files: Mapping[str, MaskValues | None], planned: Values
) -> Wrong | None:
    """Check a row's mask, and what is beside it."""
    mask, size, classes = row["mask"], (row["height"], row["width"]), len(run.card.classes)
    has_mask = row["status"] == "ok" or row["error"].startswith("label_")  # else the image is at fault
    counted = _counts(row["confusion"], classes) if row["confusion"] else None
    present: list[int] = []
    if not has_mask and mask:
        return "masks files of rows that contradict themselves", "has a mask of an image that was not segmented"
    if has_mask:
        if not mask or (mask["bytes"] is None) == (mask["path"] is None):
            return "masks files without a mask", "has a row without its mask"
        if None in size:
            return "masks files of rows that contradict themselves", "gives an image a mask and no size"
        is_in_file, most = mask["bytes"] is None, run.most_pixels
        values = files.get(mask["path"]) if is_in_file else MaskValues.of_png(mask["bytes"], most)
        if found := _wrong_pixels(values, size, counted, run) or _wrong_maps(row, run, values):
            return found
        if values and run.mask_size == "source":  # else it has the border of a letterbox, which is in no mean
            present = np.flatnonzero(values.histogram).tolist()
    elif any(_pngs(row, run)):
        return _WRONG_MAP
    beside = Beside(row, present, has_mask, counted, run.card.classes.ignored_classes, planned)
    if name := wrong_extra(beside, run.extra, classes):
        return f"masks files of impossible values of {name}", f"has values of {name} that are not those of its image"
    return None


def _wrong_pixels(
    values: MaskValues | None, size: tuple[int, int], counted: Confusion | None, run: RunFacts
) -> Wrong | None:
    if values is None:
        return "masks that cannot be decoded", "has a mask that cannot be decoded"
    if run.mask_size == "source" and values.size != size:
        wrong, right = (f"{width} x {height}" for height, width in (values.size, size))
        return "masks of another size than their images", f"has a mask of {wrong} pixels for an image of {right}"
    classes = len(run.card.classes)
    if values.histogram[classes:].any():
        return "masks of values that are no class", f"has a mask with a value that is none of {count(classes, 'class')}"
    predicted = counted.predicted_pixels if counted and run.mask_size == run.counted_at else None
    if predicted is not None and not np.array_equal(predicted, values.histogram[:classes]):
        return "masks that are not those that were counted", "has a mask of other pixels than were counted"
    return None


_WRONG_MAP: Wrong = ("maps that are not those of their masks", "has a map that is no picture of its mask's size")


def _wrong_maps(row: Mapping[str, Any], run: RunFacts, values: MaskValues | None) -> Wrong | None:
    """Check that there is a map for each mask that is in its row, of its size."""
    for data in _pngs(row, run):
        found = MaskValues.of_png(data, run.most_pixels) if data else None
        if row["mask"]["path"] is None and (found is None or values is None or found.size != values.size):
            return _WRONG_MAP
        if row["mask"]["path"] is not None and data is not None:
            return _WRONG_MAP
    return None


def _pngs(row: Mapping[str, Any], run: RunFacts) -> list[bytes | None]:
    """Return the confidence and the probabilities of a row's pixels; None for what is not there."""
    maps = [row["confidence"]] if run.extra.maps else []
    maps += (row["probabilities"] or dict.fromkeys(run.extra.classes)).values() if run.extra.classes else []
    return [item["bytes"] if item and item["path"] is None else None for item in maps]
