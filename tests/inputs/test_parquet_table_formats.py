"""Delta, Iceberg and Hudi tables: files of earlier versions are not part of the input."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segment.errors import StoreError, UsageError
from segment.inputs.discover import discover
from segment.inputs.discovery import Discovery
from segment.inputs.parquet import table_formats
from segment.job import InputOptions
from segment.store.client import Entry, Store
from tests.datasets import encoded

PICTURE = encoded(np.zeros((4, 6, 3), np.uint8))


def write(path: Path, rows: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": [PICTURE] * rows}), path)
    return path


def add(path: str, **more: Any) -> dict[str, Any]:
    return {"add": {"path": path, "size": 1, "partitionValues": {}, "dataChange": True, "modificationTime": 0, **more}}


def remove(path: str, **more: Any) -> dict[str, Any]:
    return {"remove": {"path": path, "dataChange": True, "deletionTimestamp": 0, **more}}


def commit(table: Path, version: int, *actions: dict[str, Any]) -> None:
    (table / "_delta_log").mkdir(parents=True, exist_ok=True)
    lines = [{"commitInfo": {}}, {"protocol": {"minReaderVersion": 1}}, *actions]
    text = "\n".join(json.dumps(line) for line in lines)
    (table / "_delta_log" / f"{version:020d}.json").write_text(text)


def checkpoint(table: Path, name: str, paths: list[str], **columns: Any) -> None:
    (table / "_delta_log").mkdir(parents=True, exist_ok=True)
    rows = [*({"path": path, "size": 1} for path in paths), None]
    removed = [*(None for _ in paths), {"path": "old.parquet"}]
    pq.write_table(pa.table({"add": rows, "remove": removed, **columns}), table / "_delta_log" / name)


EXPORT = "Write the table's current version as plain Parquet files"


def find(where: object, **options: Any) -> Discovery:
    return discover(str(where), InputOptions(**options), Store())


def files(found: Discovery, table: Path) -> list[str]:
    return sorted({part.url.removeprefix(f"file://{table}/") for part in found.parts})


def refusal(where: object) -> str:
    with pytest.raises(UsageError) as caught:
        find(where)
    return str(caught.value)


def unfollowed(table: Path) -> bool:
    """Return whether all files of a table are read, with a warning."""
    found = find(table)
    there = sorted(file.relative_to(table).as_posix() for file in table.rglob("[a-z]*.parquet"))
    (warning,) = [line for line in found.warnings if "is damaged, incomplete or in an unknown form" in line]
    return files(found, table) == there and f"all of its {len(there)} Parquet files are read" in warning


def left_out(found: Discovery) -> dict[str, int]:
    return {item.reason: item.number for item in found.left_out if item.reason == "removed"}


def delta(table: Path) -> Path:
    """Write a table of three files in two versions: `b` replaces `a`; `c d` stays."""
    for name in ("a.parquet", "b.parquet", "k=1/c d.parquet"):
        write(table / name, 2)
    commit(table, 0, add("a.parquet"), add("k=1/c%20d.parquet"))
    commit(table, 1, remove("a.parquet"), add("b.parquet"))
    return table


def test_only_the_current_version_of_a_delta_table_is_read(tmp_path: Path) -> None:
    found = find(delta(tmp_path / "t"))
    assert (files(found, tmp_path / "t"), found.images) == (["b.parquet", "k=1/c d.parquet"], 4)
    assert left_out(found) == {"removed": 1}
    assert [line for line in found.lines if "Delta" in line] == [
        "warning: left out: 1 Parquet file that is not part of the current version of its Delta table: .parquet x 1; "
        "e.g. a.parquet"
    ]


def test_a_table_without_removed_files_gives_no_warning(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    commit(tmp_path, 0, add("a.parquet"))
    assert left_out(find(tmp_path)) == {}


@pytest.mark.parametrize("where", ["t/*.parquet", "t/{a,b}.parquet", "t"])
def test_parts_of_a_table_are_judged_by_its_log(tmp_path: Path, where: str) -> None:
    delta(tmp_path / "t")
    found = find(tmp_path / where)
    assert "a.parquet" not in files(found, tmp_path / "t")
    assert left_out(found) == {"removed": 1}


def test_a_partition_of_a_table(tmp_path: Path) -> None:
    table = delta(tmp_path / "t")
    write(table / "k=1" / "gone.parquet")
    found = find(table / "k=1")
    assert files(found, table) == ["k=1/c d.parquet"]
    assert left_out(found) == {"removed": 1}


def test_one_file_that_is_named_is_read(tmp_path: Path) -> None:
    delta(tmp_path / "t")
    assert find(tmp_path / "t" / "a.parquet").images == 2


def test_several_tables_in_a_folder(tmp_path: Path) -> None:
    delta(tmp_path / "one")
    delta(tmp_path / "two")
    write(tmp_path / "three" / "a.parquet")
    found = find(tmp_path)
    assert found.images == 9
    assert left_out(found) == {"removed": 2} or sum(i.number for i in found.left_out if i.reason == "removed") == 2


def test_a_log_that_begins_with_a_checkpoint(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.parquet", "c.parquet", "old.parquet"):
        write(tmp_path / name)
    checkpoint(tmp_path, f"{3:020d}.checkpoint.parquet", ["a.parquet", "b.parquet"])
    commit(tmp_path, 3, add("b.parquet"))
    commit(tmp_path, 4, remove("a.parquet"), add("c.parquet"))
    found = find(tmp_path)
    assert files(found, tmp_path) == ["b.parquet", "c.parquet"]
    assert left_out(found) == {"removed": 2}


def test_a_checkpoint_in_several_files(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.parquet"):
        write(tmp_path / name)
    commit(tmp_path, 3)
    checkpoint(tmp_path, f"{3:020d}.checkpoint.{1:010d}.{2:010d}.parquet", ["a.parquet"])
    assert unfollowed(tmp_path)
    checkpoint(tmp_path, f"{3:020d}.checkpoint.{2:010d}.{2:010d}.parquet", ["b.parquet"])
    assert files(find(tmp_path), tmp_path) == ["a.parquet", "b.parquet"]


def test_a_log_that_cannot_be_followed(tmp_path: Path) -> None:
    table = delta(tmp_path / "t")
    commit(table, 3, add("z.parquet"))
    assert unfollowed(table)
    (table / "_delta_log" / f"{3:020d}.json").unlink()
    (table / "_delta_log" / f"{1:020d}.json").write_text('{"add": 7}\n{"rem')
    assert unfollowed(table)
    (table / "_delta_log" / f"{1:020d}.json").unlink()
    checkpoint(table, f"{5:020d}.checkpoint.parquet", [], sidecar=[{"path": "x"}])
    assert unfollowed(table)


HOSTILE = {
    "a path that is a number": '{"add": {"path": 1e400}}',
    "nested without end": '{"add": ' + "[" * 100_000,
    "a number of many digits": '{"add": {"path": "a", "deletionVector": {"offset": ' + "9" * 5000 + "}}}",
    "an action that is a list": '{"add": [["path", "a"]]}',
    "a deletion vector that is text": '{"add": {"path": "a", "deletionVector": "b"}}',
    "half of a surrogate pair": '{"remove": {"path": 7}}\n{"add": {"path": "\\ud800"}}',
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_log_of_a_stranger_is_one_that_cannot_be_followed(tmp_path: Path, what: str) -> None:
    table = delta(tmp_path / "t")
    (table / "_delta_log" / f"{1:020d}.json").write_text(HOSTILE[what])
    assert unfollowed(table)


@pytest.mark.parametrize("path", ["/etc/x.parquet", "file:///etc/x.parquet", "../../x.parquet", "s3://other/x.parquet"])
def test_a_log_leads_nowhere(tmp_path: Path, path: str) -> None:
    """It takes files away from what is listed, and adds none."""
    table = delta(tmp_path / "t")
    commit(table, 2, add(path))
    with pytest.raises(UsageError, match="of its current version cannot be found"):
        find(table)


def test_a_path_may_hold_what_unicode_calls_an_end_of_line(tmp_path: Path) -> None:
    table = delta(tmp_path / "t")
    write(table / "x\u2028y.parquet")
    action = json.dumps(add("x\u2028y.parquet"), ensure_ascii=False)
    (table / "_delta_log" / f"{2:020d}.json").write_text(action, encoding="utf-8")
    assert "x\u2028y.parquet" in files(find(table), table)


def test_logs_and_metadata_are_read_within_their_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of a gigabyte of brackets would be 7 GB of Python's lists."""
    table = delta(tmp_path / "t")
    monkeypatch.setattr(table_formats, "_MOST_COMMIT", 100)
    told = refusal(table)
    assert told.startswith(f"{table} is a Delta table whose log is too large: could not read ")
    assert f"it has more than 100 bytes. {EXPORT}" in told
    write(tmp_path / "i" / "a.parquet")
    iceberg(tmp_path / "i", "v1", 1)
    monkeypatch.setattr(table_formats, "_MOST_METADATA", 100)
    told = refusal(tmp_path / "i")
    assert f"v1.metadata.json: it has more than 100 bytes. {EXPORT}" in told


def test_a_delta_log_of_a_long_line_or_a_large_checkpoint_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be intact, and without it the rows that the table holds no longer would be read."""
    table = delta(tmp_path / "t")
    with monkeypatch.context() as bounded:
        bounded.setattr(table_formats, "MOST_JSON", 10)
        assert f"a line of it has more than 10 bytes. {EXPORT}" in refusal(table)
    checkpoint(table, f"{1:020d}.checkpoint.parquet", ["b.parquet", "k=1/c%20d.parquet"])
    assert files(find(table), table) == ["b.parquet", "k=1/c d.parquet"]
    monkeypatch.setattr(table_formats, "_MOST_CHECKPOINT", 10)
    assert EXPORT in refusal(table)


def test_an_iceberg_table_of_many_snapshots_is_read(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    iceberg(tmp_path, "v1", 1)
    metadata = tmp_path / "metadata" / "v1.metadata.json"
    held = json.loads(metadata.read_text())
    old = [{"snapshot-id": number, "manifest-list": "m" * 500} for number in range(10, 32_000)]
    metadata.write_text(json.dumps({**held, "snapshots": [*old, *held["snapshots"]]}))
    assert metadata.stat().st_size > 16 << 20
    assert find(tmp_path).images == 1


def test_a_log_that_is_cleaned_while_it_is_read(tmp_path: Path) -> None:
    table = delta(tmp_path / "t")

    class Cleaned(Store):
        def list_folder(self, prefix: str) -> list[Entry]:
            found = super().list_folder(prefix)
            (table / "_delta_log" / f"{0:020d}.json").unlink(missing_ok=True)
            return found

    found = discover(str(table), InputOptions(), Cleaned())
    assert "a Delta table whose log is damaged, incomplete" in "".join(found.warnings)


@pytest.mark.parametrize("object_specific", [True, False])
def test_a_log_that_may_not_be_listed_gives_a_warning_and_an_outage_ends_the_run(
    tmp_path: Path, object_specific: bool
) -> None:
    table = delta(tmp_path / "t")

    class Refusing(Store):
        def list_folder(self, prefix: str) -> list[Entry]:
            if not prefix.endswith("/_delta_log"):
                return super().list_folder(prefix)
            error = StoreError("could not list it")
            error.object_specific = object_specific
            raise error

    def plan() -> Discovery:
        return discover(str(table / "*.parquet"), InputOptions(), Refusing())

    if not object_specific:
        with pytest.raises(StoreError, match="could not list it"):
            plan()
        return
    found = plan()
    assert "a.parquet" in files(found, table)
    assert "files that its current version does not hold are read, too: its log cannot be listed (could" in "".join(
        found.warnings
    )


def test_a_current_file_that_is_not_there(tmp_path: Path) -> None:
    table = delta(tmp_path / "t")
    (table / "b.parquet").unlink()
    told = refusal(table)
    assert f"1 file of its current version cannot be found, such as {table}/b.parquet: " in told
    checkpoint(table, f"{0:020d}.checkpoint.parquet", ["a.parquet", "k=1/c%20d.parquet"])
    # the pattern matches the checkpoint, too, but not the commits after it
    assert files(find(told.rpartition(": ")[2]), table) == ["k=1/c d.parquet"]


def test_a_table_that_is_empty_now(tmp_path: Path) -> None:
    table = delta(tmp_path / "t")
    commit(table, 2, remove("b.parquet"), remove("k=1/c%20d.parquet"))
    assert "the current version of this Delta table holds none of the files" in refusal(table)


def test_rows_that_are_removed_within_files(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    vector = {"deletionVector": {"storageType": "u", "pathOrInlineDv": "x", "offset": 1, "cardinality": 3}}
    commit(tmp_path, 0, add("a.parquet"))
    commit(tmp_path, 1, add("a.parquet", **vector), remove("a.parquet"))
    assert "1 file holds rows that are removed by deletion vectors" in refusal(tmp_path)
    commit(tmp_path, 2, remove("a.parquet", **vector), add("a.parquet"))
    assert find(tmp_path).images == 1


def test_update_follows_the_log(tmp_path: Path) -> None:
    from segment.inputs.changes import Known

    table = delta(tmp_path / "t")
    known = Known(find(table).parts)
    write(table / "e.parquet", 5)
    commit(table, 2, add("e.parquet"))
    found = discover(str(table), InputOptions(), Store(), known)
    assert (files(found, table), known.gone) == (["e.parquet"], 0)


def iceberg(table: Path, version: str, data_files: int, delete_files: int = 0) -> None:
    (table / "metadata").mkdir(parents=True, exist_ok=True)
    summary = {"total-data-files": str(data_files), "total-delete-files": str(delete_files)}
    text = {"current-snapshot-id": 9, "snapshots": [{"snapshot-id": 8}, {"snapshot-id": 9, "summary": summary}]}
    (table / "metadata" / f"{version}.metadata.json").write_text(json.dumps(text))


def test_an_iceberg_table_is_read_where_all_of_its_files_are_current(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / "data" / f"{name}.parquet")
    iceberg(tmp_path, "v9", 1)
    assert "is an Iceberg table of 2 Parquet files, and its current snapshot holds 1," in refusal(tmp_path)
    iceberg(tmp_path, "v10", 2)
    assert find(tmp_path).images == 2
    iceberg(tmp_path, "00011-1b2c-3d", 2, delete_files=1)
    assert "with 1 delete file" in refusal(tmp_path)
    (tmp_path / "metadata" / "00012-1b2c-3d.metadata.json").write_text("{}")
    assert "is no valid metadata of an Iceberg table" in refusal(tmp_path)
    for number in ("1e999", "9" * 5000, "[" * 100_000, "null", '"NaN"'):
        snapshots = f'[{{"snapshot-id": 1, "summary": {{"total-data-files": {number}}}}}]'
        text = f'{{"current-snapshot-id": 1, "snapshots": {snapshots}}}'
        (tmp_path / "metadata" / "00012-1b2c-3d.metadata.json").write_text(text)
        assert "is no valid metadata of an Iceberg table" in refusal(tmp_path)


def test_a_hudi_table(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    (tmp_path / ".hoodie").mkdir()
    (tmp_path / ".hoodie" / "hoodie.properties").write_text("x")
    assert f"{tmp_path} is a Hudi table" in refusal(tmp_path)
    assert find(tmp_path / "*.parquet").images == 1


def test_a_folder_that_is_called_metadata(tmp_path: Path) -> None:
    write(tmp_path / "metadata" / "a.parquet")
    (tmp_path / "metadata" / "notes.json").write_text("{}")
    assert find(tmp_path).images == 1
