"""Likely label errors: regions in which a prediction disagrees with the label, most suspicious first.

A whole object that the model sees and the label lacks, or the other way round, is a region into which a large disc
fits; that a model and an annotator draw an outline differently makes seams into which none does. The suspicion of a
region is the share of the image that its largest disc covers, times the confidence of the model in the region where the
run has it. Counts, which are stored, choose the images; masks and labels are read of these only.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from rich.console import Console

from segment.errors import StoreError, UsageError
from segment.images import resize
from segment.images.codec import decode_mask
from segment.images.regions import SMALLEST, Region, disagreements
from segment.metrics.conventions import ratio
from segment.output.ledger import Ledger
from segment.output.part_rows import numbers_of, part_tables
from segment.output.plan import Plan
from segment.output.readable_rows import damaged
from segment.pipeline.stages import Task
from segment.report.fitting import print_line, print_rows
from segment.report.markdown import markdown_table
from segment.report.percents import percent
from segment.report.pictures import ImageView, read_view
from segment.report.rows import Row, row_at, row_of
from segment.report.spreadsheet import csv_text
from segment.scores.image_counts import count_columns, counts_of_rows
from segment.store.background import in_order
from segment.store.names import count, shown

_THREADS = 4


@dataclass(frozen=True)
class LikelyError:
    """A region of an image whose label is likely wrong.

    Attributes:
        left, top, width, height: the box of the region, in pixels of the image.
        pixels: of the region.
        disc: share of the image that the largest disc within the region covers, 0-1.
        confidence: of the model in the region, 0-1; None in a run without it.
        suspicion: the product of the two, by which regions are ranked; without confidence `disc` itself.
    """

    id: str
    shard: str
    label: str
    prediction: str
    left: int
    top: int
    width: int
    height: int
    pixels: int
    disc: float
    confidence: float | None
    suspicion: float


@dataclass(frozen=True)
class LabelErrors:
    """The regions of a run whose labels are likely wrong.

    Attributes:
        regions: most suspicious first.
        labelled: number of labelled images.
        differing: of which a pixel is not predicted as it is labelled.
        looked_at: number of labelled images of which masks and labels were read: those with the most suspicious counts.
        unreadable: of these, whose source or label is gone, has changed, is too large or cannot be read.
        confidence: what the confidence of a region is, in words; `""` in a run without it.
        rows: the row of the image of each region.
        at_model_size: whether pixels were counted at the size of the model, so that images that do not differ in the
            counts may differ in small regions; these are looked at last.
    """

    regions: tuple[LikelyError, ...]
    labelled: int
    differing: int
    looked_at: int
    unreadable: int
    confidence: str
    rows: tuple[Row, ...] = ()
    at_model_size: bool = False

    @property
    def notes(self) -> list[str]:
        """What one must know of them, one line each."""
        times = f", times {self.confidence}" if self.confidence else ""
        lines = [
            f"ranked by the largest disc within a region, as a share of the image{times}",
            f"regions below {SMALLEST} pixels are left out",
        ]
        if not self.regions:
            lines.append("no such region differs from its label")
        if self.looked_at < self.differing:
            lines.append(
                f"looked at {count(self.looked_at, 'image')} of {self.differing:,}, those with the worst counts"
            )
        unseen = self.labelled - max(self.looked_at, self.differing)
        if self.at_model_size and unseen:
            images = count(unseen, "labelled image")
            lines.append(f"{images} not looked at: counts at model size, where small regions vanish, do not differ")
        if self.unreadable:
            lines.append(f"{count(self.unreadable, 'source')} gone, changed, too large, or not readable")
        return lines


def find_label_errors(
    ledger: Ledger, plan: Plan, task: Task, number: int, images: int, numbers: Sequence[int] | None = None
) -> LabelErrors:
    """Find the most suspicious regions of a run, running or not.

    Args:
        number: of regions.
        images: of which masks and labels are read, at most.
        numbers: of the parts to look at; None for all that are committed.

    Raises:
        UsageError: no image is labelled, or a number is below 1.
        SegmentError: a masks file is damaged or lost, or the store of the sources does not answer.
    """
    for name, value in (("number", number), ("images", images)):
        if value < 1:
            raise UsageError(f"{name} = {value}: give a number from 1 on")
    numbers = numbers_of(plan, ledger.committed(plan)) if numbers is None else numbers
    suspicious, labelled, differing = _suspicious_images(ledger, plan, task, images, numbers)
    if not labelled:
        where = shown(ledger.output)
        raise UsageError(f"no image of {where} has a labelled pixel that counts, so that none can be wrong")
    has_maps = task.settings.confidence_maps
    found: list[tuple[LikelyError, Row]] = []
    unreadable = 0

    def read(row: Row) -> list[LikelyError] | None:
        view = read_view(ledger, row, task)
        if not view.reachable:
            raise StoreError(f"the store of {shown(view.uri)} does not answer: labels and sources cannot be looked at")
        return None if view.label is None else list(_of_image(ledger, row, view, task, has_maps))

    for row, regions in zip(
        suspicious, in_order(read, suspicious, name="labels", threads=_THREADS, ahead=2 * _THREADS), strict=True
    ):
        unreadable += regions is None
        some = [(one, row) for one in regions or []]
        found = sorted([*found, *some], key=lambda pair: -pair[0].suspicion)[:number]  # stable
    confidence = ""
    if task.extra_columns.confidence:
        confidence = f"the model's confidence in {'the region' if has_maps else 'its class in the image'}"
    errors, rows = tuple(one for one, _ in found), tuple(row for _, row in found)
    at_model_size = task.card.metric.resolution == "model"
    return LabelErrors(errors, labelled, differing, len(suspicious), unreadable, confidence, rows, at_model_size)


def _suspicious_images(
    ledger: Ledger, plan: Plan, task: Task, most: int, numbers: Sequence[int]
) -> tuple[list[Row], int, int]:
    """Return the images with the most wrong pixels, by share and confidence; how many are labelled, and differ.

    Of a run that counts at model size, where regions of the image vanish, those without a wrong pixel come last.
    """
    card = task.card
    label, prediction = np.divmod(np.arange((len(card.classes) + 1) * len(card.classes)), len(card.classes))
    counted = ~np.isin(label, [*card.classes.ignored_classes, len(card.classes)])
    wrong = counted & (label != prediction)
    labelled, differing = 0, 0
    worst: list[tuple[float, int, int]] = []  # suspicion, part, row
    columns = [*count_columns(), *(["class_confidence"] if task.extra_columns.confidence else [])]
    for part, table in part_tables(ledger, plan, numbers, columns):
        rows = np.flatnonzero(np.asarray(pc.is_valid(table["confusion"])))
        table = table.take(pa.array(rows))
        counts = counts_of_rows(len(card.classes), table)
        pixels = counts.pixels_in(counted)
        suspicion = ratio(counts.pixels_in(wrong, _class_confidence(table, len(card.classes))), pixels)
        labelled += int(np.count_nonzero(pixels))
        differing += int(np.count_nonzero(suspicion > 0))
        found = np.flatnonzero(pixels if card.metric.resolution == "model" else suspicion > 0)
        new = [(-float(suspicion[index]), part, int(rows[index])) for index in found]
        worst = heapq.nsmallest(most, [*worst, *new])
    return [row_at(plan, part, row) for _, part, row in worst], labelled, differing


def _class_confidence(rows: pa.Table, classes: int) -> NDArray[np.float64]:
    """Return the mean confidence by predicted class of each row, `float64[n, C]`; 1 without one."""
    if "class_confidence" not in rows.column_names:
        return np.ones((len(rows), classes))
    values = [value or [None] * classes for value in rows["class_confidence"].to_pylist()]
    if any(len(value) != classes for value in values):
        raise damaged("the confidence of the classes")
    found = np.array(values, np.float64).reshape(len(rows), classes)
    return np.where(np.isnan(found), 1.0, found)


def _decoded(data: bytes | None) -> NDArray[np.uint8] | None:
    try:
        return None if data is None else decode_mask(data)
    except ValueError:
        raise damaged("a confidence map") from None


def _of_image(ledger: Ledger, row: Row, view: ImageView, task: Task, has_maps: bool) -> Iterator[LikelyError]:
    assert view.label is not None
    classes = task.card.classes
    columns = ["class_confidence", *(["confidence"] if has_maps else [])]
    stored: dict[str, Any] = {}
    if task.extra_columns.confidence:
        stored = row_of(ledger, row, columns)
    sure = _decoded(stored["confidence"]["bytes"]) if stored.get("confidence") else None
    if sure is not None:
        height, width = view.mask.shape
        sure = resize.restore_mask(sure, task.card.input, (height, width))
    for region in disagreements(view.label, view.mask, classes.ignored_classes):
        confidence, disc = _confidence(region, stored, sure), region.disc / view.mask.size
        yield LikelyError(
            view.id,
            row.part.shard,
            classes.names[region.label],
            classes.names[region.prediction],
            region.left,
            region.top,
            region.width,
            region.height,
            region.pixels,
            disc,
            confidence,
            disc * (1.0 if confidence is None else confidence),
        )


def _confidence(region: Region, stored: dict[str, Any], sure: NDArray[np.uint8] | None) -> float | None:
    if sure is not None:
        return float(sure[region.box][region.pixel].mean()) / 255
    by_class: Sequence[float | None] | None = stored.get("class_confidence")
    return by_class[region.prediction] if by_class else None


# --- how they are shown ----------------------------------------------------------------------------------------------


def rows_of(found: LabelErrors) -> list[list[str]]:
    """Return rows of a table, the first of which is the head."""
    head = ["image", "label", "prediction", "left,top w×h", "pixels", "disc %", "conf. %"]
    return [
        head,
        *(
            [
                shown(one.id),
                shown(one.label),
                shown(one.prediction),
                f"{one.left},{one.top} {one.width}×{one.height}",
                f"{one.pixels:,}",
                percent(one.disc),
                "" if one.confidence is None else percent(one.confidence),
            ]
            for one in found.regions
        ),
    ]


def print_errors(found: LabelErrors, console: Console) -> None:
    """Print the notes and the table of regions."""
    for note in found.notes:
        print_line(console, note, style="dim")
    if found.regions:
        console.print()
        print_rows(console, rows_of(found))


def errors_to_markdown(found: LabelErrors) -> str:
    """Return the notes as a list, and the table of regions."""
    notes = "\n".join(f"- {note}" for note in found.notes)
    return f"{notes}\n\n{markdown_table(rows_of(found))}\n" if found.regions else f"{notes}\n"


def errors_to_json(found: LabelErrors) -> dict[str, Any]:
    """Return the regions as plain JSON."""
    return {
        "labelled": found.labelled,
        "differing": found.differing,
        "looked_at": found.looked_at,
        "unreadable": found.unreadable,
        "notes": found.notes,
        "regions": [asdict(one) for one in found.regions],
    }


def errors_to_csv(found: LabelErrors) -> str:
    """Return a row for each region."""
    return csv_text(LikelyError.__dataclass_fields__, (list(asdict(one).values()) for one in found.regions))
