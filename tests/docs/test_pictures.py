"""The pictures of README.md show what a run prints and writes today; `python docs/pictures.py` makes them anew."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.calls import ROOT

sys.path.append(str(ROOT / "docs"))
import pictures

STALE = "run `python docs/pictures.py`, look at the pictures, and commit them"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """What the command of the picture prints for a few scenes, without its proof, and the page that it writes."""
    folder = tmp_path_factory.mktemp("pictures")
    text = pictures.printed(folder, "--min-agreement", "0", scenes=32)
    return text, (folder / "out" / "report" / "index.html").read_text("utf-8")


def test_the_terminal_is_what_a_run_prints(run: tuple[str, str]) -> None:
    shown = pictures.words_of_svg(pictures.TERMINAL.read_text(encoding="utf-8"))
    today = pictures.words_of_svg(pictures.to_svg(run[0]))
    assert len(today) > 500
    assert shown == today, STALE


def test_the_page_is_what_a_run_writes(run: tuple[str, str]) -> None:
    facts = pictures.facts_of_page(run[1])
    assert len(facts["headings"]) > 4
    assert json.loads(pictures.PAGE_FACTS.read_text(encoding="utf-8")) == facts, STALE
    with Image.open(pictures.PAGE) as picture:
        assert picture.width == pictures.WIDTH


def test_nothing_in_the_terminals_picture_comes_from_elsewhere() -> None:
    text = pictures.TERMINAL.read_text(encoding="utf-8")
    assert "@font-face" not in text
    assert "url(http" not in text
    assert Path(pictures.TERMINAL).stat().st_size < 200_000
