"""Likely label errors in the HTML report: images, labels and predictions, with the region outlined in each."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from segment.errors import StoreError, UsageError
from segment.images.regions import Region, disagreements
from segment.output.ledger import Ledger
from segment.output.part_rows import numbers_of
from segment.output.plan import Plan
from segment.pipeline.stages import Task
from segment.report.diversity import Diversity
from segment.report.exhibits import Exhibit, look_of
from segment.report.gallery import exhibit
from segment.report.label_errors import LikelyError, find_label_errors
from segment.report.pictures import ImageView, read_view
from segment.report.rows import Row
from segment.store.names import count, shown

_REGIONS = 6
_CANDIDATES = 24  # regions that are looked at for these, at most: of near-duplicates one is drawn
_LOOKED_AT = 24  # images: their masks, labels and sources are read, in a second or two


@dataclass(frozen=True)
class OutlinedRegion:
    """A region whose label is likely wrong.

    Attributes:
        label, prediction: indices of its classes.
        outline: SVG path of its outline, in pixels of the embedded pictures.
    """

    error: LikelyError
    label: int
    prediction: int
    exhibit: Exhibit
    outline: str


@dataclass(frozen=True)
class LabelErrorGallery:
    """The most suspicious regions, and what one must know of them, one line each."""

    regions: tuple[OutlinedRegion, ...]
    notes: tuple[str, ...]


def label_error_gallery(
    ledger: Ledger, plan: Plan, task: Task, parts: Collection[str], most_parts: int | None = None
) -> LabelErrorGallery | None:
    """Draw the regions whose labels are likely wrong, of a run with labels; None if every prediction is its label.

    Of near-duplicate images one is drawn, but where there are few. Memory holds one image at a time.

    Args:
        parts: ids of committed parts.
        most_parts: look at the images of at most this many parts, evenly spread.

    Raises:
        SegmentError: a masks file is damaged or lost.
    """
    numbers = numbers_of(plan, parts, most_parts)
    try:
        found = find_label_errors(ledger, plan, task, _CANDIDATES, _LOOKED_AT, numbers)
        if not (found.differing or found.regions):
            return None
        drawn = _drawn(ledger, task, list(zip(found.regions, found.rows, strict=True)))
    except UsageError:
        return None  # no image of these parts is labelled
    except StoreError as error:
        return LabelErrorGallery((), (f"not looked for: {error}",))
    sampled = [f"of the images of {count(len(numbers), 'part')}, evenly spread"] if len(numbers) < len(parts) else []
    return LabelErrorGallery(tuple(one for one in drawn if one), (*found.notes, *sampled))


def _drawn(ledger: Ledger, task: Task, found: Sequence[tuple[LikelyError, Row]]) -> list[OutlinedRegion | None]:
    """Draw the first regions whose images look different; of few images the first regions."""
    has_room = len({(error.shard, error.id) for error, _ in found}) <= _REGIONS
    diverse: Diversity[tuple[LikelyError, Row], ImageView] = Diversity(
        lambda one: read_view(ledger, one[1], task), None if has_room else lambda view: look_of(view, task.card.classes)
    )
    return diverse.choose([[one] for one in found], _REGIONS, lambda one, view: _outlined(view, task, one[0]))


def _outlined(view: ImageView, task: Task, error: LikelyError) -> OutlinedRegion | None:
    """Draw a region; None if its image has changed since it was found."""
    classes = task.card.classes
    if view.label is None:
        return None
    box = (error.left, error.top, error.width, error.height)
    for region in disagreements(view.label, view.mask, classes.ignored_classes):
        names = (classes.names[region.label], classes.names[region.prediction])
        is_it = (region.left, region.top, region.width, region.height, *names) == (*box, error.label, error.prediction)
        if is_it and region.pixels == error.pixels:
            drawn = exhibit(view, task.card)
            named = replace(error, id=shown(error.id), label=shown(names[0]), prediction=shown(names[1]))
            scale = drawn.shown_width / drawn.width
            return OutlinedRegion(named, region.label, region.prediction, drawn, _outline(region, scale))
    return None


def _outline(region: Region, scale: float) -> str:
    """Return the outline of a region as an SVG path, without details below a pixel of the picture."""
    pixels = np.kron(region.pixel, np.ones((2, 2))).astype(np.uint8)  # so that an outline runs along their edges
    lines, _ = cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    paths = []
    for line in lines:
        points = cv2.approxPolyDP(line, 1 / scale, closed=True)[:, 0] / 2 + (region.left, region.top) + 0.25
        paths.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in (points * scale).tolist()) + "Z")
    return "".join(paths)
