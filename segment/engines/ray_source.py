"""`ImageSource`: any input of a job as a Ray Data `Datasource`, for a user's own pipeline."""

import functools
import itertools
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import ValidationError
from ray.data import Datasource
from ray.data.block import BlockAccessor, BlockMetadata
from ray.data.datasource import ReadTask

from segment.errors import SampleError, UsageError, sample_error_text
from segment.images.codec import decode_picture
from segment.images.labels import LabelDecoder
from segment.inputs.discover import discover
from segment.inputs.metadata import Values
from segment.inputs.parts import SEGMENTED, Part, Sample
from segment.inputs.reads import read_part
from segment.job import InputOptions, Job, LabelEncoding
from segment.models.card import load_card
from segment.models.validation import validation_message
from segment.output.remarks import RemarkLog
from segment.store.client import Store

log = logging.getLogger("segment.engines.ray_source")

_BLOCK_BYTES = 64 << 20  # of a block of rows; Ray's own target is twice that
_MAX_PIXELS: int = Job.model_fields["max_pixels"].default
_NO_IMAGE = np.empty((0, 0, 3), np.uint8)
_NO_LABEL = np.empty((0, 0), np.uint8)


class ImageSource(Datasource):  # type: ignore[misc]  # Ray is not typed
    """A Ray Data `Datasource` over whatever a job takes as input: folders, globs, lists, WebDataset tars, Parquet.

    `ray.data.read_datasource(ImageSource("s3://bucket/*.tar"))` has a row an image. Rows of one read task are in the
    order of the input; Ray Data returns the tasks in the order in which they are done, unless
    `ray.data.DataContext.get_current().execution_options.preserve_order` is True. The columns:

    - `id`: text, as in a run's `masks/`.
    - `uri`: text, where the image is.
    - `image`: `uint8[H, W, 3]`, RGB, upright; `uint8[0, 0, 3]` if it cannot be used; with `decode=False` encoded bytes.
    - `label`, unless the input is known to have none: with `model` `uint8[H, W]` of class indices and 255 (void),
      `uint8[0, 0]` without a label; else the label's encoded bytes, or None. `Segmenter` takes all of these.
    - `meta`, with `keep`: a struct of text, what is kept of the image's metadata.
    - `error`: empty, or what is wrong with the image or its label: the text of a job's error row.

    The input is listed and cut in parts when the source is made, and a read task reads one part, or several parts in
    turn where there are more parts than Ray Data wants tasks. What is left out of the input, and other warnings, are
    logged; so is, by each read task, each kind of remark on its images (a second page, damage that a decoder skips).

    Args:
        input: path or URL, as `Job.input`.
        model: card (name, path or URL) whose classes the labels are of.
        decode: decode images, and with `model` labels.
        label_encoding, label_remap, allow_lossy_labels, max_pixels: see `Job`. Labels that are decoded here are
            classes: give a `Segmenter` behind this source no encoding and no remap, which it would apply to classes.
            Without `model`, and `max_pixels` with `decode=False`, they are refused: give them to the `Segmenter`.
        storage_options: fsspec options for URLs that are not local.
        options: any field of `Job` that says how an input is read: `labels`, `label_pattern`, `format`, `limit`,
            `sample`, `image_column`, `part_size` and so on.

    Attributes:
        images: number of rows.
        parts: number of parts.

    Raises:
        UsageError: nothing there, or an option is unknown, wrong or does not fit the input.
        StoreError: the store refuses.
    """

    def __init__(
        self,
        input: str | os.PathLike[str],  # noqa: A002
        *,
        model: str | os.PathLike[str] | None = None,
        decode: bool = True,
        label_encoding: LabelEncoding = "auto",
        label_remap: Mapping[str, str | int] | None = None,
        allow_lossy_labels: bool = False,
        max_pixels: int | None = None,
        storage_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        store, how = Store(storage_options), _input_options(options)
        labels = None
        if model is not None and decode:
            classes = load_card(os.fspath(model), store).classes
            labels = LabelDecoder(classes, label_encoding, label_remap, allow_lossy=allow_lossy_labels)
        elif model is not None or label_encoding != "auto" or label_remap or allow_lossy_labels:
            raise UsageError("labels are decoded only where `model` names their classes, and `decode` is not False")
        if max_pixels is not None and not decode:
            raise UsageError(
                "max_pixels: with decode=False no image is decoded here; give it to Segmenter(max_pixels=...)"
            )
        if max_pixels is not None and max_pixels < 1:
            raise UsageError(f"max_pixels = {max_pixels}: give 1 or more")
        found = discover(os.fspath(input), how, store)
        for line in found.lines:
            is_warning = line.startswith("warning: ")
            log.log(logging.WARNING if is_warning else logging.INFO, "%s", line.removeprefix("warning: "))
        self.images = found.images
        self._parts = found.parts
        most = _MAX_PIXELS if max_pixels is None else max_pixels
        self._reader = _PartReader(how, store, decode, most, labels, has_labels=found.labelled != 0)

    @property
    def parts(self) -> int:
        """Number of parts."""
        return len(self._parts)

    def get_name(self) -> str:
        """Return the name that Ray's dashboard shows."""
        return "Images"

    def estimate_inmemory_data_size(self) -> int | None:
        """Return None: the decoded size is not known before the images are read."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """Return at most `parallelism` tasks, each of one part or of several consecutive ones."""
        tasks = max(1, min(parallelism, len(self._parts)))
        edges = [len(self._parts) * number // tasks for number in range(tasks + 1)]
        return [
            ReadTask(
                functools.partial(self._reader.blocks, parts),
                BlockMetadata(
                    num_rows=sum(map(len, parts)),
                    size_bytes=None,
                    input_files=sorted({part.url for part in parts}),
                    exec_stats=None,
                ),
                per_task_row_limit=per_task_row_limit,
            )
            for parts in (self._parts[start:stop] for start, stop in itertools.pairwise(edges))
        ]


def _input_options(values: Mapping[str, Any]) -> InputOptions:
    paths = {name: os.fspath(value) for name, value in values.items() if isinstance(value, os.PathLike)}
    try:
        return InputOptions(**{**values, **paths})
    except ValidationError as error:
        raise UsageError(f"ImageSource:\n{validation_message(error, InputOptions)}") from None


@dataclass(frozen=True)
class _Row:
    """One image as it is in a block; see `ImageSource`."""

    id: str
    uri: str
    image: NDArray[np.uint8] | bytes
    label: NDArray[np.uint8] | bytes | None
    error: str
    meta: Values = ()

    @property
    def size(self) -> int:
        """Bytes of image and label."""
        cells = [cell for cell in (self.image, self.label) if cell is not None]
        return sum(cell.nbytes if isinstance(cell, np.ndarray) else len(cell) for cell in cells)


@dataclass(frozen=True)
class _PartReader:
    """Reads parts as blocks of rows, in a worker.

    Attributes:
        options, store, decode, max_pixels: see `ImageSource`.
        labels: decodes labels; None leaves them encoded.
        has_labels: whether there is a column of labels.
    """

    options: InputOptions
    store: Store
    decode: bool
    max_pixels: int
    labels: LabelDecoder | None
    has_labels: bool

    def blocks(self, parts: Sequence[Part]) -> Iterator[pa.Table]:
        """Yield the rows of parts, about `_BLOCK_BYTES` a block at most, no block of two parts.

        Raises:
            InputChanged: an object is not the one that was listed.
            StoreError: the store refuses, or fails too often.
        """
        remarks = RemarkLog(log)
        for part in parts:
            rows: list[_Row] = []
            size = 0
            for sample in read_part(part, self.options, self.store):
                remarks.add(sample.remarks)
                row = self._decoded(sample, remarks) if self.decode else self._encoded(sample)
                rows.append(replace(row, meta=sample.meta))
                size += rows[-1].size
                if size >= _BLOCK_BYTES:
                    yield self._block(rows)
                    rows, size = [], 0
            if rows:
                yield self._block(rows)

    def _encoded(self, sample: Sample) -> _Row:
        error = sample_error_text(sample.fault) if sample.fault else ""
        return _Row(sample.id, sample.url, sample.image, sample.label, error)

    def _decoded(self, sample: Sample, remarks: RemarkLog) -> _Row:
        nothing = sample.label if self.labels is None else _NO_LABEL
        try:
            if sample.fault not in SEGMENTED:
                raise SampleError(str(sample.fault))
            picture = decode_picture(sample.image, self.max_pixels)
        except SampleError as error:
            return _Row(sample.id, sample.url, _NO_IMAGE, nothing, str(error))
        remarks.add(picture.remarks)
        try:
            if sample.fault:
                raise SampleError(sample.fault)
            label = nothing
            if self.labels is not None and sample.label is not None:
                size = (picture.pixels.shape[0], picture.pixels.shape[1])
                found = self.labels.read(sample.label, *size, picture.orientation)
                remarks.add(found.remarks)
                label = found.classes
        except SampleError as error:
            return _Row(sample.id, sample.url, picture.pixels, nothing, str(error))
        return _Row(sample.id, sample.url, picture.pixels, label, "")

    def _block(self, rows: Sequence[_Row]) -> pa.Table:
        columns = {
            "id": pa.array([row.id for row in rows], pa.string()),
            "uri": pa.array([row.uri for row in rows], pa.string()),
            "image": _cells([row.image for row in rows]),
            "label": _cells([row.label for row in rows]),
            "error": pa.array([row.error for row in rows], pa.string()),
        }
        if kept := self.options.keep:
            values = [dict(zip(kept, row.meta, strict=True)) if row.meta else None for row in rows]
            columns["meta"] = pa.array(values, pa.struct([(name, pa.string()) for name in kept]))
        return pa.table({name: cells for name, cells in columns.items() if name != "label" or self.has_labels})


def _cells(values: Sequence[NDArray[np.uint8] | bytes | None]) -> pa.Array | pa.ChunkedArray:
    """Return arrays of any sizes as Ray's tensors, and bytes as binary."""
    if not isinstance(values[0], np.ndarray):
        return pa.array(values, pa.binary())
    tensors = np.empty(len(values), dtype=object)
    tensors[:] = values
    return BlockAccessor.batch_to_block({"cells": tensors})["cells"]
