"""The 101 real CamVid images: the same samples from loose files, tars, Parquet and lists."""

import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segment.inputs.discover import discover
from segment.inputs.reads import read_part
from segment.job import InputOptions
from segment.store.client import Store

pytestmark = pytest.mark.shared

Pairs = dict[str, tuple[bytes, bytes | None]]


@pytest.fixture(scope="module")
def camvid(shared: Path) -> Path:
    return shared / "camvid"


@pytest.fixture(scope="module")
def truth(camvid: Path) -> Pairs:
    """Image and label by name without suffix."""
    images = sorted((camvid / "images").iterdir())
    return {image.stem: (image.read_bytes(), (camvid / "labels" / image.name).read_bytes()) for image in images}


def in_tars(camvid: Path, names: list[str], folder: Path) -> str:
    for shard in range(3):
        with tarfile.open(folder / f"camvid-{shard:06d}.tar", "w") as archive:
            for name in names[shard::3]:
                archive.add(camvid / "images" / f"{name}.png", f"{name}.png")
                archive.add(camvid / "labels" / f"{name}.png", f"{name}.seg.png")
    return f"{folder}/camvid-{{000000..000002}}.tar"


def in_parquet(camvid: Path, names: list[str], folder: Path) -> str:
    rows = [
        {
            kind: {"bytes": (camvid / f"{kind}s" / f"{name}.png").read_bytes(), "path": f"{name}.png"}
            for kind in ("image", "label")
        }
        for name in names
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "camvid.parquet", row_group_size=20)
    return str(folder)


def in_a_list(camvid: Path, names: list[str], folder: Path) -> str:
    lines = [f"{camvid}/images/{name}.png {camvid}/labels/{name}.png\n" for name in names]
    (folder / "val.txt").write_text("".join(lines))
    return str(folder / "val.txt")


def read_all(where: str, **options: Any) -> Pairs:
    chosen, store = InputOptions(**options), Store()
    found = discover(where, chosen, store)
    assert (found.images, found.warnings) == (101, [])
    assert found.labelled in (101, None)
    assert max(len(part) for part in found.parts) == 4
    read = [sample for part in found.parts for sample in read_part(part, chosen, store)]
    assert all(sample.fault is None for sample in read)
    return {Path(sample.id).stem: (sample.image, sample.label) for sample in read}


def test_loose_files(camvid: Path, truth: Pairs) -> None:
    images = str(camvid / "images")
    assert read_all(images, labels=str(camvid / "labels")) == truth
    assert read_all(images, label_pattern="../labels/{dir}/{name}") == truth


@pytest.mark.parametrize("write", [in_tars, in_parquet, in_a_list])
def test_the_same_from_shards(camvid: Path, truth: Pairs, tmp_path: Path, write: Any) -> None:
    assert read_all(write(camvid, sorted(truth), tmp_path), allow_input=[camvid]) == truth
