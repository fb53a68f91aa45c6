"""Make the pictures of README.md from a real run: `python docs/pictures.py`.

`terminal.svg` is what a run prints, `report.png` the top of its page in Chromium.
`tests/docs/test_pictures.py` says when they are out of date: by the words in the SVG, and by what `report.json` records
of the page.
"""

import argparse
import hashlib
import html
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from PIL import Image
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME
from rich.text import Text

from segment.demo.dataset import read_scenes, write_webdataset

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
TERMINAL, PAGE, PAGE_FACTS = (PICTURES / name for name in ("terminal.svg", "report.png", "report.json"))
TEMPLATES = ROOT / "segment" / "report" / "templates"
COMMAND = "segment run demo-output/scenes-webdataset out --model demo-streets"
COLUMNS = 80
WIDTH, GALLERY = 1200, 640  # of the screenshot, and of the part of its gallery that it shows, in CSS pixels
_VARYING = re.compile(r"^#/# images|^limit |of pixels as f#|^mIoU on ")  # progress, bottleneck, proof of a precision
_FONTS = re.compile(r"@font-face \{\{.*?\}\}\n*", re.DOTALL)  # rich's come from another host


def printed(folder: Path, *options: str, scenes: int = 64) -> str:
    """Run the command in `folder`; return what it prints, with colours, each kind of progress line once."""
    write_webdataset(folder / "demo-output" / "scenes-webdataset", read_scenes(scenes), shards=4)
    here = [sys.executable, "-m", *COMMAND.split(), *options]
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    ended = subprocess.run(
        here, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    lines = ended.stdout.replace(f"{folder}/", "").splitlines()
    return "\n".join(line for n, line in enumerate(lines) if n == 0 or words(line) != words(lines[n - 1]))


def to_svg(text: str) -> str:
    """A terminal that shows a command and what it prints."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(Text.assemble(("$ ", "bold green"), (COMMAND, "bold")))
        console.print(Text.from_ansi(text))
    frame = _FONTS.sub("", CONSOLE_SVG_FORMAT).replace("Fira Code", "ui-monospace")
    return console.export_svg(title="segment", theme=SVG_EXPORT_THEME, code_format=frame, unique_id="terminal")


def words_of_svg(svg: str) -> str:
    """What a terminal's picture says, as `words` has it, but for lines that not every machine prints."""
    lines: dict[float, list[tuple[float, str]]] = {}
    for x, y, text in re.findall(r'<text class="terminal-r\d+" x="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>', svg):
        lines.setdefault(float(y), []).append((float(x), html.unescape(text)))
    found = (words("".join(text for _, text in sorted(line))) for _, line in sorted(lines.items()))
    return " ".join(line for line in found if line and not _VARYING.search(line))


def words(line: str) -> str:
    """A line without colours, numbers, units, precisions and spaces; those differ from one run to another."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", line).replace("\xa0", " ")
    return " ".join(re.sub(r"\bbf(?=#)", "f", re.sub(r"[\d.,:]+( [kMG]B)?", "#", plain)).split())


def facts_of_page(page: str) -> dict[str, object]:
    """What a page's look follows from: its templates, and the headings that it shows."""
    digest = hashlib.sha256()
    for file in sorted(TEMPLATES.iterdir()):
        digest.update(file.name.encode() + file.read_bytes())
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", page, re.DOTALL)
    return {"templates": digest.hexdigest(), "headings": [re.sub(r"<[^>]+>", "", text).strip() for text in headings]}


def photograph(page: Path, to: Path) -> None:
    """Take a picture of a page's top and, below it, of its gallery, as Chromium shows them in a bright theme."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        window = browser.new_page(viewport={"width": WIDTH, "height": 1000}, color_scheme="light")
        window.goto(page.as_uri())
        top = window.locator("#score").bounding_box()["y"]
        gallery = window.locator("#gallery").bounding_box()
        whole = Image.open(io.BytesIO(window.screenshot(full_page=True)))
        browser.close()
    parts = [(0, top), (gallery["y"] - 24, gallery["y"] + min(gallery["height"], GALLERY))]
    strips = [whole.crop((0, round(low), WIDTH, round(high))) for low, high in parts]
    picture = Image.new("RGB", (WIDTH, sum(strip.height for strip in strips)))
    for number, strip in enumerate(strips):
        picture.paste(strip, (0, sum(above.height for above in strips[:number])))
    picture.quantize(256).save(to, optimize=True)


def main(arguments: Iterable[str]) -> None:
    """Make the pictures that are named, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pictures", nargs="*", choices=("terminal", "page", []), help="which; all by default")
    wanted = parser.parse_args(list(arguments)).pictures or ["terminal", "page"]
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="streets-") as name:
        text = printed(Path(name))
        if "terminal" in wanted:
            TERMINAL.write_text(to_svg(text), encoding="utf-8")
        if "page" in wanted:
            page = Path(name) / "out" / "report" / "index.html"
            page.write_text(page.read_text("utf-8").replace(f"{name}/", ""), "utf-8")  # the folder is of no interest
            photograph(page, PAGE)
            PAGE_FACTS.write_text(json.dumps(facts_of_page(page.read_text("utf-8")), indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
