"""Rounds: hopeless runs end early, and a bug is its part's failure."""

import shutil
import time
from collections.abc import Callable
from typing import Any

import pytest

from segment.engines.ray_stages import StageWorker
from segment.errors import StoreError, TooManyErrors
from segment.inputs.parts import Part
from segment.models.weights import load_weights
from segment.output.ledger import Ledger
from segment.output.results import PartResult
from segment.pipeline.stages import Frames
from segment.pipeline.worker import load_worker
from segment.runs.driver import task_and_plan
from segment.store.client import Store
from tests.jobs import tree
from tests.reliability.trouble import assert_sound, street
from tests.runs import Place


@pytest.fixture
def place(tmp_path: Any) -> Place:
    """Six sound images in three parts, and what an undisturbed run writes, in `calm`."""
    place = street(tmp_path)
    place.run(output=str(tmp_path / "calm"))
    return place


def check(place: Place) -> None:
    assert_sound(place.output)
    assert tree(place.output) == tree(place.folder / "calm")


# --- hopeless runs ----------------------------------------------------------------------------------------------------


def test_too_many_errors_end_a_run_before_its_end(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen broken images come first: with an allowance of ten, the rest need not be tried."""
    monkeypatch.setattr("segment.runs.error_limits._MANY", 10)
    for number in range(16):
        place.write(f"-{number:02d}.png", b"no image")
    for seed in range(6, 60):
        place.add(f"{seed}.png", seed)
    with pytest.raises(TooManyErrors) as caught:
        place.run(max_error_rate=0.12, output=str(place.folder / "hopeless"))
    assert str(caught.value) == (
        "10 of 76 images failed before the end, more than --max-error-rate allows (10 not_an_image). "
        "A rerun with a higher rate resumes."
    )
    done = list((place.folder / "hopeless").glob("masks/*/*.parquet"))
    assert 5 <= len(done) < 20
    report = place.run(max_error_rate=0.5, output=str(place.folder / "hopeless")).report
    assert (report.complete, report.total.images, report.total.errors) == (True, 76, 16)


def test_few_images_are_all_tried_however_many_fail(place: Place) -> None:
    for number in range(9):
        place.write(f"-{number}.png", b"no image")
    with pytest.raises(TooManyErrors, match=r"^9 of 15 images failed, more than --max-error-rate 0\.5 allows"):
        place.run(max_error_rate=0.5, output=str(place.folder / "few"))


def test_parts_that_fail_in_a_row_end_the_run(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(6, 30):
        place.add(f"{seed}.png", seed)
    tried: list[object] = []

    def away(*arguments: object) -> None:
        tried.append(arguments)
        time.sleep(0.2)  # as a store that is away does, or the thread is done before anybody has counted
        raise StoreError("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr("segment.pipeline.worker.read_planned", away)
        with pytest.raises(StoreError, match=r"^5 parts failed in a row: the store is away"):
            place.run(output=str(place.folder / "away"))
    assert 5 <= len(tried) <= 8  # of fifteen parts; a few were under way
    assert place.run(output=str(place.folder / "away")).report.complete


# --- bugs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where", ["segment.pipeline.worker.encode", "segment.pipeline.worker.write_masks", "segment.pipeline.worker.decode"]
)
def test_a_bug_is_its_parts_failure_in_words(where: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that nobody expects, in one part of three: the others are committed, and a rerun does the part."""
    module, _, name = where.rpartition(".")
    real: Callable[..., Any] = getattr(__import__(module, fromlist=[name]), name)
    seen: list[object] = []

    def buggy(things: Any, *arguments: Any, **settings: Any) -> Any:
        seen.append(things)
        rows = [image.row for image in things.images] if isinstance(things, Frames) else things
        if any(row.id == "3.png" for row in rows):
            raise TypeError("a bug")
        return real(things, *arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(where, buggy)
        patch.setattr("segment.runs.rounds._ROUNDS", ("none",))
        with pytest.raises(StoreError) as caught:
            place.run()
    assert str(caught.value) == (
        "1 of 3 parts not committed after 1 round: TypeError: a bug. Committed parts stay; the same command "
        "resumes the run."
    )
    assert len(list(place.output.glob("masks/*/*.parquet"))) == 2
    assert place.run().report.complete
    check(place)


@pytest.mark.parametrize(
    "where",
    [*(f"engines.ray_stages.{stage}" for stage in ("decode", "segment", "encode")), "pipeline.worker.write_masks"],
)
def test_a_bug_in_one_of_three_operators_is_told_too(where: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.run()
    ledger = Ledger(Store(), f"file://{place.output}")
    task, plan = task_and_plan(ledger)
    for folder in ("masks", "stats"):
        shutil.rmtree(place.output / folder)
    weights = load_weights(task.card, str(place.weights_path), store=Store())
    worker = StageWorker(task, load_worker(task, weights))

    def commit(part: Part) -> PartResult:
        return worker.write(worker.segment(worker.read(part)))

    def buggy(*_: object, **__: object) -> None:
        raise TypeError("a bug")

    part, *_ = plan.parts()
    with monkeypatch.context() as patch:
        patch.setattr(f"segment.{where}", buggy)
        assert commit(part).failure == "TypeError: a bug"
    assert ledger.committed(plan) == set()
    assert commit(part).failure is None
    assert ledger.committed(plan) == {part.id}


def test_a_bug_in_every_part_ends_the_run_early(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(6, 20):
        place.add(f"{seed}.png", seed)

    def buggy(*_: object) -> None:
        raise TypeError("a bug")

    monkeypatch.setattr("segment.pipeline.worker.encode", buggy)
    with pytest.raises(StoreError, match=r"^5 parts failed in a row: TypeError: a bug"):
        place.run(output=str(place.folder / "buggy"))
