"""The data model that all input formats share: spans, members, parts and samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from segment.errors import OverLimit, TooManyBytes
from segment.inputs.metadata import Values, json_values
from segment.store.bounds import MOST_JSON
from segment.store.client import Entry

ShardFormat = Literal["files", "webdataset", "webdataset-index", "parquet"]
TARS: tuple[ShardFormat, ...] = ("webdataset", "webdataset-index")  # indexed by their headers; by a file beside them

# Where keys of tar members end. `first`: at the first dot. `image`: before the suffix that an option names. `number`:
# after the last part of an image's name that holds a digit. `last`: before the last suffix of an image's name.
KeyRule = Literal["first", "number", "last", "image"]

# Values of `Span.size` that are no size. All but `UNKNOWN` are faults found at plan time.
UNKNOWN = -1  # the store reports no size
MISSING = -2  # listed, but no such object exists
REPEATED = -3  # an earlier image of the shard has the same id
UNREACHABLE = -4  # listed, but the store refuses access
BAD_REFERENCE = -5  # the listed reference cannot name an object
NOT_ALLOWED = -6  # listed, but outside of what the run may read
NOT_A_FILE = -7  # listed, but no regular file

ABSENT = {MISSING: "missing", UNREACHABLE: "unreachable", BAD_REFERENCE: "bad_reference", NOT_ALLOWED: "not_allowed",
          NOT_A_FILE: "not_a_file"}  # fmt: skip
# Faults of a sample whose image is still segmented: none, or one of the label.
SEGMENTED = (None, *(f"label_{fault}" for fault in (*ABSENT.values(), "too_slow")))


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes of one image or label: an object, or a byte range in a tar.

    Attributes:
        url: the object that holds it; empty for `webdataset`, where it is the shard's URL.
        start: first byte in a tar, else 0.
        size: bytes; or a negative constant: `UNKNOWN`, `MISSING` and so on.
        etag: of the object, for loose files; empty where the store has none, so that only the size is compared.
        signed: whether the list gave a signed URL. The signature is not stored: the list is read again at each start.
    """

    url: str
    start: int
    size: int
    etag: str = ""
    signed: bool = False

    @staticmethod
    def of(entry: Entry, *, signed: bool = False) -> Span:
        """Return the span of a whole object."""
        return Span(entry.url, 0, entry.size, entry.etag, signed)

    @property
    def is_absent(self) -> bool:
        """Whether planning found that there is nothing to read."""
        return self.size in ABSENT


@dataclass(frozen=True, slots=True)
class Member:
    """One planned image of a `files` or `webdataset` shard.

    Attributes:
        id: path below the input for files, key for tars. Unique within the shard except for `REPEATED` images.
        label: the bytes of its label; None without a label.
        meta: values of the columns of a list to keep, in the order of `Job.keep`; empty in a tar.
        meta_span: the .json member of a tar with the values to keep, if there is one.
    """

    id: str
    image: Span
    label: Span | None
    meta: Values = ()
    meta_span: Span | None = None

    @property
    def fault(self) -> str | None:
        """The `SampleError` code of a fault found at plan time; None without one."""
        if self.image.size == REPEATED:
            return "duplicate_id"
        if self.image.is_absent:
            return ABSENT[self.image.size]
        return f"label_{ABSENT[self.label.size]}" if self.label and self.label.is_absent else None


@dataclass(frozen=True, slots=True)
class Part:
    """Up to `part_size` consecutive images of one shard: the unit of work, memory, retry and commit.

    Attributes:
        id: `<hash of the shard's URL and etag>-<start>-<stop>`, unique in the run and not random.
        shard: id of the shard, `<readable name>-<hash>`.
        url: absolute URL of the shard: the tar, the Parquet file, or the prefix or list of loose files.
        size: bytes of that object; for files the sum over the shard's images.
        etag: of that object; for files a digest over the URLs, sizes and etags of the shard's images and
            labels.
        start, stop: range of image positions within the shard, stop exclusive.
        row_group: for Parquet the row group that holds the range (a part never spans two), else -1.
        members: one per image for files and tars; empty for Parquet.
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

    def alone(self, index: int) -> Part:
        """Return the part of one of the images: reading it reads nothing else."""
        start = self.start + index
        return replace(self, start=start, stop=start + 1, members=self.members[index : index + 1])


@dataclass(frozen=True, slots=True)
class Sample:
    """One image as read, not decoded.

    Attributes:
        id: as in `Member.id`. For Parquet the value of the id column, the image's path, or the row number. Where the
            id column was detected and its values repeat within the file, the row number precedes each id.
        url: URL of the image for display (`image_uri`).
        image: encoded bytes; empty if the image cannot be used.
        label: encoded bytes; None if the image has no label.
        fault: a `SampleError` code if the image (`missing`, `duplicate_id`, `too_many_bytes` ...) or its label
            (`label_missing`) cannot be used, else None.
        remarks: codes of `segment.output.remarks.REMARKS` that reading found.
        meta: values to keep, in the order of `Job.keep`; empty if there are none or they were not read.
        large_image, large_label: where the bytes are if they are not read but opened by whoever needs them; None if
            `image` and `label` hold them.
    """

    id: str
    url: str
    index: int
    image: bytes
    label: bytes | None
    fault: str | None = None
    remarks: tuple[str, ...] = ()
    large_image: Span | None = None
    large_label: Span | None = None
    meta: Values = ()


def image_uri(part: Part, id: str, image: Span | None = None) -> str:  # noqa: A002
    """Return the URL of an image for display, as readers write it in its row and the audit expects it.

    Args:
        image: for `files` the image's span. An image of a tar or Parquet file is named by its id after `#`.
    """
    if part.format == "files" and image is not None:
        return image.url
    return f"{part.url}#{id}"


def fault_of(error: OverLimit) -> str:
    """Return the `SampleError` code of an image whose read was given up."""
    return "too_many_bytes" if isinstance(error, TooManyBytes) else "too_slow"


def label_fault(fault: str) -> str:
    """Return the code of a sample whose label has the fault that this is of an image."""
    return fault if fault == "too_many_bytes" else f"label_{fault}"


def _found_fault(member: Member, given_up: Mapping[Span, str]) -> str | None:
    """Return the `SampleError` code of a member that has none at plan time, by what reading found."""
    if found := given_up.get(member.image):
        return found
    found = given_up.get(member.label) if member.label else None
    return label_fault(found) if found else None


def _planned_fault(member: Member, max_bytes: int, large: Mapping[Span, Span]) -> str | None:
    """Return the `SampleError` code of a member that is not read: its fault at plan time, or its size; else None."""
    sizes = (span.size for span in (member.image, member.label) if span and span not in large)
    return member.fault or ("too_many_bytes" if max(sizes, default=0) > max_bytes else None)


def spans_to_read(part: Part, max_bytes: int, large: Mapping[Span, Span] | None = None) -> list[Span]:
    """Return the spans of images, labels and kept metadata of a part, without members that have a fault at plan time.

    Args:
        max_bytes: limit for each of them.
        large: spans that are not read, and have no limit, with where they are.
    """
    large = large or {}
    usable = [member for member in part.members if _planned_fault(member, max_bytes, large) in SEGMENTED]
    spans = (span for member in usable for span in (member.image, member.label) if span and not span.is_absent)
    metadata = [span for member in usable if (span := member.meta_span) and span.size <= MOST_JSON]
    return [span for span in spans if span not in large] + metadata


def samples_of_members(
    part: Part,
    read: Mapping[Span, bytes],
    max_bytes: int,
    large: Mapping[Span, Span] | None = None,
    keep: Sequence[str] = (),
    given_up: Mapping[Span, str] = MappingProxyType({}),
) -> list[Sample]:
    """Return the samples of a part's members.

    Args:
        part, max_bytes, large: as of `spans_to_read`.
        read: bytes of its spans.
        keep: the columns to keep.
        given_up: codes of those whose read was given up; see `fault_of`.
    """
    samples, large = [], large or {}
    for index, member in enumerate(part.members, part.start):
        fault = _planned_fault(member, max_bytes, large) or _found_fault(member, given_up)
        image, label = large.get(member.image), large.get(member.label) if member.label else None
        checked = check_sample(
            fault, read.get(member.image, b""), read.get(member.label) if member.label else None, max_bytes, image
        )
        usable = checked[2] in SEGMENTED
        sample = Sample(member.id, image_uri(part, member.id, member.image), index, *checked, meta=member.meta)
        if usable and keep and part.format in TARS:
            values, remarks = json_values(keep, read.get(member.meta_span, b"") if member.meta_span else None)
            sample = replace(sample, meta=values, remarks=remarks)
        samples.append(replace(sample, large_image=image, large_label=label) if usable else sample)
    return samples


def check_sample(
    known: str | None, image: bytes, label: bytes | None, max_bytes: int, large_image: Span | None = None
) -> tuple[bytes, bytes | None, str | None]:
    """Return image, label and fault of a sample after reading; without bytes if the image cannot be used.

    Args:
        known: `SampleError` code of a fault found before reading, or None.
        max_bytes: limit for each of them.
        large_image: where the image is, if it is not read.
    """
    fault = known
    if known in SEGMENTED:
        if not image and not large_image:
            fault = "empty"
        elif max(len(image), len(label or b"")) > max_bytes:
            fault = "too_many_bytes"
    return (image, label, fault) if fault in SEGMENTED else (b"", None, fault)
