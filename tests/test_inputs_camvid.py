"""The 101 real CamVid images: the same samples from loose files, tars, Parquet and lists."""

import os
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segment.shards import InputOptions, discover, read_part
from segment.store import Store

CAMVID = Path(os.environ.get("SEGMENT_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "camvid"
NAMES = sorted(path.name for path in (CAMVID / "images").glob("*.png")) if CAMVID.is_dir() else []

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not NAMES, reason=f"REAL FILES MISSING: {CAMVID} (set SEGMENT_SHARED)"),
]


def in_tars(folder: Path) -> str:
    for shard in range(3):
        with tarfile.open(folder / f"camvid-{shard:06d}.tar", "w") as archive:
            for name in NAMES[shard::3]:
                for kind, suffix in (("images", "png"), ("labels", "seg.png")):
                    archive.add(CAMVID / kind / name, f"{name.removesuffix('.png')}.{suffix}")
    return f"{folder}/camvid-{{000000..000002}}.tar"


def in_parquet(folder: Path) -> str:
    rows = [
        {kind: {"bytes": (CAMVID / f"{kind}s" / name).read_bytes(), "path": name} for kind in ("image", "label")}
        for name in NAMES
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "camvid.parquet", row_group_size=20)
    return str(folder)


def in_a_list(folder: Path) -> str:
    (folder / "val.txt").write_text("".join(f"{CAMVID}/images/{n} {CAMVID}/labels/{n}\n" for n in NAMES))
    return str(folder / "val.txt")


def read_all(where: str, **options: Any) -> dict[str, tuple[bytes, bytes | None]]:
    chosen, store = InputOptions(**options), Store()
    found = discover(where, chosen, store)
    assert (found.images, found.warnings) == (101, [])
    assert found.labelled in (101, None)
    assert max(len(part) for part in found.parts) == 4
    read = [sample for part in found.parts for sample in read_part(part, chosen, store)]
    assert all(sample.fault is None for sample in read)
    return {Path(sample.id).stem: (sample.image, sample.label) for sample in read}


@pytest.fixture(scope="module")
def truth() -> dict[str, tuple[bytes, bytes | None]]:
    return {
        n.removesuffix(".png"): ((CAMVID / "images" / n).read_bytes(), (CAMVID / "labels" / n).read_bytes())
        for n in NAMES
    }


def test_loose_files(truth: dict[str, tuple[bytes, bytes | None]]) -> None:
    assert read_all(str(CAMVID / "images"), labels=str(CAMVID / "labels")) == truth
    assert read_all(str(CAMVID / "images"), label_pattern="../labels/{dir}/{name}") == truth


@pytest.mark.parametrize("write", [in_tars, in_parquet, in_a_list])
def test_the_same_from_shards(tmp_path: Path, write: Any, truth: dict[str, tuple[bytes, bytes | None]]) -> None:
    assert read_all(write(tmp_path)) == truth
