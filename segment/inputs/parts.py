"""What every input format shares: the options, spans, members, parts and samples."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from segment.inputs.findings import LeftOut, by_reason

InputFormat = Literal["auto", "files", "webdataset", "parquet", "list"]
ShardFormat = Literal["files", "webdataset", "parquet"]

_FIELD = re.compile(r"(stem|dir|name)(?:([%#])(.+))?", re.DOTALL)  # of a label pattern

# `Span.size` where there is no size to tell. All but the first stand for a fault that is known at plan time.
UNKNOWN = -1  # the store does not say
MISSING = -2  # listed, but there is no such object
REPEATED = -3  # an earlier image of the shard has the same id
UNREACHABLE = -4  # listed, but the store refuses it
BAD_REFERENCE = -5  # what is listed can be no object

_ABSENT = {MISSING: "missing", UNREACHABLE: "unreachable", BAD_REFERENCE: "bad_reference"}

# Names of no Parquet column.
ROW_NUMBERS = ":row"  # as id column: ids are row numbers
NO_LABELS = ":none"  # as label column: there are no labels

# Faults with which the image itself is still read and segmented.
SEGMENTED = (None, *(f"label_{fault}" for fault in _ABSENT.values()))

_MIB = 1 << 20


class InputOptions(BaseModel):
    """How an input is to be read.

    Attributes:
        format: what the input is; `auto` goes by the names.
        include_hidden: take files whose name, or a folder of it, begins with `.` or `_`, too.
        labels: files: path or URL of the folder of label images, matched by relative path without suffix.
        label_pattern: files: path of an image's label relative to `labels` (or else to the input), with
            `{stem}`, `{dir}` (folder relative to the input) and `{name}` of the image; `{stem%END}` is the stem
            without an end, `{stem#START}` without a start, as a shell has it.
        image_key: WebDataset: suffix of the image member, as in `left.jpg`; keys end before it. None takes the only
            image of a sample, or the one with the plainest suffix.
        label_key: WebDataset: suffix of the label member, as in `seg.png`; None tries `seg.png`, `mask.png`
            and `label.png`.
        image_column, label_column, id_column: Parquet and lists: names of columns, of Parquet also of fields in them
            (`sample.image`); in a list without a header `1`, `2` and so on. None looks for the usual ones. Of Parquet,
            `id_column` `:row` takes row numbers, and `label_column` `:none` no labels.
        limit: take the first so many images only, in the input's order.
        sample: take so many images only, from all over the input, always the same (`segment.inputs.choosing`).
        part_size: images in a part; `auto` follows from the number of images.
        part_bytes: cap on the encoded bytes (images and labels) of a part with more than one image.
        max_image_bytes: a larger encoded image is an error row, unread where its size is known.
        max_row_group_bytes: Parquet: a larger row group (columns that are read) is refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: InputFormat = "auto"
    include_hidden: bool = False
    labels: str | None = None
    label_pattern: str | None = None
    image_key: str | None = None
    label_key: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    id_column: str | None = None
    limit: int | None = Field(default=None, ge=1)
    sample: int | None = Field(default=None, ge=1)
    part_size: int | Literal["auto"] = "auto"
    part_bytes: int = Field(default=256 * _MIB, ge=1)
    max_image_bytes: int = Field(default=256 * _MIB, ge=1)
    max_row_group_bytes: int = Field(default=1024 * _MIB, ge=1)

    @staticmethod
    def of_run(run: Mapping[str, Any]) -> InputOptions:
        """Return the options that `run.json` records."""
        given = run["contract"]["input"]
        return InputOptions(**{name: value for name, value in given.items() if name in InputOptions.model_fields})

    @field_validator("part_size")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("part_size is 'auto' or at least 1")
        return value

    @model_validator(mode="after")
    def _one_choice(self) -> InputOptions:
        if self.limit is not None and self.sample is not None:
            raise ValueError("limit and sample are two choices of images: give one of them")
        return self

    @field_validator("label_pattern")
    @classmethod
    def _known_fields(cls, value: str | None) -> str | None:
        if value is None:
            return None
        fields = [(name, spec, how) for _, name, spec, how in string.Formatter().parse(value) if name is not None]
        if not fields or any(not _FIELD.fullmatch(name) or spec or how for name, spec, how in fields):
            raise ValueError(
                "label_pattern takes {stem}, {dir} and {name}, as in '{dir}/{stem}_L.png'; {stem%END} and {stem#START} "
                "are the stem without an end or start, as in '{dir}/{stem%_leftImg8bit}_gtFine_labelIds.png'"
            )
        return value

    @field_validator("image_key", "label_key")
    @classmethod
    def _plain_key(cls, value: str | None) -> str | None:
        return value if value is None else value.removeprefix(".").lower()


@dataclass(frozen=True, slots=True)
class Span:
    """Where one image (or its label) lies.

    Attributes:
        url: the object that holds it; empty for `webdataset`, where it is the shard's own.
        start: first byte in a tar, else 0.
        size: bytes; or `UNKNOWN`, `MISSING` and so on, which are negative.
        etag: of the object, for loose files; empty where the store has none, so that only the size is compared.
        signed: whether its URL was signed in the list, which has to be asked for the signature at each start.
    """

    url: str
    start: int
    size: int
    etag: str = ""
    signed: bool = False

    @property
    def is_absent(self) -> bool:
        """Whether planning found nothing to read there."""
        return self.size in _ABSENT


@dataclass(frozen=True, slots=True)
class Member:
    """One planned image of a `files` or `webdataset` shard.

    Attributes:
        id: path below the input for files, key for tars. Unique within the shard but for `REPEATED` ones.
        image: where its bytes are.
        label: where its label's bytes are; None if it has none.
    """

    id: str
    image: Span
    label: Span | None

    @property
    def fault(self) -> str | None:
        """The `SampleError` code of what was wrong at plan time already; what is missing is not read then."""
        if self.image.size == REPEATED:
            return "duplicate_id"
        if self.image.is_absent:
            return _ABSENT[self.image.size]
        return f"label_{_ABSENT[self.label.size]}" if self.label and self.label.is_absent else None


@dataclass(frozen=True, slots=True)
class Part:
    """Up to `part_size` consecutive images of one shard: the unit of work, memory, retry and commit.

    Attributes:
        id: `<hash of the shard's URL and etag>-<start>-<stop>`, unique in the run, nothing random.
        shard: id of the shard, `<readable name>-<hash>`.
        format: how to read it.
        url: absolute URL of the shard: the tar, the Parquet file, or the prefix or list of loose files.
        size: bytes of that object; for files the sum over the shard's images.
        etag: of that object; for files a digest over the URLs, sizes and etags of the shard's images and
            labels.
        start, stop: range of image positions within the shard, stop exclusive.
        row_group: for Parquet the row group that holds the range (a part never crosses one), else -1.
        members: one per image for `files` and `webdataset`; empty for Parquet.
    """

    id: str
    shard: str
    format: ShardFormat
    url: str
    size: int
    etag: str
    start: int
    stop: int
    row_group: int
    members: Sequence[Member]

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Sample:
    """One image as read: bytes in, nothing decoded.

    Attributes:
        id: as in `Member.id`; for Parquet the id column, the image's path, or the row number, which stands before the
            others where they come twice in the file and nobody named the column.
        url: where the image is, for people (`image_uri`).
        index: position in the shard.
        image: encoded bytes; empty when it cannot be used.
        label: encoded bytes; None if the image has no label.
        fault: a `SampleError` code if the image (`missing`, `duplicate_id`, `too_many_bytes` ...) or its label
            (`label_missing`) cannot be used, else None.
        remarks: codes of `segment.output.remarks.REMARKS`: what reading noticed.
    """

    id: str
    url: str
    index: int
    image: bytes
    label: bytes | None
    fault: str | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Discovery:
    """What an input holds.

    Attributes:
        parts: all parts, shard by shard, in order.
        images: number of images.
        labelled: how many of them have a label; None where only reading them tells (Parquet).
        warnings: one line each, counted: what looks odd.
        notes: one line each: what was decided.
        left_out: what the input holds besides, by reason and place.
    """

    parts: list[Part]
    images: int
    labelled: int | None
    warnings: list[str]
    notes: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        """Everything there is to tell, a line each, the notes first; warnings are marked as such."""
        left_out = by_reason(self.left_out)
        notes = [*self.notes, *(str(item) for item in left_out if not item.matters)]
        warnings = [*self.warnings, *(str(item) for item in left_out if item.matters)]
        return [*notes, *(f"warning: {warning}" for warning in warnings)]


def expand_pattern(pattern: str, values: Mapping[str, str]) -> str:
    """Fill in a label pattern.

    >>> expand_pattern("{dir}/{stem%_leftImg8bit}_gtFine.png", {"dir": "aachen", "stem": "a_1_leftImg8bit", "name": ""})
    'aachen/a_1_gtFine.png'
    """
    text = ""
    for literal, name, _, _ in string.Formatter().parse(pattern):
        text += literal
        if name is not None and (found := _FIELD.fullmatch(name)):
            field_name, operator, rest = found.groups()
            value = values[field_name]
            text += value.removesuffix(rest) if operator == "%" else value.removeprefix(rest) if operator else value
    return text


def image_uri(part: Part, id: str, image: Span | None = None) -> str:  # noqa: A002
    """Return where an image is, for people, as its row says it: what readers write and the audit expects.

    Args:
        part: that holds it.
        id: the image's.
        image: for `files` the image's own span; the images of a tar or Parquet file are named below that.
    """
    if part.format == "files" and image is not None:
        return image.url
    return f"{part.url}#{id}"


def planned_fault(member: Member, max_bytes: int) -> str | None:
    """Return why a member is not even read, as a `SampleError` code: a fault of the plan, or its size."""
    largest = max(member.image.size, member.label.size if member.label else 0)
    return member.fault or ("too_many_bytes" if largest > max_bytes else None)


def settle(
    known: str | None, image: bytes, label: bytes | None, max_bytes: int
) -> tuple[bytes, bytes | None, str | None]:
    """Return image, label and fault of a sample as read, without bytes where the image cannot be used.

    Args:
        known: the fault found before reading, a `SampleError` code.
        image, label: bytes as read.
        max_bytes: more are a fault.
    """
    fault = known
    if known in SEGMENTED:
        if not image:
            fault = "empty"
        elif max(len(image), len(label or b"")) > max_bytes:
            fault = "too_many_bytes"
    return (image, label, fault) if fault in SEGMENTED else (b"", None, fault)
