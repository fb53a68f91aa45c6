"""Tables of a finished run, changed at random, under every command that reads a run: a reader of `make fuzz`.

The files stay sound Parquet with their schema's metadata; columns, types, rows and values are not what a run writes.
In half of the runs the manifest is made anew, so that no digest keeps a reader from them.
A finding is a traceback, or a deep audit that finds nothing although a table that it vouches for holds other values.
"""

import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from segment.errors import SegmentError
from segment.output.tables import to_parquet
from tests.calls import here
from tests.reliability.tampering import reseal
from tests.runs import FULL, list_with_weather

TABLES = ("plan.parquet", "manifest.parquet", "masks", "stats", "runs", "report")
UNPROVEN = ("runs",)  # tables that prove nothing
READERS = ("report", "score", "label-errors", "compare", "overlay", "export", "status")
AUDIT = "audit --deep"
_NUMBERS = [0, -1, 1, 255, 2**31 - 1, -(2**31), 2**62, -(2**63)]
_TEXTS = ["", "..", "../../x", "a/b", "x" * 70_000, "\x1b[2J", "\u202e", "\0", "file:///etc/passwd", "=1+1", "0"]
_TYPES = [pa.string(), pa.int8(), pa.int64(), pa.float64(), pa.bool_(), pa.list_(pa.int64()), pa.null(), pa.binary()]


def make_run(folder: Path) -> None:
    """A run of six labelled images of a list, with all that a row may hold."""
    folder.mkdir()
    place, listed = list_with_weather(folder, 6)
    place.run(input=listed, part_size=2, **FULL)


def change_value(value: Any, any_: random.Random) -> Any:
    """Something else of the same kind, or nothing."""
    if any_.random() < 0.15:
        return None
    if isinstance(value, dict) and value:
        name = any_.choice(sorted(value))
        return value | {name: change_value(value[name], any_)}
    if isinstance(value, list) and value:
        at = any_.randrange(len(value))
        changed = [*value[:at], change_value(value[at], any_), *value[at + 1 :]]
        return any_.choice([changed, value[:at], value * 3, []])
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return any_.choice(_NUMBERS)
    if isinstance(value, float):
        return any_.choice([float("nan"), float("inf"), -1.0, 0.0, 1e300])
    if isinstance(value, bytes):
        at = any_.randrange(len(value) + 1)
        return any_.choice([b"", value[:at], value[:at] + b"\xff" + value[at + 1 :], value * 2])
    return any_.choice(_TEXTS)


def changed_values(table: pa.Table, any_: random.Random) -> pa.Table:
    """One value, in one row or in all."""
    name = any_.choice(table.column_names)
    values = table[name].to_pylist()
    value = change_value(any_.choice(values), any_)
    at = any_.randrange(len(values))
    values = [value] * len(values) if any_.random() < 0.2 else [*values[:at], value, *values[at + 1 :]]
    place = table.schema.get_field_index(name)
    return table.set_column(
        place, table.schema.field(name).with_nullable(True), pa.array(values, table.schema.field(name).type)
    )


def changed_rows(table: pa.Table, any_: random.Random) -> pa.Table:
    """Other rows: fewer, some twice, none, in another order."""
    return table.take(pa.array(any_.choices(range(len(table)), k=any_.randrange(2 * len(table) + 1)), pa.int64()))


def changed_columns(table: pa.Table, any_: random.Random) -> pa.Table:
    """A column less, twice, of another name or of another type."""
    name = any_.choice(table.column_names)
    place, field = table.schema.get_field_index(name), table.schema.field(name)
    kind = any_.choice(["drop", "twice", "rename", "type", "type", "type", "swap"])
    if kind == "drop":
        return table.drop_columns([name])
    if kind == "twice":
        return table.append_column(field, table[name])
    if kind == "rename":
        return table.rename_columns([f"{each}x" if each == name else each for each in table.column_names])
    if kind == "swap":
        return table.select(any_.sample(table.column_names, len(table.column_names)))
    kind_of = any_.choice(_TYPES)
    try:
        values = table[name].cast(kind_of)
    except (pa.ArrowException, NotImplementedError):
        values = pa.chunked_array([pa.nulls(len(table), kind_of)])
    return table.set_column(place, pa.field(name, kind_of), values)


def tables(output: Path) -> list[Path]:
    """The Parquet files of a run."""
    return sorted(
        file
        for name in TABLES
        for file in [output / name, *output.glob(f"{name}/**/*")]
        if file.suffix == ".parquet" and file.is_file()
    )


def change(output: Path, any_: random.Random) -> str:
    """Change one table of a run, once to three times; return which and how."""
    file, hows = any_.choice(tables(output)), []
    table = pq.ParquetFile(file).read()
    for _ in range(any_.choice([1, 1, 1, 2, 3])):
        how = any_.choice([changed_values, changed_values, changed_values, changed_rows, changed_columns])
        if not len(table) or not table.num_columns:
            break
        try:
            table = how(table, any_)
        except (pa.ArrowException, KeyError, OverflowError, TypeError):  # such a table there cannot be
            continue
        hows.append(how.__name__)
    file.write_bytes(to_parquet(table))
    return f"{file.relative_to(output)}: {', '.join(hows)}"


def asked(readers: Sequence[str], output: Path, other: Path, to: Path) -> Iterator[Sequence[str]]:
    """The command lines of these readers."""
    more = {
        "score": ["--by", "weather", "--resamples", "10"], "compare": [str(other), "--resamples", "10"],
        "overlay": ["--to", str(to / "overlay"), "--sample", "4"], "export": [str(to / "export"), "--format", "png"],
    }  # fmt: skip
    for reader in readers:
        name, *flags = reader.split()
        yield [name, str(output), *more.get(name, []), *flags]


def read_changed(data: bytes, folder: Path) -> None:
    """Change a copy of a run as the bytes say, which are the seed, and let some readers at it; none changes nothing.

    Raises:
        SegmentError: a command refused it.
    """
    done, output, any_ = folder / "done", folder / "attack" / "out", random.Random(data)
    if not done.exists():
        make_run(done)
    shutil.rmtree(folder / "attack", ignore_errors=True)
    shutil.copytree(done / "out", output)
    what = change(output, any_) if data else "nothing"
    if is_sealed := any_.random() < 0.5:  # as whoever may write to all of it: only what contradicts itself is told
        reseal(output)
    codes = {}
    for command in asked([*any_.sample(READERS, 3), AUDIT], output, done / "out", folder / "attack"):
        told = here(*command)
        assert told.returncode in (0, 1, 2), what
        assert "Traceback" not in told.stderr + told.stdout, f"{what}: {told.stderr[-1500:]}"
        codes[command[0]] = told.returncode
    if not (is_sealed or what.startswith(UNPROVEN) or holds_the_same(output, done / "out")):
        assert codes["audit"], what
    if any(codes.values()):
        raise SegmentError(what)


def holds_the_same(output: Path, other: Path) -> bool:
    """Whether all tables of two runs hold the same values."""
    names = [file.relative_to(output) for file in tables(output)]
    return all(pq.ParquetFile(output / name).read().equals(pq.ParquetFile(other / name).read()) for name in names)
