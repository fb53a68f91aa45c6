"""The least certain images of a run: in its report, on its page, and as overlays."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segment.output.ledger import Ledger
from segment.report.aggregate import load_report
from segment.report.certain_images import Certainty, confidence_in_words
from segment.report.gallery import gallery
from segment.report.markdown import to_markdown
from segment.report.page import write_page
from segment.report.rows import read_scores
from segment.runs.driver import task_and_plan
from segment.store.client import Store
from tests.calls import Call
from tests.output.test_extra_columns import graph
from tests.runs import Place, png


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A finished run of pictures between grey, of which the model is unsure, and bright colours."""
    place = Place(tmp_path_factory.mktemp("certain"), graph())
    noise = np.random.default_rng(0).integers(-127, 128, (24, 32, 3))
    for contrast in range(10):
        place.write(f"{contrast}.png", png((127 + noise * contrast // 10).astype(np.uint8)))
    place.write("broken.png", b"no picture")
    place.run(confidence="maximum", part_size=4)
    return place


def by_confidence(place: Place) -> list[str]:
    """The ids, least certain first, from the rows alone."""
    rows = [row for row in place.run(confidence="maximum", part_size=4).all_rows if row["error"] is None]
    return [row["id"] for row in sorted(rows, key=lambda row: row["mean_confidence"])]


def test_the_report_names_them(place: Place, segment: Call) -> None:
    report = load_report(Ledger(Store(), str(place.output)))
    wanted = by_confidence(place)
    assert report.certainty is not None
    assert [image.id for image in report.certainty.least] == wanted
    told = json.loads(segment("report", str(place.output), "--format=json").out)["confidence"]
    assert told == json.loads((place.output / "report" / "summary.json").read_text())["confidence"]
    assert (told["measure"], [image["id"] for image in told["least_certain"]]) == ("maximum", wanted)
    confidences = [image["confidence"] for image in told["least_certain"]]
    assert told["mean"] == pytest.approx(sum(confidences) / 10)
    line = confidence_in_words(report.certainty)
    first = f"{wanted[0]} {confidences[0]:.3f}"
    assert re.match(r"mean 0\.\d{3} \(maximum: the highest probability of a pixel\); least certain: ", line)
    assert first in line
    table = segment("report", str(place.output), "--no-page").out.replace("\n", " ")
    assert "confidence: mean 0." in table
    assert first in table
    assert "Confidence: mean 0." in to_markdown(report)
    assert "Confidence" not in to_markdown(replace(report, certainty=Certainty("maximum", None, ())))  # no image


def test_the_gallery_of_an_unlabelled_run_shows_them_first(place: Place) -> None:
    ledger = Ledger(Store(), str(place.output))
    task, plan = task_and_plan(ledger)
    report = load_report(ledger)
    groups = gallery(ledger, read_scores(ledger, plan, report.parts), task)
    assert [(group.title, len(group.exhibits)) for group in groups] == [("Least certain", 8), ("A sample", 2)]
    assert [item.id for item in groups[0].exhibits] == by_confidence(place)[:8]
    write_page(ledger, report, task, plan)
    html = (place.output / "report" / "index.html").read_text()
    assert len(re.findall(r"confidence \d+\.\d\d %", html)) == 10


def test_overlays_of_the_least_certain(place: Place, segment: Call, tmp_path: Path) -> None:
    called = segment("overlay", str(place.output), "--least-certain", "3", "--to", str(tmp_path))
    assert called.out.splitlines() == [f"{tmp_path}/{name}" for name in by_confidence(place)[:3]]


def test_a_run_without_confidence_has_none(segment: Call, tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.add("a.png", 1)
    report = place.run().report
    assert report.certainty is None
    assert "confidence" not in report.summary()
    called = segment("overlay", str(place.output), "--least-certain", "3")
    assert called.code == 2
    assert "was made without --confidence" in called.err
    assert not re.search(r"(?i)confidence \d|>Confidence<", (place.output / "report" / "index.html").read_text())
