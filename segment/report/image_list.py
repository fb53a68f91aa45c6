"""The table of all images on the HTML report; of a large run, of the worst ones."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segment.output.ledger import Ledger
from segment.output.part_rows import part_tables
from segment.report.rows import ImageScores
from segment.store.names import count, shown

_MOST = 10_000  # images
_MOST_ERRORS = 1_000  # error rows, where not all images fit
_ROOM = 3_000_000  # bytes of the texts; a page stays below 15 MB
_LONGEST = 200  # characters of a text
_CELLS, _SHARD = 8, 1
_COLUMNS = ["id", "width", "height", "pixel_accuracy", "error"]

Cell = str | float | int | None


@dataclass(frozen=True)
class ImageList:
    """Rows of a table of images.

    Attributes:
        rows: of each image its id, shard, mIoU, pixel accuracy and confidence in per cent, width and height in pixels,
            and error; `""` or None where it has none.
        note: which images these are, in words.
    """

    rows: tuple[tuple[Cell, ...], ...]
    note: str

    @property
    def columns(self) -> tuple[int, ...]:
        """The columns that say something: of shards, if there are several."""
        kinds = [{row[column] for row in self.rows} - {"", None} for column in range(_CELLS)]
        return tuple(column for column, values in enumerate(kinds) if len(values) > (column == _SHARD))


def list_images(ledger: Ledger, scores: ImageScores) -> ImageList:
    """Read the images of a run that are listed: all of up to 10,000, else the worst and some of the error rows.

    The order is by mIoU, lowest first, then by confidence, then that of the input; error rows come last. Memory holds
    what is listed, and the rows of the parts that are being read.

    Raises SegmentError: a masks file is damaged or lost.
    """
    order = _order(scores)
    rows = dict(_read(ledger, scores, order))
    listed: list[tuple[Cell, ...]] = []
    room = _ROOM
    for place in range(len(order)):
        room -= sum(len(cell.encode()) for cell in rows[place] if isinstance(cell, str)) + 60
        if room < 0:
            break
        listed.append(rows[place])
    return ImageList(tuple(listed), _note(scores, len(listed)))


def _order(scores: ImageScores) -> NDArray[np.intp]:
    """Return the indices of the images that are listed."""
    sound = np.flatnonzero(scores.sound)
    sound = sound[np.lexsort((scores.confidence[sound], scores.miou[sound]))]  # stable; NaN last
    errors = np.flatnonzero(~scores.sound)
    if len(sound) + len(errors) > _MOST:
        errors = errors[: max(_MOST_ERRORS, _MOST - len(sound))]
    return np.concatenate([sound[: _MOST - len(errors)], errors])


def _read(ledger: Ledger, scores: ImageScores, order: NDArray[np.intp]) -> Iterator[tuple[int, tuple[Cell, ...]]]:
    """Yield place and cells of the images, part by part."""
    by_part = np.argsort(scores.part[order], kind="stable")
    numbers, first = np.unique(scores.part[order[by_part]], return_index=True)
    shards = scores.plan.table["shard"]
    groups = np.split(by_part, first)[1:]
    for places, (number, table) in zip(
        groups, part_tables(ledger, scores.plan, numbers.tolist(), _COLUMNS), strict=True
    ):
        stored = table.take(scores.position[order[places]]).to_pylist()
        for place, row in zip(places.tolist(), stored, strict=True):
            index = order[place]
            yield (
                place,
                (
                    _text(row["id"]),
                    _text(shards[number].as_py()),
                    _percent(scores.miou[index]),
                    _percent(row["pixel_accuracy"]),
                    _percent(scores.confidence[index]),
                    row["width"],
                    row["height"],
                    _text(row["error"] or ""),
                ),
            )


def _text(text: str) -> str:
    text = shown(text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}…{text[-_LONGEST // 2 :]}"


def _percent(share: float | None) -> float | None:
    return None if share is None or np.isnan(share) else round(100 * float(share), 2)


def _note(scores: ImageScores, listed: int) -> str:
    here = f"From {count(len(scores), 'image')} of {scores.planned:,}, evenly spread over the input. "
    here = here if len(scores) < scores.planned else ""
    errors = int(np.count_nonzero(~scores.sound))
    if listed == len(scores):
        return f"{here}All {count(listed, 'image')}." if listed != 1 else f"{here}The only image."
    which = "with the lowest mIoU" if len(scores.scored) else "that come first"
    return (
        f"{here}{listed:,} of {count(len(scores), 'image')}: those {which}"
        f"{f', and error rows, of which there are {errors:,}' if errors else ''}. "
        f"The column `miou` of masks/ holds them all."
    )
