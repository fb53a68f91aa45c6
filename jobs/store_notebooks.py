"""Execute the notebooks on runs of the demo's scenes and store their outputs, without anything of this machine.

    python jobs/store_notebooks.py

The scenes are segmented in f32 and in INT8, a minute in all. `tests/test_notebooks.py` executes the notebooks again and
compares what they print with what is stored.
"""

import base64
import io
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import onnx
from nbclient import NotebookClient
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from PIL import Image

import segment
from segment.demo.dataset import read_scenes, write_webdataset
from segment.models.card import load_card
from segment.models.weights import load_weights
from segment.store.client import Store

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
FILES = sorted(NOTEBOOKS.glob("*.ipynb"))
SCENES = 32
F32, INT8 = "../demo-output/masks-webdataset", "../demo-output/masks-int8"
RUNS = {"SEGMENT_OUTPUT": F32, "SEGMENT_RUN_A": F32, "SEGMENT_RUN_B": INT8}  # the variables that the notebooks read


class SomeScenes(CalibrationDataReader):
    """Four pictures as the demo's network wants them, for the quantiser."""

    def __init__(self, name: str) -> None:
        card = load_card("demo-streets").input
        mean, std = np.array(card.mean), np.array(card.std)
        images = (np.asarray(Image.open(io.BytesIO(scene.image))) for scene in read_scenes()[-4:])
        pictures = ((image / 255 - mean) / std for image in images)
        self._feeds = iter([{name: picture.transpose(2, 0, 1)[None].astype(np.float32)} for picture in pictures])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """See `CalibrationDataReader.get_next`."""
        return next(self._feeds, None)


def int8_weights(folder: Path) -> Path:
    """Quantise the demo's network."""
    graph = folder / "f32.onnx"
    graph.write_bytes(load_weights(load_card("demo-streets"), None, store=Store()).graph)
    name = onnx.load(graph).graph.input[0].name
    quantize_static(graph, folder / "int8.onnx", SomeScenes(name), quant_format=QuantFormat.QDQ)
    return folder / "int8.onnx"


def make_runs(folder: Path) -> tuple[segment.RunReport, segment.RunReport]:
    """Segment the same scenes in f32 and in INT8, where `make demo` leaves its own beside a folder `notebooks`."""
    (folder / "notebooks").mkdir()
    write_webdataset(folder / "scenes", read_scenes(SCENES), shards=4)
    values = {
        "input": str(folder / "scenes"), "model": "demo-streets", "engine": "local", "precision": "f32",
        "runtime": "onnxruntime", "part_size": 4,
    }  # fmt: skip
    place = folder / "notebooks"
    one = segment.run(segment.Job(output=str((place / F32).resolve()), **values))
    weights = str(int8_weights(folder))
    return one, segment.run(segment.Job(output=str((place / INT8).resolve()), weights=weights, **values))


def execute(file: Path, folder: Path, runs: Mapping[str, str] = RUNS) -> Any:
    """Return a notebook, executed as Jupyter does in `folder/notebooks`."""
    notebook: Any = nbformat.read(file, as_version=4)
    with _environment(runs):
        where = {"metadata": {"path": str(folder / "notebooks")}}
        NotebookClient(notebook, timeout=120, resources=where, record_timing=False).execute()
    return notebook


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ |= variables
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def stripped(notebook: Any, folder: Path) -> Any:
    """Return an executed notebook without paths, versions and warnings of this machine."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                output.update(_without_paths({key: output[key] for key in ("text", "data") if key in output}, folder))
                if "text/markdown" in output.get("data", {}):
                    del output.data["text/plain"]  # the object as Python shows it, with addresses
                if picture := output.get("data", {}).get("image/png"):
                    output.data["image/png"] = _smaller(picture)
    return notebook


def _smaller(picture: str) -> str:
    """Return a PNG, in base 64, with 256 colours, which charts and masks do not exceed by much."""
    written = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(written, "PNG", optimize=True)
    return base64.b64encode(written.getvalue()).decode()


def _without_paths(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {key: item if key.startswith("image/") else _without_paths(item, folder) for key, item in value.items()}
    if isinstance(value, str):
        for path in (f"{folder.resolve()}/", f"{folder}/"):
            value = value.replace(path, "").replace(path.replace("_", "\\_"), "")  # plain, and in Markdown
    return value


def printed(notebook: Any) -> list[list[str]]:
    """Return the texts that each code cell printed or ended in, without those of objects in memory."""
    return [
        [text for output in cell.outputs if (text := _text(output)) and not re.match(r"<\S+ .*>$", text)]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def _text(output: Any) -> str:
    data = output.get("data", {})
    text = str(output.get("text") or data.get("text/markdown") or data.get("text/plain", "")).strip()
    return re.sub(r"\.tar-[0-9a-f]{12}", ".tar-#", text)  # a digest of where the tar lies and when it was written


def main() -> None:
    """Store the outputs in the notebooks."""
    with tempfile.TemporaryDirectory(prefix="notebooks-") as name:
        make_runs(Path(name))
        for file in FILES:
            nbformat.write(stripped(execute(file, Path(name)), Path(name)), file)
            print(f"stored {file.name}, {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
