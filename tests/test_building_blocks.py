"""Every example of docs/building-blocks.md runs as it stands there, and makes what a job makes."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import segment
from tests.calls import ROOT
from tests.scenes import Scenes
from tests.with_daft import run_with_daft

PAGE = (ROOT / "docs" / "building-blocks.md").read_text(encoding="utf-8")
HEADINGS = ["One image", "Scores", "Ray Data", "Daft", "Hugging Face datasets", "Jobs and runs"]


def examples(heading: str) -> list[str]:
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def run(heading: str, number: int = 0) -> dict[str, Any]:
    """Run an example below a heading, and return the names that it defines."""
    names: dict[str, Any] = {}
    code = examples(heading)[number].replace("s3://bucket", str(Path.cwd()))
    exec(compile(code, f"{heading}, example {number + 1}", "exec"), names)
    return names


def assert_same(masks: dict[str, Any], expected: dict[str, Any]) -> None:
    found = {Path(name).name: np.asarray(mask) for name, mask in masks.items()}
    assert found.keys() == expected.keys()
    for name, mask in found.items():
        np.testing.assert_array_equal(mask, expected[name], err_msg=name)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, scenes: Scenes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the page describes it, which is the working directory."""
    for name in ("photos", "labels"):
        shutil.copytree(scenes.folder / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_section_is_tested_and_every_name_is_on_the_page() -> None:
    assert re.findall(r"^## (.*)$", PAGE, re.MULTILINE) == HEADINGS
    assert len(re.findall(r"^```python$", PAGE, re.MULTILINE)) == 8
    for name in ("load_model", "confusion", "iou", "Segmenter", "ImageSource", "Job", "run", "open_run"):
        assert f"| `{name}`" in PAGE or f", `{name}` |" in PAGE, name
        assert hasattr(segment, name)


def test_one_image(scenes: Scenes) -> None:
    assert_same({"0.jpg": run("One image")["mask"]}, {"0.jpg": scenes.masks["0.jpg"]})
    told = run("One image", 1)
    assert_same({"0.jpg": told["mask"]}, {"0.jpg": scenes.masks["0.jpg"]})
    assert told["levels"].shape == told["mask"].shape
    assert 0 < told["mean"] < 1


def test_scores() -> None:
    score = run("Scores")["score"]
    job = segment.Job(input="photos", labels="labels", output="four", model="demo-streets", engine="local", limit=4)
    report = segment.run(job)
    assert score.mean == report.miou("cityscapes")
    np.testing.assert_array_equal(score.per_class, report.score("cityscapes").iou)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_ray_data_with_a_pipeline_of_ones_own(scenes: Scenes) -> None:
    turned = Image.Exif()
    turned[274] = 6  # as of a phone that is held upright
    image = Image.open("photos/0.jpg")
    image.save("photos/turned.jpg", exif=turned, quality=95)
    width, height = image.size
    masks = run("Ray Data")["masks"]
    (phone,) = (masks.pop(path) for path in list(masks) if Path(path).name == "turned.jpg")
    assert phone.shape == (width, height)
    assert_same(masks, scenes.masks)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_ray_data_with_an_input_of_a_job(scenes: Scenes) -> None:
    np.testing.assert_array_equal(run("Ray Data", 1)["counts"], scenes.counts)


def test_daft(scenes: Scenes) -> None:
    found = run_with_daft(f"{examples('Daft')[0]}\nresult = [masks.to_pydict(), segmented.to_pydict()]")
    for columns in found:
        assert_same(dict(zip(columns["path"], columns["mask"], strict=True)), scenes.masks)
    np.testing.assert_array_equal(sum(found[1]["confusion"]), scenes.counts)
    assert found[1]["error"] == [""] * 6


def test_hugging_face_datasets(scenes: Scenes) -> None:
    segmented = run("Hugging Face datasets")["segmented"]
    assert type(segmented.features["mask"]).__name__ == "Image"
    names = [Path(image["path"]).name for image in run("Hugging Face datasets")["photos"]["image"]]
    assert_same(dict(zip(names, segmented["mask"], strict=True)), scenes.masks)


def test_jobs_and_runs(scenes: Scenes) -> None:
    names = run("Jobs and runs")
    assert names["report"].complete
    np.testing.assert_array_equal(names["run"].confusion().counts, scenes.counts)
