"""What pages say is so: links lead somewhere, messages are those of the code, every decision is listed."""

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import CodeType

import pytest

from tests.calls import ROOT
from tests.pages import PAGES, README, Page, page

OTHERS = [
    Page(name)
    for name in (
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "jobs/README.md",
        "jobs/BENCHMARKS.md",
        "tests/reliability/README.md",
    )
]


@pytest.mark.parametrize("item", [*PAGES, *OTHERS], ids=lambda item: item.name)
def test_links_lead_somewhere(item: Page) -> None:
    for target in item.links():
        path, _, anchor = target.partition("#")
        file = os.path.normpath(Path(item.name).parent / path) if path else item.name
        assert (ROOT / file).exists(), target
        if anchor:
            assert anchor in Page(file).anchors(), target


def test_the_readme_fits_a_screen_or_two() -> None:
    assert README.text.count("\n") <= 120


def test_troubleshooting_quotes_messages_that_the_code_has() -> None:
    quoted = [text for row in messages(page("troubleshooting").prose) for text in row.split("…")]
    fragments = [text.strip() for text in quoted if len(text.strip()) > 3]
    assert len(fragments) > 30
    said = sayings()
    assert [text for text in fragments if text not in said] == []


def messages(prose: str) -> list[str]:
    """The first cells of tables that begin with a message."""
    tables = re.findall(r"^\| message \|.*?(?:\n\n|\Z)", prose, re.MULTILINE | re.DOTALL)
    return re.findall(r"^\| `+(.*?)`+ \|", "\n".join(tables), re.MULTILINE)


@cache
def sayings() -> str:
    """Every text of the code, joined where the code joins it."""
    return "\n".join(text for file in (ROOT / "segment").rglob("*.py") for text in texts_of(file))


def texts_of(file: Path) -> Iterator[str]:
    """The constants of a compiled file."""
    waiting: list[object] = [compile(file.read_bytes(), str(file), "exec")]
    while waiting:
        found = waiting.pop()
        if isinstance(found, CodeType):
            waiting += found.co_consts
        elif isinstance(found, tuple):
            waiting += found
        elif isinstance(found, str):
            yield found


def test_every_decision_is_listed_in_order() -> None:
    files = sorted(file.name for file in (ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    rows = re.findall(r"^\| (\d+) \| \[(.*)\]\((.*)\) \|$", page("decisions/index").text, re.MULTILINE)
    assert [name for _, _, name in rows] == files
    for number, title, name in rows:
        text = (ROOT / "docs" / "decisions" / name).read_text(encoding="utf-8")
        assert text.startswith(f"# {number}. {title}\n")
        assert re.findall(r"\*\*(\w+)\.\*\*", text) == ["Context", "Decision", "Consequences"]
