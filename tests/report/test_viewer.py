"""The viewer and the table of images on the report, in a real browser: mouse, keyboard, focus."""

from typing import Any

import pytest

from tests.browser import opened
from tests.report.test_page import EVIL, file_of, labelled
from tests.runs import Place

FOCUS = "document.getElementById('viewer').contains(document.activeElement)"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = labelled(Place(tmp_path_factory.mktemp("viewer")))
    place.run(part_size=4)
    return place


def title(view: Any) -> str:
    return str(view.inner_text("#viewer-title"))


def test_a_click_shows_all_pictures_of_an_image_side_by_side(browser: Any, place: Place) -> None:
    with opened(browser, file_of(place), viewport={"width": 1280, "height": 800}) as view:
        names = view.locator(".exhibit h4").all_inner_texts()
        view.locator("#gallery .exhibit").nth(1).locator(".pane svg").nth(2).click()
        assert title(view) == names[1]
        assert view.locator("#viewer-panes .pane").all_inner_texts() == [
            "1 Image",
            "2 Label",
            "3 Prediction",
            "4 Difference",
        ]
        boxes = [one.bounding_box() for one in view.locator("#viewer-panes svg").all()]
        small = view.locator("#gallery .exhibit").nth(1).locator(".pane svg").first.bounding_box()
        assert all(box["width"] > small["width"] for box in boxes)
        assert all(box["x"] >= 0 and box["x"] + box["width"] <= 1280 for box in boxes)
        assert all(box["y"] + box["height"] <= 800 for box in boxes)
        ids = view.locator("[id]").evaluate_all("all => all.map(one => one.id)")
        assert len(set(ids)) == len(ids)
        view.locator("#viewer-panes .pane").nth(2).click()
        assert view.locator("#viewer-panes .pane:visible").all_inner_texts() == ["3 Prediction"]
        assert view.locator("#viewer-panes svg:visible").bounding_box()["width"] > boxes[2]["width"]
        view.click("#viewer-next")
        assert view.locator("#viewer-panes .pane:visible").all_inner_texts() == ["3 Prediction"]  # of the next image
        view.keyboard.press("3")
        assert view.locator("#viewer-panes .pane:visible").count() == 4
        view.click("#viewer-close")
        assert not view.is_visible("#viewer")


def test_the_keyboard_turns_and_closes_and_the_focus_comes_back(browser: Any, place: Place) -> None:
    with opened(browser, file_of(place)) as view:
        names = view.locator(".exhibit h4").all_inner_texts()
        view.locator(".exhibit .enlarge").first.focus()
        view.keyboard.press("Enter")
        assert (title(view), view.evaluate(FOCUS)) == (names[0], True)
        for key, place_of in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("Home", 0), ("ArrowLeft", -1)):
            view.keyboard.press(key)
            assert title(view) == names[place_of]
        view.keyboard.press("Home")
        seen = set()
        for key in ["Tab"] * 14 + ["Shift+Tab"] * 14:  # round and round
            view.keyboard.press(key)
            assert view.evaluate(FOCUS)
            seen.add(view.evaluate("document.activeElement.id || document.activeElement.innerText"))
        assert {"viewer-previous", "viewer-next", "viewer-close", "viewer-opacity"} <= seen
        view.locator("#viewer-opacity").focus()
        view.keyboard.press("ArrowRight")  # moves the slider, not the image
        assert (title(view), view.inner_text("#opacity-value")) == (names[0], "61 %")
        view.locator("#viewer-next").focus()
        view.keyboard.press("ArrowRight")
        view.keyboard.press("Escape")
        assert not view.is_visible("#viewer")
        is_focused = "name => document.activeElement.getAttribute('aria-label') === name"  # soon after it is closed
        view.wait_for_function(is_focused, arg=f"Enlarge {names[1]}")


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1280)])
def test_axe_finds_no_serious_problem_in_the_viewer(browser: Any, place: Place, scheme: str, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    with opened(browser, file_of(place), color_scheme=scheme, viewport={"width": width, "height": 844}) as view:
        view.locator(".exhibit .enlarge").first.click()
        assert view.evaluate("document.getElementById('viewer').scrollWidth") <= width
        assert view.locator("#viewer-panes svg").last.bounding_box()["height"] > 60
        found = Axe().run(view).response
        serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
        assert [(v["id"], v["nodes"][0]["html"][:200]) for v in serious] == []


def test_legends_name_what_is_seen_only(browser: Any, place: Place) -> None:
    with opened(browser, file_of(place)) as view:
        assert "Unlabeled" not in " ".join(view.locator("#gallery .legend li").all_inner_texts())  # it is clear
        best = view.locator("#gallery .exhibit", has=view.get_by_text(EVIL, exact=True)).first
        best.locator(".enlarge").click()
        assert "prediction differs from label" not in view.locator("#viewer-legend li").all_inner_texts()
        assert set(view.locator("#viewer-legend li").all_inner_texts()) <= {"Sky", "Road", "Car", "label ignored"}


def rows(view: Any, number: int) -> list[str]:
    return [text.strip() for text in view.locator(f"#image-table tbody tr > :nth-child({number})").all_inner_texts()]


def test_the_table_of_images_sorts_and_filters(browser: Any, place: Place) -> None:
    with opened(browser, file_of(place)) as view:
        assert len(rows(view, 1)) == 18
        assert rows(view, 1)[-1] == "b" + EVIL  # the error row
        first = [float(text) for text in rows(view, 2)[:-1]]
        assert first == sorted(first)
        view.get_by_role("region", name="Table of images").get_by_role("button", name="mIoU").click()
        assert [float(text) for text in rows(view, 2)[:-1]] == first[::-1]
        assert rows(view, 1)[-1] == "b" + EVIL  # what has no score stays last
        view.fill("#image-filter", "1.PNG")
        assert sorted(rows(view, 1)) == ["01.png", "11.png"]
        assert view.inner_text("#image-place") == "1 to 2 of 2 that match"
        view.fill("#image-filter", "NOT_AN")
        assert rows(view, 1) == ["b" + EVIL]
        view.fill("#image-filter", "")
        view.select_option("#image-kind", "scored")
        assert len(rows(view, 1)) == 17
        view.fill("#image-filter", "no such")
        assert view.inner_text("#image-place") == "No image matches"


def test_a_name_in_the_table_opens_the_viewer_and_gets_the_focus_back(browser: Any, place: Place) -> None:
    with opened(browser, file_of(place)) as view:
        drawn = set(view.locator(".exhibit h4").all_inner_texts())
        names = view.locator("#image-table .opening")
        assert sorted(names.all_inner_texts()) == sorted(drawn & set(rows(view, 1)))
        for place_of, name in enumerate(names.all_inner_texts()[:3]):
            names.nth(place_of).focus()
            view.keyboard.press("Enter")
            assert title(view) == name
            view.keyboard.press("ArrowRight")
            view.keyboard.press("Escape")
            assert view.evaluate("document.activeElement.textContent") == name


def test_the_keys_turn_on_after_a_click_on_a_picture(browser: Any, place: Place) -> None:
    """A picture that is replaced takes the focus with it."""
    with opened(browser, file_of(place)) as view:
        names = view.locator(".exhibit h4").all_inner_texts()
        view.locator(".exhibit .enlarge").first.click()
        view.locator("#viewer-panes .pane").nth(2).click()
        for number in (1, 2, 3):
            view.keyboard.press("ArrowRight")
            assert (title(view), view.evaluate(FOCUS)) == (names[number], True)
            assert view.locator("#viewer-panes .pane:visible").all_inner_texts() == ["3 Prediction"]
        view.keyboard.press("End")  # a label error: its panes go by their titles, too
        assert view.locator("#viewer-panes .pane:visible").all_inner_texts() == ["3 Prediction"]
        exhibit = "[...document.querySelectorAll('.exhibit')].at(-2)"
        view.evaluate(f"{exhibit}.querySelector('.pane').remove()")  # no photo, so that others move up
        view.keyboard.press("ArrowLeft")
        assert view.locator("#viewer-panes .pane:visible").all_inner_texts() == ["2 Prediction"]
        view.evaluate(f"{exhibit}.querySelectorAll('.pane')[1].remove()")
        view.keyboard.press("End")
        view.keyboard.press("ArrowLeft")  # nor a prediction: all that it has
        assert view.locator("#viewer-panes .pane:visible").all_inner_texts() == ["1 Label", "2 Difference"]
        view.keyboard.press("End")
        view.keyboard.press("3")
        view.keyboard.press("Home")
        assert (title(view), view.locator("#viewer-panes .pane:visible").count()) == (names[0], 4)


@pytest.mark.parametrize("width", [390, 1280])
def test_long_names_of_classes_break_no_line_of_the_page(browser: Any, place: Place, width: int) -> None:
    named = "all => all.forEach(one => { one.textContent = 'A class whose name '.repeat(5); })"
    with opened(browser, file_of(place), viewport={"width": width, "height": 844}) as view:
        view.locator(".class > span:not(.quiet)").evaluate_all(named)
        assert view.evaluate("document.documentElement.scrollWidth") <= width
        for label in ("Classes", "Largest mistakes") if width > 390 else ():
            region = view.locator(f".scroll[aria-label='{label}']")
            assert region.evaluate("one => one.scrollWidth - one.clientWidth") <= 1
        over = "all => Math.max(...all.map(one => one.scrollWidth - one.clientWidth))"
        assert view.locator(".heat tbody th").evaluate_all(over) <= 1  # no name runs into the cells
