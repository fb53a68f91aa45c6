"""jobs/scale.py, manifest_cost.py and score_scale.py, small: their measures run, and their runs are what they say."""

import subprocess
import sys
from pathlib import Path

import pytest

from jobs import score_scale
from jobs.manifest_cost import measure_audit
from jobs.scaling import fleet
from jobs.scaling.discovery import measure_discovery, measure_plan
from jobs.scaling.figures import Figure, Scale
from jobs.scaling.inputs import make_inputs
from jobs.scaling.listing import measure_listing
from jobs.scaling.resume import measure_resume
from jobs.scaling.run import measure_finished, measure_run
from segment.output.ledger import Ledger
from segment.report.aggregate import load_report
from segment.store.client import Store
from tests.calls import ROOT

SCRIPT = ROOT / "jobs" / "scale.py"


@pytest.fixture
def scale(tmp_path: Path) -> Scale:
    made = Scale(tmp_path / "scale", images=120, shards=3)
    make_inputs(made)
    return made


def values(figures: list[Figure]) -> dict[str, str]:
    return {figure.name: figure.value for figure in figures}


@pytest.mark.ray
def test_a_run_and_its_rerun(scale: Scale, ray_cluster: Path) -> None:
    found = values(measure_run(scale))
    assert float(found["Ray engine, images/s"]) > 0
    report = load_report(Ledger(Store(), f"file://{scale.output('run')}"))
    assert report.total.images == 120
    assert report.total.errors == 0
    assert report.total.confusion.predicted_pixels.tolist() == [120 * 64 * 64, 0]
    assert any("listing of 30 masks files" in name for name in values(measure_finished(scale)))


def test_a_resume_sees_what_is_finished(scale: Scale) -> None:
    names = values(measure_resume(scale))
    assert any(name.startswith("resume: 120 parts in 3 shards") for name in names)


def test_a_fleet_has_no_stragglers_and_costs_its_driver_little(monkeypatch: pytest.MonkeyPatch) -> None:
    for workers in fleet.WORKERS:
        longer, last = (figure.value for figure in fleet.dealt_out(workers))
        assert float(longer.rstrip("%")) < 5
        assert 0.5 < float(last) < 1.25
        assert float(fleet.heard(workers).value) < 100
    monkeypatch.setattr(fleet, "_PART_SECONDS", 0.01)
    assert 0 < float(fleet.pooled(64)[0].value) < 5


def test_a_long_plan_is_weighed(scale: Scale) -> None:
    assert "plan of 300 parts read, s" in values(measure_plan(scale))


def test_a_bucket_is_listed(tmp_path: Path) -> None:
    assert "120 objects listed, in one folder, s (of it CPU)" in values(measure_listing(Scale(tmp_path, 120, 1)))


def test_discovery_finds_all(scale: Scale) -> None:
    found = values(measure_discovery(scale))
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


def test_scores_and_audits_of_many_images_are_measured_on_runs_that_are_right(tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    assert "audit of 8 parts, s" in values(measure_audit(tmp_path / "audit", 8))
    output = score_scale.make_run(tmp_path, 128).output
    assert "segment score --group-by folder, 2 groups, 1,000 resamples, s" in values(score_scale.measure_score(output))
    assert "the images that lost most, s" in values(score_scale.measure_compare(output, output))
