"""A few labelled images of an input, spread over it."""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segment.errors import SampleError, UsageError
from segment.images.bands import decode_image
from segment.images.label_images import read_label
from segment.images.labels import LabelDecoder
from segment.images.resize import resize_image
from segment.inputs.discover import discover
from segment.inputs.parts import Part, Sample
from segment.inputs.reads import read_part
from segment.job import Job
from segment.models.card import ModelCard
from segment.models.card_input import Input
from segment.models.classes import VOID, Classes, named
from segment.models.sessions.apart_process import Note, Passing
from segment.readings.numbering import UNKNOWN, Numbering, decoded, numberings
from segment.store.client import Store
from segment.store.names import by_kind

_TRIES = 4  # images that are read for each one wanted


class NoLabels(UsageError):
    """The labels of an input say nothing: there are none or too few that can be used."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """An image with its label.

    Attributes:
        label: `uint8[H, W]`, values that the sample's numberings read.
    """

    name: str
    data: bytes
    label: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class _Read:
    """An image whose label has `classes`, or `values` that are numbers, or both."""

    name: str
    data: bytes
    classes: NDArray[np.uint8] | None
    values: NDArray[np.uint8] | None
    fault: str

    @property
    def is_numbered(self) -> bool:
        """Whether the label's values are its classes, or would be with another numbering."""
        if self.values is None or self.classes is None:
            return self.values is not None
        return bool(((self.classes == self.values) | (self.classes == VOID)).all())


class LabelledImages:
    """Labelled images of an input, read as far as they are asked for: always the same, spread over the input.

    Args:
        first: number of images that say how labels are numbered.
        note: gets what is done at the moment.

    Attributes:
        of: number of images of the input that may have a label.
        numberings: what label values may mean, first what a run does.
        fixed: why the values are not read otherwise; empty if they are.
        unusable: number of images that were left out, by reason.

    Raises:
        NoLabels: there are none, or none can be used.
        StoreError: the store refused.
    """

    def __init__(self, job: Job, card: ModelCard, store: Store, first: int, note: Note = lambda line: None) -> None:
        note(Passing("listing the input"))
        found = discover(job.input, job.input_options, store)
        places = [place for part in found.parts for place in _places(part)]
        if not places:
            raise NoLabels(
                "no image of the input has a label, and without labels nothing can be said: name them (--labels)"
            )
        self.of = len(places)
        self.unusable: Counter[str] = Counter()
        self._job, self._entry, self._store, self._names = job, card.input, store, card.classes.names
        self._note = note
        self._decoder = LabelDecoder(
            card.classes, job.label_encoding, job.label_remap, allow_lossy=job.allow_lossy_labels
        )
        self._places = _spread(places)
        taken: list[_Read] = []
        for item in itertools.islice(self._readable(_TRIES * first), first):
            taken.append(item)
            self._count(len(taken), first)
        numbered = not job.label_remap and all(item.is_numbered for item in taken)
        self.fixed = "" if numbered else "--label-remap says what they are" if job.label_remap else "they are colours"
        self.numberings = _possible(card.classes, taken) if numbered else (decoded(),)
        self._images = [image for item in taken if (image := self._labelled(item))]
        if not self._images:
            raise NoLabels(f"none of the labelled images can be used, so nothing can be said:{self.reasons}")

    def __len__(self) -> int:
        return len(self._images)

    def take(self, number: int) -> Sequence[Labelled]:
        """Return the first images; fewer where there are no more that can be used."""
        readable = self._readable(_TRIES * number)
        while len(self._images) < number and (item := next(readable, None)):
            if image := self._labelled(item):
                self._images.append(image)
                self._count(len(self._images), number)
        return self._images[:number]

    def _count(self, read: int, wanted: int) -> None:
        self._note(Passing(f"reading labelled images: {read} of {wanted}"))

    @property
    def reasons(self) -> str:
        """Why images were left out, a line for each kind, and the classes of which their labels are not."""
        told = f"\nclasses of the card: {named(self._names)}"
        return by_kind(self.unusable) + told * any(reason.startswith("label_value:") for reason in self.unusable)

    def _readable(self, tries: int) -> Iterator[_Read]:
        for place in itertools.islice(self._places, tries):
            try:
                (sample,) = read_part(place, self._job.input_options, self._store)
                yield _read(sample, self._decoder, self._entry, self._job)
            except SampleError as error:
                self.unusable[str(error)] += 1

    def _labelled(self, item: _Read) -> Labelled | None:
        label = item.classes if self.fixed else item.values
        is_read = item.classes is not None or len(self.numberings) > 1
        if label is None or not is_read or not (self.fixed or item.is_numbered):
            self.unusable[item.fault or "its label is of another kind than the others"] += 1
            return None
        return Labelled(item.name, item.data, label)


def _places(part: Part) -> Iterator[Part]:
    """Yield a part for every image that may have a label; a Parquet file tells it when it is read."""
    for one in map(part.alone, range(len(part))):
        if not one.members or (one.members[0].label is not None and one.members[0].fault is None):
            yield one


def _spread(places: Sequence[Part]) -> Iterator[Part]:
    """Yield all places; the first ones, however many, are spread evenly: multiples of the golden ratio, modulo 1.

    Source: Knuth, 'The Art of Computer Programming', volume 3, section 6.4, theorem S.
    """
    ratio = (math.sqrt(5) - 1) / 2
    spread = (int((index * ratio) % 1 * len(places)) for index in range(len(places)))
    yield from (places[index] for index in dict.fromkeys([*spread, *range(len(places))]))


def _read(sample: Sample, decoder: LabelDecoder, entry: Input, job: Job) -> _Read:
    if sample.fault is not None:
        raise SampleError(sample.fault)
    if sample.label is None:
        raise SampleError("label_missing")
    picture = decode_image(sample.image, entry, job.max_pixels)
    if entry.resize.method in ("none", "short_side"):
        resize_image(picture.pixels, entry)  # which may be larger than the model takes
    size, turned = (picture.pixels.shape[0], picture.pixels.shape[1]), picture.orientation
    try:
        classes, fault = decoder.read(sample.label, *size, turned).classes, ""
    except SampleError as error:
        if error.code != "label_value" or job.label_remap:
            raise
        classes, fault = None, str(error)
    if job.label_remap:
        return _Read(sample.id, sample.image, classes, None, fault)
    as_colour = job.label_encoding == "colour"
    pixels, _ = read_label(sample.label, size, turned, as_colour=as_colour, allow_lossy=job.allow_lossy_labels)
    return _Read(sample.id, sample.image, classes, pixels.values, fault)


def _possible(classes: Classes, read: Sequence[_Read]) -> tuple[Numbering, ...]:
    """Return the plain numbering, and the others that read all values of these labels."""
    counts = np.zeros(256, np.int64)
    for item in read:
        if item.values is not None:
            counts += np.bincount(item.values.ravel(), minlength=256)
    used = np.flatnonzero(counts)
    plain, *others = numberings(classes)
    return plain, *(numbering for numbering in others if numbering.reads(used))


def classes_of_values(counts: NDArray[np.int64], numbering: Numbering, classes: int) -> NDArray[np.int64]:
    """Return counts by class from counts by label value: `int64[N, C, C + 1]` from `int64[N, 256, C + 1]`.

    An image with a value that has no meaning counts nowhere, as its label would be an error.
    """
    table = numbering.lookup
    found = np.stack([counts[:, table == index].sum(axis=1) for index in range(classes)], axis=1)
    found[counts[:, table == UNKNOWN].any(axis=(1, 2))] = 0
    return found
