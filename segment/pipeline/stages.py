"""The functions of the pipeline, for one part: read -> decode -> segment -> encode -> write.

They do not depend on an engine. An engine calls them one after the other in one worker (`Worker`), or each in a process
of its own; the bytes are the same.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from segment.errors import SampleError, sample_error_text
from segment.images import resize
from segment.images.bands import decode_image
from segment.images.codec import Picture
from segment.images.labels import LabelDecoder
from segment.images.mask_png import encode_mask
from segment.inputs.parts import SEGMENTED, Sample
from segment.job import Settings
from segment.metrics import BoundaryCounts, Confusion, image_scores
from segment.models.card import ModelCard
from segment.models.card_input import Input
from segment.models.sessions import Extras, Runtime, Session
from segment.models.sessions.extras import extras_of
from segment.output.mask_columns import ExtraColumns, ImageExtras
from segment.output.results import STAGES, Stage
from segment.output.tables import ImageRow
from segment.pipeline.certainty import image_extras
from segment.pipeline.prediction import Arrays, predict, stack
from segment.store.client import Store

_LUMA = (0.299, 0.587, 0.114)  # of R, G and B: ITU-R BT.601
_MOST_FOR_LUMA = 1 << 20  # pixels


@dataclass(frozen=True)
class Task:
    """All that a worker needs to run a part; picklable.

    Attributes:
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
class Frame:
    """An image of a part between the stages.

    Attributes:
        row: what is known of it so far; with an error it is not worked on any further.
        label: its label as encoded bytes; None if it has none.
        label_fault: `SampleError` code of a label that could not be read.
        orientation: EXIF orientation that was applied.
        mask: `uint8[output height, output width]`, once segmented; None if there are no pixels.
        confidence, probabilities: of the same image; see `Masks`.
    """

    row: ImageRow
    label: bytes | None = None
    label_fault: str | None = None
    orientation: int = 1
    mask: NDArray[np.uint8] | None = None
    confidence: NDArray[np.uint8] | None = None
    probabilities: NDArray[np.uint8] | None = None


@dataclass
class Frames:
    """Images of a part between the stages.

    Attributes:
        pixels: `uint8[n, input height, input width, 3]` RGB of those that could be decoded, in order; a list of such
            images where the model runs at the size of each. Empty once segmented.
    """

    images: list[Frame]
    pixels: Arrays


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


def first_row(sample: Sample) -> ImageRow:
    """Return the row of an image of which nothing is known yet but what came with it."""
    return ImageRow(
        sample.id, sample.url, sample.index, None, None, None, None, None, None, sample.remarks, meta=sample.meta
    )


def decode_one(sample: Sample, spec: Input, settings: Settings) -> Picture:
    """Decode an image, with `decode = "fast"` maybe at a fraction of its size. Raises SampleError."""
    if sample.fault not in SEGMENTED:
        raise SampleError(str(sample.fault))
    fit = partial(resize.fitted_size, spec) if settings.decode == "fast" and not spec.tiles else None
    return decode_image(sample.image, spec, settings.max_pixels, fit)


def decode(samples: Sequence[Sample], task: Task) -> Frames:
    """Decode images and bring them to the model's input size; a bad one gets an error in its row, not an exception."""
    spec = task.card.input
    images: list[Frame] = []
    pixels: list[NDArray[np.uint8]] = []
    for sample in samples:
        frame = Frame(first_row(sample), sample.label, sample.fault)
        images.append(frame)
        try:
            picture = decode_one(sample, spec, task.settings)
            pixels.append(resize.resize_image(picture.pixels, spec, picture.size))
        except SampleError as error:
            frame.row = replace(frame.row, error=str(error))
            continue
        brightness = None if spec.bands else mean_luma(picture.pixels)
        remarks = sample.remarks + picture.remarks
        frame.row = replace(frame.row, size=picture.size, remarks=remarks, brightness=brightness)
        frame.orientation = picture.orientation
    return Frames(images, stack(pixels, spec))


def segment(frames: Frames, session: Session, batch_size: int) -> Frames:
    """Run the model; images whose output cannot be used get an error. Drops the pixels."""
    spec = session.card.input
    decoded = [(image, image.row.size) for image in frames.images if image.row.size]
    for (image, size), found in zip(decoded, predict(frames.pixels, session, batch_size), strict=True):
        image.mask, image.confidence, image.probabilities = (
            None if array is None else resize.unpadded(array, spec, size)
            for array in (found.mask, found.confidence, found.probabilities)
        )
        if found.fault:
            image.row = replace(image.row, error=sample_error_text(found.fault))
        if found.remark:
            image.row = replace(image.row, remarks=(*image.row.remarks, found.remark))
    frames.pixels = stack([], spec)
    return frames


def encode(frames: Frames, task: Task, labels: LabelDecoder) -> list[ImageRow]:
    """Score every mask against its label and encode it; one row per image."""
    return [image.row if image.row.error else _encode_one(image, task, labels) for image in frames.images]


def _encode_one(image: Frame, task: Task, labels: LabelDecoder) -> ImageRow:
    row, mask, size, card, settings = image.row, image.mask, image.row.size, task.card, task.settings
    assert mask is not None, "segment() comes first"
    assert size is not None
    is_at_source = settings.mask_size == "source"
    needs_source = is_at_source or card.metric.resolution == "source"
    at_source = resize.restore_mask(mask, card.input, size) if needs_source else mask
    row = replace(row, mask=encode_mask(at_source if is_at_source else mask))
    if image.confidence is not None or image.probabilities is not None:
        beside, maps = (image.confidence, image.probabilities), settings.confidence_maps
        row = replace(row, extras=image_extras(mask, *beside, card, size, at_source=is_at_source, maps=maps))
    try:
        if image.label_fault is not None:
            raise SampleError(image.label_fault)
        label = None if image.label is None else labels.read(image.label, *size, image.orientation)
    except SampleError as error:  # the mask is good, only its label is not: keep the mask
        return replace(row, error=str(error))
    predicted, labelled = compared(mask, at_source, label.classes if label else None, card)
    classes, ignored = len(card.classes), card.classes.ignored_classes
    if labelled is not None and settings.boundary:
        counts = BoundaryCounts.of(predicted, labelled, classes, fraction=settings.boundary, ignore=ignored)
        row = replace(row, extras=(row.extras or ImageExtras())._replace(boundary=counts))
    return scored(row, Confusion.of(predicted, labelled, classes), label.remarks if label else None, card)


def scored(row: ImageRow, confusion: Confusion, label_remarks: tuple[str, ...] | None, card: ModelCard) -> ImageRow:
    """Add its counts to a row, and, unless there is no label, remarks on it and the scores that follow."""
    if label_remarks is None:
        return replace(row, confusion=confusion)
    accuracy, miou = image_scores(confusion, card.classes.ignored_classes, card.metric.convention)
    remarks = row.remarks + label_remarks
    return replace(row, confusion=confusion, pixel_accuracy=accuracy, miou=miou, remarks=remarks, labelled=True)


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
    """
    if card.metric.resolution == "source":
        return at_source, label
    if label is not None:
        target = (mask.shape[0], mask.shape[1])
        label = resize.resize_label(label, card.input, target, card.metric.label_resampler)
    return mask, label


def mean_luma(pixels: NDArray[np.uint8]) -> float:
    """Return the mean luma (ITU-R BT.601) of an image, `uint8[H, W, 3]`, RGB; 0-255.

    Of more than a megapixel, every n-th of its rows and columns is taken.
    """
    step = math.isqrt((pixels.shape[0] * pixels.shape[1] - 1) // _MOST_FOR_LUMA) + 1
    red, green, blue, _ = cv2.mean(pixels if step == 1 else np.ascontiguousarray(pixels[::step, ::step]))
    return _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue
