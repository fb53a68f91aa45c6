"""Checks of what a row holds beside its mask: confidence, counts of boundaries, kept metadata."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segment.inputs.metadata import Values
from segment.metrics import Confusion
from segment.output.mask_columns import ExtraColumns

_ROUNDING = 1e-9
_UNREAD = ("killed_worker", "out_of_memory")  # errors of rows that are made without the image and what came with it


@dataclass(frozen=True)
class Beside:
    """What is known of a row whose extras are checked.

    Attributes:
        row: its values.
        classes: indices of the classes of its mask, as far as that is known.
        has_mask: whether it has one.
        confusion: its counts; None without.
        planned: what the plan holds of its metadata; empty where the input holds it.
    """

    row: Mapping[str, Any]
    classes: Sequence[int]
    has_mask: bool
    confusion: Confusion | None
    ignored: Sequence[int]
    planned: Values


def wrong_extra(found: Beside, extra: ExtraColumns, classes: int) -> str:
    """Return the first kind of values that cannot be those of their row; `""` if all may be.

    Args:
        extra: columns of the run.
    """
    if extra.confidence and not _fits_confidence(found, classes):
        return "confidence"
    if extra.boundary and not _fits_boundary(found, classes):
        return "boundary"
    return "meta" if extra.meta and not _fits_meta(found, extra.measured) else ""


def _fits_confidence(found: Beside, classes: int) -> bool:
    """Whether the mean is one of the classes' means, and each class of the mask has one."""
    mean, by_class = found.row["mean_confidence"], found.row["class_confidence"]
    if not found.has_mask or mean is None or by_class is None or len(by_class) != classes:
        return not found.has_mask and mean is None and by_class is None
    known = [value for value in by_class if value is not None]
    if not all(0 <= value <= 1 for value in known) or any(by_class[index] is None for index in found.classes):
        return False
    return bool(known) and min(known) - _ROUNDING <= mean <= max(known) + _ROUNDING


def _fits_boundary(found: Beside, classes: int) -> bool:
    """Whether the regions lie within the classes, and each labelled class has one."""
    boundary, confusion = found.row["boundary"], found.confusion
    if confusion is None:
        return boundary is None
    labelled = confusion.counts.sum(axis=1)[:classes]
    if boundary is None:
        return not labelled.any()
    ids, *counts = (boundary[name] for name in ("class_id", "both", "label", "prediction"))
    if None in (ids, *counts) or any(len(each) != len(ids) or None in each for each in (ids, *counts)):
        return False
    ascending = all(before < after for before, after in itertools.pairwise(ids))
    if not ascending or any(not 0 <= index < classes or index in found.ignored for index in ids):
        return False
    both, label, prediction = (_of_classes(ids, each, classes) for each in counts)
    expected = np.setdiff1d(np.flatnonzero(labelled), found.ignored)
    return bool(
        (both >= 0).all()
        and (both <= np.minimum(label, prediction)).all()
        and (label <= labelled).all()
        and (prediction <= confusion.predicted_pixels).all()
        and (label[expected] > 0).all()
    )


def _of_classes(ids: Sequence[int], counts: Sequence[int], classes: int) -> NDArray[np.int64]:
    spread = np.zeros(classes, np.int64)
    spread[list(ids)] = counts
    return spread


def _fits_meta(found: Beside, measured: Collection[str]) -> bool:
    """Whether the values are those of the plan, but for measured ones."""
    meta, error = found.row["meta"], found.row["error"]
    if meta is None:
        return not found.planned or (error or "").startswith(_UNREAD)
    kept = [value for name, value in meta.items() if name not in measured]
    return not found.planned or kept == list(found.planned)
