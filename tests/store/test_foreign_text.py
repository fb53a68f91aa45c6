"""Text from outside, for each destination: nothing that is not seen, no markup, no formula, no line of its own."""

import csv
import io
import json
import tomllib
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markupsafe import Markup
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segment.models.classes import LONGEST_NAME, Classes
from segment.progress.safe_console import SafeConsole
from segment.report.fitting import print_rows
from segment.store.foreign_text import (
    in_cell,
    in_html,
    in_label_map,
    in_markdown,
    in_toml,
    is_visible,
    on_terminal,
    visible,
)  # fmt: skip
from segment.store.names import shown
from segment.store.urls import has_credentials, redact_credentials

HIDDEN = ["Cc", "Cf", "Cs", "Zl", "Zp"]
UNSEEN = "\x00\x07\x08\x1b\x7f\x80\x9b\x85\u200b\u200d\u200e\u202e\u2066\u2028\ufeff\u00ad\u3164\ufe0f\U000e0041"
ANY = st.text(st.sampled_from(UNSEEN + "\n\r\t=+-@|<>&`*_[]#:'\"\\ aé漢") | st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize("character", UNSEEN)
def test_a_character_that_is_not_seen_is_named_by_its_number(character: str) -> None:
    for safe in (visible, on_terminal, in_markdown, in_cell, in_html, shown):
        text = str(safe(f"a{character}b"))
        assert character not in text
        assert safe is on_terminal or safe is in_html or f"{ord(character):x}" in text
        assert is_visible(text)


@given(ANY)
def test_a_line_shows_only_what_is_seen(text: str) -> None:
    for safe in (visible(text), shown(text), in_markdown(text), str(in_cell(text))):
        assert all(unicodedata.category(c) not in HIDDEN for c in safe)
        assert len(safe.splitlines()) <= 1
    assert visible(visible(text)) == visible(text)


@given(ANY)
def test_lines_on_a_terminal_keep_their_ends_and_json_its_meaning(text: str) -> None:
    safe = on_terminal(text)
    assert safe.count("\n") == text.count("\n")
    assert all(c in "\n\t" or is_visible(c) for c in safe.replace("\r\n", "\n").removesuffix("\r"))
    value = {"id": text}
    assert json.loads(on_terminal(json.dumps(value, ensure_ascii=False, indent=1))) == value
    assert tomllib.loads(on_terminal(f"id = {in_toml(text)}")) == value


def test_csv_keeps_the_line_ends_of_its_standard() -> None:
    assert on_terminal("a,b\r\n1,2\r\n") == "a,b\r\n1,2\r\n"
    assert on_terminal("a\rb\r\n") == "a\\rb\r\n"


@given(st.lists(ANY, min_size=1))
def test_cells_are_no_formula_and_come_back(texts: list[str]) -> None:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerow([in_cell(text) for text in texts])
    (row,) = csv.reader(io.StringIO(buffer.getvalue(), newline=""))
    for text, cell in zip(texts, row, strict=True):
        assert not cell.lstrip().startswith(("=", "+", "-", "@", "\t", "\r", "\uff1d"))
        assert cell.removeprefix("'") == visible(text).removeprefix("'")
    assert [in_cell(value) for value in (-1.5, 3, None, True)] == [-1.5, 3, None, "true"]


@given(ANY)
def test_markdown_and_html_show_a_text_as_it_is(text: str) -> None:
    html = MarkdownIt("commonmark").enable("table").enable("strikethrough").render(f"x {in_markdown(text)} x")
    assert html.count("<") == 2  # of its paragraph alone
    assert in_markdown("{{x}} ${y}") == r"\{\{x\}\} \$\{y\}"  # templates of wikis and sites
    assert in_html(Markup("<b>")) == "<b>"
    assert in_html(7) == 7


@given(st.lists(ANY, min_size=1, unique=True))
def test_a_label_map_has_a_line_for_each_class(names: list[str]) -> None:
    written = "".join(f"{name}:1,2,3::\n" for name in in_label_map(names))
    lines = [line.split(":") for line in written.splitlines()]
    assert [len(line) for line in lines] == [4] * len(names)
    assert len({line[0] for line in lines}) == len(names)


def test_signatures_are_masked_wherever_a_text_holds_them() -> None:
    for signed in (
        "https://h/a.png?X-Amz-Signature=5ec&X-Amz-Credential=5ec",
        "az://c/a.png?sv=1&sig=5ec%3D",
        "https://h/a?X-Goog-Signature=5ec",
        "no answer from https://h/a.png?id=7&Signature=5ec: 403",
        '{"url": "https://h/?token=5ec"}',
    ):
        for safe in (on_terminal, in_markdown, in_cell, in_html, shown):
            assert "5ec" not in str(safe(signed)), (safe, signed)
    assert on_terminal("a.png?sig=***,Sky,1") == "a.png?sig=***,Sky,1"


def test_a_console_passes_on_styles_of_its_own_alone() -> None:
    plain = SafeConsole(file=io.StringIO(), width=80, force_terminal=True, color_system="truecolor")
    table = Table(title="t\x1b[2J")
    table.add_column("c\x9b1m")
    table.add_row(Text("\x1b]0;title\x07 \u202egpj", "red"))
    for renderable in ("x\x1b[31my", Text("\u200bz"), table):
        plain.print(renderable, markup=False)
    assert isinstance(plain.file, io.StringIO)
    said = plain.file.getvalue()
    assert "\x1b[31m" in said  # the style red
    for planted in ("\x1b[2J", "\x1b]0", "\x1b[31my", "\x9b", "\x07", "\u202e", "\u200b"):
        assert planted not in said
    assert isinstance(plain, Console)


def test_a_console_takes_brackets_and_colons_for_text_and_masks_what_it_wraps() -> None:
    planted = "[red]a[/b] :car: https://h/a.png?id=7&sig=" + "5ec" * 40
    for width in (20, 40, 300):
        console = SafeConsole(file=io.StringIO(), width=width)
        console.print(planted)
        print_rows(console, [["name", planted], [planted, "1"]], title=planted)
        assert isinstance(console.file, io.StringIO)
        said = "".join(console.file.getvalue().split())
        seen = said.count("[red]a[/b]:car:https://h/a.png?id=7&sig=***")
        assert seen == 4 if width == 300 else seen >= 2  # a narrow table cuts its cells
        assert "5ec" not in said


SHAPED = [
    "می\u200cخواهم", "קֹ֔דֶשׁ", "क्\u200dष", "ന്\u200d", "र\u200d्य", "ᠠ\u180b",  # noqa: RUF001
    "👩🏽\u200d🚒", "🏳\ufe0f\u200d🌈", "❤\ufe0f", "1\ufe0f\u20e3", "🇩🇪",
    "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
    "葛\U000e0100城", "道路\u3000標識", "9.41\u202fAM", "e\u0301",
]  # fmt: skip


@pytest.mark.parametrize("name", SHAPED)
def test_what_words_and_emoji_need_is_seen(name: str) -> None:
    assert is_visible(name)
    assert Classes(names=(name,), palette=((0, 0, 0),)).names == (name,)
    for safe in (visible, on_terminal, in_cell, in_html, shown):
        assert safe(f"{name}\x07").replace("\\x07", "").replace("\\u0007", "") == name  # type: ignore[operator]
    assert tomllib.loads(f"a = {in_toml(name)}") == {"a": name}


@pytest.mark.parametrize(
    "name",
    ["a\u200db", "a\u200c", "\u200cط", "ط\u200c", "ط\u200c\u200cط", "👩\u200d", "\u200d👩", "a\ufe0f",
     "1\ufe0f", "❤\ufe0f\ufe0f", "a\U000e0067", "🏴\U000e0067",
     "葛\U000e0100\U000e0101", "א\u202eב", "ط\u200fط", "a\u180bb", "\ufeffط"],
)  # fmt: skip
def test_a_character_that_shapes_nothing_is_not_seen(name: str) -> None:
    assert not is_visible(name)
    assert is_visible(visible(name))


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("s3://u:p@b s3://x a@b", "s3://***@b s3://x a@b"),
        ("s3://k:a/b:c/d@b/x@y", "s3://***@b/x@y"),
        ("s3://h:80/a@b\nhttps://t@h", "s3://h:80/a@b\nhttps://***@h"),
        ("a@b://c:d e", "a@b://c:d e"),
        ("s3://b:c\t@", "s3://b:c\t@"),
        *((many * 40_000 + end, many * 40_000 + end) for many in ("https://", "://a/", "a@") for end in ("", " @")),
    ],
    ids=lambda text: text[:20],
)
def test_credentials_are_masked_in_one_walk_over_a_text(text: str, masked: str) -> None:
    assert redact_credentials(text) == masked
    assert has_credentials(text) == (text != masked)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "the name of class 1 is empty"),
        ("  ", "the name of class 1 is empty"),
        ("a\nb", r"'a\\nb', holds characters that are not seen"),
        ("a\x1b[31m", r"'a\\x1b\[31m', holds"),
        ("a\u202eb", "holds"),
        ("a\u200bb", "holds"),
        ("x" * (LONGEST_NAME + 1), "of class 1 has 201 characters: 200 is the limit"),
    ],
)
def test_class_names_are_checked(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Classes(names=("Sky", name), palette=((0, 0, 0), (1, 1, 1)))


def test_ordinary_class_names_are_taken() -> None:
    names = ("Straße", "道路", "طريق", "traffic sign (back)", "=1", "a:b", "x" * LONGEST_NAME)
    assert Classes(names=names, palette=((0, 0, 0),) * len(names)).names == names
