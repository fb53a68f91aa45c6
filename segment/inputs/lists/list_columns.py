"""Find the image, label and id columns of a list: by option, else by their names if their cells agree."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Literal, TypeVar

import pyarrow as pa

from segment.errors import UsageError, did_you_mean
from segment.inputs.findings import Findings
from segment.inputs.lists.list_rows import Row, Rows, with_header
from segment.inputs.roles import Role, role_of, word_of
from segment.job import InputOptions
from segment.store.names import count, examples, is_image, is_label, listed, shown
from segment.store.sorted_rows import SortedRows
from segment.store.urls import is_url, unsigned_name

T = TypeVar("T")
Exists = Callable[[Sequence[str]], bool]  # whether any of some references exists

_POSITIONS: tuple[Role, ...] = ("image", "label", "id")
_SHAPES = re.compile(r"\s*[\[{]|\d+ \d+ |[\d.]+,[\d.]+,")  # the start of polygons and run lengths
_SAMPLE = 8  # cells of a column that are sampled,
_SAMPLE_ROWS = 64  # from this many rows unless all of these are empty
_FEW = 3  # cells that are looked up in a column whose name indicates no role
_IDS = pa.schema([("id", pa.binary())])
_MOST_UNREAD = 50  # unread columns that are searched for paths


@dataclass(frozen=True, slots=True)
class ListColumns:
    """The columns to read; label and id may be None; those of `kept` are kept."""

    image: str
    label: str | None
    id: str | None
    kept: tuple[str, ...] = ()

    def __str__(self) -> str:
        chosen = {"image": self.image, "label": self.label, "id": self.id or "the image's path"}
        chosen["kept"] = " and ".join(self.kept)
        return ", ".join(f"{what}: {shown(column)}" for what, column in chosen.items() if column)


def find_header(rows: Rows, options: InputOptions, exists: Exists, findings: Findings, name: str) -> Rows:
    """Return the rows of a text or CSV list without its header, if the first row is one.

    The first row is a header if an option names one of its cells. It is also one if a cell is a usual name of an image
    column and no cell is a path or an existing file: the first image may have such a name.

    Raises UsageError: the first row looks like a header, and no option or usual name tells its image column.
    """
    if not rows.positional:
        return rows
    first, *others = rows.head(1 + _SAMPLE)
    cells = list(first.cells.values())
    titles = [cell.strip() for cell in cells]
    named = {options.image_column, options.label_column, options.id_column, *options.keep}
    asked = named - {*rows.names}  # the names are positions
    is_like_one = any(role_of(title) == "image" and not is_image(title) for title in titles)
    if asked & {*titles} or (is_like_one and not any("/" in title for title in titles) and not exists(titles)):
        findings.notes.append(f"the first line is taken as the header: {listed(titles)}")
        return with_header(rows, name)
    later = [cell for row in others for cell in row.cells.values()]
    if any(map(is_label, cells)) or not later or exists(cells) or not exists(later):
        return rows
    raise UsageError(
        f"{name}: its first line is no image and looks like a header, {listed(titles)}, without a usual name of an "
        "image column: name the column with --image-column, and those of label and id with --label-column and "
        "--id-column. If it is no header, what it names does not exist: leave it out"
    )


def find_list_columns(rows: Rows, options: InputOptions, exists: Exists, findings: Findings, name: str) -> ListColumns:
    """Find the columns by the options, or else by their names (or positions, without a header) and their cells.

    Raises UsageError: a named column does not exist; or no column, or several, may hold the images or labels.
    """
    table = _Table(rows, exists, name)
    image = table.named(options.image_column, "image") or table.guessed_image(options)
    taken = {image, options.label_column, options.id_column}
    label = table.named(options.label_column, "label") or table.guessed_label(taken, findings)
    found = table.named(options.id_column, "id") or table.guessed_id({*taken, label}, findings)
    columns = ListColumns(image, label, found, tuple(str(table.named(name, "kept")) for name in options.keep))
    if len(rows.names) > 1 and not rows.positional:
        findings.notes.append(f"columns read, {columns}")
    _report_unread(table, columns, findings)
    return columns


class _Table:
    """The rows of a list by column, with cached samples."""

    def __init__(self, rows: Rows, exists: Exists, name: str) -> None:
        self.rows, self.name = rows, name
        self._exists = exists
        self._weights: dict[str, int] = {}
        self._samples: dict[str, list[str]] = {}

    def cells(self, column: str) -> Iterator[str]:
        """Yield the cells of a column that are not empty."""
        return (row.cells[column] for row in self.rows.each if column in row.cells)

    @cached_property
    def _some(self) -> list[Row]:
        return _spread(self.rows.each, self.rows.number, _SAMPLE_ROWS)

    def sample(self, column: str) -> list[str]:
        """Return some cells, spread over the list."""
        if column not in self._samples:
            cells = [row.cells[column] for row in self._some if column in row.cells]
            number = len(cells) or sum(1 for _ in self.cells(column))
            self._samples[column] = _spread(cells or self.cells(column), number, _SAMPLE)
        return self._samples[column]

    def weight(self, column: str) -> int:
        """Return how certain it is that a column holds paths: 2 if some exist, 1 if all look like paths, else 0.

        In a column whose name indicates no role only a few relative or absolute paths are looked up, and no URL.
        """
        if column not in self._weights:
            sample = self.sample(column)
            is_known = self.rows.positional or role_of(column) in ("image", "label")
            likely = [cell for cell in sample if not is_url(cell) and ("/" in cell or "." in cell)][:_FEW]
            exist = self._exists(sample if is_known else likely)
            self._weights[column] = 2 if exist else int(bool(sample) and all(map(is_label, sample)))
        return self._weights[column]

    def named(self, column: str | None, role: Role | Literal["kept"]) -> str | None:
        """Return the column that an option names; None without the option."""
        if column is None:
            return None
        names = self.rows.names
        found = [known for known in names if known == column] or [k for k in names if k.lower() == column.lower()]
        if len(found) != 1:
            hint = did_you_mean(column, names)
            raise UsageError(f"{self.name} has no {role} column '{shown(column)}'.{hint} {self.description()}")
        return found[0]

    def description(self) -> str:
        """Return a sentence that names the columns."""
        what = "It has no header; its columns are" if self.rows.positional else "Its columns:"
        return f"{what} {listed(self.rows.names)}"

    def of_role(self, role: Role) -> list[str]:
        """Return the columns whose name or position indicates a role."""
        if self.rows.positional:
            place = _POSITIONS.index(role)
            return list(self.rows.names[place : place + 1])
        found = [column for column in self.rows.names if role_of(_without_number(column)) == role]
        titles = Counter(map(_without_number, found))
        for title, times in titles.items():
            if times > 1:
                raise UsageError(
                    f"{self.name}: its header names the column '{shown(title)}' {times} times: rename them"
                )
        return found

    def guessed_image(self, options: InputOptions) -> str:
        """Return the image column by its name; of several the most certain one."""
        found = [column for column in self.of_role("image") if column not in (options.label_column, options.id_column)]
        further = str(len(_POSITIONS) + 1)  # the name of a column without a header; lines may end with a comma
        if self.rows.positional and (wide := next((row for row in self.rows.each if further in row.cells), None)):
            raise UsageError(
                f"{self.name}, line {wide.number} has {len(wide.cells)} fields; expected {len(_POSITIONS)}: image, "
                "label and id. For a wider list without a header, give the column numbers: --image-column 1, "
                "--label-column 2, --id-column 3"
            )
        best = self._most_certain(found, "image")
        others = [column for column in self.rows.names if column not in found and role_of(column) != "label"]
        if best is None or self.weight(best) == 0:
            hints = [column for column in others if self.weight(column) == 2]
            if hints:
                held = f"'{shown(best)}' holds no path that exists, {self.example(best)}" if best else "none is known"
                raise UsageError(
                    f"{self.name}: which column names the images? {held}; {listed(hints)} "
                    f"{'holds' if len(hints) == 1 else 'hold'} paths. Name it with --image-column"
                )
        if best is None:
            raise UsageError(f"{self.name} has no image column: name it with --image-column. {self.description()}")
        return best

    def guessed_label(self, taken: set[str | None], findings: Findings) -> str | None:
        """Return the label column by its name, unless its cells are no paths."""
        found = [column for column in self.of_role("label") if column not in taken]
        best = self._most_certain(found, "label")
        label = best if best and self.weight(best) else None
        for column in found:
            if column != label and not self.weight(column) and self.sample(column):
                lines = findings.notes if label else findings.warnings
                drawn = all(map(_SHAPES.match, self.sample(column)))
                advice = (
                    "Polygons and run lengths have to be drawn as label images first"
                    if drawn
                    else f"--label-column '{shown(column)}' reads it anyway"
                )
                lines.append(
                    f"column '{shown(column)}' of {self.name} could be the label, but holds no paths, "
                    f"{self.example(column)}: not read. {advice}"
                )
            elif not self.sample(column):
                findings.warnings.append(f"column '{shown(column)}' of {self.name} is empty in every row: no labels")
        return label

    def guessed_id(self, taken: set[str | None], findings: Findings) -> str | None:
        """Return the id column by its name, unless its values repeat."""
        for column in self.of_role("id"):
            if column in taken or (self.rows.positional and self.weight(column)):
                continue
            ids = SortedRows(((unsigned_name(cell),) for cell in self.cells(column)), _IDS)
            number = sum(1 for _ in ids)
            repeated = number - sum(1 for _ in groupby(ids))
            if not number:
                continue
            if not repeated:
                return column
            findings.warnings.append(
                f"column '{shown(column)}' of {self.name} repeats {repeated} of {number} values, so that it cannot "
                f"tell images apart: their paths are the ids. --id-column '{shown(column)}' uses it anyway"
            )
        return None

    def _most_certain(self, found: Sequence[str], role: Role) -> str | None:
        """Return the column that most certainly holds paths; one whose name indicates only a path comes last."""
        if len(found) < 2:
            return found[0] if found else None
        ranks = {column: (self.weight(column), bool(word_of(column))) for column in found}
        best = [column for column in found if ranks[column] == max(ranks.values())]
        if len(best) > 1:
            raise UsageError(
                f"{self.name}: {listed(best)} could each be the {role} column: name the one with --{role}-column"
            )
        return best[0]

    def example(self, column: str) -> str:
        """Return an example cell, quoted for a message."""
        return examples(cell[:80] for cell in self.sample(column)) if self.sample(column) else "it is empty"


def _spread(items: Iterable[T], number: int, most: int) -> list[T]:
    """Return at most so many of a number of items, from the first to the last."""
    wanted = range(number) if number <= most else {i * (number - 1) // (most - 1) for i in range(most)}
    return [item for place, item in enumerate(items) if place in wanted]


def _report_unread(table: _Table, columns: ListColumns, findings: Findings) -> None:
    """Report columns that hold paths and are not read."""
    read = (columns.image, columns.label, columns.id, *columns.kept)
    unread = [name for name in table.rows.names if name not in read]
    held = [name for name in unread[:_MOST_UNREAD] if table.weight(name)]
    if held:
        lines = findings.notes if columns.label else findings.warnings
        many = "a column that holds" if len(held) == 1 else f"{count(len(held), 'column')} that hold"
        lines.append(
            f"{many} paths and {'is' if len(held) == 1 else 'are'} not read: {listed(held)}, "
            f"{table.example(held[0])}. If it is the label, use --label-column '{shown(held[0])}'"
        )


def _without_number(column: str) -> str:
    """Return a title without the number that `with_header` adds to repeated titles."""
    return re.sub(r" \(\d+\)$", "", column)
