"""The images of a run as its scores are summed: a block at a time, so that memory does not grow with their number."""

from __future__ import annotations

import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Generic, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from segment.metrics.bootstrap import CHUNK, Bootstrap
from segment.output.ledger import Ledger
from segment.output.part_rows import numbers_of, part_tables
from segment.output.plan import Plan
from segment.output.readable_rows import damaged
from segment.scores.boundaries import BoundarySums, ImageBoundaries, boundaries_of_rows
from segment.scores.image_counts import ImageCounts, count_columns, counts_of_rows
from segment.scores.scored import Protocol, Scored, ScoreSums
from segment.scores.slices import Groups, Slices
from segment.store.names import count

_SLICE_BYTES = 128 << 20  # of the sums of slices; where they have more, images are read again


class Units:
    """What resamples draw: images, by the number of their row, or groups of images.

    Args:
        bootstrap: None for no intervals.
        groups: None to draw single images.
    """

    def __init__(self, bootstrap: Bootstrap | None, groups: Groups | None = None) -> None:
        self._bootstrap, self._groups = bootstrap, groups

    @property
    def resamples(self) -> int:
        """Number of resamples; 0 for no intervals."""
        return self._bootstrap.resamples if self._bootstrap else 0

    @property
    def are_groups(self) -> bool:
        """Whether a unit may have several images."""
        return self._groups is not None

    def of(self, rows: NDArray[np.int64], counts: ImageCounts) -> tuple[NDArray[np.uint64], NDArray[np.float64] | None]:
        """Return the unit of each image, and its draws. Raises UsageError for an image that is in no group."""
        units = rows.astype(np.uint64) if self._groups is None else self._groups.units_of(counts)
        return units, self._bootstrap.draws(units) if self._bootstrap else None


@dataclass(frozen=True, eq=False)
class RunImages:
    """n images of a run.

    Attributes:
        counts: by the classes of the card.
        boundaries: None for a run without.
        units: `uint64[n]`, what resamples draw of each image.
        draws: how often, `float64[n, resamples]`; None without resamples.
    """

    counts: ImageCounts
    boundaries: ImageBoundaries | None
    units: NDArray[np.uint64]
    draws: NDArray[np.float64] | None

    @property
    def sliced(self) -> ImageCounts:
        """The counts by which the images are divided into slices."""
        return self.counts

    def take(self, images: NDArray[np.intp]) -> RunImages:
        """Return some of the images."""
        return RunImages(
            self.counts.take(images),
            None if self.boundaries is None else self.boundaries.take(images),
            self.units[images],
            None if self.draws is None else self.draws[images],
        )


def read_run_images(
    ledger: Ledger,
    plan: Plan,
    parts: Collection[str],
    classes: int,
    units: Units,
    meta: Collection[str] = (),
    fraction: float | None = None,
) -> Iterator[RunImages]:
    """Read the counts of the images of committed parts; of each masks file no mask.

    Error rows have no counts and are left out; images without a label have all their pixels in the void row.

    Args:
        parts: ids of the parts.
        classes: number of classes of the run's card.
        units: what resamples draw.
        meta: names of kept metadata to read.
        fraction: of the run's boundaries; None to read none.

    Raises:
        SegmentError: a masks file is damaged or lost.
    """
    columns = [*count_columns(meta), *(["boundary"] if fraction is not None else [])]
    first = 0
    for rows in _in_chunks(part_tables(ledger, plan, numbers_of(plan, parts), columns)):
        held = np.flatnonzero(np.asarray(pc.is_valid(rows["confusion"])))
        sound = rows.take(pa.array(held))
        counts = counts_of_rows(classes, sound, meta)
        boundaries = None if fraction is None else boundaries_of_rows(classes, fraction, sound)
        yield RunImages(counts, boundaries, *units.of(first + held, counts))
        first += len(rows)


def _in_chunks(tables: Iterable[tuple[int, pa.Table]]) -> Iterator[pa.Table]:
    """Yield the rows of parts, `CHUNK` at a time and in the end what is left: small products take longer."""
    waiting: list[pa.Table] = []
    for _, table in tables:
        waiting.append(table.replace_schema_metadata(None))
        if waiting[-1].schema != waiting[0].schema:
            raise damaged("a column")
        if sum(map(len, waiting)) >= CHUNK:
            rows = pa.concat_tables(waiting)
            whole = len(rows) - len(rows) % CHUNK
            yield from (rows.slice(start, CHUNK) for start in range(0, whole, CHUNK))
            waiting = [rows.slice(whole)]
    if waiting:
        yield pa.concat_tables(waiting)


class RunSums:
    """A set of images of a run as it is scored, a block at a time.

    Args:
        fraction: of the run's boundaries; None to score none.
    """

    def __init__(self, protocol: Protocol, units: Units, fraction: float | None) -> None:
        grouping = protocol.grouping
        self.scores = ScoreSums(protocol, units.resamples, grouped=units.are_groups)
        self._boundaries = None
        if fraction is not None:
            self._boundaries = BoundarySums(
                len(grouping.names), fraction, grouping.chosen, units.resamples, grouped=units.are_groups
            )

    def add(self, block: RunImages) -> None:
        """Add images."""
        self.scores.add(block.counts, block.units, block.draws)
        if self._boundaries is not None and block.boundaries is not None:
            self._boundaries.add(block.boundaries, block.units, block.draws)

    def result(self) -> Scored:
        """Return the scores."""
        boundary = self._boundaries.scored() if self._boundaries else None
        return replace(self.scores.scored(), boundary=boundary)


# --- slices ----------------------------------------------------------------------------------------------------------


class Block(typing.Protocol):
    """Images, and what is summed of them."""

    @property
    def sliced(self) -> ImageCounts:
        """The counts by which they are divided into slices."""
        ...

    def take(self, images: NDArray[np.intp]) -> Self:
        """Return some of the images."""
        ...


B = TypeVar("B", bound=Block)
B_contra = TypeVar("B_contra", bound=Block, contravariant=True)
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Sums(typing.Protocol[B_contra, R_co]):
    """What is summed over a set of images."""

    def add(self, block: B_contra) -> None:
        """Add images."""
        ...

    def result(self) -> R_co:
        """Return what comes of the sums."""
        ...


@dataclass(frozen=True, eq=False)
class BySlice(Generic[R_co]):
    """What comes of slices.

    Attributes:
        results: of each slice, by its value; empty without slices.
        without: number of images in no slice.
        passes: how often the images were read.
    """

    results: Mapping[str, R_co]
    without: int = 0
    passes: int = 1

    @property
    def notes(self) -> Iterator[str]:
        """What one must know of the slices, one line each."""
        if self.without:
            yield f"{count(self.without, 'image')} in no slice"
        if self.passes > 1:
            most = f"{_SLICE_BYTES >> 20} MiB"
            yield f"images were read {self.passes} times: the sums of so many slices take more than {most}"


def sum_by_slice(
    blocks: Callable[[], Iterable[B]],
    overall: Sums[B, R],
    slices: Slices | None,
    new: Callable[[], Sums[B, R]],
    at_once: int,
) -> BySlice[R]:
    """Sum all images, and those of each slice.

    Args:
        blocks: reads the images; it is called again where there are more slices than `at_once`.
        overall: to which all images are added.
        slices: None for none.
        new: makes the sums of a slice.
        at_once: number of slices whose sums are in memory at once.

    Raises:
        UsageError: there are no slices, or too many.
    """
    without = images = 0
    sums: dict[int, Sums[B, R]] = {}
    for block in blocks():
        overall.add(block)
        if slices is not None:
            numbers = slices.numbers_of(block.sliced)
            images += len(numbers)
            without += int(np.count_nonzero(numbers < 0))
            _add_slices(sums, block, numbers, range(at_once), new)
    if slices is None or not images:
        return BySlice({})
    values = slices.in_order()
    found = {number: one.result() for number, one in sums.items()}
    later = range(at_once, len(slices), at_once)
    for first in later:
        sums = {}
        for block in blocks():
            _add_slices(sums, block, slices.numbers_of(block.sliced), range(first, first + at_once), new)
        found |= {number: one.result() for number, one in sums.items()}
    return BySlice({value: found[number] for value, number in values}, without, 1 + len(later))


def _add_slices(
    sums: dict[int, Sums[B, R]], block: B, numbers: NDArray[np.intp], chosen: range, new: Callable[[], Sums[B, R]]
) -> None:
    """Add the images of a block to the sums of their slices, of those that are chosen."""
    for number in np.unique(numbers).tolist():
        if number in chosen:
            if number not in sums:
                sums[number] = new()
            sums[number].add(block.take(np.flatnonzero(numbers == number)))


def slices_at_once(resamples: int, figures: int) -> int:
    """Return the number of slices whose sums may be in memory, given how many figures of each are summed."""
    return max(1, _SLICE_BYTES // (8 * max(1, resamples) * figures))
