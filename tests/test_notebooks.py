"""The notebooks: executed from top to bottom on runs made here; what they print is right, and what is stored."""

import io
import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pyarrow.dataset as ds
import pytest
from PIL import Image

import segment
from jobs.store_notebooks import F32, FILES, INT8, RUNS, SCENES, execute, make_runs, printed, stripped
from segment.demo.dataset import read_scenes
from segment.errors import SegmentError

NUMBER = re.compile(r"[-+]?\d+(?:,\d{3})*(?:\.\d+)?")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[segment.RunReport, segment.RunReport, Path]:
    """The same scenes in f32 and in INT8, and the folder that holds their outputs."""
    folder = tmp_path_factory.mktemp("notebooks")
    return *make_runs(folder), folder


def pictures(notebook: Any) -> int:
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    return sum("image/png" in output.get("data", {}) for output in outputs)


def text_of(notebook: Any) -> str:
    return "\n".join(text for cell in printed(notebook) for text in cell)


def expect_stored(file: Path, executed: Any, folder: Path) -> None:
    """Assert that the stored texts are those of now, up to a fiftieth of each number: CPUs round differently."""
    stored = nbformat.read(file, as_version=4)
    assert pictures(stored) == pictures(executed)
    now, then = printed(stripped(executed, folder)), printed(stored)
    for one, other in zip(now, then, strict=True):
        assert [NUMBER.sub("#", text) for text in one] == [NUMBER.sub("#", text) for text in other]
        numbers = [[float(n.replace(",", "")) for n in NUMBER.findall("".join(texts))] for texts in (one, other)]
        assert numbers[0] == pytest.approx(numbers[1], rel=0.02, abs=0.02), f"run jobs/store_notebooks.py: {file.name}"


def test_there_are_three() -> None:
    names = ["01_explore_a_run.ipynb", "02_compare_two_runs.ipynb", "03_scores_and_slices.ipynb"]
    assert [file.name for file in FILES] == names


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_they_are_stored_with_outputs_and_nothing_of_a_machine(file: Path) -> None:
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert pictures(notebook) >= 2
    assert all(not cell.metadata for cell in notebook.cells)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python"}
    assert not re.search(r"/(home|root|tmp|work|Users|private)/|\\\\Users|[Ww]arning", text_of(notebook))
    assert "jupyter lab notebooks/" in notebook.cells[0].source
    assert file.stat().st_size < 300_000
    imports = re.search(r"^\s*(import|from) segment", "\n".join(cell.source for cell in code), re.MULTILINE)
    assert bool(imports) == (file != FILES[0])  # a run is read without our code, too


def test_exploring_a_run_gives_its_score_from_counts(
    runs: tuple[segment.RunReport, segment.RunReport, Path],
) -> None:
    report, _, folder = runs
    notebook = execute(FILES[0], folder)
    text = text_of(notebook)
    assert f"demo-streets: {SCENES} images, shards: 4, errors: 0" in text
    assert f"mIoU {100 * (report.miou('omz') or 0):.4f} %" in text
    expect_stored(FILES[0], notebook, folder)


def test_comparing_two_runs_counts_the_pixels_that_agree(
    runs: tuple[segment.RunReport, segment.RunReport, Path],
) -> None:
    _, _, folder = runs
    notebook = execute(FILES[1], folder)
    one, other = (masks(folder / "notebooks" / output) for output in (F32, INT8))
    agreement = (one == other).mean()
    assert 0.9 < agreement < 1  # quantised for real, and still the same network
    assert f"{SCENES} images; {100 * agreement:.4f} % of the pixels agree" in text_of(notebook)
    expect_stored(FILES[1], notebook, folder)


def test_scores_have_intervals_and_slices(
    runs: tuple[segment.RunReport, segment.RunReport, Path],
) -> None:
    _, _, folder = runs
    notebook = execute(FILES[2], folder)
    text, output = text_of(notebook), (folder / "notebooks" / F32).resolve()
    found = segment.score(output)
    interval = found.overall.intervals["miou"]
    assert interval is not None
    span = f"({100 * interval.low:.1f} to {100 * interval.high:.1f})"
    assert f"mIoU {100 * (found.miou or 0):.2f} % {span}, {SCENES} images" in text
    first = segment.label_errors(output, number=5, images=50).regions[0]
    assert f"{first.id}: {first.label} labelled, {first.prediction} predicted" in text
    expect_stored(FILES[2], notebook, folder)


def masks(output: Path) -> np.ndarray:
    table = ds.dataset(output / "masks").to_table(columns=["id", "mask"]).sort_by("id")
    return np.stack([np.asarray(Image.open(io.BytesIO(mask["bytes"]))) for mask in table["mask"].to_pylist()])


@pytest.mark.parametrize(
    ("file", "variable"),
    zip(FILES, ("SEGMENT_OUTPUT", "SEGMENT_RUN_A", "SEGMENT_OUTPUT"), strict=True),
    ids=lambda v: getattr(v, "stem", v),
)
def test_without_a_run_they_say_what_to_do(
    file: Path, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(tmp_path))
    with pytest.raises((SystemExit, SegmentError), match=r"no (finished )?run (in|at)"):
        begin(file, 1)


def begin(file: Path, cells: int) -> None:
    """Run the first cells of code in this process: a kernel takes five seconds of CPU to start."""
    code = [cell.source for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]
    exec("\n".join(code[:cells]), {})


def test_a_run_without_labels_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "a.jpg").write_bytes(read_scenes(1)[0].image)
    run = str(tmp_path / "out")
    job = {"input": str(tmp_path / "a.jpg"), "model": "demo-streets", "engine": "local", "min_agreement": 0}
    segment.run(segment.Job(output=run, **job))
    runs = dict.fromkeys(RUNS, run)
    monkeypatch.setenv("SEGMENT_OUTPUT", run)
    with pytest.raises(SystemExit, match="no image of this run has a label"):
        begin(FILES[0], 2)
    compared = execute(FILES[1], tmp_path, runs)
    assert "no image is labelled in both runs: agreement alone" in text_of(compared)
    assert "1 images; 100.0000 % of the pixels agree" in text_of(compared)
    assert pictures(compared) >= 2
    scored = execute(FILES[2], tmp_path, runs)
    assert text_of(scored).startswith("no image of this run has a label: there are no scores")
    assert pictures(scored) == 0
