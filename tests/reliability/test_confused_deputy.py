"""Plans that somebody has changed: what they name outside of their run is not read with the rights of the reader."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import segment as api
from segment.cli.app import open_store
from segment.errors import UsageError
from segment.inputs.own_scope import scope_of_run
from segment.output.audit import audit_run
from segment.output.ledger import Ledger
from segment.report.pictures import read_view
from segment.report.rows import row_at
from segment.runs.driver import run, task_and_plan
from segment.runs.resolve import _normal_options
from segment.store.client import Store
from tests.calls import Call
from tests.reliability.arena import note
from tests.runs import Notes, Place, png, scene


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A finished run of a list, and a picture of the reader's beside it."""
    place = Place(tmp_path)
    for number in range(3):
        place.add(f"{number}.png", seed=number)
    (place.images / "list.csv").write_text("image\n" + "".join(f"{number}.png\n" for number in range(3)))
    (tmp_path / "secret.png").write_bytes(png(scene(9)[0]))
    assert place.run(input=str(place.images / "list.csv"), part_size=3).report.complete
    return place


def tamper(place: Place, url: str, number: int = 1, size: int | None = None, etag: str = "") -> None:
    """Let an image of the plan be another object."""
    file = place.output / "plan.parquet"
    table = pq.read_table(file)
    parts = table.to_pylist()
    parts[0]["members"][number]["image"] |= {"url": url, "size": -1 if size is None else size, "etag": etag}
    pq.write_table(pa.Table.from_pylist(parts, schema=table.schema), file)


def urls(place: Place) -> dict[str, str]:
    secret = place.folder / "secret.png"
    (place.images / "link.png").symlink_to(secret)
    return {
        "absolute": f"file://{secret}",
        "dots": f"file://{place.images}/../secret.png",
        "a link": f"file://{place.images}/link.png",
        "the kernel": "file:///proc/self/environ",
        "local://": f"local://{secret}",
        "metadata": "http://169.254.169.254/latest/meta-data/a.png",
    }


def test_no_reader_of_a_plan_reads_what_its_run_may_not(place: Place, segment: Call) -> None:
    plan = (place.output / "plan.parquet").read_bytes()
    held = 0
    (place.folder / "far" / "sub").mkdir(parents=True)
    (place.folder / "far" / "secret.png").write_bytes((place.folder / "secret.png").read_bytes())
    (place.images / "up").symlink_to(place.folder / "far" / "sub")
    behind = {"dots behind a link": f"file://{place.images}/up/../secret.png"}
    for what, url in (urls(place) | behind).items():
        (place.output / "plan.parquet").write_bytes(plan)
        tamper(place, url)
        task, tampered = task_and_plan(Ledger(Store(), f"file://{place.output}"))
        views = [read_view(Ledger(task.store, task.output), row_at(tampered, 0, i), task) for i in range(3)]
        assert [view.photo is not None for view in views] == [True, False, True], what
        held += 1
    note("plan.parquet names an object outside of its run, then it is drawn", held, held, 0)


def test_a_plan_that_hides_its_list_makes_nobody_follow_a_link(place: Place) -> None:
    tamper(place, urls(place)["a link"])
    file = place.output / "plan.parquet"
    table = pq.read_table(file)
    parts = [part | {"url": f"file://{place.images}"} for part in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(parts, schema=table.schema), file)
    task, plan = task_and_plan(Ledger(Store(), f"file://{place.output}"))
    views = [read_view(Ledger(task.store, task.output), row_at(plan, 0, i), task) for i in range(3)]
    assert [view.photo is not None for view in views] == [True, False, True]


def test_report_overlay_and_resume_say_so(place: Place, segment: Call, caplog: pytest.LogCaptureFixture) -> None:
    tamper(place, f"file://{place.folder}/secret.png")
    for command in (["report"], ["overlay", "--sample", "3", "--to", str(place.folder / "drawn")]):
        done = segment(command[0], str(place.output), *command[1:])
        assert done.code == 0, done.err
    told = [record.getMessage() for record in caplog.records if "outside of what this run may read" in record.message]
    assert len(told) >= 1
    page = (place.output / "report" / "index.html").read_text()
    assert "secret" not in page
    with pytest.raises(UsageError, match=r"plan\.parquet names 1 folder outside of what this run may read"):
        run(place.job(input=str(place.images / "list.csv"), part_size=3), Notes())


def test_a_tampered_tar_or_table_is_refused(tmp_path: Path) -> None:
    place = Place(tmp_path)
    images = [png(scene(number)[0]) for number in range(3)]
    (tmp_path / "tables").mkdir()
    pq.write_table(pa.table({"image": images}), tmp_path / "tables" / "a.parquet")
    pq.write_table(pa.table({"image": images[::-1]}), tmp_path / "secret.parquet")
    place.run(input=str(tmp_path / "tables"))
    table = pq.read_table(place.output / "plan.parquet")
    parts = table.to_pylist()
    for part in parts:
        part |= {
            "url": f"file://{tmp_path}/secret.parquet",
            "etag": "",
            "size": (tmp_path / "secret.parquet").stat().st_size,
        }
    pq.write_table(pa.Table.from_pylist(parts, schema=table.schema), place.output / "plan.parquet")
    task, plan = task_and_plan(Ledger(Store(), f"file://{place.output}"))
    assert read_view(Ledger(task.store, task.output), row_at(plan, 0, 0), task).photo is None


def test_the_fingerprint_knows_prefixes_only_where_there_are_some(place: Place) -> None:
    job = place.job(input=str(place.images / "list.csv"))
    assert "allow_input" not in _normal_options(job)
    given = [
        _normal_options(place.job(allow_input=some))["allow_input"] for some in (["/b/", "/a"], ["/a", "/b", "/b"])
    ]
    assert given == [["file:///a", "file:///b"]] * 2
    record = json.loads((place.output / "run.json").read_text())
    assert "allow_input" not in record["contract"]["input"]
    with pytest.raises(UsageError, match="allow_input"):
        run(place.job(input=job.input, part_size=3, allow_input=["/a"]), Notes())


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_run_of_what_it_is_allowed(place: Place, kind: str) -> None:
    """Strangers' rows among sound ones of the same part: each fails by itself, at once."""
    (place.folder / "other").mkdir()
    (place.folder / "other" / "x.png").write_bytes(png(scene(4)[0]))
    os.mkfifo(place.images / "pipe.png")
    strangers = [*urls(place).values(), "link.png", "../secret.png", "/dev/zero", "s3://other/a.png", "pipe.png"]
    names = ["0.png", *strangers, f"{place.folder}/other/x.png", "2.png"]
    pq.write_table(pa.table({"image_path": names}), place.images / "list.parquet")
    (place.images / "list.csv").write_text("image\n" + "\n".join(names) + "\n")
    output = str(place.folder / "again")
    allowed = [str(place.folder / "other"), "/dev"]
    outcome = place.run(
        input=str(place.images / f"list.{kind}"), output=output, allow_input=allowed, part_size=len(names)
    )
    codes = [(row["error"] or "").partition(":")[0] for row in outcome.all_rows]
    assert codes == ["", *["not_allowed"] * 8, "not_a_file", "not_allowed", "not_a_file", "", ""]
    assert any("--allow-input" in line for line in outcome.warnings)
    note(f"{kind} of images names what its run may not read, or no regular file", len(strangers), len(strangers), 0)
    task, plan = task_and_plan(Ledger(Store(), f"file://{output}"))
    assert plan.images == len(names)
    drawn = [read_view(Ledger(task.store, task.output), row_at(plan, 0, i), task).photo for i in (0, -2 + len(names))]
    assert all(photo is not None for photo in drawn)


@pytest.mark.parametrize(
    ("url", "is_led"),
    [
        ("s3://other/in", True),
        ("https://example.com/in", True),
        ("http://10.0.0.7:8080/in", True),
        ("file:///home/reader", False),
        ("local:///home/reader", False),
        ("FILE:///home/reader", False),
        ("zip:///home/reader/a.zip", False),
        ("simplecache::file:///home/reader", False),
        ("http://127.0.0.1:8080/in", False),
        ("http://127.1/in", False),
        ("http://[::ffff:127.0.0.1]/in", False),
        ("http://localhost:8080/in", False),
        ("http://169.254.169.254/latest", False),
        ("http://2852039166/latest", False),
        ("http://[fd00:ec2::254]/latest", False),
        ("http://0/in", False),
    ],
)
@pytest.mark.parametrize("key", ["url", "allow_input"])
def test_an_output_in_a_store_leads_no_reader_to_its_own_machine(url: str, is_led: bool, key: str) -> None:
    """Whoever may write to the output can change its run.json, and the digests with it."""
    named = {"url": "s3://bucket/in", key: url if key == "url" else [url]}
    scope = scope_of_run({"contract": {"input": named}}, "s3://bucket/out")
    assert scope.allows(f"{url}/a.png") == is_led
    assert not scope.allows_address("127.0.0.1")
    assert not scope.allows_address("169.254.169.254")


def test_a_reader_says_what_more_an_output_in_a_store_may_show(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    output = f"memory://{place.folder.name}"
    run(place.job(output=output), Notes())  # whoever ran it has named the local input
    photos = []
    for allowed in (None, [str(place.images), str(place.labels)]):
        task, plan = task_and_plan(Ledger(open_store(None, allowed), output))
        photos.append(read_view(Ledger(task.store, output), row_at(plan, 0, 0), task).photo)
    assert photos[0] is None
    assert photos[1] is not None
    (told,) = [record.getMessage() for record in caplog.records if "--allow-input" in record.message]
    assert "outside of what this run may read" in told


def allowing(*prefixes: Path) -> Store:
    store = Store()
    store.allow_inputs(map(str, prefixes))
    return store


def test_a_deep_audit_reads_the_ids_of_parquet_where_it_may(tmp_path: Path) -> None:
    place, output = Place(tmp_path), f"memory://{tmp_path.name}"
    images = {"id": ["a", "b"], "image": [png(scene(number)[0]) for number in range(2)]}
    pq.write_table(pa.table(images), place.images / "a.parquet")
    run(place.job(output=output), Notes())
    for store, unseen in ((Store(), 2), (allowing(place.images), 0)):
        found = audit_run(Ledger(store, output), deep=True)
        assert (found.problems, found.read and found.read.unseen) == ((), unseen)


def test_label_errors_of_an_output_in_a_store_look_where_they_may(tmp_path: Path) -> None:
    place, output = Place(tmp_path), f"memory://{tmp_path.name}"
    place.write("a.png", png(scene(1)[0]), png((scene(1)[1] + 1) % 3))
    run(place.job(output=output), Notes())
    allowed = [str(place.images), str(place.labels)]
    assert [api.label_errors(output, allow_input=some).unreadable for some in ((), allowed)] == [1, 0]
    with pytest.raises(TypeError, match="give a list"):
        api.label_errors(output, allow_input="/data")
