"""Every example of README.md runs, as it stands there, in a folder that looks as its text says."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from segment.demo.dataset import read_scenes
from segment.models.sessions import LAST_RUN
from tests.calls import ROOT, Call

README = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
# What cannot run here as it stands, and the test that runs the like of it.
ELSEWHERE = {
    "make demo": "demo/test_demo_model.py",
    "make test": "",  # you are looking at it
    ". .venv/bin/activate": "",
    "segment run photos out-photos --model unet-camvid-onnx-0001 --labels labels": "test_models.py",
    "segment run s3://bucket/photos": "test_s3_runs.py",
    "ray job submit": "test_job_submit.py",
}


def test_providers_say_when_they_last_ran() -> None:
    told = (ROOT / "jobs" / "README.md").read_text(encoding="utf-8") + README
    for device, last in LAST_RUN.items():
        assert told.count(f"| `--device {device}` | {last or 'never'} |") == 2


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for name, text in fenced if name == language]


def commands() -> list[str]:
    """Every line of a shell block, without its comment."""
    lines = [line.split(" #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def runs_elsewhere(command: str) -> bool:
    return any(command.startswith(known) for known in ELSEWHERE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the reader stands: the demo has run, and there are photos with labels and a model."""
    place = tmp_path_factory.mktemp("readme")
    run(place, "segment demo --engine local --scenes 16")
    for kind in ("photos", "labels"):
        (place / kind).mkdir()
    for key, image, label in read_scenes(6):
        (place / "photos" / f"{key}.jpg").write_bytes(image)
        (place / "labels" / f"{key}.png").write_bytes(label)
    shutil.copy(ROOT / "segment" / "models" / "cards" / "demo-streets.onnx", place / "my-model.onnx")
    return place


def run(place: Path, command: str) -> str:
    name, *arguments = shlex.split(command)
    ended = subprocess.run(
        [str(BIN / name), *arguments], cwd=place, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout}{ended.stderr}"
    return ended.stdout


def test_every_command_runs_in_the_order_of_the_page(folder: Path) -> None:
    here = [command for command in commands() if not runs_elsewhere(command)]
    assert len(here) >= 5
    printed = {command.split()[1]: run(folder, command) for command in here}
    assert "16 images" in printed["plan"]
    assert "mIoU" in printed["report"]
    assert (folder / "out" / "report" / "index.html").stat().st_size > 10_000
    assert list((folder / "worst").glob("*.png"))
    assert "16" in printed["audit"]


def test_every_command_that_runs_elsewhere_is_on_the_page_and_its_test_is_there() -> None:
    for known, file in ELSEWHERE.items():
        assert any(command.startswith(known) for command in commands()), known
        assert (ROOT / "tests" / file).exists()


def test_the_python_examples_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    shutil.rmtree(folder / "out-photos", ignore_errors=True)
    if not (folder / "out").exists():
        run(folder, "segment run demo-output/scenes-webdataset out --model demo-streets -q")
    for block in blocks("python"):
        # the same job with a model whose weights are in the package
        exec(compile(block.replace("unet-camvid-onnx-0001", "demo-streets"), "README.md", "exec"), {})
    assert re.match(r"0\.\d+ \[", capsys.readouterr().out)
    assert (folder / "out-photos" / "_SUCCESS").exists()


def test_every_command_and_flag_of_the_page_exists(segment: Call) -> None:
    listed = re.findall(r"`segment ([a-z]+)([^`]*)`", README) + [
        (command.split()[1], " ".join(command.split()[2:])) for command in commands() if command.startswith("segment ")
    ]
    assert {"run", "plan", "report", "status", "audit", "overlay", "export", "schema", "models", "demo"} <= {
        name for name, _ in listed
    }
    for name, rest in listed:
        below = rest.split()[:1] if name == "models" and rest.split()[:1] == ["draft"] else []
        known = segment(name, *below, "--help").out
        for flag in re.findall(r"--[a-z-]+", rest):
            assert flag in known, f"segment {name} has no {flag}"


def test_every_file_of_an_output_is_on_the_page(folder: Path) -> None:
    layout = next(block for block in blocks("") if block.startswith("out/"))
    if not (folder / "out").exists():
        run(folder, "segment run demo-output/scenes-webdataset out --model demo-streets -q")
    found = {path.name for path in (folder / "out").iterdir()} | {
        path.name for path in (folder / "out" / "report").iterdir()
    }
    assert {name for name in found if name not in layout} == set()


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
