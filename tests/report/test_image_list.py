"""The table of all images: order, bounds, and what it says of what it leaves out."""

from dataclasses import replace
from typing import Any

import pytest

from segment.output.ledger import Ledger
from segment.report import image_list
from segment.report.image_list import list_images
from segment.report.rows import ImageScores, read_scores
from segment.runs.driver import task_and_plan
from segment.store.client import Store
from tests.runs import Place, png, read_rows, scene


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("list"))
    for n in range(9):
        label = scene(n)[1].copy()
        label[:, :n] = (label[:, :n] + 1) % 3
        place.write(f"{n}.png", png(scene(n)[0]), png(label))
    for n in range(3):
        place.write(f"bad-{n}.png", b"none", png(scene(9)[1]))
    place.run(part_size=4)
    return place


def scores_of(place: Place, most_parts: int | None = None) -> tuple[Ledger, ImageScores]:
    ledger = Ledger(Store(), f"file://{place.output}")
    plan = task_and_plan(ledger)[1]
    return ledger, read_scores(ledger, plan, ledger.committed(plan), most_parts)


def test_all_images_worst_first_and_errors_last(place: Place) -> None:
    found = list_images(*scores_of(place))
    stored = read_rows(place.output)
    sound = sorted((row for row in stored if row["status"] == "ok"), key=lambda row: row["miou"])
    assert [row[0] for row in found.rows] == [*(row["id"] for row in sound), *(f"bad-{n}.png" for n in range(3))]
    assert [row[2:4] for row in found.rows[:9]] == [
        (round(100 * row["miou"], 2), round(100 * row["pixel_accuracy"], 2)) for row in sound
    ]
    assert [row[7] for row in found.rows] == [""] * 9 + [row["error"] for row in stored if row["status"] != "ok"]
    assert found.rows[0][5:7] == (32, 24)
    assert found.note == "All 12 images."
    assert found.columns == (0, 2, 3, 5, 6, 7)  # there is one shard, and no confidence


def test_of_many_images_the_worst_are_listed_and_it_says_so(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list_images(*scores_of(place))
    monkeypatch.setattr(image_list, "_MOST", 6)
    monkeypatch.setattr(image_list, "_MOST_ERRORS", 2)
    found = list_images(*scores_of(place))
    assert found.rows == (*whole.rows[:4], *whole.rows[9:11])
    assert found.note.startswith("6 of 12 images: those with the lowest mIoU, and error rows, of which there are 3.")


def test_a_run_without_a_committed_part_has_none(place: Place) -> None:
    ledger = Ledger(Store(), f"file://{place.output}")
    found = list_images(ledger, read_scores(ledger, task_and_plan(ledger)[1], ()))
    assert (found.rows, found.columns) == ((), ())


def test_long_texts_do_not_make_the_page_large(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list_images(*scores_of(place))
    monkeypatch.setattr(image_list, "_ROOM", 300)
    found = list_images(*scores_of(place))
    assert 0 < len(found.rows) < 6
    assert found.rows == whole.rows[: len(found.rows)]
    assert found.note.startswith(f"{len(found.rows)} of 12 images")
    assert len(image_list._text("a" * 900)) == 201


def test_the_room_is_counted_in_bytes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_list, "_ROOM", 1500)
    latin = len(list_images(*scores_of(place)).rows)
    monkeypatch.setattr(image_list, "_text", lambda text: "像" * len(text))
    assert len(list_images(*scores_of(place)).rows) < latin


def test_a_quick_page_lists_what_it_read(place: Place) -> None:
    found = list_images(*scores_of(place, most_parts=1))
    assert found.note == "From 4 images of 12, evenly spread over the input. All 4 images."


def test_no_more_rows_are_read_than_are_listed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, scores = scores_of(place)
    read: list[str] = []
    original = Ledger.read_rows

    def spy(self: Ledger, shard: str, part: str, *rest: Any, **more: Any) -> Any:
        read.append(part)
        return original(self, shard, part, *rest, **more)

    monkeypatch.setattr(Ledger, "read_rows", spy)
    monkeypatch.setattr(image_list, "_MOST", 2)
    monkeypatch.setattr(image_list, "_MOST_ERRORS", 0)
    found = list_images(ledger, replace(scores))
    assert len(found.rows) == 2
    assert len(read) <= 2
