"""One output holds one run: whoever comes with another one is refused, before, beside and after it."""

import json
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from segment.errors import SegmentError, UsageError
from segment.inputs.discovery import Discovery
from segment.job import Job
from segment.output.tables import footer_of
from segment.report.aggregate import RunReport
from segment.runs import driver
from segment.runs.driver import run
from segment.runs.resolve import make_engine
from segment.store.client import Store
from tests.calls import Call
from tests.graphs import colour_classifier
from tests.reliability.trouble import assert_sound, masks, street
from tests.runs import CARD, Notes, Place, png, read_rows, scene
from tests.web import Web


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = street(tmp_path)
    (tmp_path / "other.onnx").write_bytes(colour_classifier(CARD, opset=16))  # the same masks by other weights
    return place


def other(place: Place, **changes: Any) -> Job:
    """The same job with other weights."""
    return place.job(weights=str(place.folder / "other.onnx"), **changes)


def fingerprints(output: Path) -> set[object]:
    """Of all masks files."""
    return {footer_of(pq.ParquetFile(path).read())["fingerprint"] for path in output.glob("masks/*/*.parquet")}


def begun(place: Place) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((place.output / "run.json").read_text())
    return record


# --- two drivers at once ----------------------------------------------------------------------------------------------


def both(first: Job, second: Job, monkeypatch: pytest.MonkeyPatch, name: str) -> list[RunReport | UsageError]:
    """Run two jobs at once, which wait for each other before they create an object of this name."""
    barrier, create = threading.Barrier(2, timeout=30), Store.create

    def create_together(self: Store, url: str, data: bytes) -> bytes:
        if url.endswith(name):
            barrier.wait()
        return create(self, url, data)

    def ended(job: Job) -> RunReport | UsageError:
        try:
            return run(job)
        except UsageError as error:
            return error

    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(Store, "create", create_together)
        return list(pool.map(ended, [first, second]))


def test_of_two_drivers_with_different_weights_one_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    results = both(place.job(), other(place), monkeypatch, "run.json")
    (report,) = [result for result in results if isinstance(result, RunReport)]
    (refused,) = [result for result in results if isinstance(result, UsageError)]
    assert str(refused) == f"another run has just begun at {place.output}: choose another output"
    assert report.complete
    assert begun(place)["fingerprint"] == report.run["fingerprint"]
    assert fingerprints(place.output) == {report.run["fingerprint"]}
    assert_sound(place.output)


@pytest.mark.parametrize("name", ["run.json", "plan.parquet"])
def test_two_drivers_of_the_same_run_both_complete_it(place: Place, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    results = both(place.job(), place.job(), monkeypatch, name)
    assert [isinstance(result, RunReport) and result.complete for result in results] == [True, True]
    assert_sound(place.output)
    calm = place.folder / "calm"
    place.run(output=str(calm))
    assert masks(place.output) == masks(calm)


def test_the_first_drivers_plan_is_kept(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second driver lists the input when the first has begun, and finds more in it."""
    discover = driver.discover_for

    def late(*arguments: Any, **settings: Any) -> Discovery:
        with monkeypatch.context() as patch:
            patch.setattr("segment.runs.driver.discover_for", discover)
            place.run()
        place.add("9.png", 9)
        return discover(*arguments, **settings)

    monkeypatch.setattr("segment.runs.driver.discover_for", late)
    notes = Notes()
    report = run(place.job(), notes)
    assert "7 images in 1 shard, 4 parts" in notes.lines
    assert (report.total.images, report.planned_images, report.complete) == (6, 6, True)
    assert len(read_rows(place.output)) == 6
    assert_sound(place.output)


# --- one driver replaces the run of another, which had committed nothing ----------------------------------------------


def test_a_run_that_is_being_begun_is_not_replaced(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It pauses before its first commit; meanwhile another one is refused."""

    def late(*arguments: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr("segment.runs.lazy_engine.make_engine", make_engine)
            with pytest.raises(UsageError, match="another run is starting at"):
                run(other(place))
        return make_engine(*arguments)

    job = place.job()
    begin(job, monkeypatch)
    monkeypatch.setattr("segment.runs.lazy_engine.make_engine", late)
    assert run(job).complete
    assert len(fingerprints(place.output)) == 1
    assert fingerprints(place.output) == {begun(place)["fingerprint"]}
    assert_sound(place.output)


def begin(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run be planned and broken off."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("segment.runs.driver.Rounds", stop)
        with pytest.raises(KeyboardInterrupt):
            run(job)


# --- what is there already --------------------------------------------------------------------------------------------


def test_masks_of_an_unknown_run_are_refused(place: Place) -> None:
    place.run()
    kept = masks(place.output)
    for name in ("run.json", "plan.parquet", "_SUCCESS"):
        (place.output / name).unlink()
    with pytest.raises(UsageError) as caught:
        place.run()
    assert str(caught.value) == f"{place.output} holds masks but no run.json: choose another output"
    assert masks(place.output) == kept
    assert not (place.output / "run.json").exists()


def test_what_a_file_manager_leaves_is_no_mask(place: Place) -> None:
    folder = place.output / "masks" / "shard"
    folder.mkdir(parents=True)
    (folder / ".DS_Store").write_bytes(b"")
    place.run()
    shutil.copy(folder / ".DS_Store", place.output / "stats" / "Thumbs.db")
    place.run()
    assert_sound(place.output)


def test_a_foreign_part_is_found_when_its_shard_is_folded(place: Place) -> None:
    theirs = place.folder / "theirs"
    run(other(place, output=str(theirs)))
    place.run()
    foreign = min(place.output.glob("masks/*/*.parquet"))
    shutil.copy(theirs / foreign.relative_to(place.output), foreign)
    for file in (*place.output.glob("stats/*"), place.output / "_SUCCESS"):
        file.unlink()
    with pytest.raises(SegmentError) as caught:
        place.run()
    assert str(caught.value) == f"{foreign} was written by another run: choose another output"
    assert list(place.output.glob("stats/*")) == []
    assert not (place.output / "_SUCCESS").exists()
    foreign.unlink()
    place.run()
    assert_sound(place.output)


# --- signatures -------------------------------------------------------------------------------------------------------

SIGNATURE = "X-Amz-Signature=hunter2"
Inputs = Callable[[Place, Web], str]


def tar_input(place: Place, web: Web) -> str:
    from tests.datasets import Item, write_tars

    items = [Item(f"{seed}.png", png(scene(seed)[0]), png(scene(seed)[1])) for seed in range(3)]
    write_tars(place.folder / "tars", items, shards=1)
    return web.put("/images.tar", (place.folder / "tars" / "part-000000.tar").read_bytes()) + f"?{SIGNATURE}"


def parquet_input(place: Place, web: Web) -> str:
    from tests.datasets import Item, write_parquet

    items = [Item(f"{seed}.png", png(scene(seed)[0]), png(scene(seed)[1])) for seed in range(3)]
    write_parquet(place.folder / "tables", items, shards=1)
    (table,) = (place.folder / "tables").iterdir()
    return web.put("/images.parquet", table.read_bytes()) + f"?{SIGNATURE}"


def list_input(place: Place, web: Web) -> str:
    lines = []
    for seed in range(3):
        image, label = (web.put(f"/{kind}/{seed}.png", png(scene(seed)[i])) for i, kind in enumerate(("in", "labels")))
        lines.append(f"{image}?{SIGNATURE} {label}?{SIGNATURE}")
    (place.folder / "list.txt").write_text("\n".join(lines))
    return str(place.folder / "list.txt")


@pytest.mark.parametrize("make", [tar_input, parquet_input, list_input])
def test_signatures_of_urls_are_kept_out_of_what_a_run_leaves_and_says(
    segment: Call, place: Place, web: Web, make: Inputs
) -> None:
    web.put("/card.toml", place.card_path.read_bytes())
    web.put("/model.onnx", place.weights_path.read_bytes())
    web.put("/broken.png", b"no image")
    source = make(place, web)
    changes = {"model": f"{web.url}/card.toml?{SIGNATURE}", "weights": f"{web.url}/model.onnx?{SIGNATURE}"}
    own = {"allow_input": [web.url]}
    called = segment(*place.flags(input=source, **own, **changes))
    assert called.code == 0, called.err
    rows = read_rows(place.output)
    assert [row["miou"] for row in rows] == [1.0] * 3
    for row in rows:
        assert "?" not in row["id"] + row["uri"] + row["shard"] + row["part"]
    files = {
        path.relative_to(place.output).as_posix(): path.read_bytes()
        for path in place.output.rglob("*.*")
        if path.is_file()
    }
    table = pq.read_table(place.output / "plan.parquet").drop_columns(["url", "members"])  # these are what is read
    files["plan.parquet"] = repr(table.to_pylist()).encode()
    assert [name for name, data in files.items() if b"hunter2" in data or b"Signature" in data] == []
    assert begun(place)["job"]["weights"] == f"{web.url}/model.onnx"
    assert "hunter2" not in called.out + called.err
    anew = {name: value.replace("hunter2", "hunter3") for name, value in {"input": source, **changes}.items()}
    again = segment(*place.flags(**own, **anew))  # signed anew it is the same run
    assert (again.code, again.out) == (0, called.out)
    damaged = place.folder / "damaged"
    web.pages.pop("/model.onnx")
    refused = segment(*place.flags(input=source, output=str(damaged), **own, **changes))
    assert refused.code in (1, 2)
    assert "hunter2" not in refused.err
    assert "/model.onnx" in refused.err
