"""jobs/scale.py, small: that its measures run and that its model and images are what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import jobs.scale as scaling
from segment.ledger import Ledger
from segment.report.aggregate import load_report
from segment.store import Store

SCRIPT = Path(scaling.__file__)


@pytest.fixture
def scale(tmp_path: Path) -> scaling.Scale:
    made = scaling.Scale(tmp_path / "scale", images=120, shards=3)
    scaling.make_inputs(made)
    return made


def values(figures: list[scaling.Figure]) -> dict[str, str]:
    return {figure.name: figure.value for figure in figures}


@pytest.mark.ray
def test_a_run_and_its_rerun(scale: scaling.Scale, ray_cluster: Path) -> None:
    found = values(scaling.measure_run(scale))
    assert float(found["Ray engine, images/s"]) > 0
    report = load_report(Ledger(Store(), f"file://{scale.output('run')}"))
    assert report.total.images == 120
    assert report.total.errors == 0
    assert report.total.confusion.predicted_pixels.tolist() == [120 * 64 * 64, 0]
    assert any("listing of 30 masks files" in name for name in values(scaling.measure_finished(scale)))


def test_a_resume_sees_what_is_finished(scale: scaling.Scale) -> None:
    names = values(scaling.measure_resume(scale))
    assert any(name.startswith("resume: 120 parts in 3 shards") for name in names)


def test_a_long_plan_is_weighed(scale: scaling.Scale) -> None:
    assert "plan of 300 parts read, s" in values(scaling.measure_plan(scale))


def test_discovery_finds_all(scale: scaling.Scale) -> None:
    found = values(scaling.measure_discovery(scale))
    assert any("120 images, Parquet" in name for name in found)
    assert any("12 images, loose files" in name for name in found)


@pytest.mark.slow
@pytest.mark.ray
def test_the_command_starts_its_own_clusters(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--images", "40", "--shards", "2", "--measure", "store", "start"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "object store at peak, three operators" in done.stdout
    assert "segment --help" in done.stdout
