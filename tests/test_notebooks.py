"""The notebooks: executed from top to bottom on runs made here, and what they print is right."""

from __future__ import annotations

import io
import re
from pathlib import Path

import nbformat
import numpy as np
import onnx
import pyarrow.dataset as ds
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from PIL import Image

import segment
from segment.demo.dataset import read_scenes, write_webdataset
from segment.models.card import load_card
from segment.models.weights import load_weights
from segment.store.client import Store

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
FILES = sorted(NOTEBOOKS.glob("*.ipynb"))
SCENES = 12


class SomeScenes(CalibrationDataReader):
    """Four pictures as the demo's network wants them, for the quantiser."""

    def __init__(self, name: str) -> None:
        card = load_card("demo-streets").input
        mean, std = np.array(card.mean), np.array(card.std)
        images = (np.asarray(Image.open(io.BytesIO(scene.image))) for scene in read_scenes()[-4:])
        pictures = ((image / 255 - mean) / std for image in images)
        self._feeds = iter([{name: picture.transpose(2, 0, 1)[None].astype(np.float32)} for picture in pictures])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def int8_weights(folder: Path) -> Path:
    """The demo's network, quantised for real."""
    graph = folder / "f32.onnx"
    graph.write_bytes(load_weights(load_card("demo-streets"), None, store=Store()).graph)
    name = onnx.load(graph).graph.input[0].name
    quantize_static(graph, folder / "int8.onnx", SomeScenes(name), quant_format=QuantFormat.QDQ)
    return folder / "int8.onnx"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[segment.RunReport, segment.RunReport, Path]:
    """The same scenes in f32 and in INT8."""
    folder = tmp_path_factory.mktemp("notebooks")
    write_webdataset(folder / "scenes", read_scenes(SCENES), shards=2)
    values = {"input": str(folder / "scenes"), "model": "demo-streets", "engine": "local", "precision": "f32"}
    one = segment.run(segment.Job(output=str(folder / "f32"), **values))
    other = segment.run(segment.Job(output=str(folder / "int8"), weights=str(int8_weights(folder)), **values))
    return one, other, folder


def execute(file: Path, monkeypatch: pytest.MonkeyPatch, pictures: int = 3, **environment: str) -> str:
    """Run a notebook as Jupyter would; what its cells print, as one text."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(file, as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= pictures
    return "".join(output.get("text", "") for output in outputs if output.output_type == "stream")


def test_there_are_three() -> None:
    names = ["01_explore_a_run.ipynb", "02_compare_two_runs.ipynb", "03_scores_and_slices.ipynb"]
    assert [file.name for file in FILES] == names


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_they_are_valid_and_stored_without_outputs(file: Path) -> None:
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    imports = re.search(r"^\s*(import|from) segment", "\n".join(cell.source for cell in code), re.MULTILINE)
    assert bool(imports) == (file != FILES[0])  # a run is read without our code, too


def test_exploring_a_run_gives_its_score_from_counts(
    runs: tuple[segment.RunReport, segment.RunReport, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    report, _, folder = runs
    printed = execute(FILES[0], monkeypatch, SEGMENT_OUTPUT=str(folder / "f32"))
    assert f"demo-streets: {SCENES} images in 2 shards, 0 errors" in printed
    assert f"mIoU {100 * report.miou('omz'):.4f} %" in printed


def test_comparing_two_runs_counts_the_pixels_that_agree(
    runs: tuple[segment.RunReport, segment.RunReport, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, folder = runs
    printed = execute(FILES[1], monkeypatch, SEGMENT_RUN_A=str(folder / "f32"), SEGMENT_RUN_B=str(folder / "int8"))
    one, other = masks(folder / "f32"), masks(folder / "int8")
    agreement = (one == other).mean()
    assert 0.9 < agreement < 1  # quantised for real, and still the same network
    assert f"{SCENES} images; {100 * agreement:.4f} % of the pixels agree" in printed


def test_scores_have_intervals_and_slices(
    runs: tuple[segment.RunReport, segment.RunReport, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, folder = runs
    printed = execute(FILES[2], monkeypatch, SEGMENT_OUTPUT=str(folder / "f32"), pictures=2)
    found = segment.score(folder / "f32")
    interval = found.overall.intervals["miou"]
    assert interval is not None
    span = f"({100 * interval.low:.1f} to {100 * interval.high:.1f})"
    assert f"mIoU {100 * (found.miou or 0):.2f} % {span}, {SCENES} images" in printed
    first = segment.label_errors(folder / "f32", number=5, images=50).regions[0]
    assert f"{first.id}: {first.label} labelled, {first.prediction} predicted" in printed


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
    with pytest.raises(CellExecutionError, match=r"no (finished )?run (in|at)"):
        execute(file, monkeypatch, **{variable: str(tmp_path)})


def test_a_run_without_labels_is_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(read_scenes(1)[0].image)
    segment.run(segment.Job(input=str(tmp_path), output=str(tmp_path / "out"), model="demo-streets", engine="local"))
    with pytest.raises(CellExecutionError, match="no image of this run has a label"):
        execute(FILES[0], monkeypatch, SEGMENT_OUTPUT=str(tmp_path / "out"))
    run = str(tmp_path / "out")
    printed = execute(FILES[1], monkeypatch, SEGMENT_RUN_A=run, SEGMENT_RUN_B=run, pictures=2)
    assert "no image is labelled in both runs: agreement alone" in printed
    assert "1 images; 100.0000 % of the pixels agree" in printed
    printed = execute(FILES[2], monkeypatch, SEGMENT_OUTPUT=run, pictures=0)
    assert printed.startswith("no image of this run has a label: there are no scores")
