"""An image that kills its process is one error row; nothing else of the run is lost, blamed or changed."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from segment.engines.pool_member import Member
from segment.engines.ray_operators import quarantine
from segment.engines.worker_process import Heartbeat
from segment.errors import ModelError, StoreError
from segment.inputs.parts import Part
from segment.models.weights import Weights, load_weights
from segment.output.ledger import Ledger
from segment.output.results import PartResult
from segment.pipeline.stages import Task
from segment.runs.driver import task_and_plan
from segment.store import inflight
from segment.store.client import Store
from tests.jobs import ray_engine, run_on
from tests.reliability.trouble import (
    add_killer,
    assert_sound,
    holding,
    masks,
    run_process,
    street,
    trouble_in_children,
)
from tests.runs import Notes, Place, expect, read_rows

KILLED = "killed_worker: the worker process died, or came to no end, at this image"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Six sound images, and a killer between them in a part with `2.png`."""
    place = street(tmp_path)
    add_killer(place, "2-killer.png")
    return place


def assert_one_row_killed(place: Place) -> None:
    """Assert that a run that met the killer differs from one that did not in that row and in nothing else."""
    calm = place.folder / "calm"
    place.run(output=str(calm))
    wanted, found = read_rows(calm), read_rows(place.output)
    (killed,) = [row for row in found if row["status"] == "error"]
    assert killed["id"] == "2-killer.png"
    sound = next(row for row in wanted if row["id"] == "2-killer.png")
    nothing = dict.fromkeys(["width", "height", "brightness", "mask", "confusion", "pixel_accuracy", "miou"])
    assert killed == {**sound, **nothing, "status": "error", "error": KILLED}
    assert [row for row in found if row != killed] == [row for row in wanted if row != sound]
    part = holding(calm, "2-killer.png").relative_to(calm).as_posix()
    ours, theirs = masks(place.output), masks(calm)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == [part]
    assert_sound(place.output)


def test_with_the_local_engine_one_attempt_completes_the_run(place: Place) -> None:
    ended = run_process(place, "die")
    assert ended.returncode == 0, ended.stderr
    assert "round 3: 1 part left, image by image" in ended.stderr
    assert "7 images · 1 shard · 1 error · 6 scored" in ended.stdout
    assert_one_row_killed(place)


def test_an_image_whose_decoding_has_no_end_costs_one_stall_timeout(place: Place) -> None:
    """The process is alive and says which image it decodes: that one is not tried again, in no round."""
    begun = place.folder / "begun"
    ended = run_process(place, f"decode-hang={begun}", stall_timeout=3)
    assert ended.returncode == 0, ended.stderr
    assert begun.read_bytes() == b"x"
    assert_one_row_killed(place)


@pytest.mark.parametrize(
    ("timeout", "beats", "blamed"),
    [
        (60, range(60), True),
        (60, [0, 57, 58, 59], False),  # frozen; then it goes on with a sound image
        (60, range(31), False),  # frozen at the end
        (60, range(40, 60), False),  # it did something else for most of the time
        (4, [0], False),
        (4, range(4), True),
        (1, [0], False),
    ],
)
def test_only_a_process_that_is_alive_is_stuck_at_an_image(timeout: int, beats: Iterable[int], blamed: bool) -> None:
    """The process sends its heartbeats in these seconds, none of them with a step."""
    member = Member(None, 3, steps=7)  # type: ignore[arg-type]
    for tick in range(5 * timeout):
        if tick % 5 == 0 and tick // 5 in beats:
            member.note_progress(Heartbeat(7, None, decoding=("part", 4)))
        member.pass_time(0.2)
    inflight.record_worker(member, None)
    assert member.stuck_at() == (("part", 4) if blamed else None)


@pytest.fixture
def in_ray_workers(ray_cluster: Path) -> Iterator[Callable[[str], object]]:
    """Makes trouble in the workers of the cluster."""
    yield ray_cluster.write_text
    ray_cluster.unlink()


@pytest.mark.ray
def test_with_ray_one_attempt_completes_the_run(place: Place, in_ray_workers: Callable[[str], object]) -> None:
    in_ray_workers("die")
    notes = Notes()
    report = run_on(ray_engine(workers=(2, 2)), place.job(), notes)
    assert (report.complete, report.total.images, report.total.errors) == (True, 7, 1)
    rounds = [line for line in notes.lines if line.startswith("round ")]
    assert rounds == ["round 2: 1 part left, one by one", "round 3: 1 part left, image by image"]
    assert_one_row_killed(place)


@pytest.mark.slow
@pytest.mark.ray
def test_a_frozen_ray_worker_is_replaced(
    place: Place, in_ray_workers: Callable[[str], object], caplog: pytest.LogCaptureFixture
) -> None:
    frozen = place.folder / "frozen"
    in_ray_workers(f"freeze={frozen}")
    report = run_on(ray_engine(workers=(1, 1)), place.job(stall_timeout=5))
    assert (report.complete, report.total.images, report.total.errors) == (True, 7, 0)
    assert frozen.exists()
    assert "did nothing for 5 s: it is replaced" in caplog.text
    calm = place.folder / "calm"
    place.run(output=str(calm))
    assert masks(place.output) == masks(calm)
    assert_sound(place.output)


# --- a part at a time -------------------------------------------------------------------------------------------------


@pytest.fixture
def begun(place: Place) -> tuple[Place, Task, list[Part], Weights]:
    """The place with a run that is planned, all parts of which are uncommitted again."""
    place.run()
    for file in [*place.output.glob("masks/*/*.parquet"), *place.output.glob("stats/*"), place.output / "_SUCCESS"]:
        file.unlink()
    task, plan = task_and_plan(Ledger(Store(), f"file://{place.output}"))
    return place, task, list(plan.parts()), load_weights(task.card, str(place.weights_path))


def with_killer(parts: list[Part]) -> Part:
    return next(part for part in parts if any(member.id.endswith("killer.png") for member in part.members))


def test_an_image_that_freezes_its_process_is_one_row_too(
    begun: tuple[Place, Task, list[Part], Weights], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, task, parts, weights = begun
    trouble_in_children(monkeypatch, "freeze")
    settings = task.settings.model_copy(update={"stall_timeout": 2.0})
    task = dataclasses.replace(task, settings=settings)  # for a step; a model may take longer to load
    result = quarantine(with_killer(parts), task, weights)
    assert (result.errors, result.failure) == ({"killed_worker": 1}, None)
    killed, sound = read_rows(place.output)
    assert (killed["id"], killed["error"]) == ("2-killer.png", KILLED)
    assert sound["id"] == "2.png"
    expect(sound, 2)


def test_a_part_that_kills_by_being_read_is_error_rows(
    begun: tuple[Place, Task, list[Part], Weights], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, task, parts, weights = begun
    trouble_in_children(monkeypatch, "read")
    part = with_killer(parts)
    assert quarantine(part, task, weights).errors == {"killed_worker": 2}
    found = read_rows(place.output)
    assert [(row["id"], row["uri"], row["index"], row["error"]) for row in found] == [
        (member.id, f"file://{place.images}/{member.id}", part.start + i, KILLED)
        for i, member in enumerate(part.members)
    ]


def test_a_child_that_dies_while_it_loads_the_model_blames_no_image(
    begun: tuple[Place, Task, list[Part], Weights], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, task, parts, weights = begun
    trouble_in_children(monkeypatch, "load")
    result = quarantine(parts[0], task, weights)
    reason = "a worker process ended with exit code -9 while it loaded the model"
    assert result == PartResult(parts[0].id, parts[0].shard, failure=reason)
    assert read_rows(place.output) == []


def test_a_model_that_cannot_be_loaded_ends_the_run(begun: tuple[Place, Task, list[Part], Weights]) -> None:
    place, task, parts, weights = begun
    task = dataclasses.replace(task, runtime=dataclasses.replace(task.runtime, version="0.1"))
    with pytest.raises(ModelError, match=r"the run was begun with 0\.1; their masks would mix"):
        quarantine(parts[0], task, weights)
    assert read_rows(place.output) == []


def test_a_run_whose_children_cannot_load_the_model_fails_and_resumes(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        trouble_in_children(patch, "load")
        patch.setattr("segment.runs.rounds._ROUNDS", ("part", "image"))
        with pytest.raises(StoreError) as caught:
            place.run(part_size=7)
    assert str(caught.value).startswith(
        "1 of 1 part not committed after 2 rounds: a worker process ended with exit code -9 while it loaded the model. "
    )
    assert read_rows(place.output) == []
    assert place.run(part_size=7).report.total.errors == 0
    assert_sound(place.output)
