"""A job: what is asked, and the run that does it: plan, rounds, statistics, audit."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, WithJsonSchema, field_validator, model_validator

from segment.errors import UsageError
from segment.images.labels import Encoding
from segment.inputs.discover import InputOptions
from segment.models.validation import validation_message
from segment.store.client import Store
from segment.store.urls import to_url, unsigned

_WORKERS = r"^\d+(:\d+)?$"
Workers = Annotated[
    str,
    Field(pattern=_WORKERS),
    WithJsonSchema(
        {
            "type": ["integer", "string"],
            "minimum": 1,
            "pattern": _WORKERS,
            "description": "a number of workers, or MIN:MAX",
        }
    ),
]
Bytes = Annotated[str, Field(pattern=r"^\d+(\.\d+)? ?([kMGT]i?B)?$", description="a size such as 4GB or 2.5 GiB")]
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


class InvalidJob(UsageError):
    """Values of a job are wrong: `lines` says which and why."""

    def __init__(self, lines: str) -> None:
        super().__init__(f"job:\n{lines}")
        self.lines = lines


class Job(InputOptions):
    """What is asked. Every field is a key of a job file and a flag of `segment run`.

    Attributes:
        input: images: a path or URL of a folder, tars, Parquet files, or a list file.
        output: path or URL of the prefix to write to.
        model: name of a built-in card, or path or URL of a card.
        weights: path or URL of the weights; the card's own source if not given.
        runtime, device, precision: what computes the masks; `auto` is decided once, by what every node can do.
        batch_size: images a call of the model; `auto` is 1 on CPUs; on GPUs it is measured once, when the run is begun.
        engine: `local` runs in this process, `ray` on a cluster; `auto` picks.
        address: of a Ray cluster.
        workers: models loaded at once: `4`, or `2:8` to let the Ray pool grow.
        mask_size: write masks at the size of the `source` image or of the `model`.
        label_encoding: `index`, `colour`, or `auto`.
        label_remap: from label value or colour to class name, class index or `ignore`; `*` is all that is not named.
        allow_lossy_labels: take labels that were compressed with loss (JPEG, lossy WebP) as they decode; else they are
            error rows.
        max_pixels: images whose header declares more are error rows.
        max_error_rate: share of images that may fail, 0-1; above it the run fails with exit code 3.
        stall_timeout: seconds in which a busy worker must get on by a step (an image, a request to a store); one that
            does not is replaced. None derives them from what the parts take (`segment.pipeline.stall`).
        worker_memory: bytes (`4GB`, `2.5 GiB`) that a worker process may take; one that takes more fails its part. None
            lets it take what there is, and more than an even share only while its node is not short of memory.
        price_per_hour: what all machines of the run cost an hour, for the cost per 1,000 images.
        storage_options: fsspec options for every URL that is not local. Never written anywhere.

    Raises:
        InvalidJob: an unknown key (the nearest known one is named), a missing or wrong value.
        UsageError: a secret in a URL.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: Annotated[str, Field(min_length=1)]
    output: Annotated[str, Field(min_length=1)]
    model: Annotated[str, Field(min_length=1)]
    weights: str | None = None
    runtime: Literal["auto", "onnxruntime", "openvino"] = "auto"
    device: Literal["auto", "cpu", "cuda", "tensorrt"] = "auto"
    precision: Literal["auto", "f32", "bf16", "f16"] = "auto"
    batch_size: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    engine: Literal["auto", "local", "ray"] = "auto"
    address: str | None = None
    workers: Workers | None = None
    mask_size: Literal["source", "model"] = "source"
    label_encoding: Encoding = "auto"
    label_remap: dict[str, str | int] = Field(default={})
    allow_lossy_labels: bool = False
    max_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    max_error_rate: Annotated[float, Field(ge=0, le=1)] = 0.05
    stall_timeout: Annotated[float, Field(gt=0)] | None = None
    worker_memory: Bytes | None = None
    price_per_hour: Annotated[float, Field(gt=0)] | None = None
    storage_options: dict[str, Any] = Field(default={}, exclude=True, repr=False)

    if not TYPE_CHECKING:  # type checkers and editors see the fields

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise InvalidJob(validation_message(error, Job)) from None

    @field_validator("input", "output", "model", "weights", "labels", mode="before")
    @classmethod
    def _path_as_text(cls, value: object) -> object:
        return os.fspath(value) if isinstance(value, os.PathLike) else value

    @field_validator("workers", "worker_memory", mode="before")
    @classmethod
    def _numbers_as_text(cls, value: object) -> object:
        return str(value) if isinstance(value, int) else value

    @field_validator("input", "output", "model", "weights", "labels", "label_pattern", "address")
    @classmethod
    def _without_secrets(cls, value: str | None) -> str | None:
        """Refuse a URL with a secret in it before anything can echo it; not as a ValueError, which quotes it."""
        if value:
            to_url(value)
        return value

    @model_validator(mode="after")
    def _possible_workers(self) -> Job:
        if self.worker_range and not 1 <= self.worker_range[0] <= self.worker_range[1]:
            raise ValueError(
                f"workers = {self.workers!r}: give a number from 1 up, or MIN:MAX with MIN no more than MAX"
            )
        return self

    @property
    def worker_range(self) -> tuple[int, int] | None:
        """(minimum, maximum) of `workers`."""
        if self.workers is None:
            return None
        low, _, high = self.workers.partition(":")
        return int(low), int(high or low)

    @property
    def worker_bytes(self) -> int | None:
        """`worker_memory` as a number."""
        if self.worker_memory is None:
            return None
        number = self.worker_memory.rstrip("kMGTiB ")
        return int(float(number) * _UNITS[self.worker_memory.removeprefix(number).strip(" B")])

    @property
    def input_options(self) -> InputOptions:
        """The fields that say how the input is read."""
        return InputOptions(**{name: getattr(self, name) for name in InputOptions.model_fields})


def make_job(values: Mapping[str, Any], where: str = "job") -> Job:
    """Check the values of a job.

    Raises:
        UsageError: an unknown key (the nearest known one is named), a missing or wrong value, a secret in a URL.
    """
    try:
        return Job(**values)
    except InvalidJob as error:
        raise UsageError(f"{where}:\n{error.lines}") from None


def read_job_file(reference: str, store: Store | None = None) -> dict[str, Any]:
    """Read a TOML job file.

    Raises:
        UsageError: it is not there or is no TOML.
    """
    data = (store or Store()).read_if_exists(to_url(reference))
    if data is None:
        raise UsageError(f"no job file at {reference}")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{reference} is not TOML: {error}") from None


def job_record(job: Job, *, defaults: bool = True) -> dict[str, Any]:
    """The values of a job as they may be written: without storage options, and URLs without their signatures."""
    values = job.model_dump(mode="json", exclude_defaults=not defaults)
    return {name: unsigned(value) if isinstance(value, str) else value for name, value in values.items()}


def job_to_toml(job: Job) -> str:
    """Write a job as a TOML job file: what differs from the defaults. Storage options and signatures are left out."""
    values = job_record(job, defaults=False)
    remap = values.pop("label_remap", {})
    lines = [f"{name} = {_toml(value)}" for name, value in values.items()]
    if remap:
        lines += ["", "[label_remap]", *(f"{_toml(key)} = {_toml(value)}" for key, value in remap.items())]
    return "\n".join(lines) + "\n"


def _toml(value: str | float) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML forbids what JSON does not
