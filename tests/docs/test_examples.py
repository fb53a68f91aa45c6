"""Every example of README.md and docs/ runs as it stands there, in a folder that looks as the text says.

Commands in `sh` blocks run once each, in the order of the pages. Those that need a cluster, a store or an installation
run in the tests named below, or are like what runs there. They are read by the command line's own parser here, and so
are `console` blocks, whose folders are the reader's.
"""

import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from segment.cli.app import app
from segment.demo.dataset import read_scenes, write_parquet, write_webdataset
from segment.job import Job
from segment.models.card import parse_card
from segment.models.sessions import LAST_RUN
from tests.calls import ROOT, Call
from tests.pages import PAGES, README, Page, page

# The beginnings of commands that do not run here, and the test that runs them or the like of them.
ELSEWHERE = {
    "make demo": "demo/test_show.py",
    "make test": "",  # you are looking at it
    ". .venv/bin/activate": "",
    "pip install .": "test_job_files.py",
    "jobs/gpu_check.sh OUT": "test_gpu_check.py",
    "export ": "",
    "ray start --head": "test_job_submit.py",
    "ray get-auth-token": "test_job_submit.py",
    "ray job ": "test_job_submit.py",
    "segment run photos out-photos --model unet-camvid-onnx-0001": "test_models.py",
    "segment run s3://": "test_s3_runs.py",
    "segment status s3://": "test_s3_runs.py",
    "segment report s3://": "test_s3_runs.py",
}
# Programs of others, which a reader starts where we have none of them.
OF_OTHERS = ("cd ", "cp ", "prometheus ", "docker ", "kubectl ")
# Pages whose Python examples have tests of their own.
OWN_TESTS = {"docs/building-blocks.md": "test_building_blocks.py"}
ORDER = ["first-run", "own-model", "reading-results"]  # read one after the other; what they write others read, too


def in_order() -> list[Page]:
    """README and tutorials first."""
    first = [README, *map(page, ORDER)]
    return [*first, *(item for item in PAGES if item not in first)]


def commands(language: str) -> Iterator[tuple[Page, str]]:
    """Every command once, with the page that has it first."""
    seen: set[str] = set()
    for item in in_order():
        for command in item.commands(language):
            if command not in seen:
                seen.add(command)
                yield item, command


def runs_elsewhere(command: str) -> bool:
    return command.startswith((*ELSEWHERE, *OF_OTHERS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the reader stands: the demo has run, and there are photos with labels and a model."""
    place = tmp_path_factory.mktemp("docs")
    shipped = read_scenes(8)
    write_webdataset(place / "demo-output" / "scenes-webdataset", shipped, shards=4)
    write_parquet(place / "demo-output" / "scenes-parquet" / "streets.parquet", shipped)
    for kind in ("photos", "labels"):
        (place / kind).mkdir()
    for key, image, label in shipped:
        (place / "photos" / f"{key}.jpg").write_bytes(image)
        (place / "labels" / f"{key}.png").write_bytes(label)
    shutil.copy(ROOT / "segment" / "models" / "cards" / "demo-streets.onnx", place / "my-model.onnx")
    return place


def test_every_example_runs(folder: Path, segment: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page after page: its commands, then its Python examples."""
    monkeypatch.chdir(folder)
    new, ran = list(commands("sh")), set()
    for item in in_order():
        for command in [command for first, command in new if first is item]:
            if not runs_elsewhere(command) and not is_another_plan(command):
                ran.add(run(item, command, segment))
        if item.name not in OWN_TESTS:
            run_python(item)
    assert {"run", "plan", "report", "overlay", "audit", "status", "models", "score", "compare", "export"} <= ran
    assert (folder / "out" / "report" / "index.html").stat().st_size > 10_000
    for written in ("worst/*.png", "unsure/*.png", "exported/*.png", "out-photos/_SUCCESS", "look.png"):
        assert list(folder.glob(written)), written
    every_file_of_an_output_is_on_the_page(folder)


@pytest.mark.slow
def test_every_plan_runs(folder: Path, segment: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    plans = [(item, command) for item, command in commands("sh") if is_another_plan(command)]
    assert len(plans) > 4
    for item, command in plans:
        run(item, command, segment)


def is_another_plan(command: str) -> bool:
    """Whether a command is a plan, but not the first one; each takes two seconds of CPU."""
    return command.startswith("segment plan") and "scenes-webdataset --" not in command


def run(item: Page, command: str, segment: Call) -> str:
    """Run a command of a page; return its name, such as `plan`. What `auto` chooses is compared in other tests."""
    program, *arguments = shlex.split(command)
    assert program == "segment", f"{item.name}: {command}: name the test that runs it"
    proof = ["--min-agreement", "0"] if arguments[0] in ("run", "plan") else []
    called = segment(*arguments, *proof)
    assert called.code == 0, f"{item.name}: {command}\n{called.out}{called.err}"
    return arguments[0]


def run_python(item: Page) -> None:
    """Run the Python examples of a page, each by itself."""
    for block in item.blocks("python"):
        # the same job with a model whose weights are in the package
        code = block.replace('"unet-camvid-onnx-0001"', '"demo-streets", min_agreement=0')
        try:
            exec(compile(code, item.name, "exec"), {})
        except Exception as error:
            raise AssertionError(f"{item.name}: {block}") from error


def every_file_of_an_output_is_on_the_page(folder: Path) -> None:
    found = {path.name for path in (folder / "out").iterdir()} | {
        path.name for path in (folder / "out" / "report").iterdir()
    }
    for item in (README, page("output")):
        layout = next(block for block in item.blocks("") if block.startswith("out/"))
        assert {name for name in found if name not in layout} == set(), item.name


def test_what_runs_elsewhere_is_on_a_page_and_its_test_is_there() -> None:
    shown = [command for _, command in commands("sh")]
    for known, file in ELSEWHERE.items():
        assert any(command.startswith(known) for command in shown), known
        assert (ROOT / "tests" / file).exists(), file
    targets = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in shown:
        assert not command.startswith("make ") or f"\n{command.split()[1]}:" in targets, command
    for name, file in OWN_TESTS.items():
        assert (ROOT / "tests" / file).exists(), name


@pytest.mark.parametrize("language", ["sh", "console"])
def test_every_command_can_be_parsed(language: str) -> None:
    root: Any = typer.main.get_command(app)
    number = 0
    for item, line in commands(language):
        command = line.partition(" > ")[0].partition(" | ")[0]
        if command.startswith("segment "):
            try:
                parse(root, shlex.split(command)[1:])
            except Exception as error:
                raise AssertionError(f"{item.name}: {command}: {error}") from error
            number += 1
    assert number > 5


def parse(command: Any, arguments: list[str]) -> None:
    """Parse arguments down to the command that they name; names, choices and types are checked, nothing runs."""
    context = command.make_context("segment", list(arguments))
    rest = [*context._protected_args, *context.args]
    if hasattr(command, "commands") and rest:
        parse(command.commands[rest[0]], rest[1:])


def test_every_job_file_and_card_is_valid() -> None:
    for item in PAGES:
        for block in item.blocks("toml"):
            if "[input]" in block:
                assert parse_card(block).classes.names
            else:
                Job(**tomllib.loads(block))


def test_every_command_and_flag_of_the_prose_exists(segment: Call) -> None:
    known: dict[str, str] = {}
    for item in PAGES:
        for name, rest in re.findall(r"`segment ([a-z-]+)([^`]*)`", item.prose):
            below = rest.split()[:1] if name == "models" and rest.split()[:1] in (["draft"], ["show"]) else []
            whole = " ".join([name, *below])
            if whole not in known:
                called = segment(name, *below, "--help")
                assert called.code == 0, f"{item.name}: there is no segment {whole}"
                known[whole] = called.out
            for flag in re.findall(r"--[a-z-]+", rest):
                assert flag in known[whole], f"{item.name}: segment {whole} has no {flag}"


def test_providers_say_when_they_last_ran() -> None:
    told = (ROOT / "jobs" / "README.md").read_text(encoding="utf-8") + page("gpus").text
    for device, last in LAST_RUN.items():
        assert told.count(f"| `--device {device}` | {last or 'never'} |") == 2
