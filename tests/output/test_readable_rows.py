"""What readers of a run say of masks files that somebody changed: words, never a traceback, whatever the command."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.calls import Call
from tests.reliability.tampering import Rows, change_rows, masks_files
from tests.runs import FULL, Place, list_with_weather

Change = Callable[[pa.Table], pa.Table]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place, listed = list_with_weather(tmp_path_factory.mktemp("done"), 4)
    place.run(input=listed, part_size=2, **FULL)
    return place


def with_column(name: str, values: Callable[[int], pa.Array]) -> Change:
    return lambda table: table.set_column(table.schema.get_field_index(name), name, values(len(table)))


def give_in(column: str, field: str, value: object) -> Callable[[Rows], None]:
    def change(rows: Rows) -> None:
        rows[0][column][field] = value

    return change


def without(column: str) -> Callable[[Rows], None]:
    return lambda rows: rows[1].update({column: None})


def set_to(column: str, value: object) -> Callable[[Rows], None]:
    return lambda rows: rows[0].update({column: value})


def not_segmented_but_scored(rows: Rows) -> None:
    rows[0] |= {"status": "error", "error": "undecodable: x", "mask": None, "confusion": None}


def below_0(rows: Rows) -> None:
    """The sum of the counts stays."""
    counts = rows[0]["confusion"]["count"]
    counts[0], counts[1] = counts[0] + counts[1] + 5, -5


def not_segmented(rows: Rows) -> None:
    rows[0] |= {"status": "error", "error": "undecodable: x", "mask": None}


def index(rows: Rows) -> None:
    rows[0]["index"] = -7


def beyond(rows: Rows) -> None:
    rows[0]["index"] = 99


def boundary_class(rows: Rows) -> None:
    rows[0]["boundary"]["class_id"][-1] = 200


def shard(rows: Rows) -> None:
    rows[0]["shard"] = "elsewhere"


def width(value: int | None) -> Callable[[Rows], None]:
    def change(rows: Rows) -> None:
        rows[0]["width"] = value

    return change


def enormous(rows: Rows) -> None:
    """A mask of kilobytes that would be brought to the size of an image of a terapixel."""
    rows[0]["width"] = rows[0]["height"] = 1 << 20


def fewer_classes(rows: Rows) -> None:
    rows[0]["class_confidence"] = [0.5]


COLUMNS: dict[str, Change] = {
    "counts, twice": lambda table: table.append_column(table.schema.field("confusion"), table["confusion"]),
    "no boundaries": lambda table: table.drop_columns(["boundary"]),
    "no confidence": lambda table: table.drop_columns(["mean_confidence"]),
    "no confidence of classes": lambda table: table.drop_columns(["class_confidence"]),
    "no metadata": lambda table: table.drop_columns(["meta"]),
    "boundaries as text": with_column("boundary", lambda n: pa.array(["x"] * n)),
    "confidence as text": with_column("confidence", lambda n: pa.array(["x"] * n)),
    "confidence of classes as numbers": with_column("class_confidence", lambda n: pa.array([0.5] * n)),
    "metadata as text": with_column("meta", lambda n: pa.array(["x"] * n)),
    "metadata as numbers": with_column("meta", lambda n: pa.array([{"weather": 7}] * n)),
    "other metadata": with_column("meta", lambda n: pa.array([{"city": "x"}] * n)),
}
ROWS = {
    "no mask of an image that was segmented": without("mask"),
    "no counts of an image that was segmented": without("confusion"),
    "counts of an image that was not": not_segmented,
    "an index below 0": index,
    "an index beyond the part": beyond,
    "an endless mIoU": set_to("miou", float("inf")),
    "an mIoU that is no number": set_to("miou", float("nan")),
    "an accuracy above 1": set_to("pixel_accuracy", 1.1),
    "a confidence below 0": set_to("mean_confidence", -0.5),
    "another shard": shard,
    "a cell beyond the classes": give_in("confusion", "cell", [70_000, 1]),
    "a cell below 0": give_in("confusion", "cell", [-1, 1]),
    "more cells than counts": give_in("confusion", "cell", list(range(9))),
    "a missing count": give_in("confusion", "count", [None, 7]),
    "no counts in counts": give_in("confusion", "count", None),
    "a count below 0": below_0,
    "an unknown status": set_to("status", "x"),
    "an error of an image that was segmented": set_to("error", "undecodable: x"),
    "a score of an image that was not segmented": not_segmented_but_scored,
    "a class of a boundary beyond all": boundary_class,
    "more classes of a boundary than counts": give_in("boundary", "class_id", list(range(9))),
    "confidence of fewer classes": fewer_classes,
    "a width below 0": width(-5),
    "a width of 0": width(0),
    "no width": width(None),
    "a size of a terapixel": enormous,
    "a mask that is no PNG": give_in("mask", "bytes", b"x" * 100),
    "a mask that is nowhere": give_in("mask", "bytes", None),
    "a confidence map that is no PNG": give_in("confidence", "bytes", b"x" * 100),
    "a confidence map that is nowhere": give_in("confidence", "bytes", None),
    "metadata of control characters": give_in("meta", "weather", "\x1b[2J\u202e"),
}


# The plan says the shard; confidence is shown where it can be; and any text may be metadata.
UNREAD = (
    "no confidence of classes",
    "another shard",
    "a confidence map that is nowhere",
    "metadata of control characters",
)


@pytest.mark.parametrize("way", [*COLUMNS, *ROWS])
def test_no_reader_ends_in_a_traceback(done: Place, tmp_path: Path, segment: Call, way: str) -> None:
    output = tmp_path / "out"
    shutil.copytree(done.output, output)
    file = masks_files(output)[0]
    if way in COLUMNS:
        pq.write_table(COLUMNS[way](pq.ParquetFile(file).read()), file)
    else:
        change_rows(file, ROWS[way])
    asked = {
        "report": [], "score": ["--by", "weather", "--resamples", "10"], "label-errors": [],
        "compare": [str(done.output), "--resamples", "10", "--by", "weather"],
        "export": [str(tmp_path / "exported"), "--format", "png"],
        "overlay": ["--to", str(tmp_path / "o"), "--sample", "4"],
    }  # fmt: skip
    codes = {command: segment(command, str(output), *flags).code for command, flags in asked.items()}
    assert set(codes.values()) <= {0, 1, 2}
    assert any(codes.values()) or way in UNREAD
    assert segment("audit", str(output), "--deep").code == 1


@pytest.mark.parametrize("rows", [[0], [0, 1, 1]])
def test_every_reader_refuses_another_number_of_rows_than_planned(
    done: Place, tmp_path: Path, segment: Call, rows: list[int]
) -> None:
    output = tmp_path / "out"
    shutil.copytree(done.output, output)
    file = masks_files(output)[0]
    pq.write_table(pq.ParquetFile(file).read().take(pa.array(rows)), file)
    asked = {
        "report": [], "score": ["--resamples", "10"], "label-errors": [], "compare": [str(done.output)],
        "export": [str(tmp_path / "exported"), "--format", "png"],
        "overlay": ["--to", str(tmp_path / "o"), "--sample", "4"],
    }  # fmt: skip
    for command, flags in asked.items():
        told = segment(command, str(output), *flags)
        assert (told.code, "is damaged: delete it, and the same `segment run`" in told.err) == (1, True), command
