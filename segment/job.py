"""A job: every option of a run, with its type, limits, default and meaning.

The fields of `Job` are the only declaration of the options. Job files, the flags of `segment run` and `segment plan`,
the JSON schema and error texts follow from them, so a new option is one field here and the code that acts on it.
Each class is a panel of `--help`, with its docstring as the title. Imports stay light: `--help` needs this module.
"""

from __future__ import annotations

import os
import re
import string
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from segment.errors import UsageError
from segment.models.extra_options import BoundaryOptions, ExtraOptions, KeepOptions, RuntimeOptions, SpeedOptions
from segment.models.validation import Prefix, as_lines, parse_toml, validation_errors
from segment.store.foreign_text import in_toml
from segment.store.names import SIZE, shown, size_in_bytes
from segment.store.urls import to_url, unsigned

if TYPE_CHECKING:
    from segment.store.client import Store

InputFormat = Literal["auto", "files", "webdataset", "parquet", "list"]
LabelEncoding = Literal["auto", "index", "colour"]
MaskSize = Literal["source", "model"]

Positive = Annotated[int, Field(ge=1)]
Range = Annotated[str, Field(pattern=r"^\d+:\d+$", description="MIN:MAX")]
Seconds = Annotated[float, Field(gt=0, description="a number of seconds above 0, such as 300")]
Bytes = Annotated[int, Field(ge=1, description="a number of bytes from 1 up")]
Size = Annotated[str, Field(pattern=SIZE, description="a size such as 4GB or 2.5 GiB")]
_ONE_SELECTION: dict[str, Any] = {"not": {"required": ["limit", "sample"]}}  # JSON schema of the validator of that name
_MIB = 1 << 20

LABEL_FIELD = re.compile(r"(stem|dir|name)(?:([%#])(.+))?", re.DOTALL)  # of a label pattern: name, operator, affix
ROW_NUMBERS = ":row"  # as id column: ids are row numbers. A colon begins the name of no Parquet column
NO_LABELS = ":none"  # as label column: there are no labels


class InvalidJob(UsageError):
    """Values of a job are wrong; `wrong` says of each key why."""

    def __init__(self, wrong: Mapping[str, str], where: str = "job") -> None:
        super().__init__(f"{where}:\n{as_lines(wrong)}")
        self.wrong, self._where = wrong, where

    def __reduce__(self) -> tuple[type[InvalidJob], tuple[Mapping[str, str], str]]:
        return InvalidJob, (self.wrong, self._where)


class InputOptions(KeepOptions):
    """Input: how images and labels are found."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, json_schema_extra=_ONE_SELECTION)

    format: InputFormat = Field("auto", description="Format of the input; `auto` detects it from the file names.")
    include_hidden: bool = Field(False, description="Include files whose name, or a folder of it, begins with . or _.")
    labels: str | None = Field(
        None, description="Files: folder or prefix of label images, matched by relative path without suffix."
    )
    label_pattern: str | None = Field(
        None,
        description="Files: path of an image's label relative to `labels`, else to the input, with {stem}, {dir} and "
        "{name} of the image, such as '{dir}/{stem}_L.png'; {stem%END} drops an ending of the stem, {stem#START} "
        "a beginning.",
    )
    image_key: str | None = Field(
        None,
        description="WebDataset: suffix of the image member, such as left.jpg; keys end before it. By default the only "
        "image of a sample, or the one with the plainest suffix.",
    )
    label_key: str | None = Field(
        None, description="WebDataset: suffix of the label member. By default seg.png, mask.png or label.png."
    )
    image_column: str | None = Field(
        None,
        description="Parquet and lists: column of images; in Parquet also a field such as sample.image, in a list "
        "without a header a number from 1. By default detected by the usual names.",
    )
    label_column: str | None = Field(
        None,
        description=f"Parquet and lists: column of labels, named as for images; in Parquet {NO_LABELS} for no labels.",
    )
    id_column: str | None = Field(
        None,
        description=f"Parquet and lists: column of ids, named as for images; in Parquet {ROW_NUMBERS} for row numbers.",
    )
    allow_input: tuple[Prefix, ...] = Field(
        (), description="Folder or URL prefix below which lists and Parquet files may name images, too; repeatable."
    )
    limit: Positive | None = Field(None, description="Segment only the first N images of the input.")
    sample: Positive | None = Field(
        None, description="Segment only N images, spread over the whole input; the same ones each time."
    )
    part_size: Positive | Literal["auto"] = Field(
        "auto", description="Images per part, the unit of commit; `auto` follows from the number of images."
    )
    part_bytes: Positive = Field(
        256 * _MIB, description="Largest total of encoded bytes (images and labels) in a part of several images."
    )
    max_image_bytes: Positive = Field(
        256 * _MIB, description="Encoded images of more bytes are error rows, and no more bytes of one are read."
    )
    max_row_group_bytes: Positive = Field(
        1024 * _MIB,
        description="Parquet: refuse files with row groups of more bytes, in the columns that are read. Those that "
        "unpack to more, of which their footer does not tell, are error rows.",
    )

    @staticmethod
    def of_run(run: Mapping[str, Any]) -> InputOptions:
        """Return the options that `run.json` records."""
        given = {name: value for name, value in run["contract"]["input"].items() if name in InputOptions.model_fields}
        if "keep" in given:  # up to format 4 brightness was among it
            given["keep"] = [name for name in given["keep"] if name != ":brightness"]
        return InputOptions(**given)

    @model_validator(mode="after")
    def _one_selection(self) -> Self:
        if self.limit is not None and self.sample is not None:
            raise ValueError("limit and sample both select images: give one of them")
        return self

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_as_number(cls, value: object, info: ValidationInfo) -> object:
        """Refuse `limit = true`: pydantic takes true for 1."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise PydanticCustomError("bool_as_value", "a switch is no value")  # `validation_errors` words it
        return value

    @field_validator("label_pattern")
    @classmethod
    def _known_fields(cls, value: str | None) -> str | None:
        if value is None:
            return None
        fields = [(name, spec, how) for _, name, spec, how in string.Formatter().parse(value) if name is not None]
        if not fields or any(not LABEL_FIELD.fullmatch(name) or spec or how for name, spec, how in fields):
            raise ValueError("expected {stem}, {dir} and {name}, {stem%END} or {stem#START}, as in '{stem%_x}.png'")
        return value

    @field_validator("image_key", "label_key")
    @classmethod
    def _plain_key(cls, value: str | None) -> str | None:
        return value if value is None else value.removeprefix(".").lower()


class Settings(InputOptions, ExtraOptions, BoundaryOptions, SpeedOptions):
    """Workers: how images become masks and scores."""

    label_encoding: LabelEncoding = Field(
        "auto", description="How labels encode classes: by class `index` or by palette `colour`; `auto` detects it."
    )
    label_remap: dict[str, str | int] = Field(
        {},
        description="From label value (7) or colour (64,0,128) to class name, class index or `ignore`; * is the rest.",
        examples=[{"64,0,128": "Vehicle"}, {"7": "ignore"}],
    )
    allow_lossy_labels: bool = Field(
        False, description="Accept labels with lossy compression (JPEG, lossy WebP, JPEG in TIFF) as they decode."
    )
    max_pixels: Positive = Field(
        100_000_000, description="Images of more pixels are error rows; TIFFs read by window, of 100 times as many."
    )
    mask_size: MaskSize = Field("source", description="Write masks at the size of the source image or of the model.")
    stall_timeout: Seconds | None = Field(
        None,
        description="Seconds without progress (an image, a tile, a request) before a worker is replaced; one read may "
        "take as long in all. By default derived from the measured time of parts; a read may take 300 seconds.",
    )
    worker_memory: Bytes | Size | None = Field(
        None,
        description="Largest memory of a worker process, such as 4GB; a part that takes more fails. By default a "
        "worker may take an even share while its node is short of memory.",
    )

    @property
    def input_options(self) -> InputOptions:
        """The options of the input alone."""
        return InputOptions(**{name: getattr(self, name) for name in InputOptions.model_fields})

    @property
    def worker_bytes(self) -> int | None:
        """`worker_memory` in bytes, rounded up."""
        return None if self.worker_memory is None else size_in_bytes(str(self.worker_memory))


class Job(RuntimeOptions, Settings):
    """Job: what is segmented, by which model, and where."""

    input: str = Field(
        min_length=1, description="Images: path or URL of a folder, a prefix, tars, Parquet files or a list file."
    )
    output: str = Field(min_length=1, description="Path or URL of the prefix to write to.")
    model: str = Field(min_length=1, description="Name of a built-in model card, or path or URL of a card.")
    weights: str | None = Field(
        None, description="Path or URL of the weights (.onnx, .xml or .tflite). By default the card's own source."
    )
    engine: Literal["auto", "local", "ray"] = Field(
        "auto", description="`local` runs on this machine, `ray` on a Ray cluster."
    )
    address: str | None = Field(None, description="Ray cluster: `auto`, or host:port of its head.")
    workers: Positive | Range | None = Field(
        None, description="Number of workers, each with its own model, or MIN:MAX for a Ray pool that grows."
    )
    max_error_rate: float = Field(
        0.05, ge=0, le=1, description="Share of images that may fail, 0-1; above it the run fails with exit code 3."
    )
    price_per_hour: float | None = Field(
        None, gt=0, description="Price of all machines together per hour, for the cost per 1,000 images."
    )
    currency: Annotated[str, Field(pattern=r"^\S{1,8}$", description="a code or sign such as EUR")] | None = Field(
        None, description="Currency of `price_per_hour`, such as EUR; it is shown, nothing is converted."
    )
    storage_options: dict[str, Any] = Field(
        {},
        description="fsspec options for every URL that is not local, such as endpoint_url or anon; never written "
        "anywhere.",
        examples=[{"anon": True}],
        exclude=True,
        repr=False,
    )

    if not TYPE_CHECKING:  # type checkers and editors see the fields

        def __init__(self, **values: Any) -> None:
            """Check the values.

            Raises:
                InvalidJob: an unknown key (the nearest known one is named), a missing or wrong value.
                UsageError: a secret in a URL.
            """
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise InvalidJob(validation_errors(error, Job)) from None

    @field_validator("input", "output", "model", "weights", "labels", mode="before")
    @classmethod
    def _path_as_text(cls, value: object) -> object:
        return os.fspath(value) if isinstance(value, os.PathLike) else value

    @field_validator("input", "output", "model", "weights", "labels", "label_pattern", "address")
    @classmethod
    def _without_secrets(cls, value: str | None) -> str | None:
        """Refuse a URL with a secret before any message can repeat it; a ValueError would quote it."""
        if value:
            to_url(value)
        return value

    @field_validator("workers")
    @classmethod
    def _possible_workers(cls, value: int | str | None) -> int | str | None:
        low, _, high = str(value).partition(":")
        if high and not 1 <= int(low) <= int(high):
            raise ValueError(f"expected MIN:MAX with a MIN from 1 up and no more than MAX, not {value!r}")
        return value

    @property
    def worker_range(self) -> tuple[int, int] | None:
        """(minimum, maximum) of `workers`."""
        low, _, high = str(self.workers or "").partition(":")
        return (int(low), int(high or low)) if low else None

    @property
    def settings(self) -> Settings:
        """The fields that workers act on."""
        return Settings(**{name: getattr(self, name) for name in Settings.model_fields})


def make_job(values: Mapping[str, Any], where: str = "job") -> Job:
    """Return the job of some values; errors, which are those of `Job`, say where the values are from."""
    try:
        return Job(**values)
    except InvalidJob as error:
        raise InvalidJob(error.wrong, where) from None


def read_job_file(reference: str, store: Store | None = None) -> dict[str, Any]:
    """Read a TOML job file.

    Raises:
        UsageError: the file does not exist, is not TOML, or is a model card.
    """
    from segment.store.bounds import MOST_TOML
    from segment.store.client import Store
    from segment.store.local_files import with_hint

    data = (store or Store()).read_given(to_url(reference), most=MOST_TOML)
    if data is None:
        words = f"no job file at {shown(reference)}: `segment run --print-job` prints one"
        raise UsageError(with_hint(words, to_url(reference)))
    values = parse_toml(data, shown(reference))
    if "classes" in values and "model" not in values:
        raise UsageError(f"{shown(reference)} is no job file but a model card: give it with --model")
    return values


def job_record(job: Job, *, defaults: bool = True) -> dict[str, Any]:
    """Return the values of a job that may be recorded: without storage options, and URLs without their signatures."""
    values = job.model_dump(mode="json", exclude_defaults=not defaults)
    return {name: unsigned(value) if isinstance(value, str) else value for name, value in values.items()}


def job_to_toml(job: Job) -> str:
    """Return a job as the text of a TOML job file: the values that differ from the defaults, see `job_record`."""
    held = job_record(job, defaults=False)
    values = {name: held[name] for name in dict.fromkeys(("input", "output", "model", *held))}
    tables = {name: value for name, value in values.items() if isinstance(value, dict)}
    lines = [f"{name} = {in_toml(value)}" for name, value in values.items() if name not in tables]
    for name, entries in tables.items():
        lines += ["", f"[{name}]", *(f"{in_toml(key)} = {in_toml(value)}" for key, value in entries.items())]
    return "\n".join(lines) + "\n"
