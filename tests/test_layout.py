"""The layout: what import-linter does not check (`make lint` runs it; its contracts are in pyproject.toml)."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "segment"
LONGEST = 320

FILES = sorted(file.relative_to(PACKAGE).as_posix() for file in PACKAGE.rglob("*.py"))


def test_the_picture_shows_the_layout_that_is() -> None:
    command = [sys.executable, "docs/layout.py", "--check"]
    assert subprocess.run(command, cwd=ROOT, timeout=120, check=False).returncode == 0


def test_contributing_names_every_package_and_no_other() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", text.partition("## Where things are")[2].partition("\n## ")[0], re.MULTILINE)
    named = {name.strip("/") for row in rows for name in re.findall(r"`([a-z_]+/?)`", row)}
    assert named == {file.partition("/")[0].removesuffix(".py") for file in FILES if not file.startswith("__")}


def test_files_stay_short() -> None:
    lines = {file: (PACKAGE / file).read_text(encoding="utf-8").count("\n") for file in FILES}
    assert {file for file, number in lines.items() if number > LONGEST} == set()


def test_there_is_no_utils() -> None:
    assert not [file for file in FILES if Path(file).stem in ("utils", "helpers", "common", "misc")]


def test_imports_are_absolute() -> None:
    relative = [file for file in FILES if re.search(r"^\s*from \.", (PACKAGE / file).read_text("utf-8"), re.MULTILINE)]
    assert relative == []


def test_a_module_name_stands_for_one_thing() -> None:
    """A command is named after what it shows, so files of `cli` may repeat a name."""
    stems = [Path(file).stem for file in FILES if not file.startswith("cli/") and not Path(file).stem.startswith("__")]
    assert sorted({stem for stem in stems if stems.count(stem) > 1}) == []
