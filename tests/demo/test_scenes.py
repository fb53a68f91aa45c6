"""The demo's street scenes: how they are painted, and the data sets that the package ships and writes."""

import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

import segment
from jobs.paint_demo_scenes import SEEDS, SHARDS, paint
from jobs.streets.scenes import CLASSES, scene
from segment.demo.dataset import SHIPPED, read_scenes, write_parquet, write_webdataset
from tests.calls import process

SHIPPED_SHARDS = sorted((Path(segment.__file__).parent / "demo" / "scenes").glob("*.tar"))


def _decode(content: bytes, flags: int) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(content, np.uint8), flags)


def test_a_scene_is_a_picture_and_its_class_indices() -> None:
    image, label = scene(0)
    assert image.shape == (192, 256, 3)
    assert image.dtype == np.uint8
    assert label.shape == (192, 256)
    assert label.dtype == np.uint8
    assert image.flags.c_contiguous
    assert label.flags.c_contiguous
    assert image.std() > 10


def test_other_sizes_keep_the_street() -> None:
    image, label = scene(7, height=96, width=160)
    assert image.shape == (96, 160, 3)
    assert label.shape == (96, 160)
    assert len(np.unique(label)) >= 5


def test_a_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    first, again, other = scene(3), scene(3), scene(4)
    assert first[0].tobytes() == again[0].tobytes()
    assert first[1].tobytes() == again[1].tobytes()
    assert first[0].tobytes() != other[0].tobytes()
    assert first[1].tobytes() != other[1].tobytes()


def test_every_class_occurs_and_none_dominates() -> None:
    counts = sum(np.bincount(scene(seed)[1].ravel(), minlength=12) for seed in range(50))
    assert len(CLASSES) == len(counts) == 12
    share = counts / counts.sum()
    assert share.min() > 0.005, dict(zip(CLASSES, share, strict=True))
    assert share.max() < 0.45, dict(zip(CLASSES, share, strict=True))


def test_colour_alone_does_not_determine_the_class() -> None:
    """The best guess from a pixel's colour (4 bits a channel) is wrong for a third of the pixels."""
    table = np.zeros((4096, 12), np.int64)
    for seed in range(60):
        image, label = scene(seed)
        cell = (image // 16).astype(np.int64) @ [256, 16, 1]
        np.add.at(table, (cell.ravel(), label.ravel()), 1)
    assert table.max(axis=1).sum() / table.sum() < 0.67


def test_the_package_ships_what_the_painter_paints_byte_by_byte(tmp_path: Path) -> None:
    shipped = read_scenes()
    assert [one.key for one in shipped] == [f"{seed:06d}" for seed in SEEDS]
    assert len(shipped) == SHIPPED
    for seed in (0, 21, 42, 63):
        assert paint(seed) == shipped[seed]
    again = write_webdataset(tmp_path, shipped, SHARDS)
    assert [path.name for path in again] == [path.name for path in SHIPPED_SHARDS]
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in SHIPPED_SHARDS]
    assert sum(path.stat().st_size for path in SHIPPED_SHARDS) <= 3_000_000


@pytest.mark.slow
def test_the_script_writes_the_shipped_shards_again(tmp_path: Path) -> None:
    ended = process(sys.executable, "jobs/paint_demo_scenes.py", "--output", str(tmp_path), timeout=200)
    assert ended.returncode == 0, ended.stderr
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == [path.read_bytes() for path in SHIPPED_SHARDS]


def test_a_shard_contains_pairs_and_names_no_machine() -> None:
    names = []
    for path in SHIPPED_SHARDS:
        with tarfile.open(path) as tar:
            for member in tar:
                assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
                names.append(member.name)
    assert names == [f"{seed:06d}.{kind}" for seed in range(SHIPPED) for kind in ("jpg", "seg.png")]


def test_a_shipped_scene_is_the_painted_one() -> None:
    image, label = scene(5)
    shipped = read_scenes(6)[5]
    np.testing.assert_array_equal(_decode(shipped.label, cv2.IMREAD_UNCHANGED), label)
    decoded = cv2.cvtColor(_decode(shipped.image, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert np.abs(decoded.astype(int) - image.astype(int)).mean() < 6  # lossy, but the same image, RGB


def test_more_shards_than_scenes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 scenes cannot fill 3 shards"):
        write_webdataset(tmp_path, read_scenes(2), shards=3)


def test_parquet_contains_the_same_pairs(tmp_path: Path) -> None:
    path = tmp_path / "streets.parquet"
    write_parquet(path, read_scenes(5), row_group_size=2)
    file = pq.ParquetFile(path)
    assert file.num_row_groups == 3
    assert str(file.schema_arrow.field("image").type) == "struct<bytes: binary, path: string>"
    rows = file.read().to_pylist()
    assert [row["id"] for row in rows] == [f"{seed:06d}" for seed in range(5)]
    assert rows[0]["image"]["path"] == "000000.jpg"
    assert rows[0]["label"]["path"] == "000000.seg.png"
    np.testing.assert_array_equal(_decode(rows[2]["label"]["bytes"], cv2.IMREAD_UNCHANGED), scene(2)[1])
