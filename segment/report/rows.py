"""The rows of committed images: their scores in bounded memory, and the selection of images by score or id."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from segment.inputs.parts import Part
from segment.output.ledger import Ledger
from segment.output.part_rows import numbers_of, part_tables, read_part_rows
from segment.output.plan import Plan

_COLUMNS = ["status", "error", "miou", "mean_confidence"]  # the last one only where a run has it


@dataclass(frozen=True)
class Row:
    """The row of a committed image.

    Attributes:
        part: its part of the plan, narrowed to this image, so that reading it reads nothing else.
        committed_in: id of the part of the plan.
        images: of that part.
        position: row in its masks file.
    """

    part: Part
    committed_in: str
    images: int
    position: int


@dataclass(frozen=True, eq=False)
class ImageScores:
    """The scores of n images, 25 bytes each.

    Attributes:
        part: `int32[n]`, number of the part in the plan.
        position: `int32[n]`, row within the part.
        sound: `bool[n]`, False for error rows.
        miou: `float64[n]`, 0-1; NaN if unscored.
        planned: images of all given parts, including those that were not read.
        confidence: `float64[n]`, 0-1; NaN for error rows without a mask, and in a run without it.
    """

    plan: Plan
    part: NDArray[np.int32]
    position: NDArray[np.int32]
    sound: NDArray[np.bool_]
    miou: NDArray[np.float64]
    errors: Counter[str]
    planned: int
    confidence: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.part)

    @property
    def scored(self) -> NDArray[np.float64]:
        """The mIoU of the scored images, `float64[m]`, ascending."""
        return np.sort(self.miou[~np.isnan(self.miou)])

    def ranking(self) -> NDArray[np.intp]:
        """Return the indices of the images without errors, worst first; unscored ones last, in input order."""
        order = np.argsort(self.miou, kind="stable")  # NaN last
        return order[self.sound[order]]

    def sample(self, number: int) -> list[Row]:
        """Return images without errors, evenly spread over the input."""
        return self.rows(_spread(np.flatnonzero(self.sound), number))

    def worst(self, number: int) -> list[Row]:
        """Return the images with the lowest mIoU, worst first."""
        return self.rows(self.ranking()[:number])

    def least_certain(self, number: int) -> list[Row]:
        """Return the images with the lowest confidence, lowest first; none in a run without it."""
        order = np.argsort(self.confidence, kind="stable")  # NaN last
        return self.rows(order[~np.isnan(self.confidence[order])][:number])

    def spread(self, number: int) -> list[Row]:
        """Return images from the best to the worst, evenly spread by rank."""
        return self.rows(_spread(self.ranking()[::-1], number))

    def rows(self, numbers: Sequence[int] | NDArray[np.intp]) -> list[Row]:
        """Return the rows of these indices."""
        return [row_at(self.plan, int(self.part[n]), int(self.position[n])) for n in numbers]


def _spread(numbers: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    picks = np.linspace(0, len(numbers) - 1, min(most, len(numbers))).round().astype(int)
    return np.asarray(numbers[np.unique(picks)])


def row_at(plan: Plan, number: int, position: int) -> Row:
    """Return the row at a position of a part, given by its number in the plan."""
    (part,) = plan.between(number, number + 1)
    return _row_in(part, position)


def _row_in(part: Part, position: int) -> Row:
    return Row(part.alone(position), part.id, len(part), position)


def read_scores(ledger: Ledger, plan: Plan, parts: Collection[str], most_parts: int | None = None) -> ImageScores:
    """Read the scores of the images of committed parts; masks are not fetched.

    Args:
        most_parts: read at most this many parts, evenly spread over the input.

    Raises:
        SegmentError: a masks file is damaged or lost.
    """
    every = numbers_of(plan, parts)
    sizes = np.asarray(pc.subtract(plan.table["stop"], plan.table["start"]))
    planned = int(sizes[every].sum()) if every else 0
    numbers = np.array(numbers_of(plan, parts, most_parts), np.int32)
    errors: Counter[str] = Counter()
    sound: list[NDArray[np.bool_]] = []
    miou: list[NDArray[np.float64]] = []
    confidence: list[NDArray[np.float64]] = []
    for _, table in part_tables(ledger, plan, numbers.tolist(), _COLUMNS):
        errors.update(text.partition(":")[0] for text in table["error"].to_pylist() if text is not None)
        sound.append(np.asarray(pc.equal(table["status"], "ok")))
        miou.append(table["miou"].to_numpy())
        has_it = "mean_confidence" in table.column_names
        confidence.append(table["mean_confidence"].to_numpy() if has_it else np.full(len(table), np.nan))
    lengths = [len(some) for some in sound]
    return ImageScores(
        plan,
        part=np.repeat(numbers, lengths),
        position=np.concatenate([np.arange(n, dtype=np.int32) for n in lengths] or [np.empty(0, np.int32)]),
        sound=np.concatenate(sound or [np.empty(0, np.bool_)]),
        miou=np.concatenate(miou or [np.empty(0)]),
        errors=errors,
        planned=planned,
        confidence=np.concatenate(confidence or [np.empty(0)]),
    )


def id_of(ledger: Ledger, row: Row) -> str:
    """Return the id of an image: from the plan, or, for Parquet input, from the rows of its part."""
    if row.part.members:
        return row.part.members[0].id
    return str(row_of(ledger, row, ["id"])["id"])


def row_of(ledger: Ledger, row: Row, columns: Sequence[str]) -> dict[str, Any]:
    """Read the given columns of the row of an image. Raises SegmentError: the masks file is damaged or lost."""
    table = read_part_rows(ledger, row.part.shard, row.committed_in, row.images, columns)
    return dict(table.slice(row.position, 1).to_pylist()[0])


def find_rows(ledger: Ledger, plan: Plan, ids: Iterable[str]) -> dict[str, list[Row]]:
    """Find the committed images with these ids; an id may be in several shards, or in none.

    Only the id column is fetched.
    """
    found: dict[str, list[Row]] = {name: [] for name in ids}
    wanted = pa.array(list(found), pa.string())
    for number, table in part_tables(ledger, plan, numbers_of(plan, ledger.committed(plan)), ["id"]):
        positions = np.flatnonzero(np.asarray(pc.is_in(table["id"], wanted))).tolist()
        for part in plan.between(number, number + 1) if positions else ():
            for position in positions:
                found[table["id"][position].as_py()].append(_row_in(part, position))
    return found
