"""The functions of the pipeline, for one part: read -> decode -> segment -> encode -> write.

They do not depend on an engine. An engine calls them one after the other in one worker (`Worker`), or each in a process
of its own; the bytes are the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from segment.errors import SampleError, sample_error_text
from segment.images import resize
from segment.images.labels import Label, LabelDecoder
from segment.images.mask_png import encode_mask
from segment.inputs.discover import Sample
from segment.job import Settings
from segment.metrics import BoundaryCounts, Confusion, image_scores
from segment.models.card import ModelCard
from segment.models.extra_options import BRIGHTNESS
from segment.models.sessions import Extras, Runtime, Session
from segment.models.sessions.extras import extras_of
from segment.output.mask_columns import ExtraColumns, ImageExtras
from segment.output.results import STAGES, Stage
from segment.output.tables import ImageRow
from segment.pipeline.certainty import image_extras
from segment.pipeline.decoding import decode_one
from segment.pipeline.kept import mean_luma, row_meta
from segment.pipeline.prediction import predict
from segment.pipeline.stacking import Arrays, stack
from segment.store.client import Store

ReadT = TypeVar("ReadT")


@dataclass(frozen=True)
class Task:
    """All that a worker needs to run a part; picklable.

    Attributes:
        card: the model's contract.
        runtime: runtime of the model, the same on every worker.
        output: absolute URL of the output prefix.
        settings: the options of the job that workers act on.
        store: reads inputs and writes the output; holds credentials, and its repr does not show them.
        batch_size: images per call of the session.
        fingerprint: written into every masks file.
        most_tiles: of an image, by a card with `input.tiles`, for a probe; it then has no mask. None segments all.
    """

    card: ModelCard
    runtime: Runtime
    output: str
    settings: Settings
    store: Store
    batch_size: int
    fingerprint: str
    most_tiles: int | None = None

    @property
    def extras(self) -> Extras:
        """What sessions return beside masks."""
        return extras_of(self.card, self.settings.confidence, self.settings.probabilities)

    @property
    def extra_columns(self) -> ExtraColumns:
        """The columns of masks files beside those of every run."""
        settings = self.settings
        boundary = settings.boundary is not None
        return ExtraColumns.of(self.extras, settings.confidence_maps, self.card, keep=settings.keep, boundary=boundary)

    def label_decoder(self) -> LabelDecoder:
        """Return the decoder of the run's labels."""
        settings = self.settings
        return LabelDecoder(
            self.card.classes, settings.label_encoding, settings.label_remap, allow_lossy=settings.allow_lossy_labels
        )


@dataclass
class Frames:
    """Images of a part between the stages.

    Attributes:
        samples: as read; image bytes are dropped once decoded.
        sizes: (height, width) of each image; None if it could not be decoded.
        faults: `SampleError` code by position in `samples`.
        turned_by: EXIF orientation that was applied, by position in `samples`; left out where it is 1.
        remarks: codes of what was noticed, by position in `samples`.
        pixels: `uint8[n, input height, input width, 3]` RGB of the images without fault, in order; a list of such
            images where the model runs at the size of each.
        masks: `uint8[n, output height, output width]` of the same images, once segmented; a list as `pixels`.
        confidence, probabilities: of the same images; see `Masks`.
        details: what the faults say beyond their code, by position in `samples`.
        brightness: mean luma, 0-255, by position in `samples`, of the images that are decoded; empty if not kept.
    """

    samples: list[Sample]
    sizes: list[tuple[int, int] | None]
    faults: dict[int, str]
    pixels: Arrays
    masks: Arrays | None = None
    turned_by: dict[int, int] = field(default_factory=dict)
    remarks: dict[int, tuple[str, ...]] = field(default_factory=dict)
    confidence: Arrays | None = None
    probabilities: Arrays | None = None
    details: dict[int, str] = field(default_factory=dict)
    brightness: dict[int, float] = field(default_factory=dict)

    @property
    def positions(self) -> list[int]:
        """Positions in `samples` of the rows of `pixels` and `masks`."""
        return [i for i, size in enumerate(self.sizes) if size is not None]


class Clock:
    """Adds up the seconds of each stage of a part.

    Args:
        now: tells the time, in seconds: by default that which passes.

    Attributes:
        began: when it was made, in seconds since 1970.
        seconds: by stage.
        memory, precision, tiles, tiles_left, seconds_left: see `PartResult`; whoever runs the model sets them.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self.began = time.time()
        self.memory = self.tiles = self.tiles_left = 0
        self.seconds_left = 0.0
        self.precision = ""
        self.seconds: dict[Stage, float] = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def __call__(self, stage: Stage) -> Iterator[None]:
        start = self._now()
        try:
            yield
        finally:
            self.seconds[stage] += self._now() - start


def decode(samples: Sequence[Sample], task: Task) -> Frames:
    """Decode images and bring them to the model's input size; a bad one becomes a fault, not an exception."""
    spec = task.card.input
    sizes: list[tuple[int, int] | None] = []
    faults: dict[int, str] = {}
    pixels: list[NDArray[np.uint8]] = []
    turned_by: dict[int, int] = {}
    remarks: dict[int, tuple[str, ...]] = {}
    details: dict[int, str] = {}
    brightness: dict[int, float] = {}
    for position, sample in enumerate(samples):
        try:
            picture = decode_one(sample, spec, task.settings)
            pixels.append(resize.resize_image(picture.pixels, spec, picture.size))
        except SampleError as error:
            faults[position] = error.code
            if error.detail:
                details[position] = error.detail
            sizes.append(None)
            continue
        sizes.append(picture.size)
        if BRIGHTNESS in task.settings.keep:
            brightness[position] = mean_luma(picture.pixels)
        if picture.orientation != 1:
            turned_by[position] = picture.orientation
        if picture.remarks:
            remarks[position] = picture.remarks
    without_bytes = [replace(sample, image=b"") for sample in samples]
    return Frames(
        without_bytes,
        sizes,
        faults,
        stack(pixels, spec),
        turned_by=turned_by,
        remarks=remarks,
        details=details,
        brightness=brightness,
    )


def segment(frames: Frames, session: Session, batch_size: int) -> Frames:
    """Run the model; images whose output cannot be used get a fault. Drops the pixels."""
    found = predict(frames.pixels, session, batch_size)
    faults, remarks = dict(frames.faults), dict(frames.remarks)
    positions = frames.positions
    faults |= {positions[i]: code for i, code in found.faults.items()}
    for i, code in found.remarks.items():
        remarks[positions[i]] = (*remarks.get(positions[i], ()), code)
    spec, sizes = session.card.input, [size for size in frames.sizes if size is not None]

    def unpadded(arrays: Arrays | None) -> Arrays | None:
        if not isinstance(arrays, list):
            return arrays
        return [resize.unpadded(array, spec, size) for array, size in zip(arrays, sizes, strict=True)]

    return replace(
        frames,
        faults=faults,
        pixels=stack([], spec),
        masks=unpadded(found.masks),
        remarks=remarks,
        confidence=unpadded(found.confidence),
        probabilities=unpadded(found.probabilities),
    )


def encode(frames: Frames, task: Task, labels: LabelDecoder) -> list[ImageRow]:
    """Score every mask against its label and encode it; one row per sample."""
    assert frames.masks is not None, "segment() comes first"
    masks = dict(zip(frames.positions, frames.masks, strict=True))
    rows = [_encode_one(frames, position, masks.get(position), task, labels) for position in range(len(frames.samples))]
    return _with_extras(rows, frames, task) if task.extras else rows


def _with_extras(rows: list[ImageRow], frames: Frames, task: Task) -> list[ImageRow]:
    assert frames.masks is not None
    confidence, probabilities = frames.confidence, frames.probabilities
    for number, position in enumerate(frames.positions):
        size = frames.sizes[position]
        if rows[position].mask is None or size is None:
            continue
        extras = image_extras(
            frames.masks[number],
            None if confidence is None else confidence[number],
            None if probabilities is None else probabilities[number],
            task.card,
            size,
            at_source=task.settings.mask_size == "source",
            maps=task.settings.confidence_maps,
        )
        counted = rows[position].extras
        rows[position] = replace(rows[position], extras=extras._replace(boundary=counted.boundary if counted else None))
    return rows


def _encode_one(
    frames: Frames, position: int, mask: NDArray[np.uint8] | None, task: Task, labels: LabelDecoder
) -> ImageRow:
    sample, size, fault = frames.samples[position], frames.sizes[position], frames.faults.get(position)
    remarks = sample.remarks + frames.remarks.get(position, ())
    meta = row_meta(task.settings.keep, sample.meta, frames.brightness.get(position))
    row = ImageRow(sample.id, sample.url, sample.index, size, None, None, None, None, None, remarks, meta=meta)
    if fault is not None or mask is None or size is None:
        return replace(row, error=sample_error_text(fault or "undecodable", frames.details.get(position, "")))
    card = task.card
    at_source = resize.restore_mask(mask, card.input, size) if _needs_source(task) else mask
    row = replace(row, mask=encode_mask(at_source if task.settings.mask_size == "source" else mask))
    try:
        label = _read_label(sample, size, frames.turned_by.get(position, 1), labels)
    except SampleError as error:  # the mask is good, only its label is not: keep the mask
        return replace(row, error=str(error))
    predicted, labelled = compared(mask, at_source, label.classes if label else None, card)
    confusion = Confusion.of(predicted, labelled, len(card.classes))
    if labelled is not None and task.settings.boundary:
        ignored = card.classes.ignored_classes
        counts = BoundaryCounts.of(
            predicted, labelled, len(card.classes), fraction=task.settings.boundary, ignore=ignored
        )
        row = replace(row, extras=ImageExtras(boundary=counts))
    return scored(row, confusion, label.remarks if label else None, card)


def scored(row: ImageRow, confusion: Confusion, label_remarks: tuple[str, ...] | None, card: ModelCard) -> ImageRow:
    """Add its counts to a row, and, unless there is no label, remarks on it and the scores that follow."""
    if label_remarks is None:
        return replace(row, confusion=confusion)
    accuracy, miou = image_scores(confusion, card.classes.ignored_classes, card.metric.convention)
    remarks = row.remarks + label_remarks
    return replace(row, confusion=confusion, pixel_accuracy=accuracy, miou=miou, remarks=remarks, labelled=True)


def _needs_source(task: Task) -> bool:
    return task.settings.mask_size == "source" or task.card.metric.resolution == "source"


def _read_label(sample: Sample, size: tuple[int, int], turned_by: int, labels: LabelDecoder) -> Label | None:
    """Return a sample's label, None if it has none.

    Raises:
        SampleError: it cannot be used.
    """
    if sample.fault is not None:
        raise SampleError(sample.fault)
    return None if sample.label is None else labels.read(sample.label, *size, turned_by)


def count_pixels(
    mask: NDArray[np.uint8], at_source: NDArray[np.uint8], label: NDArray[np.uint8] | None, card: ModelCard
) -> Confusion:
    """Count an image at the size at which its card is scored; see `compared`. Without a label all pixels are void."""
    return Confusion.of(*compared(mask, at_source, label, card), len(card.classes))


def compared(
    mask: NDArray[np.uint8], at_source: NDArray[np.uint8], label: NDArray[np.uint8] | None, card: ModelCard
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Return mask and label at the size at which a card is scored.

    Args:
        mask: `uint8[output height, output width]`, as the model gives it.
        at_source: `uint8[H, W]`, the mask at the image's size; not used where the card is scored at the model's size.
        label: `uint8[H, W]` of class indices and `VOID`, or None.
        card: the model's card.
    """
    if card.metric.resolution == "source":
        return at_source, label
    if label is not None:
        target = (mask.shape[0], mask.shape[1])
        label = resize.resize_label(label, card.input, target, card.metric.label_resampler)
    return mask, label
