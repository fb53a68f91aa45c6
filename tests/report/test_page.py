"""The HTML report: in a real browser, its size, hostile names, lost sources."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segment.metrics import Confusion
from segment.models.card import ModelCard
from segment.output.attempts import read_attempts
from segment.output.ledger import Ledger
from segment.output.shard_stats import ShardStats
from segment.output.speed import read_speed
from segment.report import page, wording
from segment.report.aggregate import load_report
from segment.report.gallery import exhibit
from segment.report.page import write_page
from segment.report.pictures import GONE, ImageView
from segment.report.rows import read_scores
from segment.report.run_score import with_intervals
from segment.runs.driver import task_and_plan
from segment.store.client import Store
from tests.browser import opened
from tests.calls import Call
from tests.report.test_report import report_of, stats_of
from tests.runs import CARD, Place, png, read_rows, scene

SCORED = 16
EVIL = "<script>alert(1)<\u2215script>&\"' onerror=alert(2) {{7*7}}.png"


def wrong_label(seed: int, columns: int) -> bytes:
    """The label of a scene with some columns of another class, where the prediction is wrong."""
    label = scene(seed)[1].copy()
    label[:, :columns] = (label[:, :columns] + 1) % 3
    return png(label)


def labelled(place: Place) -> Place:
    """A run whose n-th image has n wrong columns; one more image has a hostile name, and one is broken."""
    for n in range(SCORED):
        place.write(f"{n:02d}.png", png(scene(n)[0]), wrong_label(n, n))
    place.write(EVIL, png(scene(99)[0]), png(scene(99)[1]))
    place.write("b" + EVIL, b"no image", png(scene(99)[1]))
    return place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = labelled(Place(tmp_path_factory.mktemp("page")))
    place.run(part_size=4)
    return place


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("unlabelled"))
    for n in range(10):
        place.add(f"{n}.png", n, label=False)
    place.run()
    return place


def ledger_of(place: Place) -> Ledger:
    return Ledger(Store(), f"file://{place.output}")


def written(place: Place, **changes: Any) -> str:
    """Return the page that `segment report` writes."""
    ledger = ledger_of(place)
    task, plan = task_and_plan(ledger)
    report = with_intervals(ledger, plan, load_report(ledger))
    url = write_page(ledger, report, task, plan, **changes)
    return Path(url.removeprefix("file://")).read_text(encoding="utf-8")


def file_of(place: Place) -> Path:
    return place.output / "report" / "index.html"


# --- in a browser ----------------------------------------------------------------------------------------------------


def column(view: Any, number: int) -> list[str]:
    return [text.strip() for text in view.locator(f"#class-table tbody tr > :nth-child({number})").all_inner_texts()]


def test_the_page_shows_the_run(browser: Any, place: Place) -> None:
    report = load_report(ledger_of(place))
    with opened(browser, file_of(place)) as view:
        text = view.inner_text("main")
        assert f"{100 * (report.miou() or 0):.2f} %" in text
        assert "Published 50.00 %. Not comparable: the card does not give the number of images." in text
        assert f"{100 * (report.pixel_accuracy or 0):.2f} %" in text
        assert f"{SCORED + 2}" in text
        for name in report.conventions:
            assert f"{100 * (report.miou(name) or 0):.2f}" in text
        assert [line.split(" (")[0] for line in column(view, 1)] == list(CARD.classes.names)
        assert "not_an_image" in view.inner_text("#errors")
        assert view.locator("#speed .stacked i").count() == 5
        shown = view.locator("#gallery h4").all_inner_texts()
        sound = [row for row in read_rows(place.output) if row["status"] == "ok"]
        ranked = [row["id"] for row in sorted(sound, key=lambda row: row["miou"])]
        assert (shown[:4], shown[-4:]) == (ranked[:4], ranked[:-5:-1])
        assert EVIL in shown[-4:]  # without a wrong pixel
        assert view.locator("#gallery .pane").count() == len(shown) * 4
        titles = [text.partition(" ")[0] for text in view.locator("#gallery h3").all_inner_texts()]
        assert (titles[0], titles[-2:]) == ("Worst", ["Most", "Best"])


def test_tables_sort_both_ways_with_dashes_last(browser: Any, place: Place) -> None:
    with opened(browser, file_of(place)) as view:
        view.click("#class-table th:nth-child(2) button")
        down = column(view, 2)
        assert view.get_attribute("#class-table th:nth-child(2)", "aria-sort") == "descending"
        view.click("#class-table th:nth-child(2) button")
        up = column(view, 2)
        assert down[-1] == up[-1] == "–"
        assert [float(v) for v in down[:-1]] == sorted((float(v) for v in down[:-1]), reverse=True)
        assert up[:-1] == down[:-1][::-1]
        view.click("#class-table th:nth-child(1) button")
        assert column(view, 1) == sorted(column(view, 1), key=str.lower)
        assert view.locator("#class-table [aria-sort]").count() == 1


def test_the_slider_and_the_theme_do_something(browser: Any, place: Place) -> None:
    with opened(browser, file_of(place), color_scheme="light") as view:
        opacity = "getComputedStyle(document.querySelector('.layer')).opacity"
        assert view.evaluate(opacity) == "0.6"
        view.locator("#opacity").fill("25")
        assert view.evaluate(opacity) == "0.25"
        assert view.inner_text("#opacity-value") == "25 %"
        paper = "getComputedStyle(document.body).backgroundColor"
        light = view.evaluate(paper)
        view.click("#theme")
        dark = view.evaluate(paper)
        assert dark != light
        view.click("#theme")
        assert view.evaluate(paper) == light
        view.emulate_media(color_scheme="dark")
        view.reload()
        assert view.evaluate(paper) == dark


def test_what_the_run_is_stands_on_top(browser: Any, place: Place) -> None:
    with opened(browser, file_of(place)) as view:
        assert view.inner_text("h1") == place.output.name
        began = read_attempts(ledger_of(place))[0].facts["began"]
        assert f"{CARD.name} · {wording.when(began)}" in view.inner_text("header .made")
        command = view.inner_text("header .command")
        assert command.startswith(f"segment run {place.images} {place.output} --labels")
        assert "--part-size 4" in command
        order = view.locator("main > section").evaluate_all("all => all.map(one => one.id)")
        assert order[:2] == ["errors", "score"]
        links = view.locator("nav a").evaluate_all("all => all.map(one => one.hash.slice(1))")
        assert links == order
        view.evaluate("document.getElementById('confusion').scrollIntoView()")
        assert view.locator("nav").bounding_box()["y"] == 0  # it stays
        view.wait_for_selector("nav a[href='#confusion'][aria-current]")


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("run", ["place", "unlabelled"])
def test_axe_finds_no_serious_problem(browser: Any, run: str, scheme: str, width: int, request: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    size = {"width": width, "height": 844}
    with opened(browser, file_of(request.getfixturevalue(run)), color_scheme=scheme, viewport=size) as view:
        assert view.evaluate("document.documentElement.scrollWidth") <= width
        found = Axe().run(view).response
        assert len(found["passes"]) > 15
        serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
        assert [(v["id"], v["nodes"][0]["html"][:200]) for v in serious] == []


def test_it_prints_without_controls_and_with_every_picture(browser: Any, place: Place) -> None:
    with opened(browser, file_of(place)) as view:
        view.emulate_media(media="print")
        assert not view.is_visible("#theme")
        assert not view.is_visible("#opacity")
        assert view.locator("#gallery .pane svg:visible").count() == view.locator("#gallery h4").count() * 4 >= 40
        assert view.locator("#label-errors .pane svg:visible").count() == 6 * 4
        assert len(view.pdf(format="A4")) > 10_000


def test_names_are_text_and_nothing_else(browser: Any, place: Place) -> None:
    with opened(browser, file_of(place)) as view:
        view.on("dialog", lambda dialog: pytest.fail(dialog.message))
        assert view.locator("script").count() == 1
        assert view.locator("[onerror]").count() == 0
        assert EVIL in view.locator("#gallery h4").all_inner_texts()
        assert "b" + EVIL in view.inner_text("#errors")


def test_without_labels_there_are_shares_and_a_sample(browser: Any, unlabelled: Place) -> None:
    with opened(browser, file_of(unlabelled)) as view:
        assert "IoU" not in view.inner_text("main").replace("there is no IoU", "")
        assert view.locator("#gallery article").count() == 8
        assert view.locator("#gallery .pane").count() == 8 * 2
        shares = [float(v) for v in column(view, 2)]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(100, abs=0.05)


# --- content ---------------------------------------------------------------------------------------------------


def test_the_run_writes_the_page_itself_and_it_needs_nothing_else(place: Place) -> None:
    html = file_of(place).read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>")
    assert not re.findall(r"""(?:src|href|url\(|@import)\s*=?\s*["']?(?:https?:)?//""", html)
    assert html == written(place)  # the page holds no current time


def test_a_page_that_cannot_be_made_does_not_fail_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: Any, **__: Any) -> str:
        raise RuntimeError("no ink")

    monkeypatch.setattr(page, "write_page", breaks)
    place = Place(tmp_path)
    place.add("a.png", 1)
    outcome = place.run()
    assert outcome.report.complete
    assert (place.output / "_SUCCESS").exists()
    assert outcome.warnings == ["no report/index.html, run `segment report` to retry (RuntimeError: no ink)"]


def test_sources_that_are_gone_or_changed_leave_the_mask_alone(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for n in range(3):
        place.add(f"{n}.png", n)
    place.run()
    assert GONE not in file_of(place).read_text()
    (place.images / "0.png").unlink()
    place.add("1.png", 7)  # replaced
    html = written(place)
    assert html.count(GONE) == 2
    assert html.count('id="photo-') == 1
    assert html.count(">Prediction<") == 3


def test_a_run_that_is_not_done_has_a_page(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for n in range(3):
        place.add(f"{n}.png", n)
    place.run()
    for file in [*place.output.glob("stats/*"), place.output / "_SUCCESS"]:
        file.unlink()
    html = written(place)
    assert "Not complete" in html
    assert "3 of 3; 1 of 1 shards finished" in html


def test_no_mask_is_read_but_those_that_are_shown(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[str, tuple[str, ...]]] = []
    original = Ledger.read_rows

    def spy(self: Ledger, shard: str, part: str, columns: Any, **rest: Any) -> Any:
        read.append((part, tuple(columns)))
        return original(self, shard, part, columns, **rest)

    monkeypatch.setattr(Ledger, "read_rows", spy)
    written(place)
    scored, outlined = 15, 24  # likely label errors are looked for in all, and six of the first 24 are drawn
    assert 12 + scored + 6 <= sum("mask" in columns for _, columns in read) <= 12 + scored + outlined
    scores = [part for part, columns in read if "miou" in columns and not {"mask", "confusion"} & {*columns}]
    assert len(scores) == 5  # each part of 18 images once


def test_a_quick_page_says_that_it_saw_a_part_only(place: Place) -> None:
    ledger = ledger_of(place)
    scores = read_scores(ledger, plan := task_and_plan(ledger)[1], ledger.committed(plan), most_parts=2)
    assert (len(scores), scores.planned) == (6, 18)
    html = written(place, most_parts=2)
    assert "From 6 of 18 images" in html
    assert "From 18" not in written(place)


def test_attempts_tell_when_and_where(place: Place) -> None:
    (attempt,) = read_attempts(ledger_of(place))
    speed = read_speed(ledger_of(place), attempt)
    assert speed is not None
    assert (speed.images, attempt.ended, attempt.facts["workers"]) == (18, True, 1)
    assert np.all(speed.at <= speed.total_seconds)
    assert np.all(speed.at > 0)
    assert speed.rates(7).mean() * speed.total_seconds == pytest.approx(18)
    assert sum(speed.hosts.values()) == 18
    assert set(speed.stages) == {"read", "decode", "infer", "encode", "write"}


def test_of_many_attempts_the_latest_have_speeds_and_all_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path)
    place.add("a.png", 1)
    place.run()
    (record,) = (place.output / "runs").glob("*.json")
    (record.parent / "0.json").write_text(json.dumps(json.loads(record.read_text()) | {"began": "2001-02-03T04:05Z"}))
    assert "Of the latest" not in written(place)
    monkeypatch.setattr(page, "_LATEST_ATTEMPTS", 1)
    html = written(place)
    assert "Of the latest 1 of 2 attempts" in html
    assert "2001-02-03 04:05 UTC to " in html


# --- bounds ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def noise() -> ImageView:
    """The image with the worst compression: 6 megapixels of noise, with a noisy mask and label."""
    random = np.random.default_rng(0)
    mask, label = (random.integers(0, 3, (2000, 3000), dtype=np.uint8) for _ in range(2))
    photo = random.integers(0, 256, (2000, 3000, 3), dtype=np.uint8)
    return ImageView("noise", "file:///noise.png", mask, photo, label, 0.3, 0.2)


def test_no_picture_makes_the_page_large(noise: ImageView) -> None:
    shown = exhibit(noise, CARD)
    size = sum(len(uri or "") for pane in shown.panes for uri in (pane.layer, pane.lines))
    assert 100_000 < size <= 400_000
    assert (4 + 8 + 4 + 4 + 6) * size < 15_000_000 * 0.7
    assert shown.shown_width / shown.shown_height == pytest.approx(1.5, abs=0.01)
    assert (shown.width, shown.height) == (3000, 2000)


def many_classes(number: int) -> ModelCard:
    palette = tuple((i, 255 - i, i // 2) for i in range(number))
    classes = CARD.classes.model_copy(
        update={"names": tuple(f"class {i}" for i in range(number)), "palette": palette, "ignore": (255,)}
    )
    return CARD.model_copy(update={"classes": classes})


def test_255_classes_and_many_shards_fit(place: Place) -> None:
    card = many_classes(255)
    one = stats_of(card)
    shards = [ShardStats(Confusion(one.confusion.counts + i), 10, 1, 9, 4.5) for i in range(300)]
    report = report_of(*shards, card=card)
    report.run.update(
        job={"input": "in", "output": "out"},
        versions={"segment": "1", "python": "3"},
        weights={"origin": "a", "format": "onnx", "sha384": "b"},
    )
    report.run["contract"]["input"] = {"url": "s3://bucket/in"}
    ledger = ledger_of(place)
    task, plan = task_and_plan(ledger)
    html = page.render(report, task, read_scores(ledger, plan, ()), [], [])
    assert len(html) < 3_000_000
    assert "the 24 lowest of 300" in html


# --- from the command line -------------------------------------------------------------------------------------------


@pytest.fixture
def no_page(place: Place) -> Iterator[Path]:
    file_of(place).unlink(missing_ok=True)
    yield file_of(place)
    written(place)


def test_segment_report_writes_the_page_where_people_look_at_it(segment: Call, place: Place, no_page: Path) -> None:
    assert json.loads(segment("report", str(place.output), "-f", "json").out)["images"] == 18
    assert not no_page.exists()
    assert f"page:  {no_page}" not in segment("report", str(place.output), "--no-page").out
    assert not no_page.exists()
    assert f"page:  {no_page}\n" in segment("report", str(place.output)).out
    assert no_page.exists()
    no_page.unlink()
    called = segment("report", str(place.output), "-f", "json", "--page")
    assert json.loads(called.out)["images"] == 18
    assert str(no_page) in called.err
    assert no_page.exists()
