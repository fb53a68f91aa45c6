"""Every command on a run whose ids, paths, class names, metadata and card hold what terminals, pages and tools obey."""

import csv
import io
import json
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from markdown_it import MarkdownIt

from segment.cli.app import app
from segment.store.foreign_text import is_visible
from tests.calls import Call
from tests.runs import CARD_TOML, Place, png, scene

FORGED = "error: forged"
IDS = [
    "esc\x1b[2J\x1b]0;title\x07.png",
    "c1\x9b31m\x85.png",
    "bidi\u202egnp.exe\u2066.png",
    f"line\n{FORGED}\r\n.png",
    "zero\u200b\u200d\ufeff.png",
    '<script>alert(1)</script><img src=x onerror="alert(2)">.png',
    "=cmd|' /C calc'!A0.png",
    "[link](http://evil) `code` | cell **bold** ~~s~~.png",
    "[bold red]rich[/bold red] [/red] :car:.png",
    "{{ 7 * 7 }} {% x %} ${y}.png",
    "می\u200cخواهم 👩🏽\u200d🚒 ❤\ufe0f.png",  # noqa: RUF001
]
CLASSES = ["=1+1", "a:car:b", "<b>x</b>|*y*", "#[red]c[/red]"]
META = "\x1b[31m@SUM(A1)\u202e"
TEXT = "\x1b[2Jshown \u202e\x9b31m <i>x</i>"
FOLDER = f"a\x1b[31mb\u202ec\n{FORGED}"


def planted(folder: Path) -> Place:
    """A run over Parquet input, whose ids and metadata may be any text; one image is an error, labels are shifted."""
    folder.mkdir()
    place = Place(folder)
    texts = "".join(f"{key} = {json.dumps(TEXT)}\n" for key in ("description", "licence", "source"))
    card = CARD_TOML.replace('["Sky", "Road", "Car", "Unlabeled"]', json.dumps(CLASSES))
    place.card_path.write_text(texts + card)
    pixels, masks = zip(*map(scene, range(len(IDS))), strict=True)
    columns = {
        "image": [*map(png, pixels), b"no image"],
        "label": [png(mask) for mask in masks[1:]] + [png(masks[0])] * 2,
        "id": [*IDS, f"broken\x1b[31m\n{FORGED}"],
        "weather[/b]\x1b[1m": [META] * (len(IDS) + 1),
    }
    pq.write_table(pa.table(columns), place.images / "some.parquet", row_group_size=4)
    return place


JOB: dict[str, Any] = {"id_column": "id", "keep": ["weather[/b]\x1b[1m"], "label_encoding": "index"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = planted(tmp_path_factory.mktemp("planted") / FOLDER)
    place.run(**JOB)
    place.run(**JOB, output=str(place.folder / "other"), mask_size="model")
    return place


KINDS = ("markdown", "json", "csv")
FORMATS = ("png", "voc", "coco-stuff", "coco-panoptic", "cvat", "label-studio", "cog")
NEW = ("new", "newer", "strict", "pages", "overlays", "exports", "int8")
BROAD = ("--model", "{card}", "--weights", "{weights}", "--runtime", "onnxruntime", "--engine", "local", "--workers=1",
         "--id-column=id", "--max-error-rate=1", "--label-encoding=index", "--keep", "weather[/b]\x1b[1m")  # fmt: skip
COMMANDS = [
    ["run", "{images}", "{new}", *BROAD],
    ["run", "{images}", "{newer}", *BROAD, "--log-format=json"],
    ["run", "{images}", "{new}", *BROAD, "--print-job"],
    ["run", "{images}", "{strict}", *BROAD, "--max-error-rate=0"],
    ["plan", "{images}", *BROAD[:-2], "--images=4"],
    ["check", "{images}", "--model", "{card}", "--weights", "{weights}", "--id-column=id", "--label-encoding=index"],
    *(["report", "{output}", "-f", kind] for kind in ("table", *KINDS)),
    *([command, "{output}", "-f", kind] for command in ("score", "label-errors") for kind in ("text", *KINDS)),
    ["score", "{output}", "--by", "weather[/b]\x1b[1m"],
    ["score", "{output}", "--ignore", "none\x1b[1m"],
    *(["compare", "{output}", "{other}", "-f", kind] for kind in ("text", *KINDS)),
    ["compare", "{output}", "{other}", "--to", "{pages}"],
    ["audit", "{output}"],
    ["audit", "{output}", "--deep"],
    ["status", "{output}"],
    ["overlay", "{output}", "--worst=2", "--to", "{overlays}"],
    ["overlay", "{output}", "--ids", IDS[0], "--ids", f"none\n{FORGED}", "--to", "{overlays}"],
    ["overlay", "{output}", "--sample=2", "--contact-sheet", "--to", "{overlays}"],
    *(["export", "{output}", "{exports}", "-f", kind] for kind in FORMATS),
    ["models"],
    ["models", "show", "{card}"],
    ["models", "show", f"none\x1b[2J\n{FORGED}"],
    ["models", "draft", "{weights}", "{pictures}"],
    ["models", "draft", f"{{output}}/none\x1b[2J\n{FORGED}.onnx"],
    ["quantize", f"{{output}}/none\x1b[2J\n{FORGED}.onnx", "--calibrate", "{images}", "--output", "{int8}"],
    ["schema", "card"],
    ["demo", "{output}/run.json"],
    ["run", f"none\x1b[2J\n{FORGED}", "{new}", "--model", "demo-streets"],
    ["run", "{images}", "{new}", "--job", f"none\x1b[2J\n{FORGED}"],
    ["export", "{output}", "{images}"],
    ["report", "{output}", "--format", f"\x1b[2J\n{FORGED}"],
    ["report", "{output}", f"--wide\x1b[2J\n{FORGED}"],
    [f"rep\x1b[2J\n{FORGED}"],
]  # fmt: skip


def code_of(command: list[str]) -> int:
    """The exit code: most commands work, some are given what cannot be."""
    if "{strict}" in command:
        return 3
    if command == ["export", "{output}", "{images}"]:
        return 1
    refused = any(FORGED in part for part in command) or "none\x1b[1m" in command
    return 2 if refused or command[0] in ("demo", "check") else 0


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: shlex.join(command[:1] + command[2:4])[:40])
def test_a_command_prints_only_what_is_seen(command: list[str], place: Place, tmp_path: Path, segment: Call) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "esc\x1b[2J.png").write_bytes(png(scene(0)[0]))
    names = {
        "images": place.images / "some.parquet", "output": place.output, "other": place.folder / "other",
        "card": place.card_path, "weights": place.weights_path, "pictures": pictures,
        **{name: tmp_path / FOLDER / name for name in NEW},
    }  # fmt: skip
    called = segment(*(part.format(**names) if "{" in part else part for part in command))
    assert called.out + called.err
    assert called.code == code_of(command)
    for said in (called.out, called.err):
        lines = said.replace("\r\n", "\n").split("\n")
        assert [line for line in lines if not is_visible(line.replace("\t", ""))] == []
        assert not [line for line in lines if line.strip().startswith(FORGED)]
    told = command[-1] if called.code == 0 else ""
    if told == "json":
        json.loads(called.out)
    elif told == "csv":
        expect_no_formula(called.out)
    elif told == "markdown":
        expect_no_markup(called.out)
    for page in tmp_path.rglob("*.html"):
        expect_no_foreign_markup(page.read_text())
    for labels in tmp_path.rglob("labelmap.txt"):
        assert [line.count(":") for line in labels.read_text().splitlines()] == [3] * (1 + len(CLASSES))


def expect_no_formula(text: str) -> None:
    for row in csv.reader(io.StringIO(text, newline="")):
        for cell in row:
            if cell.startswith(("=", "+", "-", "@", "\t", "\r")):
                float(cell)


def expect_no_markup(text: str) -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    kinds = {token.type for token in tokens} | {child.type for token in tokens for child in token.children or []}
    assert kinds.isdisjoint({"html_block", "html_inline", "link_open", "image", "code_inline", "em_open", "fence"})


class Tags(HTMLParser):
    """Counts tags, and keeps those with handlers or sources that are not of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts, self.foreign = 0, list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        held = dict(attrs)
        sources = [held.get("src") or "", held.get("href") or ""]
        if any(name.startswith("on") for name in held) or any(s and s[0] != "#" and s[:5] != "data:" for s in sources):
            self.foreign.append(tag)


def expect_no_foreign_markup(html: str) -> None:
    assert [line for line in html.replace("\t", "").split("\n") if not is_visible(line)] == []
    tags = Tags()
    tags.feed(html)
    assert (tags.scripts, tags.foreign) == (1, [])
    assert "<b>x</b>" not in html
    assert "<i>x</i>" not in html


def test_the_page_and_the_readme_hold_nothing_that_is_obeyed(place: Place) -> None:
    html = (place.output / "report" / "index.html").read_text()
    expect_no_foreign_markup(html)
    assert "\\x1b[2J" in html or "\\u001b[2J" in html  # the names are there
    assert "&lt;script&gt;" in html
    readme = (place.output / "README.md").read_text()
    assert all(is_visible(line) for line in readme.split("\n"))


def test_every_command_is_tried() -> None:
    assert {command[0] for command in COMMANDS} >= set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
