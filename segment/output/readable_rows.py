"""What readers rely on in the rows of a masks file, which somebody else may have written; an audit checks far more."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from segment.errors import SegmentError
from segment.output.mask_columns import BOUNDARY, MASK

_EXTRAS = {
    "mean_confidence": pa.float64(),
    "class_confidence": pa.list_(pa.float64()),
    "confidence": MASK,
    "boundary": BOUNDARY,
}
_LARGEST = {"pixel_accuracy": 1.0, "miou": 1.0, "mean_confidence": 1.0, "brightness": 255.0}  # none is below 0
_ROUNDING = 1e-6
_MOST_PIXELS = 1 << 30  # of an image whose mask is within its row, to whose size the mask is brought
_FIELDS = {"probabilities": MASK, "meta": pa.string()}  # types of the fields of structs


def check_readable(table: pa.Table) -> None:
    """Check the form of the columns that were read, `status` among them, and that their values belong together.

    Raises:
        ValueError: a column is there twice, or one beside those of every run is of another type; or the values of a row
            cannot be read together.
    """
    if len({*table.column_names}) < len(table.column_names):
        raise ValueError("a column is there twice")
    for field in table.schema:
        expected = _EXTRAS.get(field.name, field.type)
        inner = _FIELDS.get(field.name)
        is_struct = inner is None or pa.types.is_struct(field.type)
        if field.type != expected or not is_struct or (inner and any(each.type != inner for each in field.type)):
            raise ValueError(f"{field.name} is of another type")
    for name in _LARGEST.keys() & {*table.column_names}:
        _check_numbers(table[name].drop_null(), name)
    _check_status(table)
    _check_sizes(table)
    if "index" in table.column_names and pc.any(pc.less(table["index"], 0)).as_py():
        raise ValueError("an index below 0")
    for name in {"confusion", "boundary"} & {*table.column_names}:
        _check_lists(table, name)


def _check_numbers(values: pa.ChunkedArray, name: str) -> None:
    possible = pc.and_(pc.greater_equal(values, 0), pc.less_equal(values, _LARGEST[name] + _ROUNDING))
    if not pc.all(possible, min_count=0).as_py():  # of NaN it is false
        raise ValueError(f"impossible values of {name}")


def _check_status(table: pa.Table) -> None:
    """Refuse images that were segmented and have no mask or counts, and what others cannot have."""
    is_ok, names = pc.equal(table["status"], "ok"), {*table.column_names}
    if not pc.all(pc.is_in(table["status"], pa.array(["ok", "error"])), min_count=0).as_py():
        raise ValueError("an unknown status")
    if "error" in names and pc.any(pc.equal(is_ok, pc.is_valid(table["error"]))).as_py():
        raise ValueError("error and status contradict each other")
    if any(pc.any(pc.and_not(pc.is_valid(table[name]), is_ok)).as_py() for name in {"miou", "pixel_accuracy"} & names):
        raise ValueError("a score of an image that was not segmented")
    for name in {"mask", "confusion"} & names:
        held = pc.is_valid(table[name])
        wrong = pc.xor(is_ok, held) if name == "confusion" else pc.and_not(is_ok, held)
        if pc.any(wrong).as_py():
            raise ValueError(f"{name} and status contradict each other")


def _check_sizes(table: pa.Table) -> None:
    """Refuse sizes below 1, and masks of images without a size or of one that takes gigabytes, or that are nowhere."""
    if not {"width", "height"} <= {*table.column_names}:
        return
    width, height = (table[side].cast(pa.int64()) for side in ("width", "height"))
    if any(pc.any(pc.less(side, 1)).as_py() for side in (width, height)):
        raise ValueError("a size below 1")
    if "mask" in table.column_names:
        data, path = (pc.struct_field(table["mask"], [place]) for place in range(2))
        pixels = pc.multiply(width, height).fill_null(_MOST_PIXELS + 1)
        too_large = pc.and_(pc.is_valid(data), pc.greater(pixels, _MOST_PIXELS))
        nowhere = pc.and_(pc.is_valid(table["mask"]), pc.and_(pc.is_null(data), pc.is_null(path)))
        if pc.any(pc.or_(too_large, nowhere)).as_py():
            raise ValueError("a mask of no size, of too large a one, or nowhere")


def _check_lists(table: pa.Table, name: str) -> None:
    """Refuse lists of counts that differ in length or miss a value, of images without a size."""
    held = table.filter(pc.is_valid(table[name]))
    sizes = [held[side] for side in ("width", "height") if side in held.column_names]
    counts = held[name].combine_chunks()
    lists = [pc.struct_field(counts, [place]) for place in range(counts.type.num_fields)]
    if any(values.null_count for values in (*sizes, *lists, *(each.flatten() for each in lists))):
        raise ValueError(f"{name} misses a value")
    lengths = [pc.list_value_length(values) for values in lists]
    if any(not length.equals(lengths[0]) for length in lengths):
        raise ValueError(f"{name} has lists of several lengths")
    if any(
        pc.any(pc.less(values.flatten(), 0)).as_py() for values in lists[1:]
    ):  # of classes and cells: `check_indices`
        raise ValueError(f"{name} has counts below 0")


def column_of(table: pa.Table, name: str) -> pa.ChunkedArray:
    """Return a column that only some runs have, of one that has it. Raises SegmentError: it is not there."""
    if name not in table.column_names:
        raise damaged(f"the column {name}")
    return table[name]


def check_indices(indices: NDArray[Any], most: int, what: str) -> None:
    """Refuse indices below 0, or of `most` and more. Raises SegmentError: they are damaged."""
    if indices.size and not 0 <= int(indices.min()) <= int(indices.max()) < most:
        raise damaged(what)


def damaged(what: str) -> SegmentError:
    """Return the error of rows whose values are of no such run."""
    return SegmentError(
        f"{what} in a masks file of the run is none, or not there: `segment audit --deep` names the file, and "
        "`segment run --verify` mends it"
    )
