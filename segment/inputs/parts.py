"""What every input format shares: spans, members, parts and samples."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from segment.inputs.findings import LeftOut, by_reason
from segment.job import LABEL_FIELD

ShardFormat = Literal["files", "webdataset", "parquet"]

# `Span.size` where there is no size to tell. All but the first stand for a fault that is known at plan time.
UNKNOWN = -1  # the store does not say
MISSING = -2  # listed, but there is no such object
REPEATED = -3  # an earlier image of the shard has the same id
UNREACHABLE = -4  # listed, but the store refuses it
BAD_REFERENCE = -5  # what is listed can be no object

_ABSENT = {MISSING: "missing", UNREACHABLE: "unreachable", BAD_REFERENCE: "bad_reference"}

# Faults with which the image itself is still read and segmented.
SEGMENTED = (None, *(f"label_{fault}" for fault in _ABSENT.values()))


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
        if name is not None and (found := LABEL_FIELD.fullmatch(name)):
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
