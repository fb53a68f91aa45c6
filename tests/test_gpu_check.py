"""jobs/gpu_check.sh without a GPU: what every step finds is kept, whatever becomes of the others."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.gpu.check import check
from jobs.gpu.missing import missing
from jobs.gpu.steps import Step, steps_in
from tests.calls import ROOT


def test_a_step_that_fails_or_hangs_stops_no_other(tmp_path: Path) -> None:
    result = tmp_path / "found.json"
    record = {"rates": {"1": 2.0, "16": 20.0}, "jobs": {"16": {"rate": 18.0, "busy": "70 %", "agreement": 0.99987}}}
    kept = f"open({str(result)!r}, 'w').write({json.dumps(record)!r}); raise SystemExit('broken after it was written')"
    hangs = "import subprocess, sys; print('begun', flush=True); subprocess.run(['sleep', '60'])"
    facts = {"graph": "unet", "device": "cuda", "precision": "f32"}
    steps = [
        Step("fails", 20, [sys.executable, "-c", kept], result, facts),
        Step("hangs", 1, [sys.executable, "-c", hangs]),
        Step("is well", 20, [sys.executable, "-c", "print('fine')"]),
    ]
    outcomes = check(steps, tmp_path, 60)
    assert [(one.status, one.said) for one in outcomes] == [
        ("failed", "broken after it was written"),
        ("timed out", "begun"),
        ("ok", "fine"),
    ]
    assert outcomes[1].seconds < 10
    assert [one["found"] for one in json.loads((tmp_path / "gpu_check.json").read_text())] == [record, None, None]
    told = (tmp_path / "gpu_check.md").read_text()
    assert "| unet | cuda f32 | 16 | 20.0 | 18.0 | 70 % | 99.987 % |" in told
    assert "| hangs | timed out |" in told
    assert check(steps[2:], tmp_path, 1)[0].status == "no time left"


def test_most_is_known_early_and_all_of_it_in_time(tmp_path: Path) -> None:
    steps = list(steps_in(tmp_path, dry_run=False))
    assert [step.name for step in steps[:6]] == [
        "machine",
        "provider tests",
        "inputs",
        "reference graphs",
        "unet cuda f32",
        "kill and resume",
    ]
    assert {step.facts.get("device") for step in steps[6:]} == {"cuda", "tensorrt"}
    assert {step.facts.get("device") for step in steps_in(tmp_path, dry_run=True)} == {None, "cpu"}


def test_what_a_gpu_machine_lacks_is_named_with_what_it_needs() -> None:
    found = missing({"numpy": "99.0", "typer": "0.1"}, ["numpy>=2", "typer>=0.29", "ray>=2"])
    assert "typer" in found  # too old there
    assert {"numpy", "ray"}.isdisjoint(found)
    assert "pygments" in missing({}, ["typer"])  # which rich needs


@pytest.mark.parametrize("arguments", [[], ["--dry-run"], ["out", "--no-such-option"]])
def test_wrong_usage_is_told_and_installs_nothing(arguments: list[str], tmp_path: Path) -> None:
    script = str(ROOT / "jobs" / "gpu_check.sh")
    done = subprocess.run([script, *arguments], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "jobs/gpu_check.sh OUT --installed" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_whole_script_on_a_cpu(tmp_path: Path) -> None:
    command = [str(ROOT / "jobs" / "gpu_check.sh"), str(tmp_path / "out"), "--installed", "--dry-run"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable}, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = (tmp_path / "out" / "gpu_check.md").read_text()
    assert "nothing below was measured on one" in told
    assert "| demo | cpu f32 | 1 |" in told
    assert "parts were committed, and resumed" in told
