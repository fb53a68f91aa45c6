"""One loaded model: an image in, a mask of its size out, by the code that a job runs."""

import logging
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segment.api.guards import position_in_errors, refuse_fork
from segment.errors import SampleError, UsageError
from segment.images.codec import Picture
from segment.images.conversion import ImageLike, to_label, to_picture
from segment.images.labels import LabelDecoder
from segment.images.raster import ArrayRaster
from segment.images.resize import resize_image, restore_mask, unpadded
from segment.job import Job, LabelEncoding
from segment.metrics import Confusion
from segment.models.card import ModelCard, load_card
from segment.models.extra_options import Measure
from segment.models.sessions import Extras, Runtime, Session, capabilities, open_session, runtime_for
from segment.models.weights import load_weights
from segment.output.remarks import RemarkLog
from segment.pipeline.certainty import confidence_at_source
from segment.pipeline.prediction import predict, stack
from segment.pipeline.resources import available_cpus
from segment.pipeline.stages import Clock, count_pixels
from segment.pipeline.tiling import TiledImage, join_strips, session_extras
from segment.store.client import Store

log = logging.getLogger("segment.api.model")

_first_process: int | None = None  # that loaded a model; a fork of it inherits the value

MAX_PIXELS: int = Job.model_fields["max_pixels"].default


@dataclass(frozen=True)
class Prediction:
    """What a model makes of one image.

    Attributes:
        mask: `uint8[H, W]` of class indices, at the image's size.
        at_model: `uint8[output height, output width]`, as the model gives it.
        fault: `SampleError` code if the output cannot be used, which makes the masks meaningless; else None.
        remark: code of `segment.output.remarks.REMARKS`: what is noticed and fails nothing; else None.
        confidence: `uint8[output height, output width]`, 255 times the model's measure; None without one.
        detail: of the fault, such as the tile that has it; empty if there is none.
    """

    mask: NDArray[np.uint8]
    at_model: NDArray[np.uint8]
    fault: str | None
    remark: str | None
    confidence: NDArray[np.uint8] | None = None
    detail: str = ""


class Model:
    """A loaded model; `load_model` makes it. Threads may share it: its calls run one at a time.

    Attributes:
        card: the model's contract; `card.classes` holds class names, palette and ignored classes.
        runtime: library, device and precision that compute the masks.
        weights_sha384: hexadecimal digest of the weights.
        batch_size: images a call of the runtime.
        max_pixels: images of more pixels are refused.
    """

    def __init__(
        self,
        card: ModelCard,
        runtime: Runtime,
        session: Session,
        weights_sha384: str,
        batch_size: int = 1,
        max_pixels: int = MAX_PIXELS,
        confidence: Measure | None = None,
    ) -> None:
        self.card = card
        self.runtime = runtime
        self.weights_sha384 = weights_sha384
        self.batch_size = batch_size
        self.max_pixels = max_pixels
        self._session, self._wanted = session, Extras(confidence)
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._remarks = RemarkLog(log)

    def __repr__(self) -> str:
        how = f"{self.runtime.name} {self.runtime.version}, {self.runtime.device}, {self.runtime.precision}"
        return f"Model({self.card.name}: {how})"

    def predict(self, image: ImageLike) -> NDArray[np.uint8]:
        """Segment an image.

        Args:
            image: `uint8[H, W, 3]`, RGB, of any size (`uint8[H, W, N]` of a card with N `bands`); a PIL image; or the
                bytes of an encoded image. Bytes, and the file of a PIL image that Pillow has not decoded yet, are
                decoded as a job decodes them; other decoders may give a JPEG pixels that differ by one.

        Returns:
            `uint8[H, W]` of class indices, at the image's size: the mask that a job writes.

        Raises:
            SampleError: the image cannot be decoded, has more than `max_pixels`, or the model's output for it cannot be
                used.
            ValueError: an array of another shape or type.
            TypeError: no image.
            ModelError: the first images show that the model is not what its card says.
        """
        return self._predict(image)[1].mask

    def predict_with_confidence(self, image: ImageLike) -> tuple[NDArray[np.uint8], NDArray[np.uint8], float]:
        """Segment an image, and tell how sure the model is; see `predict`.

        Returns:
            The mask; the measure of each pixel, 255 times 0-1, `uint8[H, W]`; its mean, 0-1, as a job writes it.

        Raises:
            UsageError: the model was loaded without `confidence`.
        """
        picture, prediction = self._predict(image)
        levels, size = prediction.confidence, (picture.pixels.shape[0], picture.pixels.shape[1])
        if levels is None:
            raise UsageError("the model was loaded without confidence: load_model(..., confidence='maximum')")
        return prediction.mask, *confidence_at_source(prediction.at_model, levels, self.card, size)

    def predict_batch(self, images: Iterable[ImageLike]) -> list[NDArray[np.uint8]]:
        """Segment images of any sizes; see `predict`. They are `batch_size` a call of the runtime.

        Raises:
            SampleError, ValueError, TypeError: as `predict`, of the first image that has one; the message or a note
                says which it is (`images[0]` is the first).
            ModelError: as `predict`.
        """
        pictures = []
        for position, image in enumerate(images):
            with position_in_errors(position):
                pictures.append(to_picture(image, self.max_pixels, self.card.input))
        found = self.predictions([picture.pixels for picture in pictures])
        for position, (picture, prediction) in enumerate(zip(pictures, found, strict=True)):
            with position_in_errors(position):
                self._check(picture, prediction)
        return [prediction.mask for prediction in found]

    def confusion(
        self,
        image: ImageLike,
        label: ImageLike | None,
        *,
        label_encoding: LabelEncoding = "auto",
        label_remap: Mapping[str, str | int] | None = None,
        allow_lossy_labels: bool = False,
    ) -> Confusion:
        """Segment an image and count its pixels by label and prediction, exactly as a job does.

        The card says at which size: `metric.resolution` is `source` (the image's) or `model`, for which the label is
        resized to the model's output. `segment.confusion` counts two arrays as they are.

        Args:
            image: see `predict`.
            label: `uint8[H, W]` of class indices and 255 (void), `uint8[H, W, 3]` of RGB colours, a PIL image, or the
                bytes of an encoded image; of the image's size. None counts every pixel as void.
            label_encoding, label_remap, allow_lossy_labels: see `Job`.

        Returns:
            Counts `int64[C + 1, C]` that can be added up; see `Confusion`.

        Raises:
            SampleError: as `predict`, or the label cannot be used.
            UsageError: there is no such `label_encoding`, or `label_remap` does not fit the card.
            ValueError, TypeError, ModelError: as `predict`.
        """
        labels = LabelDecoder(self.card.classes, label_encoding, label_remap, allow_lossy=allow_lossy_labels)
        counts, remarks = count_image(*self._predict(image), label, labels, self.card)
        self._remarks.add(remarks)
        return counts

    def _predict(self, image: ImageLike) -> tuple[Picture, Prediction]:
        picture = to_picture(image, self.max_pixels, self.card.input)
        prediction = self.predictions([picture.pixels])[0]
        self._check(picture, prediction)
        return picture, prediction

    def _check(self, picture: Picture, prediction: Prediction) -> None:
        """Raise a prediction's fault, or log its remarks."""
        if prediction.fault:
            raise SampleError(prediction.fault, prediction.detail)
        self._remarks.add([*picture.remarks, prediction.remark])

    def predictions(self, images: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """Segment images `uint8[H, W, 3]`, RGB; a fault of one is in its prediction and raises nothing.

        Raises:
            ModelError: the first images show that the model is not what its card says.
            UsageError: the process was forked from the one that loaded the model.
        """
        refuse_fork(self._process)
        spec = self.card.input
        if spec.tiles:
            with self._lock:
                return [self._in_tiles(image) for image in images]
        resized, predictions = [], {}
        for position, image in enumerate(images):
            try:
                resized.append(resize_image(image, spec))
            except SampleError as error:
                predictions[position] = _failed(image, error)
        with self._lock:
            found = predict(stack(resized, spec), self._session, self.batch_size)
        fitting = [position for position in range(len(images)) if position not in predictions]
        for position, each in zip(fitting, found, strict=True):
            size = (images[position].shape[0], images[position].shape[1])
            predictions[position] = Prediction(
                restore_mask(each.mask, spec, size),
                unpadded(each.mask, spec, size),
                each.fault,
                each.remark,
                None if each.confidence is None else unpadded(each.confidence, spec, size),
            )
        return [predictions[position] for position in range(len(images))]

    def _in_tiles(self, image: NDArray[np.uint8]) -> Prediction:
        try:
            tiled = TiledImage(ArrayRaster(image), self._session, self.batch_size, self._wanted)
            found = join_strips(tiled.strips(Clock()), (image.shape[0], image.shape[1]))
        except SampleError as error:
            return _failed(image, error)
        remarks = sorted(tiled.remarks) if found.mask.min() == found.mask.max() else []
        return Prediction(found.mask, found.mask, None, next(iter(remarks), None), next(iter(found.levels), None))


def _failed(image: NDArray[np.uint8], error: SampleError) -> Prediction:
    nothing = np.zeros(image.shape[:2], np.uint8)
    return Prediction(nothing, nothing, error.code, None, detail=error.detail)


def load_model(
    card: str | os.PathLike[str] | ModelCard,
    weights: str | os.PathLike[str] | None = None,
    *,
    runtime: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 1,
    threads: int | None = None,
    max_pixels: int = MAX_PIXELS,
    confidence: Measure | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Model:
    """Load a model, its card's contract compiled into the graph.

    >>> model = load_model("demo-streets")
    >>> image = np.zeros((300, 400, 3), np.uint8)  # RGB, of any size
    >>> mask = model.predict(image)
    >>> mask.shape, mask.dtype
    ((300, 400), dtype('uint8'))
    >>> model.card.classes.names[3]
    'Road'

    Args:
        card: a `ModelCard`, the name of a built-in one (`segment models` lists them), or path or URL of a TOML file.
        weights: path or URL of an .onnx, .xml (OpenVINO) or .tflite file; None takes those that the card names.
        runtime: `onnxruntime`, `openvino` or `litert`; `auto` takes what this machine has, as a job does.
        device: `cpu`, `cuda` or `tensorrt`; `auto` takes a GPU where there is one.
        precision: `f32`, `bf16` or `f16`; `auto` is bf16 where openvino and the CPU compute in it, else f32.
        batch_size: images a call of the runtime, 1 or more. On a GPU more than 1 is faster.
        threads: CPU threads of a call; None takes every CPU that this process may use.
        max_pixels: images of more pixels, 1 or more, are refused before they are decoded.
        confidence: `maximum`, `margin` or `entropy`: what `predict_with_confidence` tells; see `Job`.
        storage_options: fsspec options for URLs that are not local.

    Raises:
        UsageError: no such card or weights, or this machine lacks what is asked for; the message says how to mend it.
            Also in a process that was forked from one that had loaded a model, where runtimes hang.
        ModelError: card, weights and graph do not fit together.
        StoreError: the weights cannot be fetched.
    """
    global _first_process
    if batch_size < 1:
        raise ValueError(f"batch_size = {batch_size}: give 1 or more")
    if max_pixels < 1:
        raise ValueError(f"max_pixels = {max_pixels}: give 1 or more")
    refuse_fork(_first_process or os.getpid())
    store = Store(storage_options)
    loaded = card if isinstance(card, ModelCard) else load_card(os.fspath(card), store)
    found = load_weights(loaded, None if weights is None else os.fspath(weights), store=store)
    chosen = runtime_for(loaded, found, runtime, device, precision, nodes=[capabilities()])
    extras = session_extras(loaded, Extras(confidence))
    session = open_session(loaded, found, chosen, threads=threads or available_cpus(), batch=batch_size, extras=extras)
    _first_process = os.getpid()
    return Model(loaded, chosen, session, found.sha384, batch_size, max_pixels, confidence)


def count_image(
    picture: Picture, prediction: Prediction, label: object, labels: LabelDecoder, card: ModelCard
) -> tuple[Confusion, tuple[str, ...]]:
    """Return the counts of an image, as a job has them, and the remarks on its label.

    Args:
        picture, prediction: the image and what the model makes of it.
        label: see `to_label`.
        labels: decodes it.
        card: the model's card, which says at which size pixels are counted.

    Raises:
        SampleError: the label cannot be used.
        ValueError, TypeError: it is no label.
    """
    size = (picture.pixels.shape[0], picture.pixels.shape[1])
    found = to_label(label, size, picture.orientation, labels)
    counts = count_pixels(prediction.at_model, prediction.mask, found.classes if found else None, card)
    return counts, found.remarks if found else ()
