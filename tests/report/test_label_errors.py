"""`segment label-errors`: planted errors are found before seams along outlines, where they are and as what they are."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import segment as api
from segment.errors import StoreError, UsageError
from segment.images.regions import disagreements
from segment.models.classes import VOID
from segment.output.ledger import Ledger
from segment.report import pictures
from segment.report.label_error_gallery import label_error_gallery
from segment.report.label_errors import LabelErrors, errors_to_markdown, find_label_errors
from segment.runs.driver import task_and_plan
from segment.store.client import Store
from tests.calls import Call
from tests.calls import segment as segment  # a fixture
from tests.runs import CARD, CARD_TOML, Place, png, read_rows, scene

NAMES = CARD.classes.names


def planted(seed: int, rows: slice, columns: slice) -> NDArray[np.uint8]:
    """The label of a scene with another class in a rectangle."""
    label = scene(seed)[1].copy()
    label[rows, columns] = (label[rows, columns] + 1) % 3
    return label


def write(place: Place) -> None:
    """An image with a block of 8 x 8 pixels wrong, one with a seam of as many, a sound one, one without a label."""
    place.write("block.png", png(scene(1)[0]), png(planted(1, slice(8, 16), slice(16, 24))))
    place.write("seam.png", png(scene(2)[0]), png(planted(2, slice(7, 9), slice(None))))
    place.add("sound.png", 3)
    place.add("alone.png", 4, label=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("label-errors"))
    write(place)
    place.run()
    return place


def find(place: Place, number: int = 20, images: int = 200) -> LabelErrors:
    ledger = Ledger(Store(), f"file://{place.output}")
    task, plan = task_and_plan(ledger)
    return find_label_errors(ledger, plan, task, number, images)


def test_regions_are_connected_and_know_their_largest_disc() -> None:
    label = np.zeros((60, 80), np.uint8)
    prediction = label.copy()
    prediction[10:30, 20:40] = 1  # a block of 400 pixels
    prediction[40:44, :] = 1  # a seam of 320 pixels
    prediction[50:60, 0:10] = 2
    label[50:60, 5:10] = VOID
    prediction[0:3, 0:3] = 2  # smaller than a region
    found = sorted(disagreements(label, prediction), key=lambda region: -region.disc)
    block, corner, seam = found
    assert (block.left, block.top, block.width, block.height, block.pixels) == (20, 10, 20, 20, 400)
    assert (block.label, block.prediction) == (0, 1)
    assert block.disc == pytest.approx(np.pi * 10**2, rel=0.02)
    assert (corner.prediction, corner.pixels, corner.pixel.all()) == (2, 50, True)
    assert seam.disc == pytest.approx(np.pi * 2**2, rel=0.02)
    assert list(disagreements(label, prediction, ignored=[0])) == []


def test_a_planted_error_comes_before_a_seam(place: Place) -> None:
    found = find(place)
    first = found.regions[0]
    label, prediction = planted(1, slice(8, 16), slice(16, 24))[8, 16], scene(1)[1][8, 16]
    assert (first.id, first.label, first.prediction) == ("block.png", NAMES[label], NAMES[prediction])
    assert (first.left, first.top, first.width, first.height, first.pixels) == (16, 8, 8, 8, 64)
    assert first.suspicion == pytest.approx(np.pi * 4**2 / (24 * 32), rel=0.02)
    assert first.confidence is None
    assert {one.id for one in found.regions[1:]} == {"seam.png"}
    assert all(one.suspicion < first.suspicion / 3 for one in found.regions[1:])
    assert (found.labelled, found.looked_at, found.unreadable) == (3, 2, 0)
    assert len(find(place, number=1).regions) == 1
    assert "looked at 1 image of 2, those with the worst counts" in find(place, images=1).notes


def test_the_formats_say_the_same(place: Place, segment: Call) -> None:
    asked = ["label-errors", str(place.output), "--number", "2"]
    told = json.loads(segment(*asked, "-f", "json").out)
    assert [one["id"] for one in told["regions"]] == ["block.png", "seam.png"]
    rows = list(csv.DictReader(io.StringIO(segment(*asked, "-f", "csv").out)))
    assert [float(row["suspicion"]) for row in rows] == [one["suspicion"] for one in told["regions"]]
    text = segment(*asked).out
    for shown in (text, segment(*asked, "-f", "markdown").out):
        assert "16,8 8×8" in shown
        assert "ranked by the largest disc within a region" in shown
    assert max(map(len, text.splitlines())) <= 100


def test_confidence_weighs_the_regions_and_lost_sources_are_told(tmp_path: Path, segment: Call) -> None:
    place = Place(tmp_path)
    write(place)
    place.run(confidence="maximum", confidence_maps=True)
    found = find(place)
    first = found.regions[0]
    assert first.confidence is not None
    assert 0 < first.confidence <= 1
    assert first.suspicion == pytest.approx(np.pi * 4**2 / (24 * 32) * first.confidence, rel=0.02)
    assert first.suspicion == first.disc * first.confidence
    note, small = found.notes
    assert small == "regions below 16 pixels are left out"
    assert note.endswith(
        "the largest disc within a region, as a share of the image, times the model's confidence in the region"
    )
    (place.images / "block.png").unlink()
    assert {one.id for one in find(place).regions} == {"seam.png"}
    assert "1 source gone, changed, too large, or not readable" in find(place).notes


def test_the_function_finds_what_the_command_lists(place: Place) -> None:
    assert api.label_errors(place.output, number=3).regions == find(place).regions[:3]
    with pytest.raises(UsageError, match="number = 0: give a number from 1 on"):
        api.label_errors(place.output, number=0)


def test_the_page_outlines_the_regions(place: Place) -> None:
    ledger = Ledger(Store(), f"file://{place.output}")
    task, plan = task_and_plan(ledger)
    gallery = label_error_gallery(ledger, plan, task, ledger.committed(plan))
    assert gallery is not None
    first = gallery.regions[0]
    assert (first.error, first.exhibit.width, first.exhibit.shown_width) == (find(place).regions[0], 32, 32)
    assert [pane.title for pane in first.exhibit.panes] == ["Image", "Label", "Prediction", "Difference"]
    numbers = np.array([float(value) for value in re.findall(r"[\d.]+", first.outline)]).reshape(-1, 2)
    assert first.outline.startswith("M")
    assert numbers.min(axis=0) == pytest.approx([16, 8], abs=0.5)
    assert numbers.max(axis=0) == pytest.approx([24, 16], abs=0.5)
    page = (place.output / "report" / "index.html").read_text()  # as the run wrote it
    assert page.count(first.outline) == 8  # in image, label, prediction and difference, dark and light
    assert "largest disc 6." in page
    assert "Ranked by the largest disc within a region" in page
    quick = label_error_gallery(ledger, plan, task, ["none"])
    assert quick is None


def test_of_near_duplicates_the_page_outlines_one(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for n in range(7):  # the same picture under seven names, with errors of which the largest is in 0.png
        place.write(f"{n}.png", png(scene(1)[0]), png(planted(1, slice(8, 17 - n), slice(16, 25 - n))))
    place.write("other.png", png(255 - scene(2)[0]), png(planted(2, slice(8, 10), slice(16, 18))))
    place.run()
    ledger = Ledger(Store(), f"file://{place.output}")
    task, plan = task_and_plan(ledger)
    gallery = label_error_gallery(ledger, plan, task, ledger.committed(plan))
    assert gallery is not None
    assert [one.error.id for one in gallery.regions] == ["0.png", "other.png"]


def test_where_every_prediction_is_its_label_the_page_shows_none(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.add("sound.png", 3)
    place.run()
    assert 'id="label-errors"' not in (place.output / "report" / "index.html").read_text()
    found = find(place)
    assert (found.regions, found.notes[-1]) == ((), "no such region differs from its label")
    assert "| image" not in errors_to_markdown(found)


def test_without_labels_there_is_nothing_to_find(tmp_path: Path, segment: Call) -> None:
    place = Place(tmp_path)
    place.add("a.png", 1, label=False)
    place.run()
    called = segment("label-errors", str(place.output))
    assert (called.code, "has a labelled pixel that counts, so that none can be wrong" in called.err) == (2, True)


def test_maps_at_model_size_are_read_in_the_region(tmp_path: Path) -> None:
    found = []
    for size in ("source", "model"):
        (tmp_path / size).mkdir()
        place = Place(tmp_path / size)
        pixels, mask = (plane.repeat(2, axis=0).repeat(2, axis=1) for plane in scene(1))
        label = mask.copy()
        label[16:32, 20:40] = (label[16:32, 20:40] + 1) % 3
        place.write("a.png", png(pixels), png(label))
        place.run(confidence="maximum", confidence_maps=True, mask_size=size)
        found.append(find(place).regions)
    told = [[(one.label, one.pixels, one.confidence, one.suspicion) for one in regions] for regions in found]
    assert told[0] == told[1] != []
    by_class = read_rows(place.output)[0]["class_confidence"]
    assert found[0][0].confidence not in by_class


def test_regions_that_vanish_at_model_size_are_found_or_their_images_told(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.card_path.write_text(CARD_TOML.replace('resolution = "source"', 'resolution = "model"'))
    picture = np.full((96, 128, 3), CARD.classes.palette_array[0], np.uint8)
    label = np.zeros((96, 128), np.uint8)
    for name, rows in (("0.png", slice(0)), ("1.png", slice(10, 34)), ("2.png", slice(7, 10))):
        wrong = label.copy()
        wrong[rows, :16] = 1  # at model size every fourth row is left, from the second on
        place.write(name, png(picture), png(wrong))
    place.run()
    found = find(place)
    assert [(one.id, one.top, one.pixels) for one in found.regions] == [("1.png", 10, 24 * 16), ("2.png", 7, 3 * 16)]
    assert (found.labelled, found.differing, found.looked_at) == (3, 1, 3)
    assert not [note for note in found.notes if "not looked at" in note]
    few = find(place, images=1)
    assert [one.id for one in few.regions] == ["1.png"]
    assert few.notes[-1].startswith("2 labelled images not looked at: counts at model size, where small regions vanish")


@pytest.mark.parametrize("object_specific", [True, False])
def test_a_store_that_does_not_answer_is_asked_once(
    place: Place, monkeypatch: pytest.MonkeyPatch, object_specific: bool
) -> None:
    def refused(*_: object) -> None:
        error = StoreError("refused")
        error.object_specific = object_specific
        raise error

    monkeypatch.setattr(pictures, "read_planned", refused)
    if object_specific:
        assert find(place).unreadable == 2
    else:
        with pytest.raises(StoreError, match="does not answer: labels and sources cannot be looked at"):
            find(place)
