"""`open_run`: masks, counts and scores of a run, from its output alone."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import segment
from segment.errors import SegmentError, UsageError
from tests.scenes import MODEL, Scenes


def test_a_run_is_read_back(scenes: Scenes) -> None:
    run = segment.open_run(scenes.folder / "out")
    assert run.card == segment.load_card(MODEL)
    assert repr(run).startswith("Run(")
    assert (run.report().total.images, run.report().complete) == (6, True)
    np.testing.assert_array_equal(run.confusion().counts, scenes.counts)
    found = list(run.masks())
    assert [image.id for image in found] == sorted(scenes.masks)
    for image in found:
        assert image.mask is not None
        assert image.error is None
        assert image.uri.endswith(f"/photos/{image.id}")
        np.testing.assert_array_equal(image.mask, scenes.masks[image.id])


def test_scores_follow_from_the_counts(scenes: Scenes) -> None:
    run = segment.open_run(str(scenes.folder / "out"))
    ignored = run.card.classes.ignored_classes
    for convention in ("omz", "cityscapes"):
        assert segment.iou(run.confusion(), convention=convention, ignore=ignored).mean == run.report().miou(convention)


def test_masks_are_found_by_id(scenes: Scenes) -> None:
    run = segment.open_run(scenes.folder / "out")
    assert [image.id for image in run.masks(ids=["4.jpg", "1.jpg"])] == ["1.jpg", "4.jpg"]
    for ids in (iter(["4.jpg", "1.jpg", "4.jpg"]), {"1.jpg": 0, "4.jpg": 0}, np.array(["4.jpg", "1.jpg"])):
        assert [image.id for image in run.masks(ids=ids)] == ["1.jpg", "4.jpg"]
    assert list(run.masks(ids=[])) == []
    with pytest.raises(UsageError, match=r"no committed image of the id '9\.jpg', 'x'"):
        run.masks(ids=(name for name in ["1.jpg", "9.jpg", "x"]))
    with pytest.raises(TypeError, match="give a list of ids"):
        run.masks(ids="1.jpg")


def test_errors_and_unfinished_runs_are_read_too(tmp_path: Path, scenes: Scenes) -> None:
    shutil.copytree(scenes.folder / "photos", tmp_path / "photos")
    (tmp_path / "photos" / "1.jpg").write_bytes(b"no image")
    job = segment.Job(
        input=tmp_path / "photos", output=tmp_path / "out", model=MODEL, engine="local", workers=1, max_error_rate=1,
        part_size=1,
    )  # fmt: skip
    segment.run(job)
    run = segment.open_run(tmp_path / "out")
    (failed,) = run.masks(ids=["1.jpg"])
    assert failed.mask is None
    assert str(failed.error).startswith("not_an_image")
    masks = sorted((tmp_path / "out" / "masks").rglob("*.parquet"))
    first = pq.read_table(masks[0])["id"][0].as_py()
    masks[0].unlink()
    for name in ("stats", "_SUCCESS"):
        path = tmp_path / "out" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert len(list(run.masks())) == 5
    assert run.report().total.images == 5
    with pytest.raises(UsageError, match="no committed image"):
        run.masks(ids=[first])


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run at"):
        segment.open_run(tmp_path)


def test_damage_is_an_error(tmp_path: Path, scenes: Scenes) -> None:
    shutil.copytree(scenes.folder / "out", tmp_path / "out")
    path = next((tmp_path / "out" / "masks").rglob("*.parquet"))
    data = bytearray(path.read_bytes())
    data[200] ^= 255
    path.write_bytes(data)
    with pytest.raises(SegmentError, match="damaged"):
        list(segment.open_run(tmp_path / "out").masks())
