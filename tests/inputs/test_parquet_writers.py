"""Parquet as other tools write it: Hugging Face datasets, pandas, DuckDB, Ray Data."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from segment.errors import UsageError
from segment.inputs.discover import discover
from segment.inputs.parts import Sample
from segment.inputs.reads import read_part
from segment.job import InputOptions
from segment.store.client import Store
from tests.datasets import encoded

ARRAYS = [np.full((4, 6, 3), 20 * i, np.uint8) for i in range(3)]
PICTURES = [encoded(array) for array in ARRAYS]


def read(where: object, **options: Any) -> list[Sample]:
    chosen = InputOptions(**options)
    return [sample for p in discover(str(where), chosen, Store()).parts for sample in read_part(p, chosen, Store())]


def refusal(where: object, **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        discover(str(where), InputOptions(**options), Store())
    return str(caught.value)


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return pytest.importorskip("datasets")


def save(datasets: Any, path: Path, columns: dict[str, Any], features: dict[str, Any] | None = None) -> Path:
    given = datasets.Features(features) if features else None
    datasets.Dataset.from_dict(columns, features=given).to_parquet(path)
    return path


def test_hugging_face_images_of_files_with_one_name(tmp_path: Path, datasets: Any) -> None:
    rows = [{"bytes": data, "path": "0001.png"} for data in PICTURES]  # embedding keeps the last name of a path
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
    path = save(datasets, tmp_path / "a.parquet", {"image": rows, "label": [0, 1, 0]}, features)
    samples = read(path)
    assert [(s.image, s.fault) for s in samples] == [(data, None) for data in PICTURES]
    assert [s.id for s in samples] == [f"row-{i:08d}/0001.png" for i in range(3)]


def test_hugging_face_images_in_a_struct(tmp_path: Path, datasets: Any) -> None:
    rows = [{"image": {"bytes": data, "path": None}, "mask": {"bytes": data, "path": None}} for data in PICTURES]
    features = {"sample": {"image": datasets.Image(), "mask": datasets.Image()}}
    path = save(datasets, tmp_path / "a.parquet", {"sample": rows}, features)
    assert "name it with --image-column: 'sample.image', 'sample.mask'." in refusal(path)
    samples = read(path, image_column="sample.image", label_column="sample.mask")
    assert [(s.image, s.label) for s in samples] == [(data, data) for data in PICTURES]


@pytest.mark.parametrize("kind", ["Array3D", "List", "Sequence of images"])
def test_hugging_face_arrays_and_lists(tmp_path: Path, datasets: Any, kind: str) -> None:
    images = [{"bytes": data, "path": None} for data in PICTURES]
    columns, features, words = {
        "Array3D": (ARRAYS, datasets.Array3D((4, 6, 3), "uint8"), "holds numbers"),
        "List": ([array.tolist() for array in ARRAYS], None, "holds numbers"),
        "Sequence of images": ([images, images], datasets.List(datasets.Image()), "holds several images per row"),
    }[kind]
    path = save(datasets, tmp_path / "a.parquet", {"image": columns}, {"image": features} if features else None)
    assert words in refusal(path)
    assert words in refusal(path, image_column="image")


def test_pandas(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "a.parquet"
    pandas.DataFrame({"image": PICTURES, "id": ["x", "y", "z"]}).to_parquet(path)
    assert [(s.id, s.image) for s in read(path)] == list(zip("xyz", PICTURES, strict=True))
    pandas.DataFrame({"image": pandas.Categorical(PICTURES), "id": pandas.Categorical(["x", "y", "x"])}).to_parquet(
        path
    )
    assert [s.image for s in read(path)] == PICTURES
    pandas.DataFrame({"image": [np.frombuffer(data, np.uint8) for data in PICTURES]}).to_parquet(path)
    assert [s.image for s in read(path)] == PICTURES
    pandas.DataFrame({"image": [{"bytes": data, "path": "a"} for data in PICTURES]}).to_parquet(path)
    assert [s.image for s in read(path)] == PICTURES
    pandas.DataFrame({"image": [array.ravel() for array in ARRAYS]}).to_parquet(path)
    assert "the 3 sampled rows hold other bytes" in refusal(path)
    pandas.DataFrame({"image": [array.tolist() for array in ARRAYS]}).to_parquet(path)
    assert "holds numbers" in refusal(path)


def test_duckdb(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    (tmp_path / "i").mkdir()
    for i, data in enumerate(PICTURES):
        (tmp_path / "i" / f"{i}.png").write_bytes(data)
    blobs = f"(SELECT * FROM read_blob('{tmp_path}/i/*.png') ORDER BY filename)"
    for select in ("SELECT filename, content", "SELECT {'bytes': content, 'path': filename} AS image"):
        duckdb.sql(f"COPY ({select} FROM {blobs}) TO '{tmp_path}/a.parquet'")
        assert [(s.id, s.image) for s in read(tmp_path / "a.parquet")] == [
            (str(tmp_path / "i" / f"{i}.png"), data) for i, data in enumerate(PICTURES)
        ]
    duckdb.sql(f"COPY (SELECT 'i/' || parse_filename(filename) AS file_name FROM {blobs}) TO '{tmp_path}/a.parquet'")
    assert [s.image for s in read(tmp_path / "a.parquet")] == PICTURES
    duckdb.sql(f"COPY (SELECT [content, content] AS image FROM {blobs}) TO '{tmp_path}/a.parquet'")
    assert "holds several images per row" in refusal(tmp_path / "a.parquet")


def test_ray_tensors(tmp_path: Path) -> None:
    extensions = pytest.importorskip("ray.data.extensions")
    import pyarrow as pa

    unequal = np.empty(2, object)
    unequal[:] = [np.zeros((2, 2, 3), np.uint8), np.zeros((3, 2, 3), np.uint8)]
    for column in (
        extensions.ArrowTensorArray.from_numpy(np.stack(ARRAYS)),
        extensions.ArrowVariableShapedTensorArray.from_numpy(unequal),
    ):
        pq.write_table(pa.table({"image": column}), tmp_path / "a.parquet")
        assert "holds numbers instead of encoded images" in refusal(tmp_path / "a.parquet")
