"""`segment compare`: its formats, its exit codes, and its page in a real browser."""

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segment as api
from segment.metrics import Confusion
from segment.output.ledger import Ledger
from segment.output.tables import ImageRow, write_masks
from segment.report.aggregate import load_report
from segment.report.comparison.comparing import ComparisonRequest, compare_ledgers
from segment.report.comparison.gate import Limits, verdicts
from segment.report.pictures import GONE
from segment.store.client import Store
from tests.browser import opened
from tests.calls import Call
from tests.calls import segment as segment  # a fixture
from tests.runs import CARD, Place, png, scene
from tests.written_runs import Made, encode_mask, read_template, write_run

CLASSES = len(CARD.classes)
EVIL = "<script>alert(1)<\u2215script>&\"' onerror=alert(2) {{7*7}}.png"
IMAGES = [*(f"{n}.png" for n in range(6)), EVIL]


def changed(place: Place, output: Path, *, labelled: bool = True) -> Path:
    """A copy of a run in whose n-th image n columns have become another class."""
    shutil.copytree(place.output, output)
    shutil.rmtree(output / "stats")
    ledger = Ledger(Store(), f"file://{output}")
    run, plan = ledger.read_run_and_plan()
    for part in plan.parts():
        rows = []
        for number, row in enumerate(ledger.read_rows(part.shard, part.id, ["id", "uri"]).to_pylist()):
            seed = IMAGES.index(row["id"])
            mask = scene(seed)[1].copy()
            mask[:, :seed] = (mask[:, :seed] + 1) % 3
            counts = Confusion.of(mask, scene(seed)[1] if labelled else None, CLASSES)
            index = part.start + number
            rows.append(ImageRow(row["id"], row["uri"], index, (24, 32), None, encode_mask(mask), counts, 0.5, 0.5))
        data = write_masks(rows, shard=part.shard, part=part.id, fingerprint=run["fingerprint"])
        ledger.store.write(ledger.masks_url(part.shard, part.id), data)
    for shard, parts in plan.parts_by_shard().items():
        ledger.finish_shard(shard, parts, CARD, run["fingerprint"])
    return output


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A run that makes no mistake, of images that are there."""
    place = Place(tmp_path_factory.mktemp("comparison"))
    for seed, name in enumerate(IMAGES):
        place.write(name, png(scene(seed)[0]), png(scene(seed)[1]))
    place.run()
    return place


@pytest.fixture(scope="module")
def other(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return changed(place, tmp_path_factory.mktemp("other") / "out")


@pytest.fixture(scope="module")
def unlabelled(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return changed(place, tmp_path_factory.mktemp("unlabelled") / "out", labelled=False)


WRONG = sum(range(7)) * 24  # pixels


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_formats_say_the_same(place: Place, other: Path, segment: Call) -> None:
    asked = ["compare", str(place.output), str(other), "--resamples", "40", "--by", r"^(\d)"]
    found = api.compare(place.output, other, resamples=40, by=r"^(\d)")
    told = json.loads(segment(*asked, "--format", "json").out)
    against = told["against"]["B"]
    assert against["agreement"]["pixels"] == found.agreement == 1 - WRONG / (7 * 24 * 32)
    change = against["scores"]["miou"]
    assert (change["change"], change["a"]) == (found.change, 1.0)
    low, high = change["interval"]
    assert list(against["slices"]) == [str(n) for n in range(6)]
    assert [image["id"] for image in against["changed_most"]] == [EVIL, *IMAGES[5:0:-1]]
    assert told["runs"]["B"]["output"] == str(other)
    rows = list(csv.DictReader(io.StringIO(segment(*asked, "-f", "csv").out)))
    assert [row["class"] for row in rows] == list(CARD.classes.names) * 7
    assert [row["slice"] for row in rows[::4]] == ["", *map(str, range(6))]
    assert float(rows[0]["iou_change"]) == against["classes"][0]["iou_change"]
    text, markdown = segment(*asked).out, segment(*asked, "-f", "markdown").out
    for shown in (text, markdown):
        for words in (
            f"{100 * (found.agreement or 0):.2f} % of the pixels agree, {WRONG} do not",
            f"{100 * (found.change or 0):+.2f}",
            f"{100 * low:+.2f} to {100 * high:+.2f}",
            "Cohen's kappa",
            "1 image in no slice",
        ):
            assert words in " ".join(shown.split())
    assert max(map(len, text.splitlines())) <= 100
    assert "| Road |" in markdown
    assert found._repr_markdown_() == markdown


def test_several_runs_are_one_table(place: Place, other: Path, unlabelled: Path, segment: Call) -> None:
    text = segment("compare", str(place.output), str(other), str(unlabelled), "--resamples", "20").out
    assert "all against A" in text
    assert "C: no image is labelled in both runs: compared by agreement alone" in " ".join(text.split())
    assert text.count("against A:") == 2


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--fail-below", "-40"], 0, "pass  B: change of mIoU -16.39 points (-2"),
        (["--fail-below", "-20"], 1, "its lower bound is below -20"),  # which the change itself is not
        (["--fail-below", "-20", "--resamples", "0"], 0, "points is not below -20"),
        (["--fail-below", "-16", "--resamples", "0"], 1, "FAIL  B: change of mIoU -16.39 points is below -16"),
        (["--fail-below-agreement", "0.9"], 0, "pass  B: 90.6250 % of the pixels agree: not below 90 %"),
        (["--fail-below-agreement", "0.91"], 1, "FAIL  B: 90.6250 % of the pixels agree: below 91 %"),
        (["--fail-below-agreement", "0.91", "--no-masks"], 2, "masks are not compared"),
    ],
)
def test_the_exit_code_is_the_verdict(
    place: Place, other: Path, segment: Call, flags: list[str], code: int, words: str
) -> None:
    called = segment("compare", str(place.output), str(other), *flags)
    assert (called.code, words in called.err) == (code, True)


def test_a_run_that_is_not_finished_or_not_labelled_passes_no_gate(
    place: Place, other: Path, unlabelled: Path, tmp_path: Path, segment: Call
) -> None:
    called = segment("compare", str(place.output), str(unlabelled), "--fail-below", "-1")
    assert called.code == 2
    assert "no image is labelled in both A and B" in called.err
    template = read_template(place.output)
    images = [Made(name, scene(n)[1], scene(n)[1]) for n, name in enumerate(IMAGES)]
    half = write_run(tmp_path / "half", template, {"s": images}, unwritten=1)
    assert segment("compare", str(place.output), str(half), "--fail-below-agreement", "1").code == 1
    found = compare_ledgers([Ledger(Store(), f"file://{path}") for path in (place.output, half)], ComparisonRequest())
    assert [(one.passed, one.words) for one in verdicts(found, Limits(agreement=1.0))] == [
        (False, "B is not finished"),
        (True, "B: 100.0000 % of the pixels agree on 6 of A's 7 images: not below 100 %"),
    ]
    assert verdicts(found, Limits()) == []
    assert not load_report(found.runs[1].ledger).is_whole


def test_what_cannot_be_asked_ends_with_2(place: Place, other: Path, segment: Call) -> None:
    for flags, words in (
        ([], "1 run: give two or more"),
        ([str(other), "--by", "("], "is no regular expression"),
        ([str(other), "--map", "Sky=Skyy"], "map: no class 'Skyy'"),
        ([str(other), "--to", str(other / "masks")], "belongs to the run itself"),
        ([str(other), "--ignore", "none", "--ignore", "Ski"], "ignore: no class"),
    ):
        called = segment("compare", str(place.output), *flags)
        assert called.code == 2
        assert words in called.err


def test_a_page_that_cannot_be_written_costs_no_figures(
    place: Place, other: Path, segment: Call, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    called = segment("compare", str(place.output), str(other), "--to", str(tmp_path / "file"), "--fail-below", "-40")
    assert called.code == 1
    assert "-16.39" in called.out
    assert "pass  B: change of mIoU -16.39 points" in called.err
    assert f"error: could not write {tmp_path}/file/compare/index.html: " in called.err.splitlines()[-1]


# --- the page --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(place: Place, other: Path, unlabelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("page")
    found = api.compare(place.output, other, unlabelled, resamples=30, by=r"^(\d)", to=to)
    assert found.page == f"file://{to}/compare/index.html"
    return to / "compare" / "index.html"


def test_the_page_shows_the_comparison(browser: Any, page: Path, place: Place, other: Path) -> None:
    with opened(browser, page) as view:
        view.on("dialog", lambda dialog: pytest.fail(dialog.message))
        text = view.inner_text("main")
        assert "90.62 %" in text
        told = [notes.locator("li").all_inner_texts() for notes in view.locator("ul.notes").all()]
        assert ["paired bootstrap" in " ".join(lines) for lines in told] == [True, False]  # of B, of C
        assert told[1][-1] == "no image is labelled in both runs: compared by agreement alone"
        assert "right in neither A nor B, or without a label" in text
        assert view.locator("script").count() == 1
        assert view.locator("#overview tbody tr").count() == 2
        assert view.locator("#slices-B tbody tr").count() == 6
        shown = view.locator("#gallery-B h4").all_inner_texts()
        found = api.compare(place.output, other, resamples=0)
        changed = [EVIL, IMAGES[5]]
        lost = [found.images()["id"][i].as_py() for i in found.against[0].lost_most(4)]
        assert shown == changed + [name for name in lost if name not in changed][:2]  # none gained
        assert view.locator("#gallery-B .pane").count() == 4 * 5
        assert view.locator("#score-C").count() == 0
        view.click("#class-table-B th:nth-child(4) button")
        order = view.locator("#class-table-B tbody tr > :nth-child(4)").all_inner_texts()
        values = [float(value) for value in order if value != "–"]
        assert values == sorted(values, reverse=True)


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1280)])
def test_axe_finds_no_serious_problem(browser: Any, page: Path, scheme: str, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    with opened(browser, page, color_scheme=scheme, viewport={"width": width, "height": 844}) as view:
        assert view.evaluate("document.documentElement.scrollWidth") <= width
        hidden = view.evaluate("(bar => bar.scrollWidth - bar.clientWidth)(document.querySelector('nav'))")
        assert (hidden == 0) is (width > 760)  # a phone has one line, which a finger moves
        found = Axe().run(view).response
        assert len(found["passes"]) > 15
        serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
        assert [(v["id"], v["nodes"][0]["html"][:200]) for v in serious] == []
        view.evaluate("document.querySelector('nav').style.width = '14rem'")  # as many sections as of many runs
        height = view.evaluate("document.querySelector('nav').offsetHeight")
        assert height <= float(view.evaluate("getComputedStyle(document.documentElement).scrollPaddingTop")[:-2])


def test_sources_that_are_gone_leave_the_masks(tmp_path: Path, place: Place) -> None:
    template = read_template(place.output)
    masks = [np.full((24, 32), n, np.uint8) for n in range(2)]
    outputs = [write_run(tmp_path / str(n), template, {"s": [Made("a.png", mask)]}) for n, mask in enumerate(masks)]
    api.compare(*outputs, resamples=0, to=tmp_path)
    html = (tmp_path / "compare" / "index.html").read_text()
    assert GONE in html
    assert html.count('<figure class="pane mask">') == 2
