"""`Segmenter`: the stage of a data pipeline that loads a model once and segments batch after batch."""

import functools
import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segment.api.model import MAX_PIXELS, Model, Prediction, count_image, load_model
from segment.errors import ModelError, SampleError, UsageError, sample_error_text
from segment.images.codec import Picture
from segment.images.conversion import ImageLike, is_missing, to_picture
from segment.images.labels import LabelDecoder
from segment.job import LabelEncoding
from segment.metrics import Confusion
from segment.models.card import ModelCard
from segment.models.extra_options import Measure
from segment.output.remarks import RemarkLog
from segment.pipeline.certainty import confidence_at_source

log = logging.getLogger("segment.api.segmenter")

_CONFIDENCE: Literal["confidence"] = "confidence"
_MEAN: Literal["mean_confidence"] = "mean_confidence"
MaskType: TypeAlias = Literal["array", "image"]


class SegmentedRow(TypedDict):
    """What becomes of one image.

    Keys:
        mask: `uint8[H, W]` of class indices, at the image's size; `uint8[0, 0]` if there is none.
        confusion: `int64[C + 1, C]`, pixels by label and prediction as in `Confusion.counts`; zeros with an error.
        error: empty, or what is wrong with the image or its label: the text of a job's error row.
        confidence: the measure of each pixel, 255 times 0-1, of the mask's shape; only if it is asked for.
        mean_confidence: its mean, 0-1, as a job writes it; NaN without a mask; only with `confidence`.
    """

    mask: NDArray[np.uint8]
    confusion: NDArray[np.int64]
    error: str
    confidence: NotRequired[NDArray[np.uint8]]
    mean_confidence: NotRequired[float]


class Segmenter:
    """Segments batches of images: a callable class for Ray Data, Daft and Hugging Face `datasets`.

    The constructor loads the model, so that a worker loads it once:

    - `ds.map_batches(Segmenter, fn_constructor_kwargs={"model": ...}, compute=ray.data.ActorPoolStrategy(size=8))`
    - `segmenter = daft.cls(Segmenter)(model=...)`, then `segmenter.predict(df["image"])` or
      `segmenter.segment(df["image"], df["label"])`
    - `dataset.map(Segmenter(model=...), batched=True, batch_size=16)`

    >>> segmenter = Segmenter("demo-streets")
    >>> batch = {"id": ["a", "b"], "image": np.zeros((2, 300, 400, 3), np.uint8)}
    >>> segmented = segmenter(batch)
    >>> segmented["id"], segmented["mask"][0].shape, segmented["error"]
    (['a', 'b'], (300, 400), ['', ''])

    A copy in another process (Hugging Face's `num_proc`) computes with the same card, weights, runtime and precision,
    or fails. Workers that construct their own instance resolve `auto` for their own machine: in a cluster of different
    CPUs name the `precision`, so that all masks are computed alike.

    Args:
        model, weights, runtime, device, precision, batch_size, confidence, storage_options: see `load_model`.
        threads: CPU threads of a call. The default fits one worker a core.
        image_column: column of the images: arrays, PIL images or encoded bytes, as `Model.predict` takes them.
        label_column: column of the labels, likewise, where a batch has it; None ignores labels.
        mask_column: column that gets the masks.
        mask_type: `array`, or `image` for PIL images, of which Hugging Face makes a column of pictures. Of every batch
            it is the same, whatever its images are.
        keep_images: return the columns of images and labels, too. All others are always returned.
        label_encoding, label_remap, allow_lossy_labels, max_pixels: see `Job`. Labels that `ImageSource` has decoded
            are classes already: give encoding and remap to one of the two only.

    Raises:
        UsageError: as `load_model`; or there is no such `label_encoding` or `mask_type`, or `label_remap` does not fit
            the card.
        ModelError, StoreError: as `load_model`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | ModelCard,
        weights: str | os.PathLike[str] | None = None,
        *,
        runtime: str = "auto",
        device: str = "auto",
        precision: str = "auto",
        batch_size: int = 1,
        confidence: Measure | None = None,
        threads: int = 1,
        image_column: str = "image",
        label_column: str | None = "label",
        mask_column: str = "mask",
        mask_type: MaskType = "array",
        keep_images: bool = False,
        label_encoding: LabelEncoding = "auto",
        label_remap: Mapping[str, str | int] | None = None,
        allow_lossy_labels: bool = False,
        max_pixels: int = MAX_PIXELS,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._model_arguments: dict[str, Any] = {
            "card": model,
            "weights": weights,
            "runtime": runtime,
            "device": device,
            "precision": precision,
            "batch_size": batch_size,
            "confidence": confidence,
            "threads": threads,
            "max_pixels": max_pixels,
            "storage_options": storage_options,
        }
        self._original: tuple[str, str] | None = None
        if mask_type not in get_args(MaskType):
            raise UsageError(f"mask_type: {mask_type!r} is none of {', '.join(get_args(MaskType))}")
        classes = self.model.card.classes  # loads the model
        self._labels = LabelDecoder(classes, label_encoding, label_remap, allow_lossy=allow_lossy_labels)
        self._image_column = image_column
        self._label_column = label_column
        self._mask_column = mask_column
        self._mask_type = mask_type
        self._added = (_CONFIDENCE, _MEAN) if confidence else ()
        self._dropped = () if keep_images else (image_column, label_column)
        self._remarks = RemarkLog(log)

    @functools.cached_property
    def model(self) -> Model:
        """The loaded model. A copy in another process loads it when it is first used.

        Raises:
            ModelError: the masks of a copy would not be those of the original.
        """
        model = load_model(**self._model_arguments)
        version, weights_sha384 = self._original or (model.runtime.version, model.weights_sha384)
        if model.weights_sha384 != weights_sha384:
            raise ModelError("the weights have changed since the Segmenter was made: make it again")
        if model.runtime.version != version:
            raise ModelError(
                f"this machine has {model.runtime.name} {model.runtime.version}, and the Segmenter was made with "
                f"{version}: install the same version on every machine"
            )
        return model

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in vars(self).items() if name not in ("model", "_remarks")}
        if "model" in vars(self):
            runtime = self.model.runtime
            resolved = {"runtime": runtime.name, "device": runtime.device, "precision": runtime.precision}
            state["_model_arguments"] = {**self._model_arguments, **resolved, "card": self.model.card}
            state["_original"] = (runtime.version, self.model.weights_sha384)
        return state

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self._remarks = RemarkLog(log)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Segment a batch.

        Args:
            batch: columns of equal length: a list or array of images, optionally one of labels, and any others. Where
                an `error` (text) is given already, as `ImageSource` does, it stays.

        Returns:
            The other columns, and

            - `mask`: a list of `uint8[H, W]` of class indices, each at its image's size; `uint8[0, 0]` where there is
              none. With `mask_type="image"` they are PIL images of mode L, or None.
            - `error`: a list of texts, empty where all is well. An image or label that cannot be used fails no batch.
            - `confidence` and `mean_confidence`, if the Segmenter has a `confidence`: a list of `uint8[H, W]`, the
              measure of each pixel times 255, and a list of their means, 0-1; `uint8[0, 0]` and NaN without a mask.
            - `confusion`, if the batch has labels: `int64[N, C + 1, C]`, pixels by label and prediction as in
              `Confusion.counts`; zeros for rows with an error. Rows without a label count as void.

        Raises:
            ValueError: the batch has no column of images, or has a column of masks or counts already; or an array is no
                image or label by its shape or type.
            TypeError: the batch is no mapping, or a cell is no image or label.
            ModelError: the first images show that the model is not what its card says.
        """
        self._check_columns(batch)
        images = list(batch[self._image_column])
        labels = None
        if self._label_column is not None and self._label_column in batch:
            labels = list(batch[self._label_column])
        errors = ["" if is_missing(text) else str(text) for text in batch.get("error", [""] * len(images))]
        if labels is not None and len(labels) != len(images):
            raise ValueError(f"{len(images)} images and {len(labels)} labels in one batch")
        rows = self._segment(images, labels or [None] * len(images), errors)
        masks: list[Any] = [row["mask"] for row in rows]
        if self._mask_type == "image":
            masks = [Image.fromarray(mask) if mask.size else None for mask in masks]
        others = {name: batch[name] for name in batch if name not in self._dropped}
        segmented = {**others, self._mask_column: masks, "error": [row["error"] for row in rows]}
        for name in self._added:
            segmented[name] = [row[name] for row in rows]
        if labels is not None:
            no_rows = np.empty((0, *self._no_counts().shape), np.int64)
            segmented["confusion"] = np.stack([row["confusion"] for row in rows]) if rows else no_rows
        return segmented

    def predict(self, image: ImageLike) -> NDArray[np.uint8]:
        """Segment one image; see `Model.predict`."""
        return self.model.predict(image)

    def segment(self, image: ImageLike, label: ImageLike | None = None) -> SegmentedRow:
        """Segment one image and count its pixels by label: the same as a batch of one row.

        Raises:
            ValueError, TypeError, ModelError: as for a batch.
        """
        return self._segment([image], [label], [""])[0]

    def _check_columns(self, batch: Mapping[str, Any]) -> None:
        if not hasattr(batch, "keys"):
            raise TypeError(f"a batch is a dict of columns, not {type(batch).__name__}: use batch_format='numpy'")
        names = list(batch.keys())
        if self._image_column not in names:
            raise ValueError(f"no column '{self._image_column}' in the batch: name one of {names} with image_column")
        if self._mask_column in names:
            raise ValueError(f"the batch has a column '{self._mask_column}' already: choose another mask_column")
        for name in (*(("confusion",) if self._label_column in names else ()), *self._added):
            if name in names:
                raise ValueError(f"the batch has a column '{name}' already: rename or drop it first")

    def _segment(self, images: Sequence[object], labels: Sequence[object], errors: Sequence[str]) -> list[SegmentedRow]:
        pictures = [self._picture(image, error) for image, error in zip(images, errors, strict=True)]
        sound = [picture for picture in pictures if isinstance(picture, Picture)]
        predictions = iter(self.model.predictions([picture.pixels for picture in sound]))
        rows = [
            self._row(picture, next(predictions), label, error)
            if isinstance(picture, Picture)
            else self._failed(picture)
            for picture, label, error in zip(pictures, labels, errors, strict=True)
        ]
        failures = [row["error"] for row in rows if row["error"]]
        if failures:
            log.warning("%d of %d images with an error, the first: %s", len(failures), len(rows), failures[0])
        return rows

    def _picture(self, image: object, error: str) -> Picture | str:
        """Return an image, or the error that it has: the one given where there is nothing to decode."""
        try:
            if is_missing(image):
                raise SampleError("empty")
            return to_picture(image, self.model.max_pixels, self.model.card.input)
        except SampleError as failure:
            return error if error and failure.code == "empty" else str(failure)

    def _row(self, picture: Picture, prediction: Prediction, label: object, error: str) -> SegmentedRow:
        self._remarks.add([*picture.remarks, prediction.remark])
        if prediction.fault:
            return self._failed(sample_error_text(prediction.fault, prediction.detail))
        row: SegmentedRow = {"mask": prediction.mask, "confusion": self._no_counts(), "error": error}
        if self._added and prediction.confidence is not None:
            levels, card = prediction.confidence, self.model.card
            size = (prediction.mask.shape[0], prediction.mask.shape[1])
            row[_CONFIDENCE], row[_MEAN] = confidence_at_source(prediction.at_model, levels, card, size)
        if error:  # of the label alone, as there is an image
            return row
        try:
            counts, remarks = count_image(picture, prediction, label, self._labels, self.model.card)
        except SampleError as failure:
            return {**row, "error": str(failure)}
        self._remarks.add(remarks)
        return {**row, "confusion": counts.counts}

    def _failed(self, error: str) -> SegmentedRow:
        nothing = np.empty((0, 0), np.uint8)
        row: SegmentedRow = {"mask": nothing, "confusion": self._no_counts(), "error": error}
        return {**row, _CONFIDENCE: nothing, _MEAN: math.nan} if self._added else row

    def _no_counts(self) -> NDArray[np.int64]:
        """Return the counts of no pixels, an array of each row's own."""
        return Confusion.zeros(len(self.model.card.classes)).counts
