"""`Segmenter` and `ImageSource` in Ray Data, Hugging Face `datasets` and Daft, beyond the examples of the page."""

import io
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from datasets.fingerprint import Hasher
from PIL import Image

import segment
from segment.images.codec import decode_picture
from tests.calls import ROOT
from tests.datasets import FORMATS, encoded, read_rows
from tests.jobs import model, motley
from tests.scenes import MODEL, Scenes
from tests.with_daft import run_with_daft


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("decode", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_motley_input_through_ray_data_has_the_rows_of_a_job(decode: bool, tmp_path: Path) -> None:
    import ray

    names = {**model(tmp_path), "precision": "f32"}  # of so few pixels bf16 may be too far from f32 for a job
    how = {**FORMATS["tars"](tmp_path / "input", motley(segment.load_card(names["model"]))), "part_size": 2}
    segment.run(segment.Job(output=tmp_path / "out", engine="local", workers=1, max_error_rate=1, **names, **how))
    source = segment.ImageSource(**how, decode=decode, **({"model": names["model"]} if decode else {}))
    segmented = ray.data.read_datasource(source).map_batches(
        segment.Segmenter, fn_constructor_kwargs=names, compute=ray.data.ActorPoolStrategy(size=1), batch_size=3
    )
    found = {row["id"]: row for row in segmented.iter_rows()}
    stored = {row["id"]: row for row in read_rows(tmp_path / "out")}
    assert found.keys() == stored.keys()
    for name, row in found.items():
        assert row["error"] == (stored[name]["error"] or "")
        assert set(row) == {"id", "uri", "mask", "error", "confusion"}
        mask = stored[name]["mask"]
        expected = np.empty((0, 0), np.uint8) if mask is None else np.asarray(Image.open(io.BytesIO(mask["bytes"])))
        np.testing.assert_array_equal(row["mask"], expected, err_msg=name)
        cells = stored[name]["confusion"] or {"cell": [], "count": []}
        np.testing.assert_array_equal(row["confusion"].ravel()[cells["cell"]], cells["count"])
        assert row["confusion"].sum() == sum(cells["count"])


@pytest.fixture
def pictures(scenes: Scenes, tmp_path: Path) -> Any:
    """A Hugging Face data set of photos and labels, with a smaller photo."""
    datasets.disable_progress_bars()
    photos, labels = dict(scenes.photos), dict(scenes.labels)
    with Image.open(io.BytesIO(photos["0.jpg"])) as photo, Image.open(io.BytesIO(labels["0.jpg"])) as label:
        for data, cut in ((photos, photo.crop((0, 0, 100, 90))), (labels, label.crop((0, 0, 100, 90)))):
            buffer = io.BytesIO()
            cut.save(buffer, "PNG")
            data["0.jpg"] = buffer.getvalue()
    columns = {
        "id": list(photos),
        "image": [{"bytes": data, "path": None} for data in photos.values()],
        "label": [{"bytes": data, "path": None} for data in labels.values()],
    }
    features = {"id": datasets.Value("string"), "image": datasets.Image(), "label": datasets.Image()}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def expected_masks(scenes: Scenes, pictures: Any) -> list[Any]:
    model = segment.load_model(MODEL)
    return [model.predict(pictures[0]["image"]), *(mask for name, mask in scenes.masks.items() if name != "0.jpg")]


@pytest.mark.parametrize("form", ["pictures", "encoded", "numpy", "iterable"])
def test_hugging_face_forms_of_images_give_the_same_masks(form: str, scenes: Scenes, pictures: Any) -> None:
    given = {
        "pictures": lambda: pictures,
        "encoded": lambda: pictures.cast_column("image", datasets.Image(decode=False)),
        "numpy": lambda: pictures.with_format("numpy"),
        "iterable": pictures.to_iterable_dataset,
    }[form]()
    segmented = list(given.map(segment.Segmenter(MODEL), batched=True, batch_size=4))
    expected = expected_masks(scenes, pictures)
    assert [row["error"] for row in segmented] == [""] * 6
    for row, mask in zip(segmented, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(row["mask"]), mask)
        np.testing.assert_array_equal(np.asarray(row["label"]).shape, mask.shape)
    reference = segment.Segmenter(MODEL)({"image": list(pictures["image"]), "label": list(pictures["label"])})
    np.testing.assert_array_equal([row["confusion"] for row in segmented], reference["confusion"])


def test_hugging_face_errors_after_good_batches_are_rows(pictures: Any) -> None:
    broken = [*pictures.cast_column("image", datasets.Image(decode=False))["image"]]
    broken[5] = {"bytes": b"no image", "path": None}
    given = datasets.Dataset.from_dict({"image": broken})
    segmented = given.map(segment.Segmenter(MODEL), batched=True, batch_size=2)
    assert [error.partition(":")[0] for error in segmented["error"]] == ["", "", "", "", "", "not_an_image"]
    assert segmented[5]["mask"] == []


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("empty", [(0, 1), (2, 3), (1, 4)])
def test_hugging_face_batches_without_any_image(empty: tuple[int, int], decode: bool, pictures: Any) -> None:
    cells = pictures.cast_column("image", datasets.Image(decode=False))["image"]
    given = datasets.Dataset.from_dict(
        {"image": [None if number in empty else cell for number, cell in enumerate(cells)]},
        features=datasets.Features({"image": datasets.Image(decode=decode)}),
    )
    arrays = given.map(segment.Segmenter(MODEL), batched=True, batch_size=2)
    features = datasets.Features({**given.features, "mask": datasets.Image(), "error": datasets.Value("string")})
    images = given.map(segment.Segmenter(MODEL, mask_type="image"), batched=True, batch_size=2, features=features)
    for number, (array, image) in enumerate(zip(arrays, images, strict=True)):
        assert array["error"] == image["error"] == ("empty: the image has no bytes" if number in empty else "")
        if number in empty:
            assert (array["mask"], image["mask"]) == ([], None)
        else:
            np.testing.assert_array_equal(np.asarray(array["mask"]), np.asarray(image["mask"]))


def test_hugging_face_folders_are_read_as_a_job_reads_them(scenes: Scenes, tmp_path: Path) -> None:
    """`imagefolder` has paths without bytes where `datasets` does not decode."""
    columns: dict[str, Any] = {}
    for column, files in (("image", scenes.photos), ("label", scenes.labels)):
        suffix = ".jpg" if column == "image" else ".png"
        (tmp_path / column).mkdir()
        for name, data in files.items():
            (tmp_path / column / f"{Path(name).stem}{suffix}").write_bytes(data)
        loaded = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / column), split="train")
        columns[column] = loaded.cast_column("image", datasets.Image(decode=False))["image"][:]
    assert {cell["bytes"] for cell in columns["image"]} == {None}
    (tmp_path / "image" / "5.jpg").unlink()
    given = datasets.Dataset.from_dict(columns)
    segmented = given.map(segment.Segmenter(MODEL), batched=True, batch_size=4)
    assert [error.partition(":")[0] for error in segmented["error"]] == [""] * 5 + ["missing"]
    for mask, name in zip(segmented["mask"][:5], scenes.masks, strict=False):
        np.testing.assert_array_equal(np.asarray(mask), scenes.masks[name])
    expected = segment.Segmenter(MODEL)(
        {"image": list(scenes.photos.values())[:5], "label": list(scenes.labels.values())[:5]}
    )
    np.testing.assert_array_equal(segmented["confusion"][:5], expected["confusion"])


@pytest.mark.slow
def test_hugging_face_processes(pictures: Any, scenes: Scenes, tmp_path: Path) -> None:
    pictures.save_to_disk(tmp_path / "pictures")
    script = tmp_path / "script.py"
    script.write_text("""
import sys, datasets, multiprocess, segment
if __name__ == "__main__":
    if sys.argv[1] == "spawn":
        multiprocess.set_start_method("spawn")
    pictures = datasets.load_from_disk("pictures")
    segmented = pictures.map(segment.Segmenter("demo-streets"), batched=True, batch_size=2, num_proc=2)
    segmented.save_to_disk("segmented")
""")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def start(method: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(script), method]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False
        )

    forked = start("fork")
    assert forked.returncode == 1
    assert "multiprocess.set_start_method('spawn')" in forked.stderr
    spawned = start("spawn")
    assert spawned.returncode == 0, spawned.stderr
    segmented = datasets.load_from_disk(tmp_path / "segmented")
    assert len(segmented) == 6
    for row, mask in zip(segmented, expected_masks(scenes, pictures), strict=True):
        np.testing.assert_array_equal(np.asarray(row["mask"]), mask)


def test_hugging_face_caches_by_what_makes_the_masks() -> None:
    made, same = segment.Segmenter(MODEL), segment.Segmenter(MODEL)
    assert Hasher.hash(made) == Hasher.hash(same) == Hasher.hash(pickle.loads(pickle.dumps(made)))
    assert Hasher.hash(made) != Hasher.hash(segment.Segmenter(MODEL, mask_column="other"))
    assert Hasher.hash(made) != Hasher.hash(segment.Segmenter(MODEL, precision="f32", runtime="onnxruntime"))


def test_daft_takes_decoded_images_and_says_what_is_wrong(
    scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("photos", "lossless"):
        (tmp_path / folder).mkdir()
    for name, data in [*scenes.photos.items(), ("broken.jpg", b"no image")]:
        (tmp_path / "photos" / name).write_bytes(data)
    for name, data in scenes.photos.items():  # Daft decodes JPEG by another library than a job
        (tmp_path / "lossless" / name).write_bytes(encoded(decode_picture(data, 10**8).pixels))
    code = """
import daft, segment
segmenter = daft.cls(segment.Segmenter)(model="demo-streets")
files = daft.from_glob_path("photos/*.jpg")
sound = daft.from_glob_path("lossless/*.jpg")
images = sound.with_column("image", sound["path"].download().decode_image(mode="RGB"))
decoded = images.select(images["path"], segmenter.predict(images["image"]).alias("mask")).to_pydict()
rows = files.select(files["path"], segmenter.segment(files["path"].download()).unnest()).to_pydict()
try:
    files.select(segmenter.predict(files["path"].download())).to_pydict()
except Exception as error:
    raised = str(error)
result = decoded, rows, raised
"""
    monkeypatch.chdir(tmp_path)
    decoded, rows, raised = run_with_daft(code)
    masks = {Path(path).name: mask for path, mask in zip(decoded["path"], decoded["mask"], strict=True)}
    assert masks.keys() == scenes.masks.keys()
    for name, mask in masks.items():
        np.testing.assert_array_equal(mask, scenes.masks[name])
    errors = {Path(path).name: text.partition(":")[0] for path, text in zip(rows["path"], rows["error"], strict=True)}
    assert errors == {**dict.fromkeys(scenes.masks, ""), "broken.jpg": "not_an_image"}
    assert "not_an_image" in raised
