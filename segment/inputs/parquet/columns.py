"""Find the image, label and id columns of a Parquet file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from segment.errors import UsageError, did_you_mean
from segment.inputs.parquet.cells import (
    Cell,
    FieldPath,
    cell_at,
    cell_of,
    described,
    find_field,
    is_byte_list,
    is_text,
    plain_values,
    readable_cells,
    storage_of,
)
from segment.inputs.parquet.kept_columns import find_kept
from segment.inputs.roles import names_label_path, role_of
from segment.job import NO_LABELS, ROW_NUMBERS, InputOptions
from segment.store.names import listed, row_id, shown
from segment.store.urls import is_url, redact_credentials, unsigned_name

IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "bytes", "image_bytes", "content")
ID_COLUMNS = ("id", "image_id", "key", "__key__", "filename", "file_name")
_PLACES = ("path", "file", "url", "uri", "filename", "file_name")
# Text columns that name images. The first group with a match is used.
IMAGE_PATH_COLUMNS = (
    ("image", "img", *(f"{word}_{place}" for word in ("image", "img") for place in _PLACES)),
    ("path", "file", "file_path", "filepath", "file_name", "filename", "url", "uri"),
)


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns to read.

    Attributes:
        id: where the ids are: a column, the images' paths, or None for row numbers.
        guessed: those of `image`, `label` and `id` that were detected instead of named by an option.
        kept: where the values to keep are, in the order of `Job.keep`; None for a column that the file lacks.
    """

    image: Cell
    label: Cell | None
    id: FieldPath | None
    guessed: frozenset[str] = frozenset()
    kept: tuple[FieldPath | None, ...] = ()

    @property
    def names(self) -> list[str]:
        """Names of the columns to read, in pyarrow's notation, each once."""
        cells = [self.image, self.label] if self.label else [self.image]
        others = [str(place) for place in (self.id, *self.kept) if place]
        return list(dict.fromkeys([name for cell in cells for name in cell.fields] + others))

    def __str__(self) -> str:
        label = _cell_text(self.label) if self.label else ""
        chosen = {"image": _cell_text(self.image), "label": label, "id": str(self.id or "the row number")}
        chosen["kept"] = " and ".join(str(place) for place in self.kept if place)
        return ", ".join(f"{what}: {shown(column)}" for what, column in chosen.items() if column)

    def ids(self, rows: pa.Table, first: int, *, numbered: bool = False) -> list[str]:
        """Return the ids of `rows`, the first of which is row `first` of the file.

        The row number is the id where there is none; with `numbered` it precedes every id as a folder.
        """
        values = [None] * len(rows) if self.id is None else plain_values(self.id.of(rows))
        names = []
        for row, value in enumerate(values, first):
            name = row_id(row) if value in (None, "") else self._storable(str(value))
            names.append(f"{row_id(row)}/{name}" if numbered and name != row_id(row) else name)
        return names

    def _storable(self, value: str) -> str:
        """Remove from a URL what an id must not keep: a signature, and a password unless an option names the column."""
        ours = "id" in self.guessed or self.id == self.image.path
        value = unsigned_name(value)
        return redact_credentials(value) if ours and is_url(value) else value


def _cell_text(cell: Cell) -> str:
    return str(cell) if cell.data else f"{cell} (paths or URLs)"


def find_columns(schema: pa.Schema, options: InputOptions, name: str) -> Columns:
    """Find the columns by the options, or else by their usual names and types.

    Raises:
        UsageError: a column does not exist, or its type cannot be an image, a label or an id; or several columns may be
            the one and no option names it.
    """
    cells = {field.name: cell_of(field) for field in schema if schema.names.count(field.name) == 1}
    readable = {column: cell for column, cell in cells.items() if isinstance(cell, Cell)}
    image = _named(schema, options.image_column, "image", name) or _guessed_image(schema, cells, readable, name)
    label = None
    if options.label_column is None:
        others = {column: cell for column, cell in readable.items() if column != image.column}
        label = _guessed_label(schema, others, image, name)
    elif options.label_column != NO_LABELS or NO_LABELS in schema.names:
        label = _named(schema, options.label_column, "label", name)
    if label == image:
        raise UsageError(f"{name}: '{shown(str(image))}' is named as the image column and as the label column")
    given = {"image": options.image_column, "label": options.label_column, "id": options.id_column}
    guessed = frozenset(what for what, column in given.items() if column is None)
    kept = find_kept(schema, options.keep, name)
    return Columns(image, label, _id_field(schema, image, options, name), guessed, kept)


def _named(schema: pa.Schema, column: str | None, what: str, name: str) -> Cell | None:
    if column is None:
        return None
    cell = cell_at(schema, column)
    if cell is None:
        raise UsageError(_absent(schema, column, what, name))
    if isinstance(cell, str):
        found = find_field(schema, column)
        kind = described(found[0].type) if found else ""
        raise UsageError(f"{name}: the {what} column '{shown(column)}' is {kind}: it {cell}. {_description(schema)}")
    return cell


def _absent(schema: pa.Schema, column: str, what: str, name: str) -> str:
    if (number := schema.names.count(column)) > 1:
        return f"{name} has {number} columns '{shown(column)}', which cannot be told apart: rename them"
    known = [*schema.names, *(str(cell) for cell in readable_cells(schema))]
    return f"{name} has no {what} column '{shown(column)}'.{did_you_mean(column, known)} {_description(schema)}"


def _guessed_image(schema: pa.Schema, cells: Mapping[str, Cell | str], readable: Mapping[str, Cell], name: str) -> Cell:
    encoded = {column: cell for column, cell in readable.items() if cell.data is not None}
    plain = _plainly_encoded(schema, encoded)  # before types that may also hold numbers
    is_usual = _named_in(IMAGE_COLUMNS)
    found = _one_of(plain, is_usual, "image", name) or _one_of(encoded, is_usual, "image", name)
    if found:
        return found
    others = [cell for column, cell in plain.items() if role_of(column) != "label"]
    if len(others) == 1:
        return others[0]
    paths = {column: cell for column, cell in readable.items() if cell.data is None}
    for usual in IMAGE_PATH_COLUMNS if not others else ():
        if found := _one_of(paths, _named_in(usual), "image", name):
            return found
    raise UsageError(_no_image(schema, cells, name))


def _no_image(schema: pa.Schema, cells: Mapping[str, Cell | str], name: str) -> str:
    """Return the message of a schema without image column: why a likely one is none, and which ones could be named."""
    usual = {*IMAGE_COLUMNS, *(column for group in IMAGE_PATH_COLUMNS for column in group)}
    odd = [(column, why) for column, why in cells.items() if isinstance(why, str) and column.lower() in usual]
    reasons = "".join(
        f"; '{shown(column)}' is {described(schema.field(column).type)}: it {why}" for column, why in odd[:1]
    )
    twice = next((column for column in schema.names if column.lower() in usual and column not in cells), None)
    if twice:
        reasons += f"; there are {schema.names.count(twice)} columns '{shown(twice)}', which cannot be told apart"
    names = dict.fromkeys(str(cell) for cell in readable_cells(schema))
    choices = [column for column in names if isinstance(cell_at(schema, column), Cell)]
    advice = f"; if one of these is it, name it with --image-column: {listed(choices)}" if choices else ""
    return f"{name} has no image column{reasons}{advice}. {_description(schema)}"


def _guessed_label(schema: pa.Schema, readable: Mapping[str, Cell], image: Cell, name: str) -> Cell | None:
    """Find the label column by its name. Text counts only where images are paths: otherwise it may be a class name."""
    encoded = {column: cell for column, cell in readable.items() if cell.data is not None}
    found = _one_of(_plainly_encoded(schema, encoded), lambda column: role_of(column) == "label", "label", name)
    if found or image.data is not None:
        return found
    paths = {column: cell for column, cell in readable.items() if cell.data is None}
    return _one_of(paths, names_label_path, "label", name)


def _plainly_encoded(schema: pa.Schema, encoded: Mapping[str, Cell]) -> dict[str, Cell]:
    def is_plain(column: str) -> bool:
        kind = storage_of(schema.field(column).type)
        return not is_byte_list(kind) and not pa.types.is_fixed_size_binary(kind)

    return {column: cell for column, cell in encoded.items() if is_plain(column)}


def _named_in(usual: Sequence[str]) -> Callable[[str], bool]:
    return lambda column: column.lower() in usual


def _one_of(cells: Mapping[str, Cell], is_usual: Callable[[str], bool], what: str, name: str) -> Cell | None:
    found = [column for column in cells if is_usual(column)]
    if len(found) > 1:
        raise UsageError(f"{name}: {listed(found)} could each be the {what} column: name the one with --{what}-column")
    return cells[found[0]] if found else None


def _id_field(schema: pa.Schema, image: Cell, options: InputOptions, name: str) -> FieldPath | None:
    column = options.id_column
    if column is None:
        found = {f.name.lower(): f.name for f in schema if _is_id(f.type) and schema.names.count(f.name) == 1}
        detected = next((found[usual] for usual in ID_COLUMNS if usual in found), None)
        return FieldPath(detected) if detected else image.path
    if column == ROW_NUMBERS and column not in schema.names:
        return None
    place = find_field(schema, column)
    if place is None:
        raise UsageError(_absent(schema, column, "id", name))
    if not _is_id(place[0].type):
        kind = described(place[0].type)
        raise UsageError(
            f"{name}: the id column '{shown(column)}' is {kind}; expected text or integers. "
            f"--id-column {ROW_NUMBERS} selects the row numbers"
        )
    return place[1]


def _is_id(kind: pa.DataType) -> bool:
    return is_text(kind) or bool(pa.types.is_integer(storage_of(kind)))


def _description(schema: pa.Schema) -> str:
    columns = ", ".join(f"{shown(f.name)}: {described(f.type)}" for f in schema) or "none"
    return f"Its columns: {columns}"
