"""Tables of an output that somebody else wrote: kilobytes that unpack to far more than a run would write there."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segment.inputs.parquet import copies
from segment.inputs.parts import Member, Part, Span
from segment.output import tables
from segment.output.attempts import read_attempts, read_timings
from segment.output.ledger import Ledger
from segment.output.plan import Plan
from segment.output.tables import to_parquet
from segment.store.client import Store
from tests.calls import Call
from tests.reliability.tampering import masks_files
from tests.runs import Place

MIB = 1 << 20
READERS = {
    "report": [], "score": ["--resamples", "10"], "label-errors": [], "compare": [], "overlay": ["--sample", "4"],
    "export": ["--format", "png"], "status": [], "audit": [], "audit --deep": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("done"))
    for number in range(4):
        place.add(f"{number}.png", seed=number)
    place.run(part_size=2)
    return place


def a_text(name: str, mebibytes: int) -> Callable[[pa.Table], pa.Table]:
    """The first row has a long text, which packs well."""

    def change(table: pa.Table) -> pa.Table:
        texts = ["x" * (mebibytes * MIB), *table[name].to_pylist()[1:]]
        place = table.schema.get_field_index(name)
        return table.set_column(place, table.schema.field(name), pa.array(texts, pa.string()))

    return change


def rows(number: int) -> Callable[[pa.Table], pa.Table]:
    """Its first row, so many times, of which Arrow makes no copies."""

    def change(table: pa.Table) -> pa.Table:
        some = table.take(pa.array([0] * min(number, 1000)))
        return pa.concat_tables([some] * (number // len(some)))

    return change


def counts(mebibytes: int) -> Callable[[pa.Table], pa.Table]:
    """Statistics of far more classes than there are."""

    def change(table: pa.Table) -> pa.Table:
        values = pa.array([[0] * (mebibytes * MIB // 8)] * 1, table.schema.field("confusion").type)
        return table.slice(0, 1).set_column(
            table.schema.get_field_index("confusion"), table.schema.field("confusion"), values
        )

    return change


WAYS: dict[str, tuple[str, Callable[[pa.Table], pa.Table]]] = {
    "a text in rows": ("masks", a_text("uri", 72)),
    "rows that nobody planned": ("masks", rows(3_000_000)),
    "counts in statistics": ("stats", counts(24)),
    "rows in statistics": ("stats", rows(2_000_000)),
    "a text in a plan": ("plan.parquet", a_text("url", 72)),
    "parts of a plan": ("plan.parquet", rows(2_000_000)),
    "a path in a manifest": ("manifest.parquet", a_text("path", 40)),
    "objects in a manifest": ("manifest.parquet", rows(400_000)),
}


def file_of(output: Path, place: str) -> Path:
    if place == "masks":
        return masks_files(output)[0]
    return min((output / place).glob("*")) if (output / place).is_dir() else output / place


@pytest.mark.parametrize("way", WAYS)
def test_what_unpacks_to_more_than_a_run_writes_is_damage(done: Place, tmp_path: Path, segment: Call, way: str) -> None:
    output, (place, change) = tmp_path / "out", WAYS[way]
    shutil.copytree(done.output, output)
    file = file_of(output, place)
    file.write_bytes(to_parquet(change(pq.ParquetFile(file).read())))
    assert file.stat().st_size < 500_000
    held = pa.default_memory_pool().max_memory()
    found = {}
    for command, flags in READERS.items():
        to: list[Any] = [done.output] if command == "compare" else []
        to += [tmp_path / command] if command == "export" else []
        to += ["--to", tmp_path / command] if command == "overlay" else []
        name, *deep = command.split()
        found[command] = segment(name, str(output), *map(str, to), *flags, *deep)
    assert {told.code for told in found.values()} <= {0, 1, 2}
    assert found["audit --deep"].code == 1
    assert pa.default_memory_pool().max_memory() <= max(held, 200 * MIB)


def members(number: int, size: int) -> tuple[Member, ...]:
    """Members whose captions, of so many letters, are three."""
    captions = [letter * size for letter in "abc"]
    image = Span("s3://b/a.jpg", 0, 9, "e")
    return tuple(Member(f"{at}.jpg", image, None, (captions[at % 3],)) for at in range(number))


def plan_of(parts: int, images: int, size: int) -> Plan:
    held = members(images, size)
    return Plan.of(Part(f"h-{at}", "s", "files", "s3://b", 9, "e", 0, images, -1, held) for at in range(parts))


@pytest.fixture
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_MOST_UNPACKED", MIB)
    monkeypatch.setattr(copies, "_MOST_ROW", MIB)


@pytest.mark.usefixtures("small_bounds")
@pytest.mark.parametrize(("parts", "images", "size"), [(300, 4, 9000), (600, 40, 30), (3, 50, 9000)])
def test_a_plan_with_long_metadata_again_and_again_is_read(parts: int, images: int, size: int) -> None:
    """It unpacks to more than the bound: some rows at once do not."""
    plan = plan_of(parts, images, size)
    data = plan.to_bytes()
    assert plan.table.nbytes + parts * images * size > MIB > 20 * len(data) or size < 100
    assert Plan.from_bytes(data) == plan


@pytest.mark.usefixtures("small_bounds")
def test_a_part_of_a_plan_that_unpacks_to_too_much_is_damage() -> None:
    data = plan_of(1, 3000, 20_000).to_bytes()
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    pa.set_memory_pool(pool)
    try:
        with pytest.raises(ValueError, match="unpacks to more"):
            Plan.from_bytes(data)
        assert pool.max_memory() < 8 * MIB
    finally:
        pa.set_memory_pool(before)


@pytest.mark.parametrize("column", ["failure", "host", "part"])
def test_timings_that_unpack_to_gigabytes_are_left_out(
    done: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture, column: str
) -> None:
    output = tmp_path / "out"
    shutil.copytree(done.output, output)
    ledger = Ledger(Store(), f"file://{output}")
    (attempt,) = read_attempts(ledger)
    assert read_timings(ledger, attempt) is not None
    timings = min((output / "runs").glob("*.parquet"))
    row = a_text(column, 1)(pq.ParquetFile(timings).read().slice(0, 1))
    timings.write_bytes(to_parquet(pa.concat_tables([row] * 3_000)))
    assert timings.stat().st_size < 500_000
    held = pa.default_memory_pool().max_memory()
    assert read_timings(ledger, attempt) is None
    assert pa.default_memory_pool().max_memory() <= max(held, 200 * MIB)
    assert f"runs/{attempt.name}.parquet cannot be read" in caplog.text


@pytest.mark.parametrize(("suffix", "size"), [("json", 2 * MIB), ("parquet", 200 * MIB)])
def test_records_of_attempts_that_are_too_large_are_left_out(
    done: Place, tmp_path: Path, segment: Call, suffix: str, size: int
) -> None:
    output = tmp_path / "out"
    shutil.copytree(done.output, output)
    record = min((output / "runs").glob(f"*.{suffix}"))
    if suffix == "json":
        record.write_text(record.read_text().rstrip("}\n") + ', "more": "' + "x" * size + '"}')
    else:
        with record.open("r+b") as file:
            file.truncate(size)
    told = segment("report", str(output))
    assert (told.code, "images/s" in told.out) == (0, False)
    assert segment("status", str(output)).code == 0


@pytest.mark.parametrize("digest", ["sha256", "md5"])
def test_a_manifest_with_digests_of_another_length_is_damage(
    done: Place, tmp_path: Path, segment: Call, digest: str
) -> None:
    output = tmp_path / "out"
    shutil.copytree(done.output, output)
    file = output / "manifest.parquet"
    table = pq.ParquetFile(file).read()
    place = table.schema.get_field_index(digest)
    texts = pa.array(["ab", *table[digest].to_pylist()[1:]], pa.string())
    file.write_bytes(to_parquet(table.set_column(place, table.schema.field(digest), texts)))
    (output / "_SUCCESS").unlink()
    told = segment("audit", str(output))
    assert (told.code, "manifest.parquet is damaged" in told.out + told.err) == (1, True)
